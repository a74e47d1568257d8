//! What a reconcile may use: clients, caches, the writer, and how other objects are woken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use althing_crds::{BlockchainNetwork, Condition, ConsensusGroup, ValidatorNode};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod, Secret};
use kube::{Api, Client};
use kube_runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;

use crate::apply::Writer;
use crate::authorities::Authorities;
use crate::certificates;
use crate::chain::book::Book;
use crate::chain::nodes::Dialers;
use crate::config::{BACKOFF_MAX, Config};
use crate::error::Error;
use crate::events::{Draft, Events};
use crate::group::proof::FirstSeen;
use crate::issuer::Requests;
use crate::kinds::{Owner, Standing, standing};
use crate::lease::Leadership;
use crate::memory::Memories;
use crate::metrics::Metrics;
use crate::parts::Installation;
use crate::readings;
use crate::watches::{Children, Filling, Guarded};

/// What all scopes share.
pub struct Shared {
    /// Reads.
    pub client: Client,
    /// Flags.
    pub config: Config,
    /// Writes.
    pub writer: Writer,
    /// Whether this process may write.
    pub leadership: Arc<Leadership>,
    /// Events.
    pub events: Events,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// What is known of every chain.
    pub book: Book,
    /// Connections to nodes.
    pub dialers: Dialers,
    /// Certificate authorities of networks.
    pub authorities: Authorities,
    /// What issuers of cert-manager were asked for.
    pub requests: Requests,
    /// What was read by name a short while ago.
    pub memories: Memories,
    /// When each voter's pod was first seen.
    pub first_seen: FirstSeen,
}

/// What the reconcilers of one scope use.
pub struct Context {
    /// Shared by all scopes.
    pub shared: Arc<Shared>,
    /// Networks in this scope.
    pub networks: Store<Guarded<BlockchainNetwork>>,
    /// Groups in this scope.
    pub groups: Store<Guarded<ConsensusGroup>>,
    /// Nodes in this scope.
    pub nodes: Store<Guarded<ValidatorNode>>,
    /// Pods of nodes in this scope; of their spec only the machine.
    pub pods: Store<Pod>,
    /// Claims of nodes in this scope; of their status only the size.
    pub claims: Store<PersistentVolumeClaim>,
    /// Metadata of children in this scope.
    pub children: Children,
    /// Whether all of these have been filled once.
    pub filling: Filling,
    /// Wakes other reconcilers.
    pub wakers: Wakers,
    failures: Failures,
}

/// How often objects have failed in a row.
#[derive(Default)]
struct Failures(Mutex<HashMap<String, u32>>);

impl Failures {
    /// One more; how often by now.
    fn add(&self, object: &str) -> u32 {
        let mut counts = self.lock();
        let count = counts.entry(object.to_string()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn has_any(&self, object: &str) -> bool {
        self.lock().contains_key(object)
    }

    fn forget(&self, object: &str) {
        self.lock().remove(object);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One failure may pass as it came; what fails again is told.
    fn shall_tell(&self, object: &str, error: &Error) -> bool {
        error.hinders() && self.has_any(object)
    }
}

/// Senders that ask for a reconcile. They are bounded; a full one drops the wish, and the periodic look makes up for it.
#[derive(Clone)]
pub struct Wakers {
    /// Networks.
    pub networks: mpsc::Sender<ObjectRef<Guarded<BlockchainNetwork>>>,
    /// Groups.
    pub groups: mpsc::Sender<ObjectRef<Guarded<ConsensusGroup>>>,
    /// Nodes.
    pub nodes: mpsc::Sender<ObjectRef<Guarded<ValidatorNode>>>,
}

impl Wakers {
    /// Asks for a look at a network.
    pub fn network(&self, namespace: &str, name: &str) {
        if self.networks.try_send(ObjectRef::new(name).within(namespace)).is_err() {
            tracing::debug!(namespace, name, "wake of a network dropped");
        }
    }

    /// Asks for a look at a group.
    pub fn group(&self, namespace: &str, name: &str) {
        if self.groups.try_send(ObjectRef::new(name).within(namespace)).is_err() {
            tracing::debug!(namespace, name, "wake of a group dropped");
        }
    }

    /// Asks for a look at a node.
    pub fn node(&self, namespace: &str, name: &str) {
        if self.nodes.try_send(ObjectRef::new(name).within(namespace)).is_err() {
            tracing::debug!(namespace, name, "wake of a node dropped");
        }
    }
}

/// The caches of one scope.
pub struct Caches {
    /// Networks.
    pub networks: Store<Guarded<BlockchainNetwork>>,
    /// Groups.
    pub groups: Store<Guarded<ConsensusGroup>>,
    /// Nodes.
    pub nodes: Store<Guarded<ValidatorNode>>,
    /// Pods.
    pub pods: Store<Pod>,
    /// Claims.
    pub claims: Store<PersistentVolumeClaim>,
    /// Children.
    pub children: Children,
    /// Whether all of these have been filled once.
    pub filling: Filling,
}

impl Context {
    /// The certificate in the Secret of this name, without its key: as it was a short while ago, else live.
    pub async fn certificate(&self, owner: &Owner, name: &str) -> Result<Option<Secret>, Error> {
        let memory = &self.shared.memories.certificates;
        if let Some(known) = memory.get(&owner.uid, name) {
            return Ok(Some(known));
        }
        let at = Instant::now();
        let secrets: Api<Secret> = Api::namespaced(self.shared.client.clone(), &owner.namespace);
        let what = format!("Secret {}/{name}", owner.namespace);
        let found = secrets.get_opt(name).await.map_err(Error::read(what))?.map(certificates::without_keys);
        // Only what can be used is remembered: what has to be written is compared with what is there now.
        if let Some(secret) = found.as_ref().filter(|secret| standing(&secret.metadata, owner) == Standing::Ours) {
            memory.put(&owner.uid, name, at, secret.clone());
        }
        Ok(found)
    }

    /// A context over these caches.
    pub fn new(shared: Arc<Shared>, caches: Caches, wakers: Wakers) -> Self {
        let Caches { networks, groups, nodes, pods, claims, children, filling } = caches;
        let failures = Failures::default();
        Self { shared, networks, groups, nodes, pods, claims, children, filling, wakers, failures }
    }

    /// A network from the cache.
    pub fn network(&self, namespace: &str, name: &str) -> Option<BlockchainNetwork> {
        let found = self.networks.get(&ObjectRef::new(name).within(namespace))?;
        found.0.as_ref().ok().cloned()
    }

    /// A group from the cache.
    pub fn group(&self, namespace: &str, name: &str) -> Option<ConsensusGroup> {
        let found = self.groups.get(&ObjectRef::new(name).within(namespace))?;
        found.0.as_ref().ok().cloned()
    }

    /// A node from the cache.
    pub fn node(&self, namespace: &str, name: &str) -> Option<ValidatorNode> {
        let found = self.nodes.get(&ObjectRef::new(name).within(namespace))?;
        found.0.as_ref().ok().cloned()
    }

    /// The groups of a namespace that meet a condition, by name.
    pub fn groups_where(&self, namespace: &str, keep: impl Fn(&ConsensusGroup) -> bool) -> Vec<ConsensusGroup> {
        let mut found: Vec<ConsensusGroup> = self
            .groups
            .state()
            .iter()
            .filter_map(|group| group.0.as_ref().ok())
            .filter(|group| group.metadata.namespace.as_deref() == Some(namespace) && keep(group))
            .cloned()
            .collect();
        found.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
        found
    }

    /// The nodes of a group, by name.
    pub fn nodes_of(&self, namespace: &str, group: &str) -> Vec<ValidatorNode> {
        self.nodes_where(namespace, |node| node.spec.group == group)
    }

    /// The nodes of a namespace that meet a condition, by name.
    pub fn nodes_where(&self, namespace: &str, keep: impl Fn(&ValidatorNode) -> bool) -> Vec<ValidatorNode> {
        let mut found: Vec<ValidatorNode> = self
            .nodes
            .state()
            .iter()
            .filter_map(|node| node.0.as_ref().ok())
            .filter(|node| node.metadata.namespace.as_deref() == Some(namespace) && keep(node))
            .cloned()
            .collect();
        found.sort_by(|left, right| left.metadata.name.cmp(&right.metadata.name));
        found
    }

    /// What builders of children need to know of this process.
    pub fn installation(&self) -> Installation {
        Installation {
            operator_namespace: self.shared.config.namespace.clone(),
            node_image: self.shared.config.node_image.clone(),
        }
    }

    /// A pod from the cache.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// A claim from the cache.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(&ObjectRef::new(name).within(namespace))
    }

    /// Sends events about an object.
    pub async fn publish(&self, about: &ObjectReference, drafts: &[Draft]) {
        self.shared.events.publish(&self.shared.leadership, about, drafts).await;
    }

    /// Whether this status can wait: nothing begins or ceases to hold, and one was written a moment ago. What is on its way
    /// would else be written with every step.
    pub fn can_wait(&self, uid: &str, before: &[Condition], after: &[Condition]) -> bool {
        readings::is_step(before, after) && self.shared.memories.told.get("status", uid).is_some()
    }

    /// A status was written.
    pub fn told(&self, uid: &str) {
        self.shared.memories.told.put("status", uid, Instant::now(), ());
    }

    /// Whether children that were just written may go without a word: the next look follows at once and says how they
    /// are. Not twice in a row: children that never come to rest are told.
    pub fn applies_quietly(&self, uid: &str) -> bool {
        let memory = &self.shared.memories.applied;
        let is_first = memory.get("applied", uid).is_none();
        memory.put("applied", uid, Instant::now(), ());
        is_first
    }

    /// How long to wait after another failure of this object.
    pub fn backoff(&self, object: &str) -> Duration {
        let count = self.failures.add(object);
        let seconds = 1u64.checked_shl(count.saturating_sub(1)).unwrap_or(u64::MAX);
        Duration::from_secs(seconds).min(BACKOFF_MAX)
    }

    /// The object did well.
    pub fn succeeded(&self, object: &str) {
        self.failures.forget(object);
    }

    /// Whether this failure of an object belongs into its status: its last look failed too.
    pub fn shall_tell(&self, object: &str, error: &Error) -> bool {
        self.failures.shall_tell(object, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_when_it_is_the_second_in_a_row_and_does_not_pass() {
        let failures = Failures::default();
        let late = Error::WriteTimeout { verb: "apply", what: "x".to_string() };
        assert!(!failures.shall_tell("a", &late), "it may pass");
        failures.add("a");
        assert!(failures.shall_tell("a", &late));
        assert!(!failures.shall_tell("b", &late), "another one");
        for passing in [Error::Conflict { what: "x".to_string() }, Error::LeadershipLost, Error::NotLeader] {
            assert!(!failures.shall_tell("a", &passing), "{passing}");
        }
        failures.forget("a");
        assert!(!failures.shall_tell("a", &late), "it did well in between");
    }
}
