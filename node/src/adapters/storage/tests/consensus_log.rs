//! Tests of the consensus log: what a flush promises, what a height forgets, what is left after a crash.

use std::path::Path;

use node_core::types::Height;

use crate::adapters::storage::{ConsensusLog, LogCondition, OpenedLog, StorageError};

/// Room for a few entries in each file.
const SEGMENT_BYTES: u64 = 4096;

fn open(folder: &Path) -> OpenedLog {
    ConsensusLog::open_with(folder, SEGMENT_BYTES).unwrap()
}

fn entry(number: u8) -> Vec<u8> {
    vec![number; 100 + usize::from(number)]
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_new_log_says_that_it_is_new_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path());
    assert_eq!((opened.condition, opened.height, opened.entries.len()), (LogCondition::New, None, 0));
    drop(opened);
    assert_eq!(open(folder.path()).condition, LogCondition::Whole);
}

#[test]
fn what_was_flushed_is_there_after_a_restart_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).log;
    log.reset(Height::new(1), &entry(1)).unwrap();
    log.append(&entry(2)).unwrap();
    log.flush().unwrap();
    log.append(&entry(3)).unwrap();
    log.flush().unwrap();
    log.append(&entry(4)).unwrap();
    drop(log);
    let opened = open(folder.path());
    assert_eq!(opened.height, Some(Height::new(1)));
    assert_eq!(opened.entries, [entry(1), entry(2), entry(3)]);
}

#[test]
fn a_height_forgets_the_one_before_with_its_first_flush_and_not_earlier() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).log;
    log.reset(Height::new(7), &entry(1)).unwrap();
    log.flush().unwrap();
    log.reset(Height::new(8), &entry(2)).unwrap();
    drop(log);
    let OpenedLog { mut log, height, entries, .. } = open(folder.path());
    assert_eq!((height, entries), (Some(Height::new(7)), vec![entry(1)]));
    log.reset(Height::new(8), &entry(2)).unwrap();
    log.flush().unwrap();
    drop(log);
    let opened = open(folder.path());
    assert_eq!((opened.height, opened.entries), (Some(Height::new(8)), vec![entry(2)]));
}

#[test]
fn entries_of_one_height_span_files_and_older_files_go_with_the_next_height() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).log;
    let mut expected = Vec::new();
    log.reset(Height::new(1), &entry(0)).unwrap();
    expected.push(entry(0));
    for number in 1..=100 {
        log.append(&entry(number)).unwrap();
        log.flush().unwrap();
        expected.push(entry(number));
    }
    let full = files(folder.path());
    assert!(full > 3, "only {full} files");
    drop(log);
    let OpenedLog { mut log, entries, .. } = open(folder.path());
    assert_eq!(entries, expected);
    log.reset(Height::new(2), &entry(5)).unwrap();
    log.flush().unwrap();
    assert_eq!(files(folder.path()), 1);
    drop(log);
    assert_eq!(open(folder.path()).entries, [entry(5)]);
}

#[test]
fn many_heights_take_no_more_space_than_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).log;
    for height in 1..=300 {
        log.reset(Height::new(height), &entry(1)).unwrap();
        log.append(&entry(2)).unwrap();
        log.flush().unwrap();
        assert!(files(folder.path()) <= 2);
    }
    drop(log);
    let opened = open(folder.path());
    assert_eq!((opened.height, opened.entries), (Some(Height::new(300)), vec![entry(1), entry(2)]));
}

#[test]
fn an_entry_larger_than_a_file_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).log;
    log.reset(Height::new(1), &entry(1)).unwrap();
    let refused = log.append(&vec![1; SEGMENT_BYTES as usize]);
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
    log.append(&entry(2)).unwrap();
    log.flush().unwrap();
    drop(log);
    assert_eq!(open(folder.path()).entries, [entry(1), entry(2)]);
}

#[test]
fn a_full_disk_ends_the_log_and_what_was_flushed_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path()).log;
    log.reset(Height::new(1), &entry(1)).unwrap();
    log.flush().unwrap();
    log.segment.fill_disk();
    log.append(&entry(2)).unwrap();
    let full = log.flush();
    assert!(matches!(full, Err(StorageError::NoSpace { .. })), "{full:?}");
    let after = log.flush();
    assert!(matches!(after, Err(StorageError::Failed { .. })), "{after:?}");
    drop(log);
    assert_eq!(open(folder.path()).entries, [entry(1)]);
}

#[test]
fn a_broken_log_can_be_set_aside_and_a_new_one_begins() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("wal");
    let mut log = open(&folder).log;
    log.append(&entry(1)).unwrap();
    log.flush().unwrap();
    drop(log);
    let path = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let broken = ConsensusLog::open_with(&folder, SEGMENT_BYTES).unwrap_err();
    assert!(broken.is_damage(), "{broken}");
    ConsensusLog::set_aside(&folder).unwrap();
    assert_eq!(open(&folder).condition, LogCondition::New);
    assert!(parent.path().join("wal.broken-1").is_dir());
}
