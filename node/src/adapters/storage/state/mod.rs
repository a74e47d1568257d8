//! The state of the ledger in QMDB: entries, the state root over them, and the log of operations that state sync ships.
//!
//! The database lives on a thread of its own with the runtime it needs. Everything is a command over a bounded channel;
//! [`QmdbStore::run`] brings a whole piece of work there, such as the execution of a block, so that its reads cost no change
//! of thread. Dropping the last handle ends the thread.

mod database;
mod proof;
mod transfer;

use std::{
    any::Any,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use commonware_runtime::{Runner as _, tokio};
use node_core::{
    ledger::{StateKey, StateProof, StateStore, StateValue, WriteSet},
    types::{Height, StateRoots},
};
use thiserror::Error;

use super::{StorageError, file};

pub use database::{LocalStore, VALUE_BYTES_MAX};
pub use proof::{ProofError, verify_state_proof};
pub use transfer::{ImportError, PIECE_BYTES_MAX, PieceError, Pieces, import_state, verify_piece};

/// Commands that may wait for the thread.
const COMMANDS_MAX: usize = 64;
/// For reading and writing files; hashing happens on the thread of the store.
const WORKER_THREADS: usize = 1;
const BLOCKING_THREADS_MAX: usize = 4;

/// Why the state could not be read or written.
#[derive(Debug, Error)]
pub enum StateError {
    /// The folder could not be made.
    #[error(transparent)]
    Folder(#[from] StorageError),
    /// The database refused.
    #[error("failed to {action} the state in {path}: {reason}; if this repeats, remove that folder, it is made again from the blocks", path = .path.display())]
    Database {
        /// What was being done.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// Heights follow each other without a gap.
    #[error("the state cannot go to height {found}, expected {expected}")]
    WrongHeight {
        /// The height asked for.
        found: Height,
        /// The next height.
        expected: Height,
    },
    /// No entry is that large.
    #[error("a value of {size} bytes exceeds the maximum of {VALUE_BYTES_MAX}")]
    ValueTooLarge {
        /// The size.
        size: usize,
    },
    /// Nothing was committed yet.
    #[error("the state in {path} is empty", path = .path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// An earlier write failed, or the thread ended.
    #[error("the state in {path} takes no more commands after a failure: {reason}; start the node again", path = .path.display())]
    Stopped {
        /// The folder.
        path: PathBuf,
        /// What is known of it.
        reason: String,
    },
}

type Command = Box<dyn FnOnce(&mut LocalStore) + Send>;

/// The state of the ledger on disk. Handles are cheap to clone and may be used from any thread that may wait.
#[derive(Clone, Debug)]
pub struct QmdbStore {
    thread: Arc<StoreThread>,
}

#[derive(Debug)]
struct StoreThread {
    path: PathBuf,
    commands: Option<SyncSender<Command>>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl QmdbStore {
    /// Opens the state in this folder at its last committed height, or makes an empty one. Takes time in proportion to the
    /// number of entries (about 3 s for a million).
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        file::create_directory(folder)?;
        let path = folder.to_path_buf();
        let (commands, inbox) = mpsc::sync_channel(COMMANDS_MAX);
        let (opened, answer) = mpsc::sync_channel(1);
        let folder = path.clone();
        let handle = thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || serve(folder, &inbox, &opened))
            .map_err(|error| StorageError::io("start the thread for", &path, error))?;
        let store = StoreThread { path, commands: Some(commands), handle: Mutex::new(Some(handle)) };
        match answer.recv() {
            Ok(Ok(())) => Ok(Self { thread: Arc::new(store) }),
            Ok(Err(error)) => Err(error),
            Err(mpsc::RecvError) => Err(store.stopped()),
        }
    }

    /// The folder of the state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.thread.path
    }

    /// Does a piece of work on the thread of the store, and waits for its result.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut LocalStore) -> T + Send + 'static,
    ) -> Result<T, StateError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let command: Command = Box::new(move |store| {
            // Whoever asked may have gone.
            let _ = reply.send(work(store));
        });
        let sent = self.thread.commands.as_ref().is_some_and(|commands| commands.send(command).is_ok());
        if sent && let Ok(result) = answer.recv() { Ok(result) } else { Err(self.thread.stopped()) }
    }
}

impl StateStore for QmdbStore {
    type Error = StateError;

    fn get(&self, key: &StateKey) -> Result<Option<StateValue>, StateError> {
        let key = *key;
        self.run(move |store| store.get(&key))?
    }

    fn commit(&mut self, height: Height, writes: WriteSet) -> Result<StateRoots, StateError> {
        self.run(move |store| store.commit(height, writes))?
    }

    fn roots(&self) -> Result<Option<(Height, StateRoots)>, StateError> {
        self.run(|store| store.roots())?
    }

    fn prove(&self, key: &StateKey) -> Result<StateProof, StateError> {
        let key = *key;
        self.run(move |store| store.prove(&key))?
    }
}

impl StoreThread {
    /// Why the thread does not answer. Ends it if it has not ended yet.
    fn stopped(&self) -> StateError {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reason = match handle.map(JoinHandle::join) {
            Some(Err(panic)) => panic_text(panic.as_ref()),
            Some(Ok(())) | None => "its thread has ended".to_owned(),
        };
        StateError::Stopped { path: self.path.clone(), reason }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        // Without a sender the thread ends after the commands that wait.
        self.commands = None;
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle.filter(|handle| handle.thread().id() != thread::current().id()) {
            // A panic of the thread was reported to whoever asked it last.
            let _ = handle.join();
        }
    }
}

fn serve(folder: PathBuf, inbox: &Receiver<Command>, opened: &SyncSender<Result<(), StateError>>) {
    let config = tokio::Config::new()
        .with_storage_directory(folder.clone())
        .with_worker_threads(WORKER_THREADS)
        .with_max_blocking_threads(BLOCKING_THREADS_MAX);
    tokio::Runner::new(config).start(|context| async move {
        let mut store = match LocalStore::open(context, folder).await {
            Ok(store) => store,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            return;
        }
        // This is the one task on this thread, so waiting here keeps nobody.
        while let Ok(command) = inbox.recv() {
            command(&mut store);
        }
    });
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "its thread panicked".to_owned())
}
