//! The exit codes of the program and the error that carries one.

use std::{error::Error, process::ExitCode};

use thiserror::Error;

use crate::causes;

type Source = Box<dyn Error + Send + Sync + 'static>;

/// Why a command failed; each variant has its own exit code.
///
/// | code | meaning |
/// |---|---|
/// | 0 | done |
/// | 1 | a failure without a code of its own |
/// | 2 | the command line was not understood (given by the argument parser) |
/// | 3 | a configuration file, certificate or key was refused |
/// | 4 | the volume is locked by another process, broken, or could not be written |
/// | 5 | no answer from the node that was asked, or not in time |
/// | 6 | the node refused the request |
/// | 7 | the snapshot is damaged, of another chain, or proves nothing |
#[derive(Debug, Error)]
pub enum CommandError {
    /// Anything without a code of its own.
    #[error("{step}")]
    Internal {
        /// What was being done.
        step: String,
        /// Why it failed.
        #[source]
        source: Option<Source>,
    },
    /// A configuration file, certificate or key was refused.
    #[error("{step}")]
    Configuration {
        /// What was being read.
        step: String,
        /// Why it was refused.
        #[source]
        source: Option<Source>,
    },
    /// The volume is locked, broken, or could not be written.
    #[error("{step}")]
    Volume {
        /// What was being done.
        step: String,
        /// Why it failed.
        #[source]
        source: Option<Source>,
    },
    /// No answer from the node that was asked.
    #[error("{step}")]
    Unavailable {
        /// What was asked of whom.
        step: String,
        /// Why there was no answer.
        #[source]
        source: Option<Source>,
    },
    /// The node refused the request.
    #[error("{step}")]
    Refused {
        /// What was asked of whom.
        step: String,
        /// Why it was refused.
        #[source]
        source: Option<Source>,
    },
    /// A snapshot is not what it should be.
    #[error("{step}")]
    Snapshot {
        /// What was being done with it.
        step: String,
        /// What is wrong with it.
        #[source]
        source: Option<Source>,
    },
}

/// Makes constructors that take the step and the cause, so that call sites stay one line.
macro_rules! constructors {
    ($($name:ident => $variant:ident),+ $(,)?) => {
        impl CommandError {
            $(
                #[doc = concat!("A [`CommandError::", stringify!($variant), "`] at `step`, caused by `source`.")]
                pub fn $name(step: impl Into<String>, source: impl Into<Source>) -> Self {
                    Self::$variant { step: step.into(), source: Some(source.into()) }
                }
            )+
        }
    };
}

constructors! {
    internal => Internal,
    configuration => Configuration,
    volume => Volume,
    unavailable => Unavailable,
    refused => Refused,
    snapshot => Snapshot,
}

impl CommandError {
    /// The process exit code of this error.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Internal { .. } => 1,
            Self::Configuration { .. } => 3,
            Self::Volume { .. } => 4,
            Self::Unavailable { .. } => 5,
            Self::Refused { .. } => 6,
            Self::Snapshot { .. } => 7,
        })
    }

    /// The whole chain of causes on one line.
    pub fn report(&self) -> String {
        causes::chain(self)
    }
}

#[cfg(test)]
mod tests {
    use super::CommandError;

    #[test]
    fn a_report_names_every_cause_once() {
        let error = CommandError::volume("failed to lock /data", std::io::Error::other("held by process 7"));
        assert_eq!(error.report(), "failed to lock /data: held by process 7");
    }
}
