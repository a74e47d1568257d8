//! How a node comes back after its process was started again, step by step, by what it says of itself.

use std::{sync::Arc, time::Duration};

use node_api::{client::Client, proto::GetStatusResponse};
use serde::Serialize;
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior},
};

use super::trial::milliseconds;

/// How often the node is asked.
const ASK: Duration = Duration::from_millis(20);

/// When each step was first seen, from the start of the process; none for those that were not.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Comeback {
    /// It had opened its volume.
    pub opened_ms: Option<u64>,
    /// It was connected to all others.
    pub connected_ms: Option<u64>,
    /// It had executed a block that was not on its volume.
    pub first_block_ms: Option<u64>,
    /// It was level with its peers, as it says itself.
    pub synced_ms: Option<u64>,
    /// It signed again.
    pub cleared_ms: Option<u64>,
    #[serde(skip)]
    first_height: u64,
}

impl Comeback {
    /// Asks the node until every step was seen; what was seen until then is in `seen` at any time.
    pub async fn watch(seen: Arc<Mutex<Self>>, client: Client, others: usize, started: Instant) {
        let mut ticks = tokio::time::interval(ASK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(status) = client.status().await {
                let mut seen = seen.lock().await;
                seen.look(&status, others, milliseconds(started.elapsed()));
                if seen.is_complete() {
                    let Self { opened_ms, connected_ms, first_block_ms, synced_ms, cleared_ms, .. } = *seen;
                    let steps =
                        [opened_ms, connected_ms, first_block_ms, synced_ms, cleared_ms].map(Option::unwrap_or_default);
                    let [opened, connected, first_block, synced, cleared] = steps;
                    eprintln!(
                        "bench: back: opened {opened} ms, connected {connected} ms, first block {first_block} ms, synced {synced} ms, signs {cleared} ms"
                    );
                    return;
                }
            }
        }
    }

    fn is_complete(&self) -> bool {
        self.connected_ms.is_some() && self.synced_ms.is_some() && self.cleared_ms.is_some()
    }

    fn look(&mut self, status: &GetStatusResponse, others: usize, now_ms: u64) {
        // The chain is not open yet.
        if status.incarnation.is_empty() {
            return;
        }
        if self.opened_ms.is_none() {
            self.opened_ms = Some(now_ms);
            self.first_height = status.height;
        }
        let first = |step: &mut Option<u64>, is_there: bool| {
            if is_there {
                step.get_or_insert(now_ms);
            }
        };
        first(&mut self.connected_ms, usize::try_from(status.peers_connected).unwrap_or(usize::MAX) >= others);
        first(&mut self.first_block_ms, status.height > self.first_height);
        // Before it knows how far its peers are it is level with what it knows.
        let moves = self.first_block_ms.is_some();
        first(&mut self.synced_ms, status.synced && moves);
        first(&mut self.cleared_ms, status.signing_enabled && moves);
    }
}

#[cfg(test)]
mod tests {
    use node_api::proto::GetStatusResponse;

    use super::Comeback;

    #[test]
    fn each_step_counts_from_when_it_is_first_seen() {
        let mut seen = Comeback::default();
        let status = |height, peers_connected, level: bool| GetStatusResponse {
            incarnation: vec![1; 32],
            height,
            peers_connected,
            synced: level,
            signing_enabled: level,
            ..GetStatusResponse::default()
        };
        seen.look(&GetStatusResponse::default(), 3, 10);
        assert_eq!(seen.opened_ms, None, "the chain is not open");
        seen.look(&status(5, 0, true), 3, 20);
        assert_eq!((seen.opened_ms, seen.synced_ms), (Some(20), None), "it knows of no peers yet");
        seen.look(&status(5, 3, false), 3, 30);
        seen.look(&status(6, 3, false), 3, 40);
        assert!(!seen.is_complete());
        seen.look(&status(90, 3, true), 3, 50);
        seen.look(&status(91, 2, true), 3, 60);
        let steps = [seen.connected_ms, seen.first_block_ms, seen.synced_ms, seen.cleared_ms];
        assert_eq!(steps, [Some(30), Some(40), Some(50), Some(50)]);
        assert!(seen.is_complete());
    }
}
