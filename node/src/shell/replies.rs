//! Answers to calls that the main loop gives by itself.

use node_api::proto;
use tokio::sync::oneshot;

use super::{lifecycle::LifecycleError, main_loop::MainLoopError};

/// Answers a call; a failed volume also ends the process, since nobody knows what it holds.
pub(super) fn answer<T>(
    reply: oneshot::Sender<Result<T, LifecycleError>>,
    result: Result<T, LifecycleError>,
) -> Result<(), MainLoopError> {
    let failed = match &result {
        Err(LifecycleError::Volume { problem }) => Some(problem.clone()),
        _ => None,
    };
    let _ = reply.send(result);
    failed.map_or(Ok(()), |problem| Err(MainLoopError::Volume(problem)))
}

/// Before the start nothing is known of any transaction.
pub(super) fn unknown_transaction() -> proto::GetTransactionResponse {
    let status = proto::get_transaction_response::Status::Unknown(proto::Unknown {});
    proto::GetTransactionResponse { status: Some(status), height: 0 }
}
