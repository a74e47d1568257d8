//! Tests of the volume: one process at a time, and what the kernel's files say.

use super::{
    LockError, OwnerFacts, VolumeLock, available_bytes,
    owner::{parse_boot_id, parse_start},
};

#[test]
fn a_second_lock_on_the_same_volume_is_refused_and_names_the_holder() {
    let folder = tempfile::tempdir().unwrap();
    let lock = VolumeLock::acquire(folder.path()).unwrap();
    match VolumeLock::acquire(folder.path()) {
        Err(LockError::Held { path, holder }) => {
            assert_eq!(path, lock.path());
            assert_eq!(holder, format!("process {}", std::process::id()));
        }
        other => panic!("expected the lock to be held, found {other:?}"),
    }
}

#[test]
fn the_lock_is_free_again_when_its_holder_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    drop(VolumeLock::acquire(folder.path()).unwrap());
    VolumeLock::acquire(folder.path()).unwrap();
}

#[test]
fn the_facts_about_this_process_are_there_and_stable() {
    let facts = OwnerFacts::gather().unwrap();
    assert_eq!(facts, OwnerFacts::gather().unwrap());
    assert_eq!(facts.boot_id.len(), 36);
    assert!(facts.start_ticks > 0);
}

#[test]
fn the_start_is_found_behind_a_command_with_spaces_and_parentheses() {
    let stat = "7 (a) b (c d)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 1";
    assert_eq!(parse_start(stat).unwrap(), 4242);
    assert!(parse_start("7 (x) S 1 2").is_err());
}

#[test]
fn a_boot_id_is_a_uuid() {
    assert_eq!(
        parse_boot_id("0E5E7B1C-0000-4000-8000-00000000000A\n").unwrap(),
        "0e5e7b1c-0000-4000-8000-00000000000a"
    );
    assert!(parse_boot_id("unknown").is_err());
}

#[test]
fn free_space_is_known() {
    assert!(available_bytes(tempfile::tempdir().unwrap().path()).unwrap() > 0);
}
