//! The log of batches: what was stored is there again, what was dropped is not, and files go when they are empty.

use std::{fs, path::Path, sync::Arc};

use node_core::types::{Batch, Hash};

use super::{super::batches::BatchLog, chain::transaction};

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
    let folder = directory.path();
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
    let folder = directory.path();
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
    let folder = directory.path();
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
