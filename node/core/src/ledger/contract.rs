//! The contract of [`StateStore`] as tests that every kind of store runs: call [`check`] from the store's own tests.

use thiserror::Error;

use super::{StateKey, StateProof, StateStore, WriteSet};
use crate::types::{AccountId, Height, StateRoots};

/// A rule of the contract that a store breaks.
#[derive(Debug, Error)]
#[error("{rule}: {found}")]
pub struct Breach {
    /// The rule.
    pub rule: &'static str,
    /// What happened instead.
    pub found: String,
}

/// How the contract makes stores of one kind.
pub trait Fixture {
    /// The kind of store.
    type Store: StateStore;

    /// An empty store.
    fn create(&mut self) -> Self::Store;

    /// The same store after the end of its process: for one on disk, closed and opened again.
    fn reopen(&mut self, store: Self::Store) -> Self::Store;

    /// Whether a proof shows that an entry has the value that it names under the root that it names.
    fn verifies(&self, key: &StateKey, proof: &StateProof) -> bool;
}

/// Runs every rule.
pub fn check<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    an_empty_store_has_no_roots(fixture)?;
    a_commit_is_read_back(fixture)?;
    a_removed_entry_is_gone(fixture)?;
    heights_follow_each_other(fixture)?;
    equal_commits_give_equal_roots(fixture)?;
    different_commits_give_different_roots(fixture)?;
    a_commit_survives_a_restart(fixture)?;
    a_proof_shows_the_value(fixture)?;
    a_changed_proof_is_refused(fixture)
}

/// Before genesis there is neither a height nor an entry.
pub fn an_empty_store_has_no_roots<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "an empty store has no roots";
    let store = fixture.create();
    let roots = done(RULE, store.roots())?;
    let entry = done(RULE, store.get(&key(1)))?;
    demand(RULE, roots.is_none() && entry.is_none(), &(roots, entry))
}

/// What was committed is what is read, with the roots of the commit.
pub fn a_commit_is_read_back<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "a commit is read back";
    let mut store = fixture.create();
    let roots = commit(RULE, &mut store, 0, &[(1, Some("one")), (2, Some(""))])?;
    let found = (done(RULE, store.get(&key(1)))?, done(RULE, store.get(&key(2)))?, done(RULE, store.get(&key(3)))?);
    demand(RULE, found == (Some(b"one".to_vec()), Some(Vec::new()), None), &found)?;
    let committed = done(RULE, store.roots())?;
    demand(RULE, committed == Some((Height::ZERO, roots)), &committed)
}

/// An entry that a commit removes is gone, one that it does not name stays.
pub fn a_removed_entry_is_gone<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "a removed entry is gone";
    let mut store = fixture.create();
    commit(RULE, &mut store, 0, &[(1, Some("one")), (2, Some("two"))])?;
    commit(RULE, &mut store, 1, &[(1, None), (3, None)])?;
    let found = (done(RULE, store.get(&key(1)))?, done(RULE, store.get(&key(2)))?, done(RULE, store.get(&key(3)))?);
    demand(RULE, found == (None, Some(b"two".to_vec()), None), &found)
}

/// A commit of a height other than the next one is refused and changes nothing.
pub fn heights_follow_each_other<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "heights follow each other";
    let mut store = fixture.create();
    demand(RULE, store.commit(Height::new(1), writes(&[(1, Some("gap"))])).is_err(), &"height 1 was taken first")?;
    let roots = commit(RULE, &mut store, 0, &[(1, Some("one"))])?;
    demand(RULE, store.commit(Height::ZERO, writes(&[(1, Some("again"))])).is_err(), &"height 0 was taken twice")?;
    demand(RULE, store.commit(Height::new(2), writes(&[(1, Some("gap"))])).is_err(), &"height 1 was left out")?;
    let found = (done(RULE, store.get(&key(1)))?, done(RULE, store.roots())?);
    demand(RULE, found == (Some(b"one".to_vec()), Some((Height::ZERO, roots))), &found)
}

/// Two stores with the same commits have the same roots, one of them restarted in between.
pub fn equal_commits_give_equal_roots<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "equal commits give equal roots";
    let mut first = fixture.create();
    let mut second = fixture.create();
    for height in 0..20 {
        let value = format!("value {height}");
        let changes = [(1, Some(value.as_str())), (height, Some("new")), (height / 2, None)];
        let roots = (commit(RULE, &mut first, height, &changes)?, commit(RULE, &mut second, height, &changes)?);
        demand(RULE, roots.0 == roots.1, &roots)?;
        if height % 7 == 3 {
            second = fixture.reopen(second);
        }
    }
    Ok(())
}

/// A value, a key and a height more make another root; the range of operations only grows.
pub fn different_commits_give_different_roots<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "different commits give different roots";
    let mut roots = Vec::new();
    for changes in [[(1, Some("one"))], [(1, Some("other"))], [(2, Some("one"))]] {
        let mut store = fixture.create();
        let first = commit(RULE, &mut store, 0, &changes)?;
        let second = commit(RULE, &mut store, 1, &[(9, Some("more"))])?;
        let grows = first.operations_range.end < second.operations_range.end;
        demand(RULE, grows, &(first.operations_range, second.operations_range))?;
        roots.extend([first, second]);
    }
    let mut state: Vec<_> = roots.iter().map(|roots| roots.state_root).collect();
    let mut operations: Vec<_> = roots.iter().map(|roots| roots.operations_root).collect();
    for list in [&mut state, &mut operations] {
        list.sort();
        list.dedup();
    }
    demand(RULE, state.len() == roots.len() && operations.len() == roots.len(), &roots)
}

/// After a restart the last commit is there, whole, and the next one follows it.
pub fn a_commit_survives_a_restart<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "a commit survives a restart";
    let mut store = fixture.create();
    commit(RULE, &mut store, 0, &[(1, Some("one")), (2, Some("two"))])?;
    let roots = commit(RULE, &mut store, 1, &[(2, Some("second"))])?;
    let mut store = fixture.reopen(store);
    let found = (done(RULE, store.get(&key(1)))?, done(RULE, store.get(&key(2)))?, done(RULE, store.roots())?);
    let expected = (Some(b"one".to_vec()), Some(b"second".to_vec()), Some((Height::new(1), roots)));
    demand(RULE, found == expected, &found)?;
    commit(RULE, &mut store, 2, &[(1, None)]).map(|_| ())
}

/// A proof carries value, height and roots of the newest state, and verifies.
pub fn a_proof_shows_the_value<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "a proof shows the value";
    let mut store = fixture.create();
    commit(RULE, &mut store, 0, &[(1, Some("one")), (2, Some("two"))])?;
    let roots = commit(RULE, &mut store, 1, &[(3, Some("three")), (1, Some("first"))])?;
    for (number, value) in [(1, "first"), (2, "two"), (3, "three")] {
        let proof = done(RULE, store.prove(&key(number)))?;
        let right =
            proof.value.as_deref() == Some(value.as_bytes()) && proof.height == Height::new(1) && proof.roots == roots;
        demand(RULE, right && fixture.verifies(&key(number), &proof), &proof)?;
    }
    Ok(())
}

/// A proof does not verify for another key, value or root.
pub fn a_changed_proof_is_refused<F: Fixture>(fixture: &mut F) -> Result<(), Breach> {
    const RULE: &str = "a changed proof is refused";
    let mut store = fixture.create();
    let before = commit(RULE, &mut store, 0, &[(1, Some("one")), (2, Some("two"))])?;
    commit(RULE, &mut store, 1, &[(1, Some("first"))])?;
    let proof = done(RULE, store.prove(&key(1)))?;
    demand(RULE, !fixture.verifies(&key(2), &proof), &"another key")?;
    let value = StateProof { value: Some(b"one".to_vec()), ..proof.clone() };
    demand(RULE, !fixture.verifies(&key(1), &value), &"another value")?;
    let root = StateProof { roots: before, ..proof };
    demand(RULE, !fixture.verifies(&key(1), &root), &"another root")
}

fn key(number: u64) -> StateKey {
    let mut bytes = [0; 32];
    if let Some(last) = bytes.last_chunk_mut() {
        *last = number.to_be_bytes();
    }
    StateKey::account(&AccountId::new(bytes))
}

fn writes(changes: &[(u64, Option<&str>)]) -> WriteSet {
    changes.iter().map(|(number, value)| (key(*number), value.map(|value| value.as_bytes().to_vec()))).collect()
}

fn commit<S: StateStore>(
    rule: &'static str,
    store: &mut S,
    height: u64,
    changes: &[(u64, Option<&str>)],
) -> Result<StateRoots, Breach> {
    done(rule, store.commit(Height::new(height), writes(changes)))
}

fn done<T, E: std::error::Error>(rule: &'static str, result: Result<T, E>) -> Result<T, Breach> {
    result.map_err(|error| Breach { rule, found: error.to_string() })
}

fn demand(rule: &'static str, holds: bool, found: &dyn std::fmt::Debug) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach { rule, found: format!("{found:?}") }) }
}
