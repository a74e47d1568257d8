//! Keeps the events of each block as it is executed, beside the engine.

use std::sync::Arc;

use node_api::config::NodeRole;
use tokio::time::Instant;

use crate::{
    adapters::storage::{EventLog, ExecutedBlock, Past, StorageError},
    metrics::Metrics,
};

/// What is kept, and for how long. Owned by the execution of blocks.
#[derive(Debug)]
pub struct EventKeeping {
    /// Where.
    pub log: EventLog,
    /// For how many blocks at least; for ever if there is no number.
    pub keep_blocks: Option<u64>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

impl EventKeeping {
    /// Keeps the events of a block, durably, and removes the oldest that are not needed any more.
    pub fn keep(&mut self, executed: ExecutedBlock<'_>) -> Result<(), StorageError> {
        let start = Instant::now();
        let height = executed.block.header().height;
        let count = self.log.keep(executed)?;
        if let Some(oldest) = self.keep_blocks.and_then(|keep| height.checked_sub(keep)) {
            self.log.prune_below(oldest)?;
        }
        self.metrics.events_seconds.observe(start.elapsed().as_secs_f64());
        self.metrics.events_total.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        self.metrics.events_height.set(i64::try_from(height.get()).unwrap_or(i64::MAX));
        Ok(())
    }
}

/// What a node of a role does about events that are missing when it starts.
#[must_use]
pub fn past_of(role: NodeRole) -> Past {
    match role {
        NodeRole::Observer => Past::MadeAgain,
        NodeRole::Validator => Past::Left,
    }
}
