//! Execution of blocks: from genesis and decided blocks to accounts, voter sets and receipts, on a store behind a trait.
//!
//! Everything that execution reads is in the store, so the state root commits to it, and a restart is a replay.

mod keys;
mod memory;
mod store;

pub use keys::{StateKey, StateSpace};
pub use memory::{MemoryStore, MemoryStoreError};
pub use store::{ReadError, StateProof, StateRead, StateStore, StateValue, WriteSet};
