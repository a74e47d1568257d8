//! The store in memory keeps the contract, and the contract notices stores that do not.

use crate::{
    ledger::{
        MemoryStore, MemoryStoreError, StateKey, StateProof, StateStore, StateValue, WriteSet,
        contract::{Fixture, check},
    },
    types::{Height, StateRoots},
};

struct Memory;

impl Fixture for Memory {
    type Store = MemoryStore;

    fn create(&mut self) -> MemoryStore {
        MemoryStore::new()
    }

    fn reopen(&mut self, store: MemoryStore) -> MemoryStore {
        store
    }

    fn verifies(&self, key: &StateKey, proof: &StateProof) -> bool {
        MemoryStore::verify(key, proof)
    }
}

#[test]
fn the_store_in_memory_keeps_the_contract() {
    check(&mut Memory).unwrap();
}

/// What a broken store does wrong.
#[derive(Clone, Copy)]
enum Fault {
    LosesCommitsAtRestart,
    TakesAnyHeight,
    KeepsRemovedEntries,
    ForgetsValuesInRoots,
    ProvesAnything,
}

struct Broken {
    fault: Fault,
    store: MemoryStore,
    next: Height,
}

struct BrokenFixture(Fault);

impl Fixture for BrokenFixture {
    type Store = Broken;

    fn create(&mut self) -> Broken {
        Broken { fault: self.0, store: MemoryStore::new(), next: Height::ZERO }
    }

    fn reopen(&mut self, store: Broken) -> Broken {
        match self.0 {
            Fault::LosesCommitsAtRestart => self.create(),
            _ => store,
        }
    }

    fn verifies(&self, key: &StateKey, proof: &StateProof) -> bool {
        matches!(self.0, Fault::ProvesAnything) || MemoryStore::verify(key, proof)
    }
}

impl StateStore for Broken {
    type Error = MemoryStoreError;

    fn get(&self, key: &StateKey) -> Result<Option<StateValue>, MemoryStoreError> {
        self.store.get(key)
    }

    fn commit(&mut self, height: Height, mut writes: WriteSet) -> Result<StateRoots, MemoryStoreError> {
        let height = match self.fault {
            Fault::TakesAnyHeight => self.next,
            _ => height,
        };
        if matches!(self.fault, Fault::KeepsRemovedEntries) {
            writes.retain(|_, value| value.is_some());
        }
        let roots = self.store.commit(height, writes)?;
        self.next = height.next();
        Ok(match self.fault {
            Fault::ForgetsValuesInRoots => StateRoots { state_root: crate::types::Hash::ZERO, ..roots },
            _ => roots,
        })
    }

    fn roots(&self) -> Result<Option<(Height, StateRoots)>, MemoryStoreError> {
        self.store.roots()
    }

    fn prove(&self, key: &StateKey) -> Result<StateProof, MemoryStoreError> {
        self.store.prove(key)
    }
}

#[test]
fn the_contract_notices_every_broken_store() {
    for (fault, rule) in [
        (Fault::LosesCommitsAtRestart, "equal commits give equal roots"),
        (Fault::TakesAnyHeight, "heights follow each other"),
        (Fault::KeepsRemovedEntries, "a removed entry is gone"),
        (Fault::ForgetsValuesInRoots, "a commit is read back"),
        (Fault::ProvesAnything, "a changed proof is refused"),
    ] {
        assert_eq!(check(&mut BrokenFixture(fault)).unwrap_err().rule, rule);
    }
}
