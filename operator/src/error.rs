//! What can go wrong in a reconcile; every variant says at which step and with what.

use thiserror::Error;

/// Failure of one reconcile. All of them are tried again; what only a person can repair is a refusal in the status.
#[derive(Debug, Error)]
pub enum Error {
    /// A read from the API server failed.
    #[error("failed to read {what}: {source}")]
    Read {
        /// Kind, namespace and name.
        what: String,
        /// The answer of the API server.
        source: Box<kube::Error>,
    },
    /// A write to the API server failed.
    #[error("failed to {verb} {what}: {source}")]
    Write {
        /// What was tried: `apply`, `create`, `delete`, ...
        verb: &'static str,
        /// Kind, namespace and name.
        what: String,
        /// The answer of the API server.
        source: Box<kube::Error>,
    },
    /// What was read is older than what is there: read again.
    #[error("{what} changed meanwhile")]
    Conflict {
        /// Kind, namespace and name.
        what: String,
    },
    /// The API server did not answer a write in time.
    #[error("no answer in time to {verb} {what}")]
    WriteTimeout {
        /// What was tried.
        verb: &'static str,
        /// Kind, namespace and name.
        what: String,
    },
    /// A child of a former object of the same name is still being deleted.
    #[error("{what} of the former object is still being deleted")]
    BeingDeleted {
        /// Kind, namespace and name.
        what: String,
    },
    /// An object without a name, namespace or UID came from the API server.
    #[error("an object of kind {kind} has no {field}")]
    Incomplete {
        /// Kind.
        kind: &'static str,
        /// Missing field of the metadata.
        field: &'static str,
    },
    /// An object cannot be decoded as its kind.
    #[error("{what} cannot be decoded: {message}")]
    Undecodable {
        /// Kind, namespace and name.
        what: String,
        /// What the decoder says.
        message: String,
    },
    /// A child cannot be written as JSON.
    #[error("failed to encode a child of kind {kind}: {source}")]
    Encode {
        /// Kind.
        kind: String,
        /// What the encoder says.
        source: serde_json::Error,
    },
    /// A child cannot be built.
    #[error("failed to build {what}: {message}")]
    Build {
        /// What was to be built.
        what: String,
        /// Why not.
        message: String,
    },
    /// Certificates cannot be made or read.
    #[error("certificates of {what}: {message}")]
    Certificates {
        /// Whose certificates.
        what: String,
        /// Why not.
        message: String,
    },
    /// This process does not hold the leader lease.
    #[error("this process is not the leader")]
    NotLeader,
    /// The lease could not be renewed in time.
    #[error("the leader lease was lost")]
    LeadershipLost,
    /// The lease could not be read or written.
    #[error("failed to read or write the leader lease: {0}")]
    Lease(#[source] kube::Error),
    /// The reconcile took too long.
    #[error("gave up after {0:?}")]
    Timeout(std::time::Duration),
    /// The reconcile panicked.
    #[error("panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// Short word for metrics.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Conflict { .. } | Self::BeingDeleted { .. } => "conflict",
            Self::Timeout(_) | Self::WriteTimeout { .. } => "timeout",
            Self::Panicked(_) => "panic",
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Incomplete { .. }
            | Self::Undecodable { .. }
            | Self::Encode { .. }
            | Self::Build { .. }
            | Self::Certificates { .. }
            | Self::NotLeader
            | Self::LeadershipLost
            | Self::Lease(_) => "error",
        }
    }

    /// True when the next look will do and nothing is wrong.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::BeingDeleted { .. })
    }

    /// True for what keeps an object from what it shall be: neither what the next look mends, nor the end of leadership.
    pub fn hinders(&self) -> bool {
        match self {
            Self::Conflict { .. }
            | Self::BeingDeleted { .. }
            | Self::NotLeader
            | Self::LeadershipLost
            | Self::Lease(_) => false,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::WriteTimeout { .. }
            | Self::Incomplete { .. }
            | Self::Undecodable { .. }
            | Self::Encode { .. }
            | Self::Build { .. }
            | Self::Certificates { .. }
            | Self::Timeout(_)
            | Self::Panicked(_) => true,
        }
    }

    /// The error in a status: of an answer of the API server its words alone.
    pub fn said(&self) -> String {
        match self {
            Self::Read { what, source } if let kube::Error::Api(status) = &**source => {
                format!("failed to read {what}: {}", status.message)
            }
            Self::Write { verb, what, source } if let kube::Error::Api(status) = &**source => {
                format!("failed to {verb} {what}: {}", status.message)
            }
            other => other.to_string(),
        }
    }

    /// Why the API server does not take what was written, however often it is tried.
    pub fn refused(&self) -> Option<&str> {
        // An admission webhook that says no without a number is answered with 400, and so is what cannot be read.
        self.answered(|code| matches!(code, 400 | 403 | 422))
    }

    /// Why a write was not taken now: whoever has a say in it is away, slow or has too much to do.
    pub fn put_off(&self) -> Option<&str> {
        if matches!(self, Self::WriteTimeout { .. }) {
            return Some("no answer in time");
        }
        self.answered(|code| code == 429 || code >= 500)
    }

    /// The words with which the API server answered a write by such a code.
    fn answered(&self, is_such: impl FnOnce(u16) -> bool) -> Option<&str> {
        let Self::Write { source, .. } = self else { return None };
        match &**source {
            kube::Error::Api(status) if is_such(status.code) => Some(&status.message),
            _ => None,
        }
    }

    /// A failed read.
    pub fn read(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Read { what, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_what_the_api_server_never_takes_is_refused() {
        let refused = |code: u16| {
            let status = Status { code, message: "no".to_string(), ..Status::failure("no", "no") };
            let source = Box::new(kube::Error::Api(Box::new(status)));
            Error::Write { verb: "apply", what: "x".to_string(), source }.refused().map(str::to_string)
        };
        assert_eq!(refused(400).as_deref(), Some("no"), "as admission webhooks say it");
        assert_eq!(refused(403).as_deref(), Some("no"));
        assert_eq!(refused(422).as_deref(), Some("no"));
        assert_eq!([404, 409, 429, 500].map(refused), [None, None, None, None]);
    }

    #[test]
    fn an_error_is_said_in_the_words_of_the_api_server() {
        let source = || Box::new(kube::Error::Api(Box::new(Status::failure("no space", "Internal").with_code(500))));
        let write = Error::Write { verb: "apply", what: "Service demo/a".to_string(), source: source() };
        assert_eq!(write.said(), "failed to apply Service demo/a: no space");
        let read = Error::Read { what: "Secret demo/a".to_string(), source: source() };
        assert_eq!(read.said(), "failed to read Secret demo/a: no space");
        let late = Error::WriteTimeout { verb: "apply", what: "Service demo/a".to_string() };
        assert_eq!(late.said(), "no answer in time to apply Service demo/a");
    }

    #[test]
    fn what_may_be_taken_later_is_put_off() {
        let put_off = |code: u16| {
            let status = Status { code, message: "no".to_string(), ..Status::failure("no", "no") };
            let source = Box::new(kube::Error::Api(Box::new(status)));
            Error::Write { verb: "apply", what: "x".to_string(), source }.put_off().map(str::to_string)
        };
        assert_eq!([429, 500, 503, 504].map(put_off), [(); 4].map(|()| Some("no".to_string())));
        assert_eq!([400, 403, 404, 422].map(put_off), [None, None, None, None]);
        let late = Error::WriteTimeout { verb: "apply", what: "x".to_string() };
        assert_eq!(late.put_off(), Some("no answer in time"));
    }
}
