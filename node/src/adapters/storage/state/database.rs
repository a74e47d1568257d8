//! The database on its own thread: one commit for each height, with the height in the commit itself.

use std::{
    cell::RefCell,
    future::Future,
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

use commonware_codec::{Encode as _, RangeCfg};
use commonware_cryptography::{Sha256, sha256::Digest};
use commonware_parallel::Sequential;
use commonware_runtime::{
    BLOB_PAGE_SIZE,
    buffer::paged::{CacheRef, page_size},
    tokio::Context,
};
use commonware_storage::{
    journal::contiguous::variable::Config as JournalConfig,
    merkle::full::Config as MerkleConfig,
    mmr,
    qmdb::{
        current::{VariableConfig, ordered::variable::Db},
        floor::{Decision, Entry, Limits, Policy},
    },
    translator::EightCap,
};
use commonware_utils::sequence::FixedBytes;
use node_core::{
    ledger::{StateKey, StateProof, StateStore, StateValue, WriteSet},
    types::{Hash, Height, OperationsRange, StateRoots},
};

use super::{StateError, proof};
use crate::recent::Recent;

/// No entry is larger: three sets of 256 voters fit several times.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// A change of any of these four invalidates what is on disk, and of the first the state root as well.
pub const CHUNK_BYTES: usize = 32;
const PAGE_BYTES: NonZeroU16 = page_size(BLOB_PAGE_SIZE);
const OPERATIONS_PER_FILE: NonZeroU64 = NonZeroU64::new(65_536).expect("not zero");
const PARTITION: &str = "state";
/// 32 MiB of pages.
const CACHED_PAGES: NonZeroUsize = NonZeroUsize::new(8_192).expect("not zero");
/// Of one generation: some 25 MiB for both, if they are accounts.
const RECENT_ENTRIES_MAX: usize = 131_072;
/// An account's fit; larger values are few, and read from the database.
const RECENT_VALUE_BYTES_MAX: usize = 40;
const BUFFER_BYTES: NonZeroUsize = NonZeroUsize::new(1024 * 1024).expect("not zero");
const OPENING_CACHE_ENTRIES: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Every so many commits, operations that were not needed at the last such commit are removed. Nodes that sync from this
/// one have at least that many blocks to do it in.
const PRUNE_INTERVAL: u64 = 1_024;

pub type Key = FixedBytes<{ StateKey::SIZE }>;
pub type Family = mmr::Family;
/// The database in a folder.
pub type Database = Db<Family, Context, Key, Vec<u8>, Sha256, EightCap, CHUNK_BYTES, Sequential>;
type DatabaseError = commonware_storage::qmdb::Error<Family>;
/// A place in the log of operations.
pub type Location = mmr::Location;
/// How a value is read back: its length, and nothing about its bytes.
pub type ValueConfig = (RangeCfg<usize>, ());

/// The store as work on its own thread sees it: [`super::QmdbStore::run`] lends it.
pub struct LocalStore {
    folder: PathBuf,
    /// Nothing after a write that failed: the database is consumed by it.
    database: Option<Database>,
    /// Entries that were read or written lately, and where there is none: a block on busy accounts reads nothing else.
    recent: RefCell<Recent<StateKey, Option<ShortValue>>>,
    committed: Option<(Height, StateRoots)>,
    /// Up to where operations may be removed at the next occasion.
    prune_until: Option<Location>,
}

/// A value without memory of its own.
#[derive(Clone, Copy)]
struct ShortValue {
    length: u8,
    bytes: [u8; RECENT_VALUE_BYTES_MAX],
}

impl ShortValue {
    /// Nothing for a value that is too long.
    fn of(value: &[u8]) -> Option<Self> {
        let mut bytes = [0; RECENT_VALUE_BYTES_MAX];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        Some(Self { length: u8::try_from(value.len()).ok()?, bytes })
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// How fast operations leave the log. Those that are still in use are written anew at its end, so that the part before them
/// can be removed: one for every four that go out of use, where QMDB's own policy takes one for each. The log is longer
/// for it (two operations for each entry under random transfers instead of 1.4; at most about five, if most entries are never
/// touched), and a commit costs a third less (ADR 6). A change changes every root.
struct Lazy;

impl Lazy {
    const PACE: usize = 4;
}

impl Policy<Family, Key, Vec<u8>> for Lazy {
    fn evicts(&self) -> bool {
        false
    }

    fn limits(&self, made_inactive: usize) -> Limits {
        Limits { entries: made_inactive / Self::PACE + 1, skips: u64::MAX }
    }

    fn decide<'a>(&mut self, entry: Entry<'a, Family, Key, Vec<u8>>) -> Decision<'a, Vec<u8>> {
        entry.keep()
    }
}

impl LocalStore {
    pub(super) async fn open(context: Context, folder: PathBuf) -> Result<Self, StateError> {
        let failed = |error: DatabaseError| database_error("open", &folder, &error);
        let database = Database::init(context, config(), None).await.map_err(failed)?;
        let committed = match database.get_metadata().await.map_err(failed)? {
            None => None,
            Some(metadata) => {
                let height =
                    metadata.as_slice().try_into().map(u64::from_be_bytes).map_err(|_| StateError::Database {
                        action: "open",
                        path: folder.clone(),
                        reason: format!("the last commit has {} bytes where its height should be", metadata.len()),
                    })?;
                Some((Height::new(height), roots(&database)))
            }
        };
        Ok(Self {
            folder,
            database: Some(database),
            recent: RefCell::new(Recent::new(RECENT_ENTRIES_MAX)),
            committed,
            prune_until: None,
        })
    }

    pub(super) fn database(&self) -> Result<&Database, StateError> {
        self.database.as_ref().ok_or_else(|| StateError::Stopped {
            path: self.folder.clone(),
            reason: "an earlier write failed".to_owned(),
        })
    }

    fn remember(&self, key: &StateKey, value: Option<&[u8]>) {
        let mut recent = self.recent.borrow_mut();
        match value.map(ShortValue::of) {
            Some(None) => recent.forget(key),
            Some(short) => recent.put(*key, short),
            None => recent.put(*key, None),
        }
    }

    pub(super) fn failed(&self, action: &'static str) -> impl Fn(DatabaseError) -> StateError + use<> {
        let folder = self.folder.clone();
        move |error| database_error(action, &folder, &error)
    }

    fn expect_height(&self, height: Height) -> Result<(), StateError> {
        let expected = self.committed.map_or(Height::ZERO, |(last, _)| last.next());
        if height == expected { Ok(()) } else { Err(StateError::WrongHeight { found: height, expected }) }
    }

    async fn write(database: Database, height: Height, writes: WriteSet) -> Result<Database, DatabaseError> {
        let mut batch = database.new_batch();
        for (key, value) in writes {
            batch = batch.write(Key::new(*key.as_bytes()), value);
        }
        let metadata = height.get().to_be_bytes().to_vec();
        let batch = batch.merkleize(&database, Some(metadata), &mut Lazy).await?;
        database.apply_batch(batch).await?.commit().await
    }

    async fn prune(database: Database, until: Option<Location>) -> Result<Database, DatabaseError> {
        let database = match until {
            Some(until) => database.prune(until).await?,
            None => database,
        };
        // Also bounds what has to be read again after a crash.
        database.sync().await
    }
}

impl StateStore for LocalStore {
    type Error = StateError;

    fn get(&self, key: &StateKey) -> Result<Option<StateValue>, StateError> {
        let database = self.database()?;
        if let Some(known) = self.recent.borrow_mut().get(key) {
            return Ok(known.map(|value| value.as_slice().to_vec()));
        }
        let value = wait(database.get(&Key::new(*key.as_bytes()))).map_err(self.failed("read"))?;
        self.remember(key, value.as_deref());
        Ok(value)
    }

    fn commit(&mut self, height: Height, writes: WriteSet) -> Result<StateRoots, StateError> {
        self.database()?;
        self.expect_height(height)?;
        if let Some(size) = writes.values().flatten().map(Vec::len).find(|size| *size > VALUE_BYTES_MAX) {
            return Err(StateError::ValueTooLarge { size });
        }
        let failed = self.failed("write");
        if let Some(database) = self.database.take() {
            // Until the write has succeeded there is no database to read.
            for (key, value) in &writes {
                self.remember(key, value.as_deref());
            }
            let database = wait(Self::write(database, height, writes)).map_err(&failed)?;
            self.committed = Some((height, roots(&database)));
            self.database = Some(database);
        }
        if height.get().is_multiple_of(PRUNE_INTERVAL)
            && let Some(database) = self.database.take()
        {
            let boundary = database.sync_boundary();
            let database = wait(Self::prune(database, self.prune_until.replace(boundary))).map_err(&failed)?;
            self.database = Some(database);
        }
        self.committed.map(|(_, roots)| roots).ok_or_else(|| StateError::Empty { path: self.folder.clone() })
    }

    fn roots(&self) -> Result<Option<(Height, StateRoots)>, StateError> {
        self.database()?;
        Ok(self.committed)
    }

    fn prove(&self, key: &StateKey) -> Result<StateProof, StateError> {
        let database = self.database()?;
        let (height, roots) = self.committed.ok_or_else(|| StateError::Empty { path: self.folder.clone() })?;
        let failed = self.failed("prove an entry of");
        let value = self.get(key)?;
        let key = Key::new(*key.as_bytes());
        let proof = if value.is_some() {
            proof::tagged(proof::PRESENT, &wait(database.key_value_proof(key)).map_err(failed)?.encode())
        } else {
            proof::tagged(proof::ABSENT, &wait(database.exclusion_proof(&key)).map_err(failed)?.encode())
        };
        Ok(StateProof { height, roots, value, proof })
    }
}

/// Waits for the database. Its runtime counts how often a task may go on without a pause and would make this one wait for
/// ever, so the count is switched off.
pub fn wait<F: Future>(future: F) -> F::Output {
    futures::executor::block_on(::tokio::task::unconstrained(future))
}

/// The roots of a database, and the operations that a node in sync keeps.
pub fn roots(database: &Database) -> StateRoots {
    let start = database.sync_boundary();
    let end = database.bounds().end;
    StateRoots {
        state_root: hash(&database.root()),
        operations_root: hash(&database.ops_root()),
        operations_range: OperationsRange { start: *start, end: *end },
    }
}

fn hash(digest: &Digest) -> Hash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Hash::new(bytes)
}

fn database_error(action: &'static str, folder: &std::path::Path, error: &DatabaseError) -> StateError {
    StateError::Database { action, path: folder.to_path_buf(), reason: error.to_string() }
}

/// How the database lies on the disk.
pub fn config() -> VariableConfig<EightCap, ((), ValueConfig), Sequential> {
    let page_cache = CacheRef::new(PAGE_BYTES, CACHED_PAGES);
    VariableConfig {
        merkle_config: MerkleConfig {
            journal_partition: format!("{PARTITION}-merkle"),
            metadata_partition: format!("{PARTITION}-merkle-pinned"),
            items_per_blob: OPERATIONS_PER_FILE,
            write_buffer: BUFFER_BYTES,
            replay_buffer: BUFFER_BYTES,
            strategy: Sequential,
            page_cache: page_cache.clone(),
        },
        journal_config: JournalConfig {
            partition: format!("{PARTITION}-operations"),
            items_per_section: OPERATIONS_PER_FILE,
            compression: None,
            codec_config: ((), value_config()),
            page_cache,
            write_buffer: BUFFER_BYTES,
            replay_buffer: BUFFER_BYTES,
        },
        grafted_metadata_partition: format!("{PARTITION}-activity"),
        translator: EightCap,
        init_cache: Some(OPENING_CACHE_ENTRIES),
        init_buffer: BUFFER_BYTES,
        init_concurrency: (),
    }
}

/// How long a value may be that is read back.
pub fn value_config() -> ValueConfig {
    (RangeCfg::new(0..=VALUE_BYTES_MAX), ())
}
