//! Execution of blocks: from genesis and decided blocks to accounts, voter sets and receipts, on a store behind a trait.
//!
//! Everything that execution reads is in the store, so the state root commits to it, and a restart is a replay.
//! [`execute_block`] is a pure function of the state and the block; [`apply_block`] makes its writes durable, once for
//! each height. Changes of voters in block `h` count from `h + 3`: nobody can vote above `h + 2` without having executed
//! `h`, which is what keeps an old session key and its successor from meeting at a height.

mod accounts;
mod apply;
pub mod contract;
mod documents;
mod execute;
mod governance;
mod keys;
mod memory;
mod recovery;
mod rotation;
mod store;

pub use apply::{
    Applied, ApplyError, Snapshot, account, apply_block, apply_block_after, apply_block_with_faults, apply_genesis,
    apply_genesis_before, commit_outcome, execute_after, highest_epoch, snapshot,
};
pub use documents::{
    Account, CHANGE_DELAY_BLOCKS, Chain, Consent, OBJECTION_BLOCKS, PendingParameters, PendingRotation,
    PendingRotations, Progress, Rules, SESSION_VALIDITY_BLOCKS_MAX,
};
pub use execute::{ExecuteError, LedgerFaults, Outcome, execute_block};
pub use governance::{VOTERS_MIN, moved_power};
pub use keys::{StateKey, StateSpace};
pub use memory::{MemoryStore, MemoryStoreError};
pub use recovery::{Recoveries, RecoveryCheck, RecoveryRefused, recovery_epoch};
pub use store::{ReadError, StateProof, StateRead, StateStore, StateValue, WriteSet};

#[cfg(test)]
mod tests;
