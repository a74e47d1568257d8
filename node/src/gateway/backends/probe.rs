//! Keeps the backends of a tier: looks for them, connects to each and asks it for its status, again and again.

use std::{net::SocketAddr, panic, sync::Arc};

use node_api::proto::{GetStatusResponse, NodeState};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

use super::{node::Node, pool::Pool};
use crate::gateway::{calls::Tier, rules::probes::ProbeResult};

/// Keeps a tier until the future is dropped. `forget` is called with the addresses that are gone.
pub async fn run(pool: Arc<Pool>, tier: Tier, forget: impl Fn(&[SocketAddr])) {
    let mut keepers = JoinSet::new();
    loop {
        let begun = Instant::now();
        let found = pool.resolve().await;
        for node in found.came {
            let pool = Arc::clone(&pool);
            keepers.spawn(async move {
                tokio::select! {
                    () = keep(&pool, &node, tier) => {}
                    () = node.left() => {}
                }
            });
        }
        forget(&found.gone);
        let next = sleep_until(begun + found.pause);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                Some(ended) = keepers.join_next() => ended_well(ended),
            }
        }
    }
}

/// A keeper that panics ends the process, as everything does that it cannot go on without.
fn ended_well(ended: Result<(), JoinError>) {
    if let Some(panicked) = ended.err().and_then(|error| error.try_into_panic().ok()) {
        panic::resume_unwind(panicked);
    }
}

/// Connects to a backend and probes it for as long as its name names it: regularly, soon after its connection has ended, and
/// when a call that found no other one waits for it.
async fn keep(pool: &Pool, node: &Arc<Node>, tier: Tier) {
    let mut begun = Instant::now();
    let mut due = begun;
    loop {
        let regular = tokio::select! {
            () = sleep_until(due) => true,
            () = node.wanted() => false,
            () = node.ended() => {
                pool.lost(node);
                due = due.min(begun + pool.pause(node));
                continue;
            }
        };
        begun = Instant::now();
        let result = probe(node, tier).await;
        // However many calls want it, it is found silent as often as by regular probes.
        if regular || result != ProbeResult::Silent {
            pool.probed(node, result);
            due = begun + pool.pause(node);
        }
    }
}

/// What a backend says of itself. The client's deadline is the probe's.
async fn probe(node: &Node, tier: Tier) -> ProbeResult {
    // A connection that turns out to have ended says nothing about the next.
    for _ in 0..2 {
        let Ok(connection) = node.connect().await else { return ProbeResult::Silent };
        match connection.client.status().await {
            Ok(status) => return result_of(&status, tier),
            Err(_) if !connection.is_open() => {}
            Err(_) => return ProbeResult::Silent,
        }
    }
    ProbeResult::Silent
}

fn result_of(status: &GetStatusResponse, tier: Tier) -> ProbeResult {
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
