//! Tests of the volume: one process at a time, and what the kernel's files say.

use node_core::types::Uid;

use super::{
    LockError, OwnerFacts, VolumeLock,
    owner::{is_sandbox, parse_boot_time, parse_machine, parse_start},
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
    assert_eq!(facts.boot, OwnerFacts::gather().unwrap().boot);
    assert!(facts.started.get() > 1_600_000_000_000, "{facts:?}");
    let instance = Uid::parse("0e5e7b1c-0000-4000-8000-00000000000a").unwrap();
    assert_eq!(facts.owner(instance).pod, instance);
}

#[test]
fn the_start_is_found_behind_a_command_with_spaces_and_parentheses() {
    let stat = "7 (a) b (c d)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 1";
    assert_eq!(parse_start(stat).unwrap(), 4242);
    assert!(parse_start("7 (x) S 1 2").is_err());
}

#[test]
fn the_time_of_the_boot_is_found_among_other_lines() {
    assert_eq!(parse_boot_time("cpu 1 2 3\nbtime 1700000000\nprocesses 9\n").unwrap(), 1_700_000_000_000);
    assert!(parse_boot_time("cpu 1 2 3\n").is_err());
}

#[test]
fn a_number_that_many_machines_share_is_no_machine() {
    assert_eq!(parse_machine("03000200-0400-0500-0006-000700080009\n"), None);
    assert_eq!(parse_machine("Not Settable"), None);
    assert!(parse_machine("8A3C1F52-0000-4000-8000-00000000000A\n").is_some());
}

#[test]
fn sandboxes_are_told_from_machines() {
    assert!(is_sandbox("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016\n", ""));
    assert!(is_sandbox("Linux version 6.12.0", "quiet systemd.unit=kata-containers.target"));
    assert!(!is_sandbox("Linux version 6.12.0-amd64 (debian)", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet"));
}
