//! The engine: one state, one function, from what happened to what must be done.

use super::{Boot, Effect, Input};
use crate::types::{Epoch, Height, SessionKey};

/// The deterministic heart of a node: the same inputs at the same times give the same effects on every machine.
#[derive(Debug)]
pub struct Engine {
    boot: Boot,
}

/// What the engine says about itself, for metrics and status.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// The last final height.
    pub tip: Height,
    /// The last executed height.
    pub executed: Height,
    /// No peer is known to be ahead by more than one height.
    pub synced: bool,
    /// It signs at the current height.
    pub signing: bool,
    /// The session key that the chain names for the current height.
    pub session_key: Option<SessionKey>,
    /// The epoch of that key.
    pub epoch: Option<Epoch>,
    /// The state of its session.
    pub session: SessionState,
    /// Transactions that wait for a block.
    pub mempool_transactions: usize,
}

/// Whether this node can sign, and if not, what it waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionState {
    /// It is not in the voter set.
    NotAVoter,
    /// The effective key is cleared.
    Effective,
    /// The effective key is not cleared, and no rotation is on its way.
    Waiting,
    /// It has asked the chain for another key.
    Rotating,
    /// The identity is used elsewhere; only a person can help.
    IdentityContested,
    /// A message of its key was seen that it did not sign; it signs nothing more in this process.
    Stopped,
}

impl Engine {
    /// An engine from what was found on disk. Keys come later, by [`Input::Cleared`]; feed those that are cleared
    /// already before [`Input::Start`].
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        Self { boot }
    }

    /// Takes one input and returns what to do, in order. `now_ms` is the wall clock in milliseconds since the Unix
    /// epoch: it becomes the time of proposed blocks and bounds the time of others'.
    pub fn step(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let _ = (now_ms, input, &mut self.boot);
        Vec::new()
    }

    /// What the engine says about itself.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        EngineStatus {
            tip: Height::ZERO,
            executed: self.boot.executed.height,
            synced: false,
            signing: false,
            session_key: None,
            epoch: None,
            session: SessionState::NotAVoter,
            mempool_transactions: 0,
        }
    }
}
