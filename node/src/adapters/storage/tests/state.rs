//! Tests of the state: the contract of every store, proofs, crashes, and roots that never change.

use std::{fs, path::Path};

use node_core::{
    ledger::{StateKey, StateProof, StateStore, WriteSet, contract},
    types::{AccountId, Height, StateRoots},
};

use crate::adapters::storage::{ProofError, QmdbStore, StateError, VALUE_BYTES_MAX, verify_state_proof};

/// The roots of [`history`], frozen: another value means that nodes of two releases disagree about every block.
const ROOTS: &str = include_str!("../../../../testdata/state_roots.txt");

struct Folders {
    parent: tempfile::TempDir,
    count: usize,
}

impl contract::Fixture for Folders {
    type Store = QmdbStore;

    fn create(&mut self) -> QmdbStore {
        self.count += 1;
        QmdbStore::open(&self.parent.path().join(self.count.to_string())).unwrap()
    }

    fn reopen(&mut self, store: QmdbStore) -> QmdbStore {
        let folder = store.folder().to_path_buf();
        drop(store);
        QmdbStore::open(&folder).unwrap()
    }

    fn verifies(&self, key: &StateKey, proof: &StateProof) -> bool {
        verify_state_proof(key, proof.value.as_deref(), &proof.proof, &proof.roots.state_root).is_ok()
    }
}

fn key(number: u64) -> StateKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    StateKey::account(&AccountId::new(bytes))
}

/// The writes of one height: some new, some changed, some removed.
fn writes(height: u64) -> WriteSet {
    let mut writes = WriteSet::new();
    for number in 0..40 {
        writes.insert(key(height * 20 + number), Some(format!("{height}/{number}").into_bytes()));
    }
    if height > 0 {
        writes.insert(key(height * 20 - 7), None);
    }
    writes
}

fn history(store: &mut QmdbStore, heights: std::ops::Range<u64>) -> Vec<StateRoots> {
    heights.map(|height| store.commit(Height::new(height), writes(height)).unwrap()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

#[test]
fn the_store_keeps_the_contract_of_every_store() {
    let parent = tempfile::tempdir().unwrap();
    let mut folders = Folders { parent, count: 0 };
    contract::check(&mut folders).unwrap();
}

#[test]
fn the_roots_of_a_fixed_history_never_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    let found: String = (0..)
        .zip(history(&mut store, 0..40))
        .map(|(height, roots)| {
            let range = roots.operations_range;
            format!("{height} {} {} {} {}\n", roots.state_root, roots.operations_root, range.start, range.end)
        })
        .collect();
    assert_eq!(found, ROOTS, "found:\n{found}");
}

#[test]
fn a_crash_right_after_a_commit_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    let mut all = Vec::new();
    for height in 0..30 {
        all.extend(history(&mut store, height..height + 1));
        if height % 6 == 1 {
            // What a crash leaves is at least what is in the files now.
            let copied = tempfile::tempdir().unwrap();
            copy(folder.path(), copied.path());
            let mut crashed = QmdbStore::open(copied.path()).unwrap();
            assert_eq!(crashed.roots().unwrap(), Some((Height::new(height), all[height as usize])));
            let next = history(&mut crashed, height + 1..height + 4);
            drop(crashed);
            assert_eq!(QmdbStore::open(copied.path()).unwrap().roots().unwrap().unwrap().1, next[2]);
        }
    }
}

#[test]
fn files_cut_short_give_an_earlier_commit_or_an_error_and_never_other_roots() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    let all = history(&mut store, 0..12);
    drop(store);
    let mut opened = 0;
    for partition in
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        for cut in [1, 5, 100, 1000] {
            let copied = tempfile::tempdir().unwrap();
            copy(folder.path(), copied.path());
            for file in fs::read_dir(copied.path().join(partition.file_name().unwrap())).unwrap() {
                let file = fs::OpenOptions::new().write(true).open(file.unwrap().path()).unwrap();
                let length = file.metadata().unwrap().len();
                file.set_len(length.saturating_sub(cut)).unwrap();
            }
            // A panic inside the database is an error of the store, too.
            let Ok(store) = QmdbStore::open(copied.path()) else { continue };
            let Ok(found) = store.roots() else { continue };
            opened += 1;
            if let Some((height, roots)) = found {
                assert_eq!(roots, all[height.get() as usize], "{} cut by {cut}", partition.display());
            }
        }
    }
    assert!(opened > 0, "no cut was survived, so nothing was compared");
}

#[test]
fn absence_is_proven_and_no_proof_survives_a_turned_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    history(&mut store, 0..20);
    for number in [25, 100, 1_000_000, 20 * 7 - 7] {
        let proof = store.prove(&key(number)).unwrap();
        let root = &proof.roots.state_root;
        let value = proof.value.as_deref();
        assert_eq!(value.is_none(), number == 1_000_000 || number == 20 * 7 - 7);
        verify_state_proof(&key(number), value, &proof.proof, root).unwrap();
        let other: Option<&[u8]> = if value.is_none() { Some(b"") } else { None };
        assert_eq!(verify_state_proof(&key(number), other, &proof.proof, root), Err(ProofError::Wrong));
        for place in 0..proof.proof.len() {
            let mut bytes = proof.proof.clone();
            bytes[place] ^= 1 << (place % 8);
            assert!(verify_state_proof(&key(number), value, &bytes, root).is_err(), "byte {place} of {}", bytes.len());
        }
        for length in 0..proof.proof.len() {
            assert!(verify_state_proof(&key(number), value, &proof.proof[..length], root).is_err());
        }
    }
}

#[test]
fn a_value_that_is_too_large_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    let large = |size| WriteSet::from([(key(1), Some(vec![1; size]))]);
    let refused = store.commit(Height::ZERO, large(VALUE_BYTES_MAX + 1));
    assert!(matches!(refused, Err(StateError::ValueTooLarge { .. })), "{refused:?}");
    store.commit(Height::ZERO, large(VALUE_BYTES_MAX)).unwrap();
    drop(store);
    let store = QmdbStore::open(folder.path()).unwrap();
    assert_eq!(store.get(&key(1)).unwrap().unwrap().len(), VALUE_BYTES_MAX);
}

#[test]
fn work_that_panics_is_an_error_and_the_state_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    let roots = history(&mut store, 0..3);
    let failed = store.run(|_| panic!("broken work"));
    assert!(matches!(&failed, Err(StateError::Stopped { reason, .. }) if reason == "broken work"), "{failed:?}");
    assert!(store.roots().is_err());
    drop(store);
    assert_eq!(QmdbStore::open(folder.path()).unwrap().roots().unwrap().unwrap().1, roots[2]);
}

#[test]
fn handles_on_many_threads_read_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    history(&mut store, 0..3);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || (0..50).map(|number| store.get(&key(number)).unwrap()).collect::<Vec<_>>())
        })
        .collect();
    let mut seen: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[test]
fn many_commits_prune_old_operations_and_keep_every_entry() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = QmdbStore::open(folder.path()).unwrap();
    let keep = WriteSet::from([(key(1), Some(b"kept".to_vec()))]);
    store.commit(Height::ZERO, keep).unwrap();
    let roots = store
        .run(|store| {
            (1..=4_200u64)
                .map(|height| {
                    let changes = (10..40).map(|number| (key(number), Some(height.to_be_bytes().to_vec()))).collect();
                    store.commit(Height::new(height), changes).unwrap()
                })
                .last()
                .unwrap()
        })
        .unwrap();
    assert!(roots.operations_range.start > 0);
    drop(store);
    let store = QmdbStore::open(folder.path()).unwrap();
    assert_eq!(store.roots().unwrap(), Some((Height::new(4_200), roots)));
    assert_eq!(store.get(&key(1)).unwrap().unwrap(), b"kept");
    let proof = store.prove(&key(1)).unwrap();
    verify_state_proof(&key(1), Some(b"kept"), &proof.proof, &roots.state_root).unwrap();
}
