//! A refusal: the spec or what is there cannot be worked with, and only a person can help.

use althing_crds::Reason;
use thiserror::Error;

/// Why nothing is done, for `Stalled=True`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {message}", reason.as_str())]
pub struct Refusal {
    /// One word; always one that stalls.
    pub reason: Reason,
    /// One sentence that says what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
