//! One tier of backends: resolves their names, keeps a connection to each, and says who is next.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_api::{
    client::{Client, ClientOptions},
    gateway::{BACKENDS_MAX, Backend},
    tls::{Expected, TcpDialer, TlsDialer, TlsStore},
};
use node_core::types::ChainId;
use tokio::time::Instant;

use crate::gateway::rules::{
    breaker::{Breaker, CallResult, Position, Ticket},
    probes::{ProbeResult, Probes},
    wheel::{self, Slot},
};

/// Pause before a quiet connection is asked for a sign of life, and longest wait for it: what is in flight to a node whose
/// machine is gone can be sent again within half of the time that a caller has.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Longest look-up of a name.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(3);

/// How this process connects to nodes.
#[derive(Clone, Debug)]
pub struct Dialing {
    /// What it shows and trusts.
    pub tls: Arc<TlsStore>,
    /// The chain that a node must be of.
    pub chain_id: ChainId,
}

/// A node with its connection.
#[derive(Debug)]
pub struct Node {
    /// Where it is.
    pub address: SocketAddr,
    /// Its calls.
    pub client: Client,
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
    /// Whether its probes are good.
    pub up: bool,
    /// Its breaker.
    pub breaker: Position,
}

/// The backends of one tier.
pub struct Pool {
    configured: Vec<Backend>,
    dialing: Dialing,
    members: Mutex<Vec<Member>>,
    start: Instant,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("backends", &self.view()).finish_non_exhaustive()
    }
}

impl Pool {
    /// A tier without members; [`Pool::resolve`] finds them.
    pub fn new(configured: Vec<Backend>, dialing: Dialing) -> Self {
        Self { configured, dialing, members: Mutex::new(vec![]), start: Instant::now() }
    }

    /// Looks up every name, and answers who is gone. An entry whose name cannot be resolved keeps its members.
    pub async fn resolve(&self) -> Vec<SocketAddr> {
        let mut gone = Vec::new();
        for (source, backend) in self.configured.iter().enumerate() {
            let name = backend.address.as_str();
            let found = match tokio::time::timeout(RESOLVE_TIME_MAX, tokio::net::lookup_host(name)).await {
                Ok(Ok(found)) => found.take(BACKENDS_MAX).collect::<BTreeSet<_>>(),
                Ok(Err(error)) => {
                    tracing::warn!(name, %error, "failed to resolve a backend");
                    continue;
                }
                Err(_) => {
                    tracing::warn!(name, "no answer in time from the resolver");
                    continue;
                }
            };
            let mut members = self.lock();
            members.retain(|member| {
                let stays = member.source != source || found.contains(&member.node.address);
                if !stays {
                    gone.push(member.node.address);
                }
                stays
            });
            for address in found {
                if !members.iter().any(|member| member.source == source && member.node.address == address) {
                    members.push(self.member(source, backend, address));
                }
            }
        }
        gone
    }

    fn member(&self, source: usize, backend: &Backend, address: SocketAddr) -> Member {
        let Dialing { tls, chain_id } = &self.dialing;
        let expected = match &backend.identity {
            Some(identity) => Expected::node(chain_id, identity),
            None => Expected::any_node(chain_id),
        };
        let dialer = TlsDialer::new(TcpDialer::new(address.to_string()), Arc::clone(tls), expected);
        let options = ClientOptions {
            connect_timeout: Duration::from_secs(3),
            deadline: Duration::from_millis(crate::gateway::rules::probes::TIMEOUT_MS),
            keep_alive: KEEP_ALIVE,
            trace: None,
        };
        let node = Arc::new(Node { address, client: Client::lazy(dialer, options) });
        let (slot, probes, breaker) = (Slot::new(backend.weight), Probes::default(), Breaker::default());
        Member { source, node, slot, probes, breaker }
    }

    /// The next backend for a call, without those that were `tried` already.
    pub fn next(self: &Arc<Self>, tried: &[SocketAddr]) -> Option<Lease> {
        let now_ms = self.now_ms();
        let mut members = self.lock();
        let eligible = |member: &Member| {
            member.probes.is_up() && member.breaker.would_admit(now_ms) && !tried.contains(&member.node.address)
        };
        let index = wheel::next(&mut members, |member| &mut member.slot, eligible)?;
        let member = members.get_mut(index)?;
        let ticket = member.breaker.admit(now_ms)?;
        let (node, pool) = (Arc::clone(&member.node), Arc::clone(self));
        Some(Lease { pool, node, ticket, result: CallResult::Abandoned })
    }

    /// The nodes to probe.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.lock().iter().map(|member| Arc::clone(&member.node)).collect()
    }

    /// Takes in what a probe found.
    pub fn probed(&self, node: &Arc<Node>, result: ProbeResult) {
        for member in self.lock().iter_mut().filter(|member| Arc::ptr_eq(&member.node, node)) {
            let before = member.probes.is_up();
            member.probes.on_result(result);
            let after = member.probes.is_up();
            if before != after {
                tracing::info!(backend = %node.address, up = after, ?result, "a backend changed");
            }
        }
    }

    /// What metrics show.
    pub fn view(&self) -> Vec<BackendView> {
        let view = |member: &Member| BackendView {
            address: member.node.address,
            up: member.probes.is_up(),
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

/// The right to make one call to one backend. Dropped without a result, it counts as abandoned by the caller.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    node: Arc<Node>,
    ticket: Ticket,
    result: CallResult,
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
}

impl Drop for Lease {
    fn drop(&mut self) {
        let now_ms = self.pool.now_ms();
        let mut members = self.pool.lock();
        if let Some(member) = members.iter_mut().find(|member| Arc::ptr_eq(&member.node, &self.node)) {
            let before = member.breaker.position();
            member.breaker.settle(self.ticket, self.result, now_ms);
            let after = member.breaker.position();
            if before != after {
                tracing::warn!(backend = %self.node.address, ?before, ?after, "a breaker changed");
            }
        }
    }
}
