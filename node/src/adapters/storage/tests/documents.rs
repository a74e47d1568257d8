//! Tests of the key list and the accepted genesis.

use std::os::unix::fs::PermissionsExt as _;

use node_core::types::{Genesis, Hash};

use super::chain;
use crate::adapters::storage::{GenesisStore, SessionStore, StorageError};

#[test]
fn the_key_list_is_what_was_written_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = SessionStore::open(folder.path()).unwrap();
    assert_eq!(store.read().unwrap(), None);
    store.write(b"first").unwrap();
    store.write(b"second list").unwrap();
    store.write(b"").unwrap();
    assert_eq!(SessionStore::open(folder.path()).unwrap().read().unwrap(), Some(Vec::new()));
}

#[test]
fn the_key_list_is_readable_by_its_user_only() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("session");
    SessionStore::open(&folder).unwrap().write(b"secret").unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.join("keys")), 0o600);
    assert_eq!(mode(folder), 0o700);
}

#[test]
fn the_remains_of_an_interrupted_replacement_are_not_the_key_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = SessionStore::open(folder.path()).unwrap();
    store.write(b"whole").unwrap();
    std::fs::write(folder.path().join("keys.new"), b"half").unwrap();
    assert_eq!(store.read().unwrap().unwrap(), b"whole");
    store.write(b"next").unwrap();
    assert_eq!(store.read().unwrap().unwrap(), b"next");
    assert!(!folder.path().join("keys.new").exists());
}

#[test]
fn one_genesis_is_accepted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = GenesisStore::open(folder.path()).unwrap();
    let (genesis, other) = (chain::genesis(), other_genesis());
    assert!(store.accepted().unwrap().is_none());
    let hash = store.accept(&genesis).unwrap();
    assert_eq!(store.accept(&genesis).unwrap(), hash);
    let refused = store.accept(&other);
    assert!(matches!(refused, Err(StorageError::OtherGenesis { .. })), "{refused:?}");
    let accepted = GenesisStore::open(folder.path()).unwrap().accepted().unwrap().unwrap();
    assert_eq!((accepted.genesis, accepted.hash, accepted.started), (genesis, hash, false));
}

#[test]
fn a_genesis_is_dropped_by_its_hash_until_the_chain_starts() {
    let folder = tempfile::tempdir().unwrap();
    let store = GenesisStore::open(folder.path()).unwrap();
    let hash = store.accept(&chain::genesis()).unwrap();
    let refused = store.drop_accepted(Hash::ZERO);
    assert!(matches!(refused, Err(StorageError::OtherGenesis { .. })), "{refused:?}");
    store.drop_accepted(hash).unwrap();
    assert!(store.accepted().unwrap().is_none());
    let hash = store.accept(&other_genesis()).unwrap();
    store.start(hash).unwrap();
    store.start(hash).unwrap();
    let refused = store.drop_accepted(hash);
    assert!(matches!(refused, Err(StorageError::ChainStarted { .. })), "{refused:?}");
    assert!(GenesisStore::open(folder.path()).unwrap().accepted().unwrap().unwrap().started);
}

#[test]
fn a_chain_starts_only_with_the_accepted_genesis() {
    let folder = tempfile::tempdir().unwrap();
    let store = GenesisStore::open(folder.path()).unwrap();
    let none = store.start(chain::genesis().hash());
    assert!(matches!(none, Err(StorageError::Missing { .. })), "{none:?}");
    store.accept(&chain::genesis()).unwrap();
    let other = store.start(other_genesis().hash());
    assert!(matches!(other, Err(StorageError::OtherGenesis { .. })), "{other:?}");
}

#[test]
fn a_started_chain_without_its_genesis_is_an_error_and_not_a_new_node() {
    let folder = tempfile::tempdir().unwrap();
    let store = GenesisStore::open(folder.path()).unwrap();
    let hash = store.accept(&chain::genesis()).unwrap();
    store.start(hash).unwrap();
    std::fs::remove_file(folder.path().join("accepted")).unwrap();
    let missing = store.accepted();
    assert!(matches!(missing, Err(StorageError::Missing { .. })), "{missing:?}");
}

fn other_genesis() -> Genesis {
    let mut draft = chain::genesis().into_draft();
    draft.protocol_version += 1;
    Genesis::new(draft).unwrap()
}
