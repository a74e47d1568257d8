//! What the main loop waits for beside its queues: nothing, while the chain does not run.

use prometheus::HistogramVec;
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

/// Measures one turn of the main loop.
pub(super) fn timed<T>(turns: &HistogramVec, input: &str, turn: impl FnOnce() -> T) -> T {
    let timer = turns.with_label_values(&[input]).start_timer();
    let done = turn();
    timer.observe_duration();
    done
}
