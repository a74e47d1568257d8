//! A store in memory, for the simulator and for tests: the same contract as the one on disk, other roots.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{StateKey, StateProof, StateStore, StateValue, WriteSet};
use crate::types::{Hash, Hasher, Height, OperationsRange, StateRoots};

/// Why the store refused.
#[derive(Debug, Eq, Error, PartialEq)]
pub enum MemoryStoreError {
    /// Heights follow each other without a gap.
    #[error("commit of height {found}, expected {expected}")]
    WrongHeight {
        /// The height asked for.
        found: Height,
        /// The next height.
        expected: Height,
    },
    /// Nothing was committed yet.
    #[error("nothing is committed yet")]
    Empty,
}

/// A store in memory. Its state root is a hash chained over the commits, and its proofs are the list of all entries:
/// enough to compare two nodes, too slow for more.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    entries: BTreeMap<StateKey, StateValue>,
    committed: Option<(Height, StateRoots)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a proof made by a memory store is right.
    #[must_use]
    pub fn verify(key: &StateKey, proof: &StateProof) -> bool {
        proof.proof == proof_bytes(key, proof.value.as_deref(), &proof.roots.state_root)
    }
}

impl StateStore for MemoryStore {
    type Error = MemoryStoreError;

    fn get(&self, key: &StateKey) -> Result<Option<StateValue>, MemoryStoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn commit(&mut self, height: Height, writes: WriteSet) -> Result<StateRoots, MemoryStoreError> {
        let (expected, before) = match &self.committed {
            None => (Height::ZERO, None),
            Some((last, roots)) => (last.next(), Some(*roots)),
        };
        if height != expected {
            return Err(MemoryStoreError::WrongHeight { found: height, expected });
        }
        let mut hasher = Hasher::new("althing/memory-store/1");
        hasher.update(before.map_or(Hash::ZERO, |roots| roots.state_root).as_bytes());
        let mut end = before.map_or(0, |roots| roots.operations_range.end);
        for (key, value) in writes {
            hash_entry(&mut hasher, &key, value.as_deref());
            end += 1;
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
        let state_root = hasher.finish();
        let operations_root = Hash::tagged("althing/memory-store-operations/1", state_root.as_bytes());
        let roots = StateRoots { state_root, operations_root, operations_range: OperationsRange { start: 0, end } };
        self.committed = Some((height, roots));
        Ok(roots)
    }

    fn roots(&self) -> Result<Option<(Height, StateRoots)>, MemoryStoreError> {
        Ok(self.committed)
    }

    fn prove(&self, key: &StateKey) -> Result<StateProof, MemoryStoreError> {
        let (height, roots) = self.committed.ok_or(MemoryStoreError::Empty)?;
        let value = self.entries.get(key).cloned();
        let proof = proof_bytes(key, value.as_deref(), &roots.state_root);
        Ok(StateProof { height, roots, value, proof })
    }
}

/// No proof in earnest: a checksum that binds key, value and root, so that tests notice when one of them is exchanged.
fn proof_bytes(key: &StateKey, value: Option<&[u8]>, root: &Hash) -> Vec<u8> {
    let mut hasher = Hasher::new("althing/memory-store-proof/1");
    hasher.update(root.as_bytes());
    hash_entry(&mut hasher, key, value);
    hasher.finish().as_bytes().to_vec()
}

fn hash_entry(hasher: &mut Hasher, key: &StateKey, value: Option<&[u8]>) {
    hasher.update(key.as_bytes());
    match value {
        None => hasher.update(&[0]),
        Some(value) => {
            hasher.update(&[1]);
            hasher.update(&u64::try_from(value.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(value);
        }
    }
}
