//! Asks every backend of a tier for its status, again and again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use node_api::proto::NodeState;
use tokio::time::{Instant, sleep_until};

use super::pool::{Node, Pool};
use crate::gateway::{
    calls::Tier,
    rules::probes::{INTERVAL_MS, ProbeResult},
};

const INTERVAL: Duration = Duration::from_millis(INTERVAL_MS);
/// Time between two probes while nobody serves.
const INTERVAL_WITHOUT: Duration = Duration::from_secs(1);
/// Probes at one time.
const PARALLEL_MAX: usize = 32;

/// Resolves and probes until the future is dropped. `round` is called after each round
/// with the addresses that are gone.
pub async fn run(pool: Arc<Pool>, tier: Tier, round: impl Fn(&[SocketAddr])) {
    loop {
        let begun = Instant::now();
        let gone = pool.resolve().await;
        let pool = &pool;
        let probes = stream::iter(pool.nodes()).for_each_concurrent(PARALLEL_MAX, |node| async move {
            pool.probed(&node, probe(&node, tier).await);
        });
        probes.await;
        round(&gone);
        let serves = pool.view().iter().any(|backend| backend.up);
        sleep_until(begun + if serves { INTERVAL } else { INTERVAL_WITHOUT }).await;
    }
}

/// The client's deadline is the probe's.
async fn probe(node: &Node, tier: Tier) -> ProbeResult {
    let Ok(status) = node.client.status().await else { return ProbeResult::Silent };
    let serves = match (status.state(), tier) {
        (NodeState::Running, _) => true,
        // It follows the chain and answers from what it has.
        (NodeState::WaitingForGrant | NodeState::Syncing, Tier::Read) => status.synced,
        (NodeState::WaitingForGrant | NodeState::Syncing, Tier::Submit)
        | (
            NodeState::Unspecified | NodeState::WaitingForGenesis | NodeState::GenesisAccepted | NodeState::Halted,
            Tier::Submit | Tier::Read,
        ) => false,
    };
    if serves { ProbeResult::Serving } else { ProbeResult::NotServing }
}
