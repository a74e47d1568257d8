//! Operations of the state on their way to another node: taken out in proved pieces, checked one by one, put together again.

use std::{
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use commonware_codec::{Copying, Decode as _, Encode as _};
use commonware_cryptography::{Sha256, sha256::Digest};
use commonware_runtime::{Runner as _, tokio};
use commonware_storage::qmdb::{
    self,
    any::ordered::variable::Operation,
    sync::{self, Request, Response, Source, Target, engine, source},
};
use commonware_utils::range::NonEmptyRange;
use node_core::{
    sync::{OPERATIONS_PER_PIECE, PieceKind, StatePiece, piece},
    types::{Hash, OperationsRange, StateRoots},
};
use thiserror::Error;

use super::{
    LocalStore, StateError, StorageError, database,
    database::{Database, Family, Key, Location, value_config},
    panic_text,
};
use crate::adapters::storage::file;

/// Operations that are hashed together while a log is put together.
const APPLIED_TOGETHER: NonZeroU64 = NonZeroU64::new(4_096).expect("not zero");

/// No piece is larger: one travels in one message.
pub const PIECE_BYTES_MAX: usize = 12 << 20;

type StateOperation = Operation<Family, Key, Vec<u8>>;
type Answer = Response<Family, StateOperation, Digest>;

/// Why operations are no piece of the state.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PieceError {
    /// They are not a piece of this store.
    #[error("the operations cannot be read: {reason}")]
    Unreadable {
        /// What does not fit.
        reason: String,
    },
    /// They prove something else.
    #[error("the operations from {start} on are not those under the certified root")]
    Wrong {
        /// The first operation of the piece.
        start: u64,
    },
}

/// Why no state could be put together.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The folder could not be made.
    #[error(transparent)]
    Folder(#[from] StorageError),
    /// A piece could not be had.
    #[error("failed to read piece {number} of the state: {reason}")]
    Piece {
        /// Its number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// A piece is not what it should be.
    #[error(transparent)]
    Wrong(#[from] PieceError),
    /// The database refused.
    #[error("failed to put the state in {path} together: {reason}", path = .path.display())]
    Database {
        /// The folder.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The operations are right and the state is another.
    #[error("the state comes to root {found}, the chain certified {expected}")]
    OtherRoot {
        /// What it comes to.
        found: Hash,
        /// What was certified.
        expected: Hash,
    },
}

/// Where pieces come from, by their number.
pub type Pieces = Box<dyn FnMut(u64) -> Result<Vec<u8>, String> + Send>;

impl LocalStore {
    /// The operations that are kept, and so can be taken out.
    pub fn operations_kept(&self) -> Result<OperationsRange, StateError> {
        let bounds = self.database()?.bounds();
        Ok(OperationsRange { start: *bounds.start, end: *bounds.end })
    }

    /// A piece of the operations with its proof. It may be of an earlier height, as long as its operations are kept.
    pub fn piece(&self, wanted: &StatePiece) -> Result<Vec<u8>, StateError> {
        let failed = self.failed("take operations out of");
        let request = request_of(wanted);
        let (answer, _) = database::wait(self.database()?.serve(request)).map_err(failed)?;
        Ok(answer.encode().to_vec())
    }
}

/// Checks that bytes are this piece of the log with this operations root.
pub fn verify_piece(wanted: &StatePiece, operations_root: &Hash, bytes: &[u8]) -> Result<(), PieceError> {
    verified(wanted, &Digest::from(*operations_root.as_bytes()), bytes).map(|_| ())
}

fn verified(wanted: &StatePiece, root: &Digest, bytes: &[u8]) -> Result<Answer, PieceError> {
    let count = usize::try_from(wanted.count.min(OPERATIONS_PER_PIECE)).unwrap_or_default();
    let config = (count, ((), value_config()));
    let answer = Answer::decode_cfg(Copying(bytes), &config)
        .map_err(|error| PieceError::Unreadable { reason: error.to_string() })?;
    let start = Location::new(wanted.start);
    let proven = *answer.proof().leaves == wanted.size
        && match (&answer, wanted.kind) {
            (Response::Operations { proof, operations }, PieceKind::Operations) => {
                operations.len() == count && qmdb::verify_proof::<Sha256, _, _>(proof, start, operations, root)
            }
            (Response::Boundary { proof, op, pinned_nodes }, PieceKind::Boundary) => {
                let operations = std::slice::from_ref(op);
                qmdb::verify_proof_and_pinned_nodes::<Sha256, _, _>(proof, start, operations, pinned_nodes, root)
            }
            (Response::Operations { .. } | Response::Boundary { .. }, _) => false,
        };
    if proven { Ok(answer) } else { Err(PieceError::Wrong { start: wanted.start }) }
}

fn request_of(wanted: &StatePiece) -> Request<Family> {
    let (size, start) = (Location::new(wanted.size), Location::new(wanted.start));
    match wanted.kind {
        PieceKind::Boundary => Request::Boundary { size, start },
        PieceKind::Operations => {
            Request::Operations { size, start, max_ops: NonZeroU64::new(wanted.count).unwrap_or(NonZeroU64::MIN) }
        }
    }
}

/// Puts a state together in an empty folder. It is durable and has these roots, or there is an error.
pub fn import_state(folder: &Path, roots: StateRoots, pieces: Pieces) -> Result<(), ImportError> {
    file::create_directory(folder)?;
    let path = folder.to_path_buf();
    let thread = thread::Builder::new().name("import".to_owned()).spawn(move || import(&path, roots, pieces));
    let thread = thread.map_err(|error| StorageError::io("start the thread for", folder, error))?;
    match thread.join() {
        Ok(result) => result,
        Err(panic) => Err(ImportError::Database { path: folder.to_path_buf(), reason: panic_text(panic.as_ref()) }),
    }
}

fn import(folder: &Path, roots: StateRoots, pieces: Pieces) -> Result<(), ImportError> {
    let config = tokio::Config::new()
        .with_storage_directory(folder.to_path_buf())
        .with_worker_threads(super::WORKER_THREADS)
        .with_max_blocking_threads(super::BLOCKING_THREADS_MAX);
    let failed = |reason: String| ImportError::Database { path: folder.to_path_buf(), reason };
    let range = roots.operations_range;
    let root = Digest::from(*roots.operations_root.as_bytes());
    let target = NonEmptyRange::new(Location::new(range.start)..Location::new(range.end))
        .ok()
        .map(|range| Target::new(root, range))
        .ok_or_else(|| failed("there are no operations".to_owned()))?;
    let found = tokio::Runner::new(config).start(|context| async move {
        let source = Shipped { roots, root, pieces: Mutex::new(Next { number: 0, pieces }) };
        let config = engine::Config::<Database, Shipped> {
            context,
            source,
            target,
            // One after the other: so the pieces are asked for in their order.
            max_outstanding_requests: NonZeroUsize::MIN,
            fetch_batch_size: NonZeroU64::new(OPERATIONS_PER_PIECE).unwrap_or(NonZeroU64::MIN),
            apply_batch_size: APPLIED_TOGETHER,
            db_config: database::config(),
            update_rx: None,
            finish_rx: None,
            reached_target_tx: None,
        };
        let database = match sync::sync(config).await {
            Ok(database) => database,
            Err(sync::Error::Source(error)) => return Err(error),
            Err(other) => return Err(failed(other.to_string())),
        };
        let database = database.sync().await.map_err(|error| failed(error.to_string()))?;
        Ok(database::roots(&database))
    })?;
    if found == roots {
        return Ok(());
    }
    Err(ImportError::OtherRoot { found: found.state_root, expected: roots.state_root })
}

struct Shipped {
    roots: StateRoots,
    root: Digest,
    pieces: Mutex<Next>,
}

struct Next {
    number: u64,
    pieces: Pieces,
}

impl Source for Shipped {
    type Family = Family;
    type Digest = Digest;
    type Op = StateOperation;
    type Error = ImportError;

    async fn serve(&self, request: Request<Family>) -> source::Result<Self> {
        let mut next = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let number = next.number;
        let wanted = piece(&self.roots.operations_range, number).filter(|piece| request_of(piece) == request);
        let wanted =
            wanted.ok_or_else(|| ImportError::Piece { number, reason: "it is not the next one".to_owned() })?;
        let bytes = (next.pieces)(number).map_err(|reason| ImportError::Piece { number, reason })?;
        next.number += 1;
        Ok((verified(&wanted, &self.root, &bytes)?, None))
    }
}
