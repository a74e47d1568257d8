//! A client's transaction on its way into the mempool.

use node_core::{crypto::VerifiedTransaction, mempool::Refusal, types::Height};
use thiserror::Error;
use tokio::sync::oneshot;

use super::receipts::Fate;

/// One verified transaction, and where its answers go.
#[derive(Debug)]
pub struct Submission {
    /// The transaction.
    pub transaction: VerifiedTransaction,
    /// Whether the mempool took it.
    pub accepted: oneshot::Sender<Result<Accepted, SubmitError>>,
    /// Its fate, when that is known.
    pub fate: oneshot::Sender<Fate>,
}

/// The mempool has it, or it is final already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The newest executed height.
    pub height: Height,
}

/// Why the mempool did not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The chain does not run here.
    #[error("this node does not follow the chain yet")]
    NotRunning,
    /// It is behind its last valid height.
    #[error("the transaction is valid until height {valid_until}, the chain is at {height}")]
    Expired {
        /// The last valid height.
        valid_until: Height,
        /// The newest executed height.
        height: Height,
    },
    /// Too many transactions wait.
    #[error("the mempool of this node is full: try again later, or another node")]
    Full,
    /// The mempool does not take it.
    #[error("the mempool refused the transaction: {0}")]
    Refused(Refusal),
}
