//! What the ledger needs from a store: reads, one durable commit for each height, roots and proofs.

use std::{collections::BTreeMap, error::Error};

use thiserror::Error;

use super::StateKey;
use crate::types::{Height, StateRoots};

/// The value of an entry: the fixed layout of its kind.
pub type StateValue = Vec<u8>;

/// The entries that one block changes, in ascending order of key; nothing removes the entry.
pub type WriteSet = BTreeMap<StateKey, Option<StateValue>>;

/// A failed read. The state is then unknown: the process ends.
#[derive(Debug, Error)]
#[error("failed to read the state: {reason}")]
pub struct ReadError {
    /// What the store said.
    pub reason: String,
}

/// An opaque proof that an entry has a value, or that there is none, under a state root. Its bytes are those of the store's kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateProof {
    /// The height of the state.
    pub height: Height,
    /// The roots that the proof leads to.
    pub roots: StateRoots,
    /// The value; nothing if there is no entry.
    pub value: Option<StateValue>,
    /// The store's proof.
    pub proof: Vec<u8>,
}

/// Reading the newest state.
pub trait StateRead {
    /// The value of an entry.
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, ReadError>;

    /// The last committed height and its roots; nothing before genesis is committed.
    fn committed(&self) -> Result<Option<(Height, StateRoots)>, ReadError>;
}

/// A store of the state. `ledger::contract` has the tests that every one of them passes.
pub trait StateStore {
    /// Why an operation failed.
    type Error: Error;

    /// The value of an entry in the newest state.
    fn get(&self, key: &StateKey) -> Result<Option<StateValue>, Self::Error>;

    /// Makes the changes of one block durable, all or none, before it returns. Heights follow each other without a gap,
    /// from 0; another height is an error and changes nothing. The roots depend only on all the commits so far.
    fn commit(&mut self, height: Height, writes: WriteSet) -> Result<StateRoots, Self::Error>;

    /// The last committed height and its roots; nothing before height 0 is committed.
    fn roots(&self) -> Result<Option<(Height, StateRoots)>, Self::Error>;

    /// Proves an entry, or its absence, in the newest state.
    fn prove(&self, key: &StateKey) -> Result<StateProof, Self::Error>;
}

impl<S: StateStore> StateRead for S {
    fn read(&self, key: &StateKey) -> Result<Option<StateValue>, ReadError> {
        self.get(key).map_err(|error| ReadError { reason: error.to_string() })
    }

    fn committed(&self) -> Result<Option<(Height, StateRoots)>, ReadError> {
        self.roots().map_err(|error| ReadError { reason: error.to_string() })
    }
}
