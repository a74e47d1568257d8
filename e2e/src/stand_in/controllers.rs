//! Plays the controllers that a cluster without a controller manager lacks: StatefulSets, disruption budgets, claims.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use althing_crds::{ValidatorNode, names};
use anyhow::Result;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::chains::Chains;
use super::files::{Files, Mounts};
use super::garbage;
use super::kubelet::{self, Kubelet};
use super::tiers;
use super::witness::{Party, Witness};
use crate::attendance::Presence;

/// Calls to the API server at the same time.
const CALLS_MAX: usize = 48;

/// How it behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Time between two blocks of every chain.
    pub block_interval: Duration,
}

/// The running stand-in.
pub struct StandIn {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    witness: Witness,
}

impl StandIn {
    /// Plays everything in all namespaces until it is stopped.
    pub fn start(client: &Client, options: Options) -> Self {
        let stop = CancellationToken::new();
        let witness = Witness::default();
        let chains = Arc::new(Chains::new(witness.clone()));
        let mounts = Arc::new(Mounts::new(witness.clone()));
        let kubelet = Arc::new(Kubelet::new(client.clone(), Arc::clone(&chains), Arc::clone(&mounts)));
        let mut tasks = JoinSet::new();
        tasks.spawn(until(stop.clone(), blocks(chains, options.block_interval)));
        let world = World {
            client: client.clone(),
            kubelet,
            mounts,
            witness: witness.clone(),
            sets: HashMap::new(),
            pods: HashMap::new(),
            budgets: HashMap::new(),
            dirty: BTreeSet::new(),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            begun: JoinSet::new(),
        };
        tasks.spawn(until(stop.clone(), world.run()));
        Self { stop, tasks, witness }
    }

    /// Who sees what must never be.
    pub const fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Ends every process that it plays.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! { () = work => {}, () = stop.cancelled() => {} }
}

async fn blocks(chains: Arc<Chains>, every: Duration) {
    let mut pace = interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        chains.tick();
    }
}

/// Namespace and name.
type Key = (String, String);

enum Seen {
    Set(watcher::Event<StatefulSet>),
    Pod(watcher::Event<Pod>),
    Budget(watcher::Event<PodDisruptionBudget>),
    Claim(watcher::Event<PersistentVolumeClaim>),
    Deployment(watcher::Event<Deployment>),
    Secret(watcher::Event<Secret>),
    Node(watcher::Event<ValidatorNode>),
}

struct World {
    client: Client,
    kubelet: Arc<Kubelet>,
    mounts: Arc<Mounts>,
    witness: Witness,
    sets: HashMap<Key, StatefulSet>,
    pods: HashMap<Key, Pod>,
    budgets: HashMap<Key, PodDisruptionBudget>,
    /// Budgets that are to be counted again.
    dirty: BTreeSet<Key>,
    calls: Arc<Semaphore>,
    begun: JoinSet<()>,
}

fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl World {
    async fn run(mut self) {
        let ours = watcher::Config::default().labels(&format!("{}={}", names::LABEL_APP_MANAGED_BY, names::MANAGED_BY));
        let pods = watcher::Config::default().labels(names::LABEL_NODE);
        let client = self.client.clone();
        let seen: Vec<BoxStream<'static, Seen>> = vec![
            watcher(Api::all(client.clone()), ours.clone()).default_backoff().filter_map(some(Seen::Set)).boxed(),
            watcher(Api::all(client.clone()), pods).default_backoff().filter_map(some(Seen::Pod)).boxed(),
            watcher(Api::all(client.clone()), ours.clone()).default_backoff().filter_map(some(Seen::Budget)).boxed(),
            watcher(Api::all(client.clone()), ours.clone()).default_backoff().filter_map(some(Seen::Claim)).boxed(),
            watcher(Api::all(client.clone()), ours.clone()).default_backoff().filter_map(some(Seen::Secret)).boxed(),
            watcher(Api::all(client.clone()), ours.clone()).default_backoff().filter_map(some(Seen::Node)).boxed(),
            watcher(Api::all(client), ours).default_backoff().filter_map(some(Seen::Deployment)).boxed(),
        ];
        let mut seen = futures::stream::select_all(seen);
        let mut pace = interval(Duration::from_millis(50));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = seen.next() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                _ = pace.tick() => self.count_budgets(),
                Some(_) = self.begun.join_next() => {}
            }
        }
    }

    fn take(&mut self, seen: Seen) {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        match seen {
            Seen::Set(Apply(set) | InitApply(set)) if tiers::is_tier(&set) => {
                self.begin(tiers::serve_set(self.client.clone(), set));
            }
            Seen::Set(Apply(set) | InitApply(set)) => {
                let at = key(&set);
                self.sets.insert(at.clone(), set.clone());
                self.make_pod(&at);
                self.begin(tiers::see_set(self.client.clone(), set));
            }
            Seen::Set(Delete(set)) => {
                self.sets.remove(&key(&set));
                // Only now: the next pod would be made of a set that is gone.
                self.begin(garbage::collect_pod(self.client.clone(), set));
            }
            Seen::Node(Delete(node)) => {
                let (namespace, uid) = (node.namespace().unwrap_or_default(), node.uid().unwrap_or_default());
                self.begin(garbage::collect(self.client.clone(), namespace, uid));
            }
            Seen::Pod(Apply(pod) | InitApply(pod)) => self.pod(pod),
            Seen::Pod(Delete(pod)) => {
                self.kubelet.forget(&pod.uid().unwrap_or_default());
                self.pods.remove(&key(&pod));
                self.shows(&pod, None);
                self.count_later(&pod);
                let (namespace, name) = key(&pod);
                // Exactly one suffix: the first voter's pod is called `<group>-0-0`.
                self.make_pod(&(namespace, name.strip_suffix("-0").unwrap_or(&name).to_string()));
            }
            Seen::Budget(Apply(budget) | InitApply(budget)) => {
                self.dirty.insert(key(&budget));
                self.budgets.insert(key(&budget), budget);
            }
            Seen::Budget(Delete(budget)) => drop(self.budgets.remove(&key(&budget))),
            Seen::Claim(Apply(claim) | InitApply(claim)) => self.claim(&claim),
            Seen::Deployment(Apply(deployment) | InitApply(deployment)) => {
                self.begin(tiers::serve_deployment(self.client.clone(), deployment));
            }
            Seen::Secret(Apply(secret) | InitApply(secret)) => self.secret(&secret),
            Seen::Claim(Delete(_)) | Seen::Deployment(Delete(_)) | Seen::Secret(Delete(_)) => {}
            Seen::Set(Init | InitDone) | Seen::Pod(Init | InitDone) | Seen::Budget(Init | InitDone) => {}
            Seen::Claim(Init | InitDone) | Seen::Deployment(Init | InitDone) | Seen::Secret(Init | InitDone) => {}
            Seen::Node(Apply(_) | Init | InitApply(_) | InitDone) => {}
        }
    }

    fn begin(&mut self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.begun.spawn(async move {
            if let Err(error) = work.await {
                eprintln!("stand-in: {error:#}");
            }
        });
    }

    /// The StatefulSet controller: one pod from the template that is there now.
    fn make_pod(&mut self, at: &Key) {
        let Some(set) = self.sets.get(at) else { return };
        let pod_name = names::pod(&at.1);
        let (namespace, is_going) = (at.0.clone(), set.metadata.deletion_timestamp.is_some());
        if is_going || self.pods.contains_key(&(namespace.clone(), pod_name.clone())) {
            return;
        }
        let Some(pod) = pod_of(set, &pod_name) else { return };
        let (client, calls) = (self.client.clone(), Arc::clone(&self.calls));
        self.begin(async move {
            let _permit = calls.acquire().await?;
            let api: Api<Pod> = Api::namespaced(client, &namespace);
            match api.create(&PostParams::default(), &pod).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
    }

    fn pod(&mut self, pod: Pod) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        let kubelet = Arc::clone(&self.kubelet);
        self.count_later(&pod);
        self.pods.insert(key(&pod), pod.clone());
        self.shows(&pod, Some(Presence::of(&pod)));
        if kubelet::is_silent(&pod) {
            kubelet.forget(&pod.uid().unwrap_or_default());
        }
        if pod.metadata.deletion_timestamp.is_some() {
            self.begin(async move { kubelet.finish(&pod).await });
        } else if phase.as_deref() != Some("Running") {
            self.begin(async move { kubelet.start(&pod).await });
        }
    }

    /// Tells the witness of the pod of a node that has a number.
    fn shows(&self, pod: &Pod, presence: Option<Presence>) {
        let node = pod.labels().get(names::LABEL_NODE);
        let number = node.and_then(|node| node.rsplit_once('-')?.1.parse().ok());
        if let Some(number) = number {
            self.witness.pod(&pod.namespace().unwrap_or_default(), number, presence);
        }
    }

    /// A node gets the files of its changed Secret; the others are looked at alone.
    fn secret(&mut self, secret: &Secret) {
        let (Ok(files), Some(network)) = (Files::of(secret), secret.labels().get(names::LABEL_NETWORK)) else { return };
        let at = key(secret);
        if at.1 == names::ca_secret(network) {
            self.witness.presents(&at.0, Party::Operator, files.papers());
        } else if at.1 == names::client_secret(network) {
            self.witness.presents(&at.0, Party::Client, files.papers());
        } else {
            let (mounts, later) = (Arc::clone(&self.mounts), self.mounts.change(&at, files));
            self.begin(async move {
                tokio::time::sleep(later).await;
                mounts.bring(&at)
            });
        }
    }

    /// The volume controllers: a claim has the volume that it asks for, and one that nobody mounts may go.
    fn claim(&mut self, claim: &PersistentVolumeClaim) {
        let is_going = claim.metadata.deletion_timestamp.is_some();
        let asked = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.clone()).unwrap_or_default();
        let held = claim.status.as_ref().and_then(|status| status.capacity.clone()).unwrap_or_default();
        if !is_going && held == asked {
            return;
        }
        let (client, (namespace, name)) = (self.client.clone(), key(claim));
        self.begin(async move {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client, &namespace);
            let params = PatchParams::default();
            let written = if is_going {
                let patch = json!({ "metadata": { "finalizers": null } });
                api.patch(&name, &params, &Patch::Merge(&patch)).await
            } else {
                let patch = json!({ "status": { "phase": "Bound", "capacity": asked } });
                api.patch_status(&name, &params, &Patch::Merge(&patch)).await
            };
            match written {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
    }

    /// The disruption controller counts when a pod changes that a budget selects as the pod is now: of one that is not
    /// selected any more it hears nothing (`updatePod` in kubernetes/pkg/controller/disruption, 1.36).
    fn count_later(&mut self, pod: &Pod) {
        let namespace = pod.namespace().unwrap_or_default();
        let counting = self.budgets.iter().filter(|((at, _), budget)| *at == namespace && selects(budget, pod));
        self.dirty.extend(counting.map(|(at, _)| at.clone()));
    }

    /// The disruption controller.
    fn count_budgets(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            let Some(budget) = self.budgets.get(&at).cloned() else { continue };
            let pods = self.pods.iter().filter(|((namespace, _), _)| *namespace == at.0).map(|(_, pod)| pod);
            let status = counted(&budget, pods);
            if budget.status.as_ref() == Some(&status) {
                continue;
            }
            let client = self.client.clone();
            self.begin(async move {
                let api: Api<PodDisruptionBudget> = Api::namespaced(client, &at.0);
                let changed = PodDisruptionBudget { status: Some(status), ..budget };
                match api.replace_status(&at.1, &PostParams::default(), &changed).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
        }
    }
}

fn some<K: 'static>(
    wrap: fn(watcher::Event<K>) -> Seen,
) -> impl FnMut(watcher::Result<watcher::Event<K>>) -> std::future::Ready<Option<Seen>> {
    move |event| {
        if let Err(error) = &event {
            eprintln!("stand-in: {error}");
        }
        std::future::ready(event.ok().map(wrap))
    }
}

/// The pod of a StatefulSet, on a machine of its own.
fn pod_of(set: &StatefulSet, pod_name: &str) -> Option<Pod> {
    let template = set.spec.as_ref()?.template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut spec = template.spec?;
    spec.node_name = Some(format!("machine-{}", set.name_any().rsplit('-').next().unwrap_or("0")));
    spec.hostname = Some(pod_name.to_string());
    let mut pod_labels: BTreeMap<String, String> = metadata.labels.unwrap_or_default();
    pod_labels.insert("statefulset.kubernetes.io/pod-name".to_string(), pod_name.to_string());
    Some(Pod {
        metadata: ObjectMeta {
            name: Some(pod_name.to_string()),
            labels: Some(pod_labels),
            annotations: metadata.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_string(),
                kind: "StatefulSet".to_string(),
                name: set.name_any(),
                uid: set.uid()?,
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    })
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let mut wanted = selector.and_then(|selector| selector.match_labels.as_ref()).into_iter().flatten();
    wanted.all(|(label, value)| pod.labels().get(label) == Some(value))
}

fn counted<'a>(budget: &PodDisruptionBudget, pods: impl Iterator<Item = &'a Pod>) -> PodDisruptionBudgetStatus {
    let selected: Vec<&Pod> = pods.filter(|pod| selects(budget, pod)).collect();
    let is_ready = |pod: &&&Pod| Presence::of(pod) == Presence::Ready;
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let healthy = number(selected.iter().filter(is_ready).count());
    let desired = match budget.spec.as_ref().and_then(|spec| spec.min_available.as_ref()) {
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(_)) | None => 0,
    };
    PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        expected_pods: Some(number(selected.len())),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disruptions_allowed: Some((healthy - desired).max(0)),
        ..PodDisruptionBudgetStatus::default()
    }
}
