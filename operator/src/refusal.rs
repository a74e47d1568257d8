//! A refusal: the spec or what is there cannot be worked with, and only a person can help.

use crate::error::Error;
use althing_crds::Reason;

/// Why nothing is done, for `Stalled=True`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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

    /// What the API server does not take, however often it is tried, is for a person. It is tried again with each look;
    /// other errors pass by themselves.
    pub fn of(error: Error) -> Result<Self, Error> {
        match (&error, error.refused()) {
            (Error::Write { verb, what, .. }, Some(why)) => {
                Ok(Self::new(Reason::ChildRefused, format!("the API server refuses to {verb} {what}: {why}")))
            }
            (_, _) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn what_the_api_server_never_takes_is_said_in_its_words_and_the_rest_is_tried_again() {
        let of = |code: u16| {
            let status = Status { code, message: "exceeded quota".to_string(), ..Status::failure("no", "no") };
            let source = Box::new(kube::Error::Api(Box::new(status)));
            Refusal::of(Error::Write { verb: "apply", what: "Service demo/a-p2p".to_string(), source }).ok()
        };
        let said = "the API server refuses to apply Service demo/a-p2p: exceeded quota";
        assert_eq!([400, 403, 422].map(of), [(); 3].map(|()| Some(Refusal::new(Reason::ChildRefused, said))));
        assert_eq!([409, 429, 500, 503].map(of), [None, None, None, None]);
        assert!(Refusal::of(Error::Conflict { what: "x".to_string() }).is_err());
    }
}
