//! Why a call of the operator was refused.

use std::fmt::Display;

use thiserror::Error;

use super::sessions::SessionsError;
use crate::adapters::storage::StorageError;

/// The reasons, by what the caller can do about them.
#[derive(Debug, Error)]
pub enum LifecycleError {
    /// What was sent is wrong.
    #[error("{problem}")]
    Invalid {
        /// What is wrong.
        problem: String,
    },
    /// It may be right at another time, or for another node.
    #[error("{problem}")]
    NotNow {
        /// What stands in the way.
        problem: String,
    },
    /// The volume failed. The process ends.
    #[error("{problem}")]
    Volume {
        /// What failed.
        problem: String,
    },
}

impl LifecycleError {
    /// What was sent is wrong.
    pub fn invalid(problem: impl Display) -> Self {
        Self::Invalid { problem: problem.to_string() }
    }

    /// Something stands in the way.
    pub fn not_now(problem: impl Display) -> Self {
        Self::NotNow { problem: problem.to_string() }
    }
}

impl From<StorageError> for LifecycleError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::OtherGenesis { .. } | StorageError::ChainStarted { .. } => Self::not_now(error),
            other => Self::Volume { problem: other.to_string() },
        }
    }
}

impl From<SessionsError> for LifecycleError {
    fn from(error: SessionsError) -> Self {
        Self::Volume { problem: crate::causes::chain(&error) }
    }
}
