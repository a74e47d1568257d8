//! The process: HTTP, election, then watches and controllers for as long as it leads.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use althing_crds::{BlockchainNetwork, ConsensusGroup, ValidatorNode};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use kube::Client;
use kube::client::ClientBuilder;
use kube::core::NamespaceResourceScope;
use kube_runtime::controller::{Action, Config as ControllerConfig};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::reflector::store::Writer as StoreWriter;
use kube_runtime::{Controller, watcher};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::apply::Writer;
use crate::authorities::Authorities;
use crate::chain::book::Book;
use crate::chain::nodes::Dialers;
use crate::config::Config;
use crate::context::{Caches, Context, Shared, Wakers};
use crate::error::Error as ReconcileError;
use crate::events::Events;
use crate::faults::{FaultLayer, Plan};
use crate::group::proof::FirstSeen;
use crate::http::{self, Health};
use crate::lease::{Election, Leadership};
use crate::memory::Memories;
use crate::metrics::Metrics;
use crate::news::{self, Lists};
use crate::reconcile::{after_failure, framed};
use crate::watches::{Filling, Guarded, api_of, touched, watch_children, watch_claims, watch_pods};
use crate::{group, network, validator};

/// Wishes for a reconcile that may wait in one queue.
const WAKES_MAX: usize = 4_096;
/// How long wishes are collected: one object that many others speak of is looked at once. A change of its own spec does
/// not wait.
const WAKES_WINDOW: Duration = Duration::from_millis(100);
/// How long running reconciles may take to end at a stop.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Why the process ends.
#[derive(Debug, Error)]
pub enum RunError {
    /// No way to the API server is configured.
    #[error("failed to configure the Kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
    /// Neither a service account nor a kubeconfig.
    #[error("failed to find the API server: {0}")]
    Configuration(String),
    /// Metrics cannot be registered.
    #[error("failed to register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Signals or sockets cannot be set up.
    #[error("failed to set up {what}: {source}")]
    Setup {
        /// What was set up.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The lease was lost: another process leads.
    #[error(transparent)]
    Lease(#[from] ReconcileError),
    /// A task that must not end has ended.
    #[error("{0} ended by itself")]
    Ended(&'static str),
}

/// Runs until a signal comes or the lease is lost.
pub async fn run(config: Config) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new()?);
    let health = Arc::new(Health::default());
    let client = connect(config.faults.clone()).await?;
    let (stop, stopped) = watch::channel(false);
    let (elected, mut is_elected) = watch::channel(false);
    let leadership = Arc::new(Leadership::default());
    let holder = format!("{}_{:08x}", config.pod_name, rand::random::<u32>());
    let election = Election::new(client.clone(), &config, &holder);
    let mut tasks: JoinSet<Result<(), RunError>> = JoinSet::new();
    tasks.spawn({
        let (health, metrics, stopped) = (Arc::clone(&health), Arc::clone(&metrics), stopped.clone());
        async move {
            http::serve(config.http_address, health, metrics, stopped)
                .await
                .map_err(|source| RunError::Setup { what: "HTTP", source })
        }
    });
    tasks.spawn({
        let (leadership, health, stopped) = (Arc::clone(&leadership), Arc::clone(&health), stopped.clone());
        async move { Ok(election.run(&leadership, &health, &elected, stopped).await?) }
    });
    tasks.spawn({
        let stopped = stopped.clone();
        async move {
            let mut wait = stopped.clone();
            tokio::select! {
                leads = is_elected.wait_for(|elected| *elected) => if leads.is_err() { return Ok(()) },
                _ = wait.wait_for(|stopped| *stopped) => return Ok(()),
            }
            metrics.leader.set(1);
            tracing::info!(%holder, "leading");
            let shared = share(client, config, leadership, metrics);
            lead(shared, stopped).await
        }
    });
    let outcome = tokio::select! {
        stopped = stop_signal() => stopped,
        ended = tasks.join_next() => match ended {
            Some(Ok(Ok(()))) | None => Err(RunError::Ended("a task")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => {
                tracing::error!(%error, "a task panicked");
                Err(RunError::Ended("a task"))
            }
        },
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_MAX, drained).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    outcome
}

/// The API server as this process is configured. A refused call is answered at once: trying again is up to the
/// reconcilers, which know how long it makes sense.
async fn connect(faults: Option<Plan>) -> Result<Client, RunError> {
    let mut config = kube::Config::infer().await.map_err(|error| RunError::Configuration(error.to_string()))?;
    config.default_retry = false;
    let failed = |error| RunError::Client(Box::new(error));
    match faults {
        None => Client::try_from(config).map_err(failed),
        Some(plan) => {
            let builder = ClientBuilder::try_from(config).map_err(failed)?;
            Ok(builder.with_layer(&FaultLayer::new(plan)).build())
        }
    }
}

async fn stop_signal() -> Result<(), RunError> {
    let failed = |source| RunError::Setup { what: "signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn share(client: Client, config: Config, leadership: Arc<Leadership>, metrics: Arc<Metrics>) -> Arc<Shared> {
    Arc::new(Shared {
        writer: Writer::new(client.clone(), Arc::clone(&leadership), Arc::clone(&metrics)),
        events: Events::new(client.clone(), &config.pod_name),
        dialers: Dialers::new(Arc::clone(&metrics)),
        book: Book::default(),
        authorities: Authorities::default(),
        requests: crate::issuer::Requests::default(),
        memories: Memories::new(&config),
        first_seen: FirstSeen::default(),
        client,
        config,
        leadership,
        metrics,
    })
}

/// Runs the controllers of every scope until `stopped`.
async fn lead(shared: Arc<Shared>, stopped: watch::Receiver<bool>) -> Result<(), RunError> {
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    for scope in shared.config.scopes() {
        start_scope(&shared, scope.as_deref(), &stopped, &mut tasks);
    }
    let mut wait = stopped.clone();
    tokio::select! {
        _ = wait.wait_for(|stopped| *stopped) => {}
        ended = tasks.join_next() => {
            let name = ended.and_then(Result::ok).unwrap_or("a controller");
            return Err(RunError::Ended(name));
        }
    }
    // Watches never end by themselves; controllers end when what they have begun is done.
    let drained = async {
        while let Some(ended) = tasks.join_next().await {
            tracing::debug!(task = ended.unwrap_or("?"), "ended");
        }
    };
    if tokio::time::timeout(STOP_MAX / 2, drained).await.is_err() {
        tasks.abort_all();
    }
    Ok(())
}

/// Starts watches and controllers of one namespace, or of the whole cluster.
fn start_scope(
    shared: &Arc<Shared>,
    scope: Option<&str>,
    stopped: &watch::Receiver<bool>,
    tasks: &mut JoinSet<&'static str>,
) {
    let client = &shared.client;
    let (networks, wakes_of_networks) = mpsc::channel(WAKES_MAX);
    let (groups, wakes_of_groups) = mpsc::channel(WAKES_MAX);
    let (nodes, wakes_of_nodes) = mpsc::channel(WAKES_MAX);
    let wakers = Wakers { networks, groups, nodes };
    let filling = Filling::default();
    let (children, mut watches) = watch_children(client, scope, &wakers, &filling);
    let (pods, pod_watch) = watch_pods(client, scope, &wakers, &filling);
    let (claims, claim_watch) = watch_claims(client, scope, &wakers, &filling);
    watches.extend([pod_watch, claim_watch]);
    for watch in watches {
        let mut wait = stopped.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = watch.task => {}
                _ = wait.wait_for(|stopped| *stopped) => {}
            }
            watch.name
        });
    }
    let network_writer = StoreWriter::<Guarded<BlockchainNetwork>>::default();
    let group_writer = StoreWriter::<Guarded<ConsensusGroup>>::default();
    let node_writer = StoreWriter::<Guarded<ValidatorNode>>::default();
    let caches = Caches {
        networks: network_writer.as_reader(),
        groups: group_writer.as_reader(),
        nodes: node_writer.as_reader(),
        pods,
        claims,
        children,
        filling: filling.clone(),
    };
    // All are counted before the first reconcile can wait for them.
    let (touched_networks, lists_of_networks) =
        touched(api_of::<Guarded<BlockchainNetwork>>(client, scope), network_writer, &filling);
    let (touched_groups, lists_of_groups) =
        touched(api_of::<Guarded<ConsensusGroup>>(client, scope), group_writer, &filling);
    let (touched_nodes, lists_of_nodes) =
        touched(api_of::<Guarded<ValidatorNode>>(client, scope), node_writer, &filling);
    let context = Arc::new(Context::new(Arc::clone(shared), caches, wakers.clone()));

    let networks = Controlled {
        stream: touched_networks.boxed(),
        store: context.networks.clone(),
        wakes: wakes_of_networks,
        lists: lists_of_networks,
        context: Arc::clone(&context),
    };
    tasks.spawn(control(networks, stopped.clone(), network::reconcile).map(|()| "networks"));

    let parents = wakers.clone();
    let stream = touched_groups.inspect(move |touched| {
        if let Ok(DeserializedRef { namespace, parent }) =
            parent_of(touched, |group: &ConsensusGroup| &group.spec.network)
        {
            parents.network(&namespace, &parent);
        }
    });
    let groups = Controlled {
        stream: stream.boxed(),
        store: context.groups.clone(),
        wakes: wakes_of_groups,
        lists: lists_of_groups,
        context: Arc::clone(&context),
    };
    tasks.spawn(control(groups, stopped.clone(), group::reconcile).map(|()| "groups"));

    let stream = touched_nodes.inspect(move |touched| {
        if let Ok(DeserializedRef { namespace, parent }) = parent_of(touched, |node: &ValidatorNode| &node.spec.group) {
            wakers.group(&namespace, &parent);
        }
    });
    let nodes = Controlled {
        stream: stream.boxed(),
        store: context.nodes.clone(),
        wakes: wakes_of_nodes,
        lists: lists_of_nodes,
        context,
    };
    tasks.spawn(control(nodes, stopped.clone(), validator::reconcile).map(|()| "nodes"));
}

struct DeserializedRef {
    namespace: String,
    parent: String,
}

/// The parent that a touched object names; nothing for one that cannot be decoded.
fn parent_of<K: kube::Resource>(
    touched: &Result<Guarded<K>, watcher::Error>,
    parent: impl Fn(&K) -> &String,
) -> Result<DeserializedRef, ()> {
    let object = touched.as_ref().map_err(|_| ())?.0.as_ref().map_err(|_| ())?;
    Ok(DeserializedRef {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        parent: parent(object).clone(),
    })
}

/// What one controller works on.
struct Controlled<K: kube::Resource<DynamicType = ()> + Clone + 'static> {
    stream: futures::stream::BoxStream<'static, Result<Guarded<K>, watcher::Error>>,
    store: kube_runtime::reflector::Store<Guarded<K>>,
    wakes: mpsc::Receiver<ObjectRef<Guarded<K>>>,
    lists: Lists,
    context: Arc<Context>,
}

/// Runs the controller of one kind until `stopped`.
fn control<K, F>(
    controlled: Controlled<K>,
    stopped: watch::Receiver<bool>,
    reconcile: fn(K, Arc<Context>) -> F,
) -> BoxFuture<'static, ()>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
    F: Future<Output = Result<Duration, ReconcileError>> + Send + 'static,
{
    let Controlled { stream, store, wakes, lists, context } = controlled;
    let concurrency = context.shared.config.concurrency;
    let window = context.shared.config.pause(WAKES_WINDOW);
    let wakes = coalesced(wakes, window).boxed();
    let mut wait = stopped;
    Controller::for_stream(news::only(stream, lists), store)
        .with_config(ControllerConfig::default().concurrency(concurrency))
        .reconcile_on(wakes)
        .graceful_shutdown_on(async move {
            let _ = wait.wait_for(|stopped| *stopped).await;
        })
        .run(
            move |object: Arc<Guarded<K>>, context: Arc<Context>| framed(object, context, reconcile),
            |object: Arc<Guarded<K>>, error: &ReconcileError, context: Arc<Context>| -> Action {
                after_failure(&object, error, &context)
            },
            context,
        )
        .for_each(|_| std::future::ready(()))
        .boxed()
}

/// Each wish once, for all that came within one window.
fn coalesced<T: Eq + Hash + Send + 'static>(
    wakes: mpsc::Receiver<T>,
    window: Duration,
) -> impl Stream<Item = T> + Send {
    let collected = futures::stream::unfold(wakes, move |mut wakes| async move {
        let mut wanted = HashSet::from([wakes.recv().await?]);
        tokio::time::sleep(window).await;
        for _ in 0..WAKES_MAX {
            let Ok(wake) = wakes.try_recv() else { break };
            wanted.insert(wake);
        }
        Some((futures::stream::iter(wanted), wakes))
    });
    collected.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wishes_of_one_window_are_one() {
        let (send, receive) = mpsc::channel(16);
        for wish in ["a", "b", "a", "a"] {
            send.send(wish).await.expect("there is room");
        }
        drop(send);
        let mut found: Vec<&str> = coalesced(receive, Duration::ZERO).collect().await;
        found.sort_unstable();
        assert_eq!(found, ["a", "b"]);
    }
}
