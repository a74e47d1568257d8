//! What a node keeps on its volume: final blocks, their events, batches on their way into one, the consensus log, session keys, genesis and the state of the ledger.
//!
//! | folder | kept by | what is lost if it is lost |
//! |---|---|---|
//! | `genesis/` | [`GenesisStore`] | which chain this node accepted; the operator asks again |
//! | `blocks/` | [`BlockLog`] | final blocks; fetched from peers |
//! | `batches/` | [`BatchLog`] | one copy of what was acknowledged as durable; the other voters have it |
//! | `kept/` | [`BatchLog`] | that a lost `batches/` is noticed |
//! | `events/` | [`EventLog`] | nothing where all blocks are kept: [`open_events`] makes it again; else the events so far |
//! | `light/` | [`Milestones`] | nothing: made again with the state |
//! | `state/` | [`QmdbStore`] | nothing: [`rebuild_state_from_blocks`] executes the blocks again |
//! | `wal/` | [`ConsensusLog`] | what was signed: the session key of this volume may never sign again |
//! | `recovery/` | [`RecoveryStore`] | that the node signed for a recovery: replace the volume |
//! | `session/` | [`SessionStore`] | the session key; the node makes a new one and rotates on chain |
//!
//! Everything that returns `Ok` is on disk. A write that fails leaves its store unusable until the process starts again,
//! because after a failed `fdatasync` nobody knows what the disk holds. Reading tells three cases apart: the end of the
//! data, the remains of a write that a crash interrupted (cut off, nobody was promised anything), and damage, which is an
//! error that names the file and the offset and is never repaired by guessing.

mod batch_files;
mod batches;
mod blocks;
mod consensus_log;
mod document;
mod error;
mod event_replay;
mod events;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
mod genesis;
mod heights;
mod milestones;
mod proving;
mod rebuild;
mod record;
mod recovery;
mod restore;
mod segment;
mod session;
mod snapshot;
mod state;
mod wish;

pub use batches::BatchLog;
pub use blocks::{BlockLog, BlockReader};
pub use consensus_log::{ConsensusLog, LogCondition, OpenedLog};
pub use error::StorageError;
pub use event_replay::{Past, ReplayError, open_events, verify_events};
pub use events::{EventLog, EventReader, ExecutedBlock};
pub use genesis::{AcceptedGenesis, GenesisStore};
pub use milestones::Milestones;
pub use proving::{Prover, ProvingError};
pub use rebuild::{
    EventSink, Kept, MilestoneError, RebuildError, Rebuilt, changing_voters, keep_milestone, rebuild_state_from_blocks,
    replay_blocks,
};
pub use recovery::RecoveryStore;
pub use restore::{RestoreError, finish_install, install, prepare};
pub use session::SessionStore;
pub use snapshot::{SnapshotReader, SnapshotWriter, publish_snapshot};
pub use state::{
    ImportError, LocalStore, PIECE_BYTES_MAX, PieceError, Pieces, ProofError, QmdbStore, StateError, VALUE_BYTES_MAX,
    import_state, verify_piece, verify_state_proof,
};
pub use wish::StateWish;

#[cfg(test)]
mod tests;
