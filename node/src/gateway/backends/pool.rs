//! One tier of backends: who they are, how they stand, and who is next.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_api::{
    gateway::Backend,
    tls::{Expected, TlsStore},
};
use node_core::types::ChainId;
use tokio::time::Instant;

use super::{names::Names, node::Node};
use crate::gateway::rules::{
    breaker::{Breaker, CallResult, Position, Ticket},
    discovery::Discovery,
    probes::{ProbeResult, Probes, Standing},
    wheel::{self, Slot},
};

/// How this process finds nodes and connects to them.
#[derive(Clone, Debug)]
pub struct Dialing {
    /// What it shows and trusts.
    pub tls: Arc<TlsStore>,
    /// The chain that a node must be of.
    pub chain_id: ChainId,
    /// Who knows the addresses.
    pub names: Names,
}

struct Member {
    /// Index of the entry in the configuration that it comes from.
    source: usize,
    node: Arc<Node>,
    slot: Slot,
    probes: Probes,
    breaker: Breaker,
}

/// What metrics show of one backend.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// Where it is.
    pub address: SocketAddr,
    /// What its probes and its connection say.
    pub standing: Standing,
    /// Its breaker.
    pub breaker: Position,
}

/// The backends of one tier.
pub struct Pool {
    configured: Vec<Backend>,
    dialing: Dialing,
    members: Mutex<Vec<Member>>,
    discovery: Mutex<Discovery>,
    start: Instant,
}

/// What a look at the names has changed.
#[derive(Debug, Default)]
pub struct Found {
    /// New backends.
    pub came: Vec<Arc<Node>>,
    /// Addresses that are named no more.
    pub gone: Vec<SocketAddr>,
    /// Time until the next look, from the beginning of this one.
    pub pause: Duration,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("backends", &self.view()).finish_non_exhaustive()
    }
}

impl Pool {
    /// A tier without members; [`Pool::resolve`] finds them.
    pub fn new(configured: Vec<Backend>, dialing: Dialing) -> Self {
        let (members, discovery) = (Mutex::new(vec![]), Mutex::default());
        Self { configured, dialing, members, discovery, start: Instant::now() }
    }

    /// Looks up every name. An entry whose name cannot be resolved keeps its members.
    pub async fn resolve(&self) -> Found {
        let mut result = Found::default();
        for (source, backend) in self.configured.iter().enumerate() {
            let Some(found) = self.dialing.names.addresses(backend.address.as_str()).await else { continue };
            let mut members = self.lock();
            members.retain(|member| {
                let stays = member.source != source || found.contains(&member.node.address);
                if !stays {
                    member.node.leave();
                    result.gone.push(member.node.address);
                }
                stays
            });
            for address in found {
                if !members.iter().any(|member| member.source == source && member.node.address == address) {
                    let member = self.member(source, backend, address);
                    result.came.push(Arc::clone(&member.node));
                    members.push(member);
                }
            }
        }
        let (now_ms, serves) = (self.now_ms(), any_serves(&self.lock()));
        let mut discovery = self.discovery.lock().unwrap_or_else(PoisonError::into_inner);
        if !result.came.is_empty() || !result.gone.is_empty() {
            discovery.on_change(now_ms);
        }
        result.pause = Duration::from_millis(discovery.pause_ms(now_ms, serves));
        result
    }

    fn member(&self, source: usize, backend: &Backend, address: SocketAddr) -> Member {
        let Dialing { tls, chain_id, names: _ } = &self.dialing;
        let expected = match &backend.identity {
            Some(identity) => Expected::node(chain_id, identity),
            None => Expected::any_node(chain_id),
        };
        let node = Arc::new(Node::new(address, Arc::clone(tls), expected));
        let (slot, probes, breaker) = (Slot::new(backend.weight), Probes::default(), Breaker::default());
        Member { source, node, slot, probes, breaker }
    }

    /// The next backend for a call, without those that were `tried` already. One whose connection has ended is chosen only
    /// when there is no other: then the call waits for it to be connected again.
    pub fn next(self: &Arc<Self>, tried: &[SocketAddr]) -> Option<Lease> {
        let now_ms = self.now_ms();
        let mut members = self.lock();
        let may = |member: &Member| member.breaker.would_admit(now_ms) && !tried.contains(&member.node.address);
        let serves = |member: &Member| member.probes.standing() == Standing::Serves && member.node.is_connected();
        let any = |member: &Member| member.probes.standing() != Standing::Out;
        let index = wheel::next(&mut members, |member| &mut member.slot, |member| may(member) && serves(member))
            .or_else(|| wheel::next(&mut members, |member| &mut member.slot, |member| may(member) && any(member)))?;
        let member = members.get_mut(index)?;
        let ticket = member.breaker.admit(now_ms)?;
        let (node, pool) = (Arc::clone(&member.node), Arc::clone(self));
        Some(Lease { pool, node, ticket, result: CallResult::Abandoned, pardoned: false })
    }

    /// Takes in what a probe found.
    pub fn probed(&self, node: &Arc<Node>, result: ProbeResult) {
        let now_ms = self.now_ms();
        self.change(node, |probes| probes.on_result(result, now_ms));
    }

    /// The connection of a backend has ended.
    pub fn lost(&self, node: &Arc<Node>) {
        node.forget();
        self.change(node, Probes::on_loss);
    }

    fn change(&self, node: &Arc<Node>, change: impl Fn(&mut Probes)) {
        for member in self.lock().iter_mut().filter(|member| Arc::ptr_eq(&member.node, node)) {
            let before = member.probes.standing();
            change(&mut member.probes);
            let after = member.probes.standing();
            if before != after {
                tracing::info!(backend = %node.address, ?before, ?after, "a backend changed");
            }
        }
    }

    /// Time from the beginning of the last probe of a backend to that of the next.
    pub fn pause(&self, node: &Arc<Node>) -> Duration {
        let members = self.lock();
        let serves = any_serves(&members);
        let probes = members.iter().find(|member| Arc::ptr_eq(&member.node, node)).map(|member| member.probes);
        Duration::from_millis(probes.unwrap_or_default().pause_ms(serves))
    }

    /// What metrics show.
    pub fn view(&self) -> Vec<BackendView> {
        let view = |member: &Member| BackendView {
            address: member.node.address,
            standing: member.probes.standing(),
            breaker: member.breaker.position(),
        };
        self.lock().iter().map(view).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn any_serves(members: &[Member]) -> bool {
    members.iter().any(|member| member.probes.standing() == Standing::Serves)
}

/// The right to make one call to one backend. Dropped without a result, it counts as abandoned by the caller.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    node: Arc<Node>,
    ticket: Ticket,
    result: CallResult,
    pardoned: bool,
}

impl Lease {
    /// The backend.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What the call told about the backend, as far as it is known.
    pub fn result(&self) -> CallResult {
        self.result
    }

    /// Says what the call told about the backend. The right is given back when this is dropped.
    pub fn settle(&mut self, result: CallResult) {
        self.result = result;
    }

    /// The breaker does not count this call: its failure is known already.
    pub fn pardon(&mut self) {
        self.pardoned = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now_ms = self.pool.now_ms();
        let mut members = self.pool.lock();
        if let Some(member) = members.iter_mut().find(|member| Arc::ptr_eq(&member.node, &self.node)) {
            let before = member.breaker.position();
            let result = if self.pardoned { CallResult::Abandoned } else { self.result };
            member.breaker.settle(self.ticket, result, now_ms);
            let after = member.breaker.position();
            if before != after {
                tracing::warn!(backend = %self.node.address, ?before, ?after, "a breaker changed");
            }
        }
    }
}
