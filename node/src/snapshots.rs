//! Snapshots of the state: taken from the volume of a stopped node, verified, restored into an empty one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use node_api::checkpoint::TrustedHeader;
use node_core::{
    ledger::StateStore as _,
    light::{LightClient, LightError},
    sync::{ManifestError, VerifiedManifest, piece, piece_count},
    types::{ChainId, Genesis, Hash, Height},
};
use thiserror::Error;

use crate::adapters::storage::{
    BlockReader, GenesisStore, Milestones, Pieces, Prover, ProvingError, QmdbStore, RestoreError, SnapshotReader,
    SnapshotWriter, StateError, StorageError, finish_install, install, prepare, publish_snapshot,
};

/// Every so many pieces the progress is told.
const REPORT_INTERVAL: u64 = 256;
/// What a new file system, the lock of this command, or a restore that was interrupted puts into an empty folder.
const NOT_DATA: [&str; 3] = ["lost+found", "lock", "incoming"];

/// Why there is no snapshot, or it is not believed.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The volume failed.
    #[error(transparent)]
    Storage(StorageError),
    /// The snapshot could not be read, or is not whole.
    #[error(transparent)]
    Damaged(StorageError),
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state cannot be proved here.
    #[error(transparent)]
    Proving(#[from] ProvingError),
    /// The genesis is none.
    #[error("the genesis is not valid")]
    Genesis(#[from] LightError),
    /// The checkpoint is none of this chain.
    #[error("the checkpoint is not of this chain")]
    Checkpoint(#[source] LightError),
    /// The snapshot proves nothing, or not what it holds.
    #[error("the snapshot is refused")]
    Refused(#[source] Refusal),
    /// The state could not be made.
    #[error(transparent)]
    Restore(RestoreError),
    /// The volume belongs to no chain.
    #[error("no chain has started on this volume")]
    NoGenesis,
    /// A crash has left the state behind the blocks.
    #[error("the state is at height {executed}, the blocks end at {last}: start the node once, and stop it")]
    Levels {
        /// The height of the state.
        executed: Height,
        /// The last block.
        last: Height,
    },
    /// The height cannot be proved yet.
    #[error("the newest state that can be proved here is that of height {newest}")]
    TooNew {
        /// The newest height.
        newest: Height,
    },
    /// The operations of the height are not kept any more.
    #[error("the state of height {height} is not kept any more; take a newer one")]
    Pruned {
        /// The height that was asked for.
        height: Height,
    },
    /// There is something already.
    #[error("{path} is not empty (it has {found}); a snapshot is restored into an empty data directory only", path = .path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of the names in it.
        found: String,
    },
}

/// What is wrong with a snapshot.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It is not proved.
    #[error(transparent)]
    Manifest(ManifestError),
    /// What it holds is not what it proves.
    #[error(transparent)]
    State(RestoreError),
    /// It has more than its state.
    #[error("it has more pieces than the {expected} of its state")]
    TooLong {
        /// How many the state has.
        expected: u64,
    },
}

/// How far the work is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is done.
    pub what: &'static str,
    /// Pieces that are done.
    pub done: u64,
    /// Of so many.
    pub of: u64,
}

/// What a snapshot holds.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The chain.
    pub chain_id: ChainId,
    /// Its genesis.
    pub genesis: Hash,
    /// The height of the state.
    pub height: Height,
    /// The hash of its block.
    pub block: Hash,
    /// The root of the state.
    pub state_root: Hash,
    /// How many headers lead to it.
    pub headers: usize,
    /// In how many pieces it is.
    pub pieces: u64,
}

impl Summary {
    fn of(manifest: &VerifiedManifest) -> Self {
        let inner = manifest.manifest();
        Self {
            chain_id: inner.chain_id.clone(),
            genesis: inner.genesis,
            height: manifest.height(),
            block: inner.block.block.hash(),
            state_root: manifest.roots().state_root,
            headers: inner.path.len(),
            pieces: piece_count(&manifest.roots().operations_range),
        }
    }
}

/// Takes a snapshot of a volume that the caller has locked.
pub fn create(
    data: &Path,
    height: Option<u64>,
    target: &Path,
    report: impl Fn(Progress),
) -> Result<Summary, SnapshotError> {
    if !data.join("genesis").is_dir() {
        return Err(SnapshotError::NoGenesis);
    }
    let accepted = GenesisStore::open(&data.join("genesis")).and_then(|store| store.accepted());
    let accepted = accepted.map_err(SnapshotError::Storage)?.filter(|accepted| accepted.started);
    let genesis = Arc::new(accepted.ok_or(SnapshotError::NoGenesis)?.genesis);
    let blocks = BlockReader::open(&data.join("blocks")).map_err(SnapshotError::Storage)?;
    let milestones = Milestones::open(&data.join("light")).map_err(SnapshotError::Storage)?;
    let store = QmdbStore::open(&data.join("state"))?;
    let executed = store.roots()?.map(|(height, _)| height).ok_or(SnapshotError::NoGenesis)?;
    let last = blocks.last_height().unwrap_or(Height::ZERO);
    if executed != last {
        return Err(SnapshotError::Levels { executed, last });
    }
    let newest = Prover::newest(executed)?;
    let height = height.map_or(newest, Height::new);
    if height > newest {
        return Err(SnapshotError::TooNew { newest });
    }
    let manifest = Prover { genesis, blocks, milestones }.prove(height)?;
    let mut temporary = target.as_os_str().to_os_string();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = write(&store, &manifest, &temporary, report);
    if written.is_err() {
        // What is half written is of no use; the error says why.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    publish_snapshot(&temporary, target).map_err(SnapshotError::Storage)?;
    Ok(Summary::of(&manifest))
}

fn write(
    store: &QmdbStore,
    manifest: &VerifiedManifest,
    path: &Path,
    report: impl Fn(Progress),
) -> Result<(), SnapshotError> {
    let range = manifest.roots().operations_range;
    let kept = store.run(|local| local.operations_kept())??;
    if range.start < kept.start {
        return Err(SnapshotError::Pruned { height: manifest.height() });
    }
    let mut writer = SnapshotWriter::create(path, manifest.manifest()).map_err(SnapshotError::Storage)?;
    let of = piece_count(&range);
    for number in 0..of {
        let Some(wanted) = piece(&range, number) else { break };
        let bytes = store.run(move |local| local.piece(&wanted))??;
        writer.piece(&bytes).map_err(SnapshotError::Storage)?;
        tell(&report, "written", number + 1, of);
    }
    writer.finish().map_err(SnapshotError::Storage)
}

/// What the caller trusts: the genesis of the chain, and a later header of it if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Trust<'a> {
    /// The genesis.
    pub genesis: &'a Genesis,
    /// The later header. A state at or below its height is refused.
    pub checkpoint: Option<&'a TrustedHeader>,
}

impl<'a> Trust<'a> {
    /// Of the genesis alone.
    #[must_use]
    pub const fn of(genesis: &'a Genesis) -> Self {
        Self { genesis, checkpoint: None }
    }
}

/// Checks a snapshot against what the caller trusts: the folder `scratch` takes the state meanwhile.
pub fn verify(
    file: &Path,
    trust: Trust<'_>,
    scratch: &Path,
    report: impl Fn(Progress) + Send + 'static,
) -> Result<Summary, SnapshotError> {
    let opened = Opened::open(file, trust)?;
    check_empty(scratch)?;
    let result = opened.end_checked().and_then(|()| {
        let pieces = opened.pieces("verified", report)?;
        prepare(scratch, &opened.manifest, pieces).map_err(of_restore)
    });
    // The result is what counts; a folder that stays behind is in nobody's way.
    let _ = fs::remove_dir_all(scratch);
    result.map(|()| Summary::of(&opened.manifest))
}

/// Restores a snapshot into an empty data directory that the caller has locked, all or nothing.
pub fn restore(
    file: &Path,
    trust: Trust<'_>,
    data: &Path,
    report: impl Fn(Progress) + Send + 'static,
) -> Result<Summary, SnapshotError> {
    // What an interrupted restore has left: complete, it is put in place, and then the folder is not empty.
    finish_install(data).map_err(SnapshotError::Storage)?;
    check_empty(data)?;
    let opened = Opened::open(file, trust)?;
    opened.end_checked()?;
    let installed = install(data, &opened.manifest, opened.pieces("restored", report)?).map_err(of_restore);
    if installed.is_err() {
        // The first error is the one that counts; what stays behind is removed by the next attempt.
        let _ = finish_install(data);
    }
    installed.map(|()| Summary::of(&opened.manifest))
}

/// Whether nothing is in a folder that could be of a node.
pub fn check_empty(folder: &Path) -> Result<(), SnapshotError> {
    let list = |source| SnapshotError::Storage(StorageError::Io { action: "list", path: folder.to_path_buf(), source });
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(list(error)),
    };
    for entry in entries {
        let name = entry.map_err(list)?.file_name().to_string_lossy().into_owned();
        if !NOT_DATA.contains(&name.as_str()) {
            return Err(SnapshotError::NotEmpty { path: folder.to_path_buf(), found: name });
        }
    }
    Ok(())
}

/// A snapshot whose manifest is verified.
struct Opened {
    file: PathBuf,
    manifest: VerifiedManifest,
}

impl Opened {
    fn open(file: &Path, trust: Trust<'_>) -> Result<Self, SnapshotError> {
        let Trust { genesis, checkpoint } = trust;
        let reader = SnapshotReader::open(file).map_err(SnapshotError::Damaged)?;
        let manifest = reader.manifest().clone();
        let trusted = match checkpoint {
            Some(checkpoint) => checkpoint.client(genesis).map_err(SnapshotError::Checkpoint)?,
            None => LightClient::new(genesis)?,
        };
        let manifest = manifest.verify(&genesis.chain_id, genesis.hash(), trusted);
        let manifest = manifest.map_err(|error| SnapshotError::Refused(Refusal::Manifest(error)))?;
        Ok(Self { file: file.to_path_buf(), manifest })
    }

    /// Reads to the end once: every checksum, and that nothing is missing or too much.
    fn end_checked(&self) -> Result<(), SnapshotError> {
        let mut reader = SnapshotReader::open(&self.file).map_err(SnapshotError::Damaged)?;
        let mut found = 0;
        while reader.next_piece().map_err(SnapshotError::Damaged)?.is_some() {
            found += 1;
        }
        let expected = piece_count(&self.manifest.roots().operations_range);
        // Too few show themselves when the state is put together.
        if found > expected { Err(SnapshotError::Refused(Refusal::TooLong { expected })) } else { Ok(()) }
    }

    fn pieces(&self, what: &'static str, report: impl Fn(Progress) + Send + 'static) -> Result<Pieces, SnapshotError> {
        let mut reader = SnapshotReader::open(&self.file).map_err(SnapshotError::Damaged)?;
        let of = piece_count(&self.manifest.roots().operations_range);
        Ok(Box::new(move |number| {
            let piece = reader.next_piece().map_err(|error| error.to_string())?;
            tell(&report, what, number + 1, of);
            piece.ok_or_else(|| "the snapshot has no more pieces".to_owned())
        }))
    }
}

fn of_restore(error: RestoreError) -> SnapshotError {
    if error.is_refusal() { SnapshotError::Refused(Refusal::State(error)) } else { SnapshotError::Restore(error) }
}

fn tell(report: &impl Fn(Progress), what: &'static str, done: u64, of: u64) {
    if done.is_multiple_of(REPORT_INTERVAL) || done == of {
        report(Progress { what, done, of });
    }
}
