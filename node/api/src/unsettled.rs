//! How a node says that it has taken a call and will not know what becomes of it, and how a gateway reads that.

use tonic::{Code, Status};

/// Nothing else that a node answers has this code. It is the same in every release: nodes and gateways are not replaced at
/// one time.
const CODE: Code = Code::Aborted;

/// The answer of a node that may have taken the call.
pub fn status(reason: &str) -> Status {
    Status::new(CODE, reason)
}

/// Whether a node has answered that it may have taken the call.
pub fn is_said_by(status: &Status) -> bool {
    status.code() == CODE
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::{is_said_by, status};

    #[test]
    fn it_is_aborted_in_every_release_and_no_refusal_is_taken_for_it() {
        let said = status("stops");
        assert!(is_said_by(&said));
        assert_eq!(i32::from(said.code()), 10, "ABORTED, as other releases read it");
        for code in (0..=16).map(Code::from).filter(|code| *code != Code::Aborted) {
            assert!(!is_said_by(&Status::new(code, "")), "{code:?}");
        }
    }
}
