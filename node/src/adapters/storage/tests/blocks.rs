//! Tests of the block log: order, files, reading while writing, restart.

use std::path::Path;

use node_core::types::{CertifiedBlock, Height};

use super::chain;
use crate::adapters::storage::{BlockLog, StorageError};

/// Room for a handful of blocks in each file.
const SEGMENT_BYTES: u64 = 4096;

fn open(folder: &Path) -> BlockLog {
    BlockLog::open_with(folder, SEGMENT_BYTES).unwrap()
}

fn fill(folder: &Path, blocks: &[CertifiedBlock]) -> BlockLog {
    let mut log = open(folder);
    for block in blocks {
        log.append(&block.block, &block.certificate).unwrap();
    }
    log
}

fn read_all(log: &BlockLog) -> Vec<CertifiedBlock> {
    log.reader().read_range(Height::new(1), usize::MAX, usize::MAX).unwrap()
}

#[test]
fn an_empty_log_has_no_heights() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    assert_eq!((log.last_height(), log.reader().first_height()), (None, None));
    assert_eq!(log.reader().read(Height::new(1)).unwrap(), None);
}

#[test]
fn every_block_is_read_back_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 200);
    let log = fill(folder.path(), &blocks);
    assert_eq!(read_all(&log), blocks);
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(files > 20, "only {files} files");
    drop(log);
    let log = open(folder.path());
    assert_eq!((log.last_height(), log.reader().first_height()), (Some(Height::new(200)), Some(Height::new(1))));
    assert_eq!(read_all(&log), blocks);
    assert_eq!(log.reader().read(Height::new(201)).unwrap(), None);
}

#[test]
fn blocks_deep_inside_one_file_are_found_by_walking_from_the_nearest_kept_place() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 150);
    let mut log = BlockLog::open_with(folder.path(), 1024 * 1024).unwrap();
    for block in &blocks {
        log.append(&block.block, &block.certificate).unwrap();
    }
    for height in [150, 1, 64, 65, 129, 128, 2] {
        let found = log.reader().read(Height::new(height)).unwrap().unwrap();
        assert_eq!(found, blocks[height as usize - 1]);
    }
}

#[test]
fn a_log_may_start_above_one() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 9);
    let log = fill(folder.path(), &blocks[4..]);
    assert_eq!(log.reader().first_height(), Some(Height::new(5)));
    assert_eq!(log.reader().read(Height::new(4)).unwrap(), None);
    drop(log);
    assert_eq!(open(folder.path()).reader().read(Height::new(5)).unwrap().unwrap(), blocks[4]);
}

#[test]
fn a_block_that_does_not_follow_the_last_one_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 4);
    let mut log = fill(folder.path(), &blocks[..2]);
    for wrong in [&blocks[1], &blocks[3]] {
        let refused = log.append(&wrong.block, &wrong.certificate);
        assert!(matches!(refused, Err(StorageError::OutOfOrder { last: 2, .. })), "{refused:?}");
    }
    log.append(&blocks[2].block, &blocks[2].certificate).unwrap();
    assert_eq!(read_all(&log), blocks[..3]);
}

#[test]
fn a_block_larger_than_a_file_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let block = &chain::blocks(&chain::genesis(), 1)[0];
    let mut log = BlockLog::open_with(folder.path(), 256).unwrap();
    let refused = log.append(&block.block, &block.certificate);
    assert!(matches!(refused, Err(StorageError::TooLarge { .. })), "{refused:?}");
    let again = log.append(&block.block, &block.certificate);
    assert!(matches!(again, Err(StorageError::TooLarge { .. })), "{again:?}");
}

#[test]
fn a_range_ends_at_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 20);
    let reader = fill(folder.path(), &blocks).reader();
    assert_eq!(reader.read_range(Height::new(3), 5, usize::MAX).unwrap(), blocks[2..7]);
    assert_eq!(reader.read_range(Height::new(19), 5, usize::MAX).unwrap(), blocks[18..]);
    assert_eq!(reader.read_range(Height::new(3), 5, 1).unwrap(), blocks[2..3]);
    assert_eq!(reader.read_range(Height::new(21), 5, usize::MAX).unwrap(), []);
}

#[test]
fn a_reader_on_another_thread_sees_only_whole_blocks_while_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 100);
    let mut log = open(folder.path());
    let reader = log.reader();
    let expected = blocks.clone();
    let watcher = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < expected.len() {
            let last = reader.last_height().map_or(0, |height| height.get() as usize);
            for (height, expected) in (1u64..).zip(&expected).take(last).skip(seen) {
                assert_eq!(reader.read(Height::new(height)).unwrap().as_ref(), Some(expected));
            }
            seen = last;
            std::thread::yield_now();
        }
    });
    for block in &blocks {
        log.append(&block.block, &block.certificate).unwrap();
    }
    watcher.join().unwrap();
}
