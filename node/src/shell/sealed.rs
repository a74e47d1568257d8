//! How long it takes until a quorum has a batch that this node has sealed.

use std::{collections::HashMap, time::Duration};

use node_core::types::{Batch, TransactionId};
use tokio::time::Instant;

/// Own batches on their way. Those of a node without a quorum are forgotten beyond this.
const BATCHES_MAX: usize = 4_096;

/// When each own batch was sealed, by its first transaction.
#[derive(Debug, Default)]
pub struct Sealed(HashMap<TransactionId, Instant>);

impl Sealed {
    /// A batch leaves for the first time.
    pub fn on_sealed(&mut self, batch: &Batch, now: Instant) {
        if self.0.len() >= BATCHES_MAX {
            self.0.clear();
        }
        if let Some(first) = batch.transactions().first() {
            self.0.insert(first.id(), now);
        }
    }

    /// The transactions of a batch are durable at a quorum: how long that took, if it is known.
    pub fn on_durable(&mut self, ids: &[TransactionId], now: Instant) -> Option<Duration> {
        let sealed = self.0.remove(ids.first()?)?;
        Some(now.saturating_duration_since(sealed))
    }
}
