//! What the main loop waits for beside its queues: nothing, while the chain does not run.

use tokio::{sync::mpsc, time::Instant};

use super::{
    batch_storage::Stored,
    state::{Executed, ExecutionError},
};

/// What execution reports.
pub(super) type ExecutedResult = Result<Executed, ExecutionError>;

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

pub(super) async fn next_executed(executed: &mut Option<mpsc::Receiver<ExecutedResult>>) -> Option<ExecutedResult> {
    match executed {
        Some(executed) => executed.recv().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn next_stored(stored: &mut Option<mpsc::UnboundedReceiver<Stored>>) -> Option<Stored> {
    match stored {
        Some(stored) => stored.recv().await,
        None => std::future::pending().await,
    }
}
