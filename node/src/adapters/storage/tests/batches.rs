//! The log of batches: what was stored is there again, what was dropped is not, and files go when they are empty.

use std::{fs, path::Path, sync::Arc};

use node_core::types::{Batch, Hash};

use super::{
    super::{StorageError, batches::BatchLog},
    chain::transaction,
};

/// Takes a few records.
const SEGMENT_BYTES: u64 = 1_024;

fn batch(nonce: u64) -> Arc<Batch> {
    Arc::new(Batch::new(vec![transaction(nonce)]).unwrap())
}

fn stored(folder: &Path) -> Vec<Hash> {
    let (_, batches) = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap();
    batches.iter().map(Batch::digest).collect()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn stored_batches_are_found_in_their_order_and_dropped_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    let (mut log, found) = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap();
    assert!(found.is_empty());
    let batches: Vec<_> = (0..4).map(batch).collect();
    for one in &batches {
        log.append(std::slice::from_ref(one), &[]).unwrap();
    }
    log.append(&[], &[batches[1].digest()]).unwrap();
    drop(log);
    let expected: Vec<Hash> = [0, 2, 3].map(|index: usize| batches[index].digest()).to_vec();
    assert_eq!(stored(folder), expected);
}

#[test]
fn a_file_goes_once_its_last_batch_is_dropped_and_no_dropped_batch_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    let (mut log, _) = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap();
    let batches: Vec<_> = (0..6).map(batch).collect();
    for one in &batches {
        log.append(std::slice::from_ref(one), &[]).unwrap();
    }
    let before = files(folder);
    assert!(before > 1, "{before} files");
    // Of a later file first: it stays for what it says about the earlier one.
    log.append(&[], &batches[2..].iter().map(|batch| batch.digest()).collect::<Vec<_>>()).unwrap();
    assert_eq!(stored(folder), batches[..2].iter().map(|batch| batch.digest()).collect::<Vec<_>>());
    log.append(&[], &batches[..2].iter().map(|batch| batch.digest()).collect::<Vec<_>>()).unwrap();
    assert_eq!((files(folder), stored(folder)), (1, Vec::new()));
}

#[test]
fn a_write_that_a_crash_interrupted_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    let (mut log, _) = BatchLog::open_with(folder, 64 * 1024).unwrap();
    log.append(&[batch(0)], &[]).unwrap();
    drop(log);
    let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&path).unwrap();
    let mut log = BatchLog::open_with(folder, 64 * 1024).unwrap().0;
    log.append(&(1..40).map(batch).collect::<Vec<_>>(), &[]).unwrap();
    drop(log);
    // The second half of the record was never written.
    let mut torn = fs::read(&path).unwrap();
    let written = torn.iter().rposition(|byte| *byte != 0).unwrap();
    let start = written / 2 / 512 * 512;
    torn[start..=written].fill(0);
    assert_ne!(torn, bytes);
    fs::write(&path, torn).unwrap();
    assert_eq!(stored_with(folder), [batch(0).digest()]);
}

fn stored_with(folder: &Path) -> Vec<Hash> {
    let (_, batches) = BatchLog::open_with(folder, 64 * 1024).unwrap();
    batches.iter().map(Batch::digest).collect()
}

/// A log of several files.
fn filled(folder: &Path, count: u64) -> BatchLog {
    let (mut log, _) = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap();
    for nonce in 0..count {
        log.append(&[batch(nonce)], &[]).unwrap();
    }
    log
}

fn names(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn a_log_that_is_gone_as_a_whole_is_made_anew_and_that_is_said_once() {
    for (remove, lost) in [(true, true), (false, false)] {
        let directory = tempfile::tempdir().unwrap();
        let folder = &directory.path().join("batches");
        assert!(!filled(folder, 6).was_lost(), "a new one");
        if remove {
            fs::remove_dir_all(folder).unwrap();
        }
        let (log, found) = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap();
        assert_eq!((log.was_lost(), found.is_empty()), (lost, lost));
        drop(log);
        assert!(!BatchLog::open_with(folder, SEGMENT_BYTES).unwrap().0.was_lost());
    }
    // The folder is there, and nothing in it.
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    drop(filled(folder, 6));
    names(folder).iter().for_each(|path| fs::remove_file(path).unwrap());
    assert!(BatchLog::open_with(folder, SEGMENT_BYTES).unwrap().0.was_lost());
}

#[test]
fn one_missing_file_of_the_log_is_named_whichever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    drop(filled(folder, 12));
    let all = names(folder);
    assert!(all.len() > 2, "{all:?}");
    for path in all {
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap_err();
        assert!(matches!(&error, StorageError::Missing { path: named, .. } if *named == path), "{error}");
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(stored(folder).len(), 12);
}

#[test]
fn a_file_that_a_crash_left_outside_of_the_noted_range_is_no_loss_and_none() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    let kept = directory.path().join("kept/batches");
    let mut log = filled(folder, 6);
    let (before, first) = (fs::read(&kept).unwrap(), names(folder)[0].clone());
    let oldest = fs::read(&first).unwrap();
    // The oldest file goes, and the crash comes before it is removed.
    let mut dropped = 0;
    while first.exists() {
        log.append(&[], &[batch(dropped).digest()]).unwrap();
        dropped += 1;
    }
    drop(log);
    fs::write(&first, oldest).unwrap();
    let expected: Vec<Hash> = (dropped..6).map(|nonce| batch(nonce).digest()).collect();
    assert_eq!(stored(folder), expected);
    assert!(!first.exists());
    // A new file is made, and the crash comes before it is noted.
    let (mut log, _) = BatchLog::open_with(folder, SEGMENT_BYTES).unwrap();
    let noted = fs::read(&kept).unwrap();
    assert_ne!(noted, before);
    let count = names(folder).len();
    let mut nonce = 6;
    while names(folder).len() == count {
        log.append(&[batch(nonce)], &[]).unwrap();
        nonce += 1;
    }
    drop(log);
    fs::write(&kept, noted).unwrap();
    assert_eq!(stored(folder).len() as u64, nonce - dropped);
}

#[test]
fn a_turned_bit_anywhere_in_a_batch_file_or_the_note_is_noticed_or_harmless() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    drop(filled(folder, 3));
    let whole = stored(folder);
    let kept = directory.path().join("kept/batches");
    for path in names(folder).into_iter().chain([kept]) {
        let bytes = fs::read(&path).unwrap();
        for place in 0..bytes.len() {
            let mut turned = bytes.clone();
            turned[place] ^= 1 << (place % 8);
            fs::write(&path, &turned).unwrap();
            match BatchLog::open_with(folder, SEGMENT_BYTES) {
                // Nothing was written there yet: it is taken for what a crash left, and wiped.
                Ok((log, found)) => {
                    let found: Vec<Hash> = found.iter().map(Batch::digest).collect();
                    assert!(!log.was_lost() && found == whole, "bit at {place} of {}", path.display());
                }
                Err(error) => {
                    let named = error.to_string().contains(path.to_str().unwrap());
                    assert!(named, "at {place}: {error}");
                }
            }
            fs::write(&path, &bytes).unwrap();
        }
    }
}

#[test]
fn a_full_disk_ends_the_log_and_what_was_stored_before_stays() {
    let directory = tempfile::tempdir().unwrap();
    let folder = &directory.path().join("batches");
    let mut log = filled(folder, 1);
    log.fill_disk();
    let full = log.append(&[batch(1)], &[]);
    assert!(matches!(full, Err(StorageError::NoSpace { .. })), "{full:?}");
    let after = log.append(&[batch(1)], &[]);
    assert!(matches!(after, Err(StorageError::Failed { .. })), "{after:?}");
    drop(log);
    assert_eq!(stored(folder), [batch(0).digest()]);
}
