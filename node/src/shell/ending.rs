//! The end of a node in good order.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::main_loop::{MainLoop, MainLoopError, Phase};

/// For how long blocks are executed after the end was asked for.
const EXECUTION_MAX: Duration = Duration::from_secs(3);

impl MainLoop {
    /// Executes what is queued, so that state and blocks end at one height, then releases the session keys as the last
    /// durable act.
    pub(super) async fn end(mut self) -> Result<(), MainLoopError> {
        self.finish_execution().await;
        self.sessions()?.release()?;
        tracing::info!("released the session keys");
        Ok(())
    }

    /// The engine hears nothing of it any more: it does not go on to further blocks.
    async fn finish_execution(&mut self) {
        let (Phase::Running(running), Some(executed)) = (&self.phase, &mut self.executed) else { return };
        let last = running.performer.blocks.reader().last_height();
        let mut height = running.view.height();
        let deadline = Instant::now() + EXECUTION_MAX;
        while running.halted.is_none() && Some(height) < last {
            match timeout_at(deadline, executed.recv()).await {
                Ok(Some(Ok(executed))) => height = executed.outcome.height,
                Ok(Some(Err(error))) => {
                    tracing::error!(%error, "the state ends below the last block: the next start executes the rest");
                    return;
                }
                Ok(None) | Err(_) => {
                    tracing::warn!(%height, "the state ends below the last block: the next start executes the rest");
                    return;
                }
            }
        }
    }
}
