//! Before the chain starts: takes the state of a late height from peers, if the node wants one, and puts it in place.
//!
//! The node was running, found that it is too far behind ([`super::absence`]), noted that durably, and ended. What is
//! fetched is a snapshot in the making, so an interruption costs at most one piece. Without success the node starts as it
//! was. Keys and the signing log stay as they are: a state that was taken counts as executed, and what this node signed
//! before it went away is in its record.

use std::{path::PathBuf, time::Duration};

use node_core::{
    codec::Decode as _,
    light::LightClient,
    sync::{FetchEffect, StateChecks, StateFetch, StateManifest, StatePiece, StateTarget, VerifiedManifest},
    types::{ChainId, Genesis, Hash, Height, Identity},
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    handle::Request,
    health::Turn,
    main_loop::{MainLoop, MainLoopError, Phase},
    perform::frame,
    startup::StartupError,
};
use crate::adapters::{
    p2p::{Event, Links},
    storage::{
        BlockReader, RestoreError, SnapshotReader, SnapshotWriter, StateWish, StorageError, finish_install, install,
        verify_piece,
    },
};

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(200);
/// Events and calls that are taken before the others get their turn.
const BATCH_MAX: usize = 64;
/// Every so many pieces the log says how far it is.
const REPORT_INTERVAL: u64 = 256;

/// How fetching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All pieces are here.
    Complete,
    /// Nobody had what was needed.
    GivenUp,
}

impl MainLoop {
    /// Ends what an interrupted restore has left, and fetches a state if one is wanted.
    pub(super) async fn fetch_state(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        requests: &mut mpsc::Receiver<Request>,
        stop: &CancellationToken,
    ) -> Result<(), MainLoopError> {
        let data = self.data_directory.clone();
        finish_install(&data).map_err(volume)?;
        let wish = StateWish::of(&data);
        if !wish.is_made().map_err(volume)? {
            return Ok(());
        }
        let Some(accepted) = self.ceremony.accepted().cloned() else { return Ok(()) };
        if self.recovery.recoveries().newest().is_some() {
            tracing::warn!("no proof leads over a recovery: the blocks are fetched instead of a state");
            return wish.clear().map_err(volume);
        }
        let last = BlockReader::open(&data.join("blocks")).ok().and_then(|blocks| blocks.last_height());
        let trusted = match &self.keeping.checkpoint {
            Some(checkpoint) => checkpoint.client(&accepted.genesis),
            None => LightClient::new(&accepted.genesis),
        };
        let trusted = trusted.map_err(StartupError::Trust)?;
        let checks = Checks::new(&accepted.genesis, trusted, last.unwrap_or_default());
        let mut fetching = Fetching::open(wish.clone(), checks, self.links.clone())?;
        tracing::info!(pieces = fetching.fetch.progress().0, "fetching a state from the peers");
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut some_events, mut some_requests) = (Vec::new(), Vec::new());
        let end = loop {
            let end = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = events.recv_many(&mut some_events, BATCH_MAX) => fetching.on_events(&mut some_events)?,
                _ = requests.recv_many(&mut some_requests, BATCH_MAX) => {
                    self.on_requests(&mut some_requests)?;
                    // The operator may have started the chain meanwhile: then it runs with what there was.
                    if !matches!(self.phase, Phase::Ceremony(_)) {
                        return Ok(());
                    }
                    None
                }
                _ = ticks.tick() => fetching.on_tick()?,
            };
            self.health.turned(Turn { synced: false, able_to_sign: false });
            if let Some(end) = end {
                break end;
            }
        };
        // Until the state is in place: whatever goes wrong, the node goes on with blocks.
        self.gave_up = true;
        if end == End::Complete {
            self.install(fetching).await?;
        } else {
            tracing::warn!(
                "no peer has a state that is proved: the blocks are fetched instead; if the chain went on with a recovery, and \
                 nobody keeps them, this node needs the folders of another one (docs/recovery.md)"
            );
        }
        wish.clear().map_err(volume)
    }

    /// Puts the state together, which takes as long as it is large.
    async fn install(&mut self, fetching: Fetching) -> Result<(), MainLoopError> {
        let data = self.data_directory.clone();
        let mut work = tokio::task::spawn_blocking(move || fetching.install(data));
        let mut ticks = tokio::time::interval(TICK);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick() => self.health.turned(Turn { synced: false, able_to_sign: false }),
            }
        };
        match result {
            Ok(Ok(height)) => {
                self.gave_up = false;
                tracing::info!(%height, "the state is in place");
            }
            // Every piece was checked before, so this is a fault of this program or of the disk; blocks may still be had.
            Ok(Err(error)) if error.is_refusal() => tracing::error!(%error, "the state that was fetched is refused"),
            Ok(Err(RestoreError::Storage(error))) => return Err(volume(error)),
            Ok(Err(error)) => return Err(MainLoopError::Volume(crate::causes::chain(&error))),
            Err(error) => return Err(MainLoopError::Volume(error.to_string())),
        }
        Ok(())
    }
}

fn volume(error: StorageError) -> MainLoopError {
    MainLoopError::Startup(StartupError::Storage(error))
}

struct Checks {
    chain_id: ChainId,
    genesis: Hash,
    trusted: LightClient,
    /// The last block here: only a later state is worth anything.
    last: Height,
    verified: Option<VerifiedManifest>,
}

impl Checks {
    fn new(genesis: &Genesis, trusted: LightClient, last: Height) -> Self {
        Self { chain_id: genesis.chain_id.clone(), genesis: genesis.hash(), trusted, last, verified: None }
    }

    fn verify(&mut self, manifest: StateManifest) -> Result<StateTarget, String> {
        let verified = manifest.verify(&self.chain_id, self.genesis, self.trusted.clone());
        let verified = verified.map_err(|error| crate::causes::chain(&error))?;
        let height = verified.height();
        if height <= self.last {
            return Err(format!("its state of height {height} is not above block {}", self.last));
        }
        let target = StateTarget { height, roots: *verified.roots() };
        self.verified = Some(verified);
        Ok(target)
    }
}

impl StateChecks for Checks {
    fn manifest(&mut self, bytes: &[u8]) -> Result<StateTarget, String> {
        self.verify(StateManifest::decode(bytes).map_err(|error| error.to_string())?)
    }

    fn piece(&self, target: &StateTarget, wanted: &StatePiece, bytes: &[u8]) -> Result<(), String> {
        verify_piece(wanted, &target.roots.operations_root, bytes).map_err(|error| error.to_string())
    }
}

struct Fetching {
    wish: StateWish,
    checks: Checks,
    links: Links,
    fetch: StateFetch,
    writer: Option<SnapshotWriter>,
    start: Instant,
}

impl Fetching {
    /// Goes on with what was fetched before, if it is still worth anything.
    fn open(wish: StateWish, mut checks: Checks, links: Links) -> Result<Self, MainLoopError> {
        let (mut writer, mut resumed) = (None, None);
        if let Some((manifest, part)) = SnapshotWriter::resume(&wish.part()).map_err(volume)?
            && let Ok(target) = checks.verify(manifest)
        {
            resumed = Some((target, part.pieces()));
            writer = Some(part);
        }
        let start = Instant::now();
        let mut fetch = StateFetch::new(0, resumed);
        for peer in links.connected() {
            fetch.on_connected(peer);
        }
        Ok(Self { wish, checks, links, fetch, writer, start })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn on_events(&mut self, events: &mut Vec<Event>) -> Result<Option<End>, MainLoopError> {
        let mut end = None;
        for event in events.drain(..) {
            let effects = match event {
                Event::Changed(peer) => {
                    self.on_changed(peer);
                    continue;
                }
                Event::Message { from, message } => {
                    self.fetch.on_message(self.now_ms(), from, &message, &mut self.checks)
                }
                // Nothing of a chain that does not run here yet.
                Event::Transactions { .. } | Event::Batch { .. } => continue,
            };
            end = self.perform(effects)?.or(end);
        }
        Ok(end)
    }

    fn on_changed(&mut self, peer: Identity) {
        if self.links.is_connected(&peer) {
            self.fetch.on_connected(peer);
        } else {
            self.fetch.on_disconnected(&peer);
        }
    }

    fn on_tick(&mut self) -> Result<Option<End>, MainLoopError> {
        let effects = self.fetch.on_tick(self.now_ms());
        self.perform(effects)
    }

    fn perform(&mut self, effects: Vec<FetchEffect>) -> Result<Option<End>, MainLoopError> {
        let mut end = None;
        for effect in effects {
            match effect {
                FetchEffect::Send { to, message } => self.links.send(&to, &frame(&message)),
                FetchEffect::Begin => {
                    let Some(verified) = &self.checks.verified else { continue };
                    let height = verified.height();
                    self.writer = None;
                    self.wish.forget_part().map_err(volume)?;
                    let writer = SnapshotWriter::create(&self.wish.part(), verified.manifest());
                    self.writer = Some(writer.map_err(volume)?);
                    tracing::info!(%height, pieces = self.fetch.progress().1, "a state is proved: fetching its pieces");
                }
                FetchEffect::Keep(bytes) => {
                    let Some(writer) = &mut self.writer else { continue };
                    writer.piece(&bytes).map_err(volume)?;
                    let (kept, count) = self.fetch.progress();
                    if writer.pieces().is_multiple_of(REPORT_INTERVAL) {
                        tracing::info!(kept, count, "fetching a state");
                    }
                }
                FetchEffect::Lied { peer, reason } => {
                    tracing::error!(%peer, %reason, "a peer has sent a wrong state: asking others");
                }
                FetchEffect::Complete => end = Some(End::Complete),
                FetchEffect::GiveUp => end = Some(End::GivenUp),
            }
        }
        Ok(end)
    }

    fn install(self, data: PathBuf) -> Result<Height, RestoreError> {
        let Self { wish, checks, writer, .. } = self;
        let missing = || StorageError::Missing { path: wish.part(), advice: "start the node again" };
        let (Some(manifest), Some(writer)) = (checks.verified, writer) else { return Err(missing().into()) };
        writer.finish()?;
        let mut reader = SnapshotReader::open(&wish.part())?;
        let pieces = Box::new(move |_| {
            let piece = reader.next_piece().map_err(|error| error.to_string())?;
            piece.ok_or_else(|| "it has no more pieces".to_owned())
        });
        install(&data, &manifest, pieces)?;
        Ok(manifest.height())
    }
}
