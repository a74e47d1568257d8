//! Starts a node: lock, volume, listeners, tasks; and stops it in the reverse order.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use node_api::{
    checkpoint::{CheckpointError, TrustedHeader},
    config::{Checkpoint, NodeConfig, NodeRole},
    keys::{KeyFileError, read_key_file},
    tls::{Reload, TlsError, TlsStore},
};
use node_core::{
    crypto::KeyPair,
    types::{Genesis, Identity},
};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    ceremony::{Ceremony, Part},
    events::past_of,
    handle::Handle,
    health::Health,
    lifecycle::LifecycleError,
    main_loop::{self, MainLoopError, Parts},
    recovering::RecoveryBook,
    report::Facts,
    sessions::{Sessions, SessionsError},
    startup::{Keeping, StartupError, Volume},
    verifier::Verifier,
};
use crate::{
    adapters::{
        http,
        p2p::{
            Conduct, Inbox, Links, PeerService, Receivers, RecordInbox, RecordKeeper, Roster, Target, keep_connected,
        },
        storage::{GenesisStore, SessionStore, StorageError},
        volume::{LockError, OwnerError, OwnerFacts, VolumeLock},
    },
    metrics::Metrics,
    services::{self, ServeError},
};

/// How long a former process of this volume may take to go away.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(20);
const LOCK_RETRY: Duration = Duration::from_millis(200);
/// How often the certificate files are looked at.
const TLS_LOOK: Duration = Duration::from_secs(10);
/// Messages from peers that may wait for the main loop.
const EVENTS_MAX: usize = 2048;
/// How long open calls and connections may take to end after the main loop has.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Why the node did not start, or ended before it was asked to.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The identity key could not be read.
    #[error(transparent)]
    Identity(#[from] KeyFileError),
    /// The checkpoint could not be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The certificate could not be used.
    #[error("failed to read the certificate in {}", path.display())]
    Tls {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
    /// The certificate names somebody else.
    #[error("the certificate names {found}, the configuration and the identity key say {expected}")]
    OtherCertificate {
        /// Whom the certificate names.
        found: String,
        /// Whom it should name.
        expected: String,
    },
    /// The volume is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// This process could not find out who it is.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The volume could not be read.
    #[error("failed to open the volume")]
    Storage(#[from] StorageError),
    /// The session keys could not be read.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The signing log could not be opened.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The genesis that was given cannot be used.
    #[error("failed to adopt the genesis")]
    Genesis(#[from] LifecycleError),
    /// No thread for the signatures.
    #[error("failed to start the thread that verifies signatures")]
    Thread(#[source] std::io::Error),
    /// A port is not free.
    #[error("failed to listen on {address} ({port})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Which one.
        port: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The metrics could not be registered.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The main loop failed.
    #[error(transparent)]
    MainLoop(#[from] MainLoopError),
    /// A server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The HTTP port failed.
    #[error("failed to serve HTTP")]
    Http(#[source] io::Error),
    /// A task panicked.
    #[error("a task of the node ended by a panic")]
    Panic(#[source] JoinError),
}

struct Listeners {
    p2p: TcpListener,
    grpc: TcpListener,
    http: TcpListener,
}

/// Runs a node until `stop` is cancelled or something fails. An observer may be `given` its genesis by a file. On `Ok` the session keys are released.
pub async fn run(config: NodeConfig, given: Option<Genesis>, stop: CancellationToken) -> Result<(), LaunchError> {
    let start = Instant::now();
    let checkpoint = config.state_sync.checkpoint.as_ref().map(Checkpoint::load).transpose()?.map(Arc::new);
    let identity_key = read_key_file(&config.identity_file)?;
    let identity = Identity::new(identity_key.public());
    let tls = load_tls(&config, &identity)?;
    // Held until this function returns: after the last durable act.
    let _lock = lock(&config.data_directory, &stop).await?;
    let facts = OwnerFacts::gather()?;
    let sessions = SessionStore::open(&config.data_directory.join("session"))?;
    let mut sessions = Sessions::open(sessions, &config.instance, &facts)?;
    let recovery = RecoveryBook::open(&config)?;
    let log = config.data_directory.join("wal");
    let expected = recovery.begin(&identity, &mut sessions, &log)?;
    let volume = Volume::open(&log, sessions, expected)?;
    recovery.begun()?;
    let genesis = GenesisStore::open(&config.data_directory.join("genesis"))?;
    let part = match config.role {
        NodeRole::Validator => Part::Voter,
        NodeRole::Observer => Part::Observer,
    };
    let mut ceremony = Ceremony::open(config.chain_id.clone(), identity, part, genesis)?;
    if let Some(given) = given {
        ceremony.adopt(given)?;
    }
    let listeners = listen(&config).await?;
    tracing::info!(%identity, role = ?config.role, p2p = %config.listen.p2p, grpc = %config.listen.grpc, "the node is up");
    let facts = Facts {
        role: config.role,
        peers_configured: config.peers.iter().filter(|peer| peer.identity != identity).count(),
        instance: volume.sessions.owner().pod.hyphenated(),
        start,
        tls: Arc::clone(&tls),
    };
    let opened = Opened { checkpoint, facts, ceremony, recovery, volume, identity, identity_key, tls };
    serve(config, opened, listeners, stop).await
}

/// What was read and checked before the first task starts.
struct Opened {
    checkpoint: Option<Arc<TrustedHeader>>,
    facts: Facts,
    ceremony: Ceremony,
    recovery: RecoveryBook,
    volume: Volume,
    identity: Identity,
    identity_key: KeyPair,
    tls: Arc<TlsStore>,
}

async fn serve(
    config: NodeConfig,
    opened: Opened,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), LaunchError> {
    let Opened { checkpoint, facts, ceremony, recovery, volume, identity, identity_key, tls } = opened;
    let metrics = Arc::new(Metrics::new()?);
    let health = Health::default();
    let (handle, requests) = Handle::new(identity);
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let configured: BTreeSet<Identity> =
        config.peers.iter().map(|peer| peer.identity).filter(|peer| *peer != identity).collect();
    let (roster, roster_watch) = watch::channel::<Option<Arc<Roster>>>(None);
    let conduct = Conduct::new(configured.clone(), roster_watch.clone());
    let links = Links::new(Arc::clone(&metrics), conduct);
    // The servers outlive the main loop, so that the last answers still leave.
    let servers_stop = CancellationToken::new();
    let verifier = Verifier::start().map_err(LaunchError::Thread)?;
    let (records, record_events) = RecordInbox::new();
    let receivers = Receivers { events: sender, verifier: verifier.clone(), records };
    let inbox = Inbox::new(receivers, &links, Arc::clone(&metrics), servers_stop.clone());
    let mut servers: JoinSet<Result<(), LaunchError>> = JoinSet::new();
    let peers = PeerService::new(links.clone(), inbox.clone());
    spawn_servers(
        &mut servers,
        ServerParts {
            listeners,
            peers,
            tls: Arc::clone(&tls),
            handle: handle.clone(),
            verifier,
            metrics: Arc::clone(&metrics),
            health: health.clone(),
            stop: servers_stop.clone(),
        },
    );
    let mut background = JoinSet::new();
    for peer in config.peers.iter().filter(|peer| peer.identity != identity) {
        let target = Target {
            chain_id: config.chain_id.clone(),
            identity: peer.identity,
            address: peer.address.to_string(),
            tls_key: None,
            tls: Arc::clone(&tls),
        };
        background.spawn(keep_connected(target, links.clone(), inbox.clone(), servers_stop.clone()));
    }
    let keeper = RecordKeeper {
        chain_id: config.chain_id.clone(),
        identity_key: identity_key.clone(),
        addresses: config.advertised(&identity),
        configured,
        tls: Arc::clone(&tls),
        links: links.clone(),
        inbox,
        roster: roster_watch,
        metrics: Arc::clone(&metrics),
    };
    background.spawn(keeper.run(record_events, servers_stop.clone()));
    tell_expiry(&tls, &metrics);
    let (presented, gauges) = (Arc::clone(&tls), Arc::clone(&metrics));
    background.spawn(tls.watch(TLS_LOOK, move |result| {
        tell_expiry(&presented, &gauges);
        report_reload(result);
    }));
    let parts = Parts {
        facts,
        ceremony,
        recovery,
        volume,
        data_directory: config.data_directory,
        identity_key,
        links,
        handle,
        metrics,
        health,
        events,
        requests,
        keeping: Keeping {
            keep_blocks: config.storage.keep_blocks,
            after_blocks: config.state_sync.after_blocks,
            checkpoint,
            events: config.storage.keeps_events(config.role).then(|| past_of(config.role)),
        },
        roster,
    };
    let main_stop = stop.child_token();
    let main_loop = tokio::spawn(main_loop::run(parts, main_stop.clone()));
    tokio::pin!(main_loop);
    let early = tokio::select! {
        ended = &mut main_loop => Some(ended),
        failed = servers.join_next() => {
            main_stop.cancel();
            let ended = (&mut main_loop).await;
            stop_servers(servers_stop, servers, background).await;
            return first_error(failed, ended);
        }
    };
    stop_servers(servers_stop, servers, background).await;
    first_error(None, early.unwrap_or(Ok(Ok(()))))
}

type ServerEnd = Option<Result<Result<(), LaunchError>, JoinError>>;

fn first_error(server: ServerEnd, main_loop: Result<Result<(), MainLoopError>, JoinError>) -> Result<(), LaunchError> {
    main_loop.map_err(LaunchError::Panic)??;
    match server {
        Some(ended) => ended.map_err(LaunchError::Panic)?,
        None => Ok(()),
    }
}

struct ServerParts {
    listeners: Listeners,
    peers: PeerService,
    tls: Arc<TlsStore>,
    handle: Handle,
    verifier: Verifier,
    metrics: Arc<Metrics>,
    health: Health,
    stop: CancellationToken,
}

fn spawn_servers(servers: &mut JoinSet<Result<(), LaunchError>>, parts: ServerParts) {
    let ServerParts { listeners, peers, tls, handle, verifier, metrics, health, stop } = parts;
    let Listeners { p2p, grpc, http } = listeners;
    let (peer_tls, peer_handle, peer_stop) = (Arc::clone(&tls), handle.clone(), stop.clone());
    servers.spawn(async move { Ok(services::serve_peers(p2p, peer_tls, peers, peer_handle, peer_stop).await?) });
    let api_stop = stop.clone();
    servers.spawn(async move { Ok(services::serve_api(grpc, tls, handle, verifier, api_stop).await?) });
    servers.spawn(async move { http::serve(http, metrics, health, stop).await.map_err(LaunchError::Http) });
}

/// Streams have no end of their own, so what has not ended in time is cut off.
async fn stop_servers(
    stop: CancellationToken,
    mut servers: JoinSet<Result<(), LaunchError>>,
    mut background: JoinSet<()>,
) {
    stop.cancel();
    background.shutdown().await;
    let drained = tokio::time::timeout(DRAIN_MAX, async { while servers.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        servers.shutdown().await;
    }
}

fn load_tls(config: &NodeConfig, identity: &Identity) -> Result<Arc<TlsStore>, LaunchError> {
    let path = &config.tls_directory;
    let tls = TlsStore::from_directory(path)
        .map_err(|source| LaunchError::Tls { path: path.clone(), source: source.into() })?;
    let expected = node_api::roles::SpiffeId::node(&config.chain_id, config.role, identity);
    let found = tls.current().facts().id.clone();
    if found == expected {
        return Ok(tls);
    }
    Err(LaunchError::OtherCertificate { found: found.to_string(), expected: expected.to_string() })
}

/// A former process that is still ending gets some time; a second node on the same volume never gets in.
async fn lock(data_directory: &Path, stop: &CancellationToken) -> Result<VolumeLock, LockError> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match VolumeLock::acquire(data_directory) {
            Err(LockError::Held { .. }) if Instant::now() < deadline && !stop.is_cancelled() => {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            result => return result,
        }
    }
}

async fn listen(config: &NodeConfig) -> Result<Listeners, LaunchError> {
    let bind = async |address: SocketAddr, port: &'static str| {
        TcpListener::bind(address).await.map_err(|source| LaunchError::Listen { address, port, source })
    };
    let listen = &config.listen;
    Ok(Listeners {
        p2p: bind(listen.p2p, "p2p").await?,
        grpc: bind(listen.grpc, "grpc").await?,
        http: bind(listen.http, "http").await?,
    })
}

/// The end of the certificate that is presented, for alerts.
fn tell_expiry(tls: &TlsStore, metrics: &Metrics) {
    let seconds = tls.current().facts().validity.not_after_s();
    metrics.certificate_expires.set(i64::try_from(seconds).unwrap_or(i64::MAX));
}

fn report_reload(result: Result<Reload, TlsError>) {
    match result {
        Ok(Reload::Replaced) => tracing::info!("took the new certificate"),
        Ok(Reload::Unchanged) => {}
        Err(error) => tracing::error!(%error, "the new certificate cannot be used, the present one stays"),
    }
}
