//! What a node keeps on its volume: final blocks, batches on their way into one, the consensus log, session keys, genesis and the state of the ledger.
//!
//! | folder | kept by | what is lost if it is lost |
//! |---|---|---|
//! | `genesis/` | [`GenesisStore`] | which chain this node accepted; the operator asks again |
//! | `blocks/` | [`BlockLog`] | final blocks; fetched from peers |
//! | `batches/` | [`BatchLog`] | one copy of what was acknowledged as durable; the other voters have it |
//! | `state/` | [`QmdbStore`] | nothing: [`rebuild_state_from_blocks`] executes the blocks again |
//! | `wal/` | [`ConsensusLog`] | what was signed: the session key of this volume may never sign again |
//! | `recovery/` | [`RecoveryStore`] | that the node signed for a recovery: replace the volume |
//! | `session/` | [`SessionStore`] | the session key; the node makes a new one and rotates on chain |
//!
//! Everything that returns `Ok` is on disk. A write that fails leaves its store unusable until the process starts again,
//! because after a failed `fdatasync` nobody knows what the disk holds. Reading tells three cases apart: the end of the
//! data, the remains of a write that a crash interrupted (cut off, nobody was promised anything), and damage, which is an
//! error that names the file and the offset and is never repaired by guessing.

mod batches;
mod blocks;
mod consensus_log;
mod document;
mod error;
mod file;
mod genesis;
mod rebuild;
mod record;
mod recovery;
mod segment;
mod session;
mod state;

pub use batches::BatchLog;
pub use blocks::{BlockLog, BlockReader};
pub use consensus_log::{ConsensusLog, LogCondition, OpenedLog};
pub use error::StorageError;
pub use genesis::{AcceptedGenesis, GenesisStore};
pub use rebuild::{RebuildError, Rebuilt, rebuild_state_from_blocks};
pub use recovery::RecoveryStore;
pub use session::SessionStore;
pub use state::{LocalStore, ProofError, QmdbStore, StateError, VALUE_BYTES_MAX, verify_state_proof};

#[cfg(test)]
mod tests;
