//! Whether this node is so far behind that batches of its peers are of no use to it yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use node_core::types::{Height, PeerMessage};

/// From so many heights behind on. Batches that are new now are named by blocks that this node executes when it is level.
const HEIGHTS_MIN: u64 = 16;

/// Told by the main loop, asked by the connections. Cheap to clone.
///
/// A node that catches up has its processors busy with blocks, whose transactions it verifies anyway; the batches of the day
/// would double that. A batch that is dropped is neither stored nor acknowledged, so nothing was promised about it; its
/// holders repeat their acknowledgements, and whoever does not know the batch then asks for it.
#[derive(Clone, Debug, Default)]
pub struct Lag(Arc<AtomicBool>);

impl Lag {
    /// This node is at `tip`; voters of more than the fault budget say that they are at `claimed`.
    pub fn set(&self, tip: Height, claimed: Height) {
        self.0.store(claimed > tip.saturating_add(HEIGHTS_MIN), Ordering::Relaxed);
    }

    /// Whether a message is worth to be looked at.
    pub fn wants(&self, message: &PeerMessage) -> bool {
        !matches!(message, PeerMessage::Batch(_)) || !self.0.load(Ordering::Relaxed)
    }
}
