//! A client's transaction on its way into the mempool, and where its answer goes.

use node_core::{crypto::VerifiedTransaction, mempool::Refusal, types::Height};
use thiserror::Error;
use tokio::sync::mpsc;

use super::receipts::Fate;

/// One verified transaction, and where its answer goes.
#[derive(Debug)]
pub struct Submission {
    /// The transaction.
    pub transaction: VerifiedTransaction,
    /// For the answer.
    pub ticket: Ticket,
}

/// The strongest answer that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The mempool of this node has it.
    Accepted,
    /// It is final, or has expired.
    Final,
}

/// The answer about one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The mempool has it.
    Accepted,
    /// Its fate.
    Settled(Fate),
    /// It was not taken.
    Refused(SubmitError),
}

/// A place for exactly one answer, in a stream of numbered answers.
#[derive(Debug)]
pub struct Ticket {
    /// Where answers go. As many may wait as transactions are in progress, which the reader of the stream bounds.
    pub answers: mpsc::UnboundedSender<(u64, Answer)>,
    /// The number of the transaction in its stream.
    pub number: u64,
    /// What the client waits for.
    pub wanted: Wanted,
}

impl Ticket {
    /// Answers. The caller may have gone.
    pub fn answer(self, answer: Answer) {
        let _ = self.answers.send((self.number, answer));
    }

    /// Nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.answers.is_closed()
    }
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
    /// Too many transactions wait for the verification of their signatures.
    #[error("this node has more to verify than it can: try again later, or another node")]
    Overloaded,
    /// A signature is wrong, or not one of those that the transaction needs.
    #[error("the transaction is not signed by the right keys")]
    BadSignature,
    /// The mempool does not take it.
    #[error("the mempool refused the transaction: {0}")]
    Refused(Refusal),
}
