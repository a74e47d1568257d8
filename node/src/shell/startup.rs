//! Opens what is on the volume and puts the running chain together.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use node_api::checkpoint::TrustedHeader;
use node_core::{
    consensus::{Boot, Engine, SigningLog},
    crypto::{KeyPair, VerifiedBatch},
    ledger::{Recoveries, StateStore as _},
    light::LightError,
    session::KeyState,
    types::{Genesis, Header, Height, Identity},
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    absence::Absence,
    batch_storage::{BatchStorage, Stored},
    events::EventKeeping,
    handle::{ChainAccess, Handle},
    health::{Health, Turn},
    perform::{Performer, answer_places},
    precommits::SeenPrecommits,
    receipts::Receipts,
    recovering::ExpectedLog,
    running::Running,
    sealed::Sealed,
    serving::StateServer,
    sessions::{Sessions, SessionsError},
    space::SpaceWatch,
    state::{self, Executed, ExecutionError, Light, StateAccess},
    timers::Timers,
    view::View,
    watched::now_ms,
};
use crate::{
    adapters::{
        p2p::{Links, Roster},
        storage::{
            BatchLog, BlockLog, BlockReader, ConsensusLog, Kept, LogCondition, Milestones, Past, Prover, QmdbStore,
            RebuildError, StateError, StorageError, open_events, rebuild_state_from_blocks,
        },
    },
    metrics::Metrics,
};

/// Blocks whose batches may still be stored: the note that they are dropped is written a second later at most.
const RECENT_HEADERS: usize = 64;
/// In about so many files are the blocks that are kept: a file goes as a whole.
const FILES_KEPT: u64 = 4;
/// While the state is made again, every so many heights the log says so.
const REBUILD_REPORT_INTERVAL: u64 = 1_000;

/// Why the chain cannot start here.
#[derive(Debug, Error)]
pub enum StartupError {
    /// A log could not be opened.
    #[error("failed to open the volume")]
    Storage(#[from] StorageError),
    /// The state could not be opened.
    #[error("failed to open the state")]
    State(#[from] StateError),
    /// The state could not be brought up to the blocks.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The state could not be read.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// The session keys could not be kept.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The chain of this volume is not the one that is trusted.
    #[error(
        "block {height} on this volume is another one than the checkpoint of the configuration: check its hash with others; a volume of another history is of no use"
    )]
    OtherChain {
        /// The height of the checkpoint.
        height: Height,
    },
    /// The genesis or the checkpoint does not hold together.
    #[error("the genesis or the checkpoint of the configuration cannot be followed")]
    Trust(#[source] LightError),
    /// The thread that stores batches could not be started.
    #[error("failed to start the thread that stores batches")]
    Thread(#[source] std::io::Error),
}

/// Session keys with the log of what they signed: the two belong together.
#[derive(Debug)]
pub struct Volume {
    /// The keys.
    pub sessions: Sessions,
    /// The log, open for writing.
    pub log: ConsensusLog,
    /// What was found in it.
    pub found: SigningLog,
}

impl Volume {
    /// Opens the log before any key can be made, so that a log that is missing although there are keys was lost.
    ///
    /// With a lost or broken log nobody knows what the keys signed: they are retired, durably, before a new log takes the
    /// place of the old one.
    pub fn open(folder: &Path, mut sessions: Sessions, expected: ExpectedLog) -> Result<Self, StartupError> {
        match ConsensusLog::open(folder) {
            Ok(opened) => {
                let found = match opened.condition {
                    LogCondition::New if sessions.has_keys() && expected == ExpectedLog::Kept => {
                        sessions.log_is_broken();
                        sessions.retire_all()?;
                        SigningLog::Broken("the signing log is missing".to_owned())
                    }
                    LogCondition::New => SigningLog::Fresh,
                    LogCondition::Whole if opened.entries.is_empty() => SigningLog::Fresh,
                    LogCondition::Whole => SigningLog::Whole(opened.entries),
                };
                Ok(Self { sessions, log: opened.log, found })
            }
            Err(error) if error.is_damage() => {
                tracing::error!(%error, "the signing log is broken: the session keys of this volume are given up");
                sessions.log_is_broken();
                sessions.retire_all()?;
                ConsensusLog::set_aside(folder)?;
                let log = ConsensusLog::open(folder)?.log;
                Ok(Self { sessions, log, found: SigningLog::Broken(error.to_string()) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What the running chain is made of.
pub struct Request<'a> {
    /// The accepted genesis.
    pub genesis: Arc<Genesis>,
    /// The recoveries with which the chain went on.
    pub recoveries: Recoveries,
    /// This node.
    pub identity: Identity,
    /// Signs rotations.
    pub identity_key: KeyPair,
    /// Where the stores are.
    pub data_directory: &'a Path,
    /// Keys and log.
    pub volume: Volume,
    /// Peers.
    pub links: Links,
    /// The services' end.
    pub handle: Handle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// For the kubelet.
    pub health: Health,
    /// Who wants to know what the chain says about peers.
    pub roster: watch::Sender<Option<Arc<Roster>>>,
    /// How many blocks to keep, and when to take a state.
    pub keeping: Keeping,
}

/// What the configuration says about old blocks.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// How many blocks are kept at least; all if there is no number.
    pub keep_blocks: Option<u64>,
    /// How far behind the node takes a state.
    pub after_blocks: Option<u64>,
    /// A late header that is trusted like the genesis.
    pub checkpoint: Option<Arc<TrustedHeader>>,
    /// Whether events are kept, and what is done about missing ones.
    pub events: Option<Past>,
}

/// The running chain with what its stores tell it.
pub struct Opened {
    /// The chain.
    pub running: Running,
    /// Executed blocks.
    pub executed: mpsc::Receiver<Result<Executed, ExecutionError>>,
    /// Stored batches.
    pub stored: mpsc::UnboundedReceiver<Stored>,
}

/// Opens blocks and state, and makes the engine from what they hold. Blocks.
pub fn open(request: Request<'_>) -> Result<Opened, StartupError> {
    let Request {
        genesis,
        recoveries,
        identity,
        identity_key,
        data_directory,
        volume,
        links,
        handle,
        metrics,
        health,
        roster,
        keeping,
    } = request;
    let Volume { sessions, log, found } = volume;
    let mut blocks = BlockLog::open(&data_directory.join("blocks"))?;
    if let Some(keep) = keeping.keep_blocks {
        blocks.limit_files(keep / FILES_KEPT);
    }
    let tip = match blocks.last_height() {
        Some(height) => blocks.reader().read(height)?.map(|tip| (tip.block.header().clone(), tip.certificate)),
        None => None,
    };
    if let Some(checkpoint) = &keeping.checkpoint {
        let height = checkpoint.height();
        if blocks.reader().read_header(height)?.is_some_and(|header| checkpoint.contradicts(&header)) {
            return Err(StartupError::OtherChain { height });
        }
    }
    let store = QmdbStore::open(&data_directory.join("state"))?;
    let light = Light { milestones: Milestones::open(&data_directory.join("light"))?, blocks: blocks.reader() };
    let kept =
        Kept { genesis: &genesis, recoveries: &recoveries, blocks: &light.blocks, milestones: &light.milestones };
    let progress = move |height: Height| {
        // This may take long, and is no reason to be restarted.
        health.turned(Turn { synced: false, able_to_sign: false });
        if height.get().is_multiple_of(REBUILD_REPORT_INTERVAL) {
            tracing::info!(%height, "executing the blocks again");
        }
    };
    let executed = store.roots()?.map_or(Height::ZERO, |(height, _)| height);
    let open_log = |past| open_events(data_directory, kept, executed, past, progress.clone());
    let events = keeping.events.map(open_log).transpose()?;
    let (rebuilt, events) = rebuild_state_from_blocks(kept, &store, events, progress)?;
    let events = events.map(|mut log| {
        if let Some(keep) = keeping.keep_blocks {
            log.limit_files(keep / FILES_KEPT);
        }
        EventKeeping { log, keep_blocks: keeping.keep_blocks, metrics: Arc::clone(&metrics) }
    });
    tracing::info!(from = ?rebuilt.from, to = %rebuilt.to, "the state is level with the blocks");
    let snapshot = state::read(&store, &recoveries)?;
    let view = View::new(&snapshot, Instant::now(), now_ms());
    let (heights, height_watch) = watch::channel(view.height());
    let prover =
        Prover { genesis: Arc::clone(&genesis), blocks: blocks.reader(), milestones: light.milestones.clone() };
    handle.start(ChainAccess {
        blocks: blocks.reader(),
        state: StateAccess::new(store.clone()),
        prover: prover.clone(),
        events: events.as_ref().map(|events| events.log.reader()),
        heights: height_watch,
    });
    metrics.height.set(i64::try_from(blocks.last_height().map_or(0, Height::get)).unwrap_or(i64::MAX));
    metrics.executed_height.set(i64::try_from(view.height().get()).unwrap_or(i64::MAX));
    let server = StateServer::new(prover, store.clone(), links.clone());
    // No proof leads over a recovery.
    let absence = recoveries.newest().is_none().then(|| Absence::new(keeping.after_blocks));
    // The task ends with the executor, which the running chain owns.
    let (executor, executed, _task) = state::start(store, recoveries.clone(), light, events);
    let effective_keys = sessions.in_state(KeyState::Effective);
    let proposed_keys = sessions.proposed();
    let (batch_log, batches) = BatchLog::open(&data_directory.join("batches"))?;
    metrics.batches_lost.set(i64::from(batch_log.was_lost()));
    if batch_log.was_lost() {
        tracing::error!(
            folder = %data_directory.join("batches").display(),
            "the batches of this node are gone: it counts as faulty for what it has acknowledged until those are in blocks"
        );
    }
    let recent = recent_headers(&blocks.reader())?;
    let (batch_storage, stored) = BatchStorage::start(batch_log, Arc::clone(&metrics)).map_err(StartupError::Thread)?;
    let engine = Engine::new(Boot {
        genesis: Arc::clone(&genesis),
        recoveries,
        identity,
        identity_key: Some(identity_key),
        tip: tip.clone(),
        executed: snapshot,
        effective_keys,
        proposed_keys,
        log: found,
        batches: batches.into_iter().map(VerifiedBatch::from_disk).collect(),
        recent,
    });
    let performer = Performer {
        identity,
        links,
        timers: Timers::default(),
        log,
        blocks,
        checkpoint: keeping.checkpoint,
        batches: batch_storage,
        sealed: Sealed::default(),
        executor,
        sessions,
        seen: SeenPrecommits::default(),
        newest_votes: BTreeMap::new(),
        newest_certificate: tip.as_ref().map(|(_, certificate)| certificate.clone()),
        receipts: Receipts::default(),
        handle,
        metrics,
        alarm: None,
        committed: BTreeMap::new(),
        answers: answer_places(),
    };
    let running = Running {
        engine,
        performer,
        genesis,
        view,
        heights,
        roster,
        connected: BTreeSet::new(),
        server,
        absence,
        keep_blocks: keeping.keep_blocks,
        question: None,
        not_cleared: None,
        halted: None,
        space: SpaceWatch::new(data_directory),
    };
    Ok(Opened { running, executed, stored })
}

/// The headers of the last blocks, newest first.
fn recent_headers(blocks: &BlockReader) -> Result<Vec<Header>, StorageError> {
    let mut headers = Vec::new();
    let mut next = blocks.last_height();
    while let Some(height) = next.filter(|height| *height > Height::ZERO && headers.len() < RECENT_HEADERS) {
        let Some(header) = blocks.read_header(height)? else { break };
        headers.push(header);
        next = height.checked_sub(1);
    }
    Ok(headers)
}
