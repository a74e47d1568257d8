//! Disasters: files cut short at every byte, every bit of a file turned, every mixture of written and unwritten sectors.

use std::{
    fs,
    path::{Path, PathBuf},
};

use node_core::types::{CertifiedBlock, Height};

use super::chain;
use crate::adapters::storage::{BlockLog, ConsensusLog, GenesisStore, SessionStore, StorageError};

const LOG_BYTES: u64 = 4096;
const BLOCK_FILE_BYTES: u64 = 8192;
const SECTOR_BYTES: usize = 512;

/// The entries of a log, or why it is broken.
fn entries(folder: &Path) -> Result<Vec<Vec<u8>>, StorageError> {
    ConsensusLog::open_with(folder, LOG_BYTES).map(|opened| opened.entries)
}

/// All blocks, or why they cannot be read.
fn blocks(folder: &Path) -> Result<Vec<CertifiedBlock>, StorageError> {
    let reader = BlockLog::open_with(folder, BLOCK_FILE_BYTES)?.reader();
    reader.read_range(Height::new(1), usize::MAX, usize::MAX)
}

/// A log with a few flushes in one file, the last with this entry.
fn write_log(folder: &Path, last: Option<&[u8]>) -> PathBuf {
    let mut log = ConsensusLog::open_with(folder, LOG_BYTES).unwrap().log;
    log.reset(Height::new(3), b"first").unwrap();
    log.append(&[7; 300]).unwrap();
    log.flush().unwrap();
    log.append(b"vote").unwrap();
    log.flush().unwrap();
    if let Some(last) = last {
        log.append(last).unwrap();
        log.flush().unwrap();
    }
    log.segment.path().to_path_buf()
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// The bytes up to the last one that is not zero.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_consensus_log_cut_short_anywhere_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_log(folder.path(), None);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = entries(folder.path()).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(path.to_str().unwrap()), "at {length}: {error}");
    }
}

#[test]
fn a_turned_bit_anywhere_in_a_consensus_log_never_changes_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_log(folder.path(), None);
    let whole = fs::read(&path).unwrap();
    let expected = entries(folder.path()).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        match entries(folder.path()) {
            // Nothing was written there yet: it is taken for what a crash left, and wiped.
            Ok(found) => assert!(place >= used(&whole) && found == expected, "bit at {place} was not noticed"),
            Err(error) => assert!(error.is_damage(), "at {place}: {error}"),
        }
    }
}

#[test]
fn a_sector_lost_from_flushed_entries_breaks_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_log(folder.path(), Some(&[9; 1500]));
    let whole = fs::read(&path).unwrap();
    // The last record reaches to the end; of those before it, any lost sector is damage.
    let last_record = 448;
    for sector in 0..last_record / SECTOR_BYTES + 1 {
        let mut bytes = whole.clone();
        bytes[sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES].fill(0);
        fs::write(&path, &bytes).unwrap();
        let error = entries(folder.path()).unwrap_err();
        assert!(error.is_damage(), "sector {sector}: {error}");
    }
}

#[test]
fn every_mixture_of_written_and_unwritten_sectors_is_the_log_before_or_after_the_flush() {
    for last in [vec![5; 20], vec![5; 700], vec![0; 1500], (0..1800u32).map(|number| number as u8).collect()] {
        let folder = tempfile::tempdir().unwrap();
        let path = write_log(folder.path(), None);
        let (before, entries_before) = (fs::read(&path).unwrap(), entries(folder.path()).unwrap());
        let mut log = ConsensusLog::open_with(folder.path(), LOG_BYTES).unwrap().log;
        log.append(&last).unwrap();
        log.flush().unwrap();
        drop(log);
        let (after, entries_after) = (fs::read(&path).unwrap(), entries(folder.path()).unwrap());
        for written in mixtures(&before, &after) {
            fs::write(&path, &written).unwrap();
            let found = entries(folder.path()).unwrap();
            assert!(found == entries_before || found == entries_after);
            assert!(written != after || found == entries_after);
            // What was cut off leaves clean ground for the next flush.
            let mut log = ConsensusLog::open_with(folder.path(), LOG_BYTES).unwrap().log;
            log.append(b"next").unwrap();
            log.flush().unwrap();
            drop(log);
            let mut expected = found;
            expected.push(b"next".to_vec());
            assert_eq!(entries(folder.path()).unwrap(), expected);
        }
    }
}

#[test]
fn a_missing_file_between_two_others_breaks_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = ConsensusLog::open_with(folder.path(), LOG_BYTES).unwrap().log;
    let mut paths = Vec::new();
    for number in 0..60 {
        log.append(&[number; 200]).unwrap();
        log.flush().unwrap();
        let path = log.segment.path().to_path_buf();
        if paths.last() != Some(&path) {
            paths.push(path);
        }
    }
    drop(log);
    assert!(paths.len() > 3);
    fs::remove_file(&paths[1]).unwrap();
    assert!(entries(folder.path()).unwrap_err().is_damage());
}

#[test]
fn a_file_under_another_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_log(folder.path(), None);
    fs::copy(&path, path.with_file_name("0000000000000002.log")).unwrap();
    assert!(entries(folder.path()).unwrap_err().is_damage());
    fs::remove_file(path.with_file_name("0000000000000002.log")).unwrap();
    fs::write(path.with_file_name("copy.log"), b"").unwrap();
    assert!(entries(folder.path()).unwrap_err().is_damage());
}

#[test]
fn a_turned_bit_anywhere_in_a_block_file_is_noticed_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let expected = write_blocks(folder.path(), 3);
    let path = only_file(folder.path());
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&path, &bytes).unwrap();
        match blocks(folder.path()) {
            Ok(found) => assert!(place >= used(&whole) && found == expected, "bit at {place} was not noticed"),
            Err(StorageError::Damaged { path: named, offset, .. }) => {
                assert_eq!(named, path);
                assert!(offset <= place as u64, "damage at {place} is reported at {offset}");
            }
            Err(error) => panic!("at {place}: {error}"),
        }
    }
}

#[test]
fn a_turned_bit_in_an_older_block_file_is_noticed_when_the_block_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let expected = write_blocks(folder.path(), 40);
    let path = folder.path().join("0000000000000001.blocks");
    let whole = fs::read(&path).unwrap();
    for place in (32..used(&whole)).step_by(37) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = blocks(folder.path()).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(path.to_str().unwrap()), "at {place}: {error}");
        let log = BlockLog::open_with(folder.path(), BLOCK_FILE_BYTES).unwrap();
        assert_eq!(log.reader().read(Height::new(40)).unwrap().unwrap(), expected[39]);
    }
}

#[test]
fn a_block_file_cut_short_anywhere_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    write_blocks(folder.path(), 2);
    let path = only_file(folder.path());
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = blocks(folder.path()).unwrap_err();
        assert!(error.is_damage(), "at {length}: {error}");
    }
}

#[test]
fn every_mixture_of_written_and_unwritten_sectors_is_the_blocks_before_or_after_the_append() {
    let folder = tempfile::tempdir().unwrap();
    let before_blocks = write_blocks(folder.path(), 3);
    let path = only_file(folder.path());
    let before = fs::read(&path).unwrap();
    let after_blocks = chain::blocks(&chain::genesis(), 4);
    let mut log = BlockLog::open_with(folder.path(), BLOCK_FILE_BYTES).unwrap();
    log.append(&after_blocks[3].block, &after_blocks[3].certificate).unwrap();
    drop(log);
    let after = fs::read(&path).unwrap();
    for written in mixtures(&before, &after) {
        fs::write(&path, &written).unwrap();
        let found = blocks(folder.path()).unwrap();
        assert!(found == before_blocks || (written == after && found == after_blocks));
    }
}

#[test]
fn a_missing_block_file_is_noticed_when_its_blocks_are_read() {
    let folder = tempfile::tempdir().unwrap();
    write_blocks(folder.path(), 40);
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    fs::remove_file(&files[1]).unwrap();
    let error = blocks(folder.path()).unwrap_err();
    assert!(error.is_damage(), "{error}");
}

#[test]
fn a_turned_bit_or_a_cut_anywhere_in_the_key_list_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SessionStore::open(folder.path()).unwrap();
    store.write(b"epoch 1, key, claim, owner").unwrap();
    let path = folder.path().join("keys");
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let error = store.read().unwrap_err();
            assert!(error.is_damage() && error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        fs::write(&path, &whole[..place]).unwrap();
        assert!(store.read().unwrap_err().is_damage());
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert!(store.read().unwrap_err().is_damage());
}

#[test]
fn a_turned_bit_anywhere_in_the_accepted_genesis_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = GenesisStore::open(folder.path()).unwrap();
    let hash = store.accept(&chain::genesis()).unwrap();
    store.start(hash).unwrap();
    for name in ["accepted", "started"] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert!(store.accepted().unwrap_err().is_damage(), "{name} at {place}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(store.accepted().unwrap().unwrap().started);
}

#[test]
fn a_format_of_a_later_release_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let store = SessionStore::open(folder.path()).unwrap();
    store.write(b"keys").unwrap();
    let path = folder.path().join("keys");
    let mut bytes = fs::read(&path).unwrap();
    bytes[7] = 2;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
    bytes[12..16].copy_from_slice(&checksum.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    let error = store.read().unwrap_err();
    assert!(matches!(error, StorageError::Format { found: 2, expected: 1, .. }), "{error}");
}

#[test]
fn what_can_be_done_is_part_of_every_error_of_the_operating_system() {
    let said = |code| {
        StorageError::io("append to", Path::new("/data/wal"), std::io::Error::from_raw_os_error(code)).to_string()
    };
    assert_eq!(
        said(28),
        "failed to append to /data/wal: no space left on the volume; free or add space, then start the node again"
    );
    assert!(said(30).contains("read-only"), "{}", said(30));
    assert!(said(13).contains("permission denied"), "{}", said(13));
    assert!(said(5).starts_with("failed to append to /data/wal: "), "{}", said(5));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, b"").unwrap();
    for folder in [file.join("wal"), PathBuf::from("/sys/althing")] {
        let error = BlockLog::open(&folder).unwrap_err();
        assert!(error.to_string().contains("create the folder"), "{error}");
        assert!(ConsensusLog::open(&folder).is_err());
        assert!(SessionStore::open(&folder).is_err());
        assert!(GenesisStore::open(&folder).is_err());
    }
}

fn write_blocks(folder: &Path, count: u64) -> Vec<CertifiedBlock> {
    let blocks = chain::blocks(&chain::genesis(), count);
    let mut log = BlockLog::open_with(folder, BLOCK_FILE_BYTES).unwrap();
    for block in &blocks {
        log.append(&block.block, &block.certificate).unwrap();
    }
    blocks
}

/// Every way in which the sectors that differ can be those of before or those of after.
fn mixtures(before: &[u8], after: &[u8]) -> Vec<Vec<u8>> {
    let changed: Vec<usize> = (0..before.len())
        .step_by(SECTOR_BYTES)
        .filter(|start| before[*start..*start + SECTOR_BYTES] != after[*start..*start + SECTOR_BYTES])
        .collect();
    assert!(changed.len() <= 8, "too many mixtures");
    (0..1usize << changed.len())
        .map(|choice| {
            let mut bytes = before.to_vec();
            for (_, start) in changed.iter().enumerate().filter(|(bit, _)| choice & (1 << bit) != 0) {
                bytes[*start..*start + SECTOR_BYTES].copy_from_slice(&after[*start..*start + SECTOR_BYTES]);
            }
            bytes
        })
        .collect()
}
