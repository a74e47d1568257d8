//! The calls to one node: connections that are kept, who is expected at the other end, what the answers mean.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node_api::client::{Client, ClientError, ClientOptions};
use node_api::node_core::types::{ChainId, Identity};
use node_api::proto;
use node_api::tls::{Expected, TcpDialer, TlsDialer, TlsError, TlsPem, TlsStore};

use super::agreement::{Report, VoterSeen};
use super::grants::{Ended, Grant, Question, Volume};
use crate::certificates;
use crate::config::NODE_CALL_TIMEOUT;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::rollover::Authority;

/// Own certificates are issued anew this often, well inside their life.
const STORE_AGE_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// So many connections are kept, each of some 90 KiB; with more nodes that one gives way which was used the longest ago.
const CLIENTS_MAX: usize = 64;
/// A connection that nobody used for this long is dropped.
const CLIENT_IDLE_MAX: Duration = Duration::from_secs(120);

/// Which node to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// ValidatorNode.
    pub node: String,
    /// Its chain.
    pub chain_id: ChainId,
    /// Its identity; the certificate at the other end must name it.
    pub identity: Identity,
    /// `ip:port`.
    pub address: String,
}

/// As whom this process calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Caller {
    /// The operator of the node.
    Operator,
    /// A node without a vote: what nodes of other members take this process for.
    Observer,
    /// The operator that wants to see which authorities count.
    Prover,
}

/// Who has issued the own certificate, and what is trusted at the other end, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trust {
    issuer: String,
    authorities: String,
    members: String,
}

impl Trust {
    fn of(authority: &Authority, members: &str) -> Self {
        let (issuer, authorities) = (authority.mark(), authority.trusted.clone());
        Self { issuer, authorities, members: members.to_string() }
    }
}

struct Store {
    trust: Trust,
    made: Instant,
    tls: Arc<TlsStore>,
}

struct Kept {
    target: Target,
    trust: Trust,
    used: Instant,
    client: Client,
}

/// Connections to nodes, and the operator's certificates for them.
pub struct Dialers {
    metrics: Arc<Metrics>,
    /// As which observer this process asks: nobody has its key.
    observer: Identity,
    stores: Mutex<HashMap<(String, ChainId, Caller), Store>>,
    clients: Mutex<HashMap<(String, String), Kept>>,
}

impl Dialers {
    /// No connections yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let observer = Identity::new(rand::random());
        Self { metrics, observer, stores: Mutex::default(), clients: Mutex::default() }
    }

    /// The connection to a node; it is made with the first call.
    pub fn node(&self, target: &Target, authority: &Authority, now_s: u64) -> Result<Node, Error> {
        self.own(target, Caller::Operator, authority, now_s)
    }

    /// A connection to a node beside the one that is used: the node answers on it when it has taken up what the stage of
    /// the authority means. None while one authority is all there is.
    pub fn proof(&self, target: &Target, authority: &Authority, now_s: u64) -> Result<Option<Node>, Error> {
        let Some(proof) = authority.proof() else { return Ok(None) };
        let target = Target { node: format!("{}/proof", target.node), ..target.clone() };
        self.own(&target, Caller::Prover, &proof, now_s).map(Some)
    }

    fn own(&self, target: &Target, caller: Caller, authority: &Authority, now_s: u64) -> Result<Node, Error> {
        let trust = Trust::of(authority, "");
        let issue = || certificates::issue_own(authority, &target.chain_id, now_s);
        let tls = self.store(target, caller, &trust, issue)?;
        Ok(self.client(target, tls, trust))
    }

    /// The connection to a node of another member, whose authority is one of `members`.
    pub fn outside(&self, target: &Target, authority: &Authority, members: &str, now_s: u64) -> Result<Node, Error> {
        let trust = Trust::of(authority, members);
        let tls = self.store(target, Caller::Observer, &trust, || {
            let issued = certificates::issue_observer(authority, &target.chain_id, &self.observer, now_s)?;
            let pem = TlsPem::from_issued(&issued, &authority.trusted);
            Ok(TlsPem { members: members.as_bytes().to_vec(), ..pem })
        })?;
        Ok(self.client(target, tls, trust))
    }

    fn client(&self, target: &Target, tls: Arc<TlsStore>, trust: Trust) -> Node {
        let key = (target.namespace.clone(), target.node.clone());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, kept| kept.used.elapsed() < CLIENT_IDLE_MAX);
        if let Some(kept) = clients.get_mut(&key)
            && kept.target == *target
            && kept.trust == trust
        {
            kept.used = Instant::now();
            return Node { client: kept.client.clone(), metrics: Arc::clone(&self.metrics) };
        }
        if clients.len() >= CLIENTS_MAX
            && let Some(oldest) = clients.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone())
        {
            clients.remove(&oldest);
        }
        let expected = Expected::node(&target.chain_id, &target.identity);
        let options = ClientOptions {
            connect_timeout: NODE_CALL_TIMEOUT,
            deadline: NODE_CALL_TIMEOUT,
            ..ClientOptions::default()
        };
        let client = Client::lazy(TlsDialer::new(TcpDialer::new(&target.address), tls, expected), options);
        clients.insert(key, Kept { target: target.clone(), trust, used: Instant::now(), client: client.clone() });
        Node { client, metrics: Arc::clone(&self.metrics) }
    }

    fn store(
        &self,
        target: &Target,
        caller: Caller,
        trust: &Trust,
        issue: impl FnOnce() -> Result<TlsPem, Error>,
    ) -> Result<Arc<TlsStore>, Error> {
        let failed = |error: TlsError| Error::Certificates { what: target.node.clone(), message: error.to_string() };
        let key = (target.namespace.clone(), target.chain_id.clone(), caller);
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = match stores.get(&key).filter(|store| store.trust == *trust) {
            Some(store) if store.made.elapsed() < STORE_AGE_MAX => return Ok(Arc::clone(&store.tls)),
            Some(store) => {
                // Connections that are kept take up the new certificate when they are made again.
                store.tls.replace(&issue()?).map_err(failed)?;
                Arc::clone(&store.tls)
            }
            None => TlsStore::from_pem(&issue()?).map_err(failed)?,
        };
        stores.insert(key, Store { trust: trust.clone(), made: Instant::now(), tls: Arc::clone(&tls) });
        Ok(tls)
    }
}

/// One node.
#[derive(Clone)]
pub struct Node {
    /// The calls.
    pub client: Client,
    metrics: Arc<Metrics>,
}

impl Node {
    /// Counts a call.
    pub fn counted<T>(&self, method: &str, result: Result<T, ClientError>) -> Result<T, ClientError> {
        let word = match &result {
            Ok(_) => "ok",
            Err(ClientError::Connect { .. }) => "connect",
            Err(ClientError::Deadline { .. }) => "deadline",
            Err(ClientError::Unavailable { .. }) => "unavailable",
            Err(ClientError::Refused { .. }) => "refused",
        };
        self.metrics.node_calls.with_label_values(&[method, word]).inc();
        result
    }

    /// What the node says of itself.
    pub async fn status(&self) -> Result<proto::GetStatusResponse, ClientError> {
        self.counted("GetStatus", self.client.status().await)
    }

    /// What the node asks before it uses a key.
    pub async fn start_request(&self) -> Result<proto::StartRequest, ClientError> {
        self.counted("GetStartRequest", self.client.start_request().await)
    }

    /// What the node reports about its chain.
    pub async fn report(&self, identity: &Identity) -> Result<Report, ClientError> {
        let answered = self.counted("GetValidators", self.client.validators().await)?;
        Ok(report(identity, &answered))
    }
}

/// A report from the answer that the node with this identity, which its certificate has proved, has given just now.
pub fn report(identity: &Identity, answered: &proto::GetValidatorsResponse) -> Report {
    let voters = answered.voters.iter().map(|voter| VoterSeen {
        identity: hex::encode(&voter.identity),
        power: voter.power,
        session_key: hex::encode(&voter.session_key),
        epoch: voter.epoch,
        heights_seen: voter.precommit_heights_seen,
        last_precommit: voter.last_precommit_height,
    });
    Report {
        reporter: identity.to_string(),
        height: answered.height,
        block_age: Duration::from_millis(answered.block_age_ms),
        answered: Instant::now(),
        window: answered.window_heights,
        voters: voters.collect(),
    }
}

/// A node's question in our terms.
pub fn question(asked: &proto::StartRequest) -> Question {
    Question {
        own_pod_uid: asked.own.as_ref().map(|own| own.pod_uid.clone()).unwrap_or_default(),
        owner_pod_uid: asked.owner.as_ref().map(|owner| owner.pod_uid.clone()),
        is_asking: asked.asking,
        lacks_claim: asked.claim_uid.is_empty(),
    }
}

/// A grant as it is sent.
pub fn start_grant(grant: &Grant, asked: &proto::StartRequest) -> proto::StartGrant {
    let volume_kind = match grant.volume {
        Volume::NodeLocal => proto::VolumeKind::NodeLocal,
        Volume::Fencing => proto::VolumeKind::Fencing,
        Volume::Other => proto::VolumeKind::Other,
    };
    let owner_ended = match grant.ended {
        Ended::Unknown => proto::OwnerEnded::Unspecified,
        Ended::TerminatedByKubelet => proto::OwnerEnded::TerminatedByKubelet,
        Ended::FencingStorage => proto::OwnerEnded::FencingStorage,
        Ended::NodeLocal => proto::OwnerEnded::NodeLocal,
    };
    proto::StartGrant {
        pod_uid: grant.pod_uid.clone(),
        claim_uid: grant.claim_uid.clone(),
        volume_kind: volume_kind.into(),
        owner: asked.owner.clone(),
        owner_ended: owner_ended.into(),
    }
}
