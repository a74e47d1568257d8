//! The bytes on disk, frozen: a release that writes others cannot read the volumes of the one before.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use node_core::types::{Hash, Height};

use super::chain;
use crate::adapters::storage::{BatchLog, BlockLog, ConsensusLog, GenesisStore, SessionStore};

const FORMATS: &str = include_str!("../../../../testdata/storage_formats.txt");
/// The size is part of the header of a file.
const FILE_BYTES: u64 = 4096;

#[test]
fn the_bytes_on_disk_never_change() {
    let folder = tempfile::tempdir().unwrap();
    write_volume(folder.path());
    let mut found = String::new();
    for (folder, name) in files(folder.path()) {
        let bytes = fs::read(folder.join(&name)).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let digits = bytes[..used].iter().fold(String::new(), |mut digits, byte| {
            write!(digits, "{byte:02x}").unwrap();
            digits
        });
        let parent = folder.file_name().unwrap().to_string_lossy();
        writeln!(found, "{parent}/{name} {} {digits}", bytes.len()).unwrap();
    }
    assert_eq!(found, FORMATS, "found:\n{found}");
}

#[test]
fn the_frozen_bytes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for line in FORMATS.lines() {
        let [name, size, digits] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let path = folder.path().join(name);
        let bytes: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap())
            .collect();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size.parse().unwrap()).unwrap();
    }
    let log = ConsensusLog::open(&folder.path().join("wal")).unwrap();
    assert_eq!((log.height, log.entries), (Some(Height::new(4)), vec![b"record".to_vec(), b"vote".to_vec()]));
    let blocks = BlockLog::open(&folder.path().join("blocks")).unwrap();
    assert_eq!(blocks.reader().read(Height::new(1)).unwrap().unwrap(), chain::blocks(&chain::genesis(), 1)[0]);
    let (_, batches) = BatchLog::open(&folder.path().join("batches")).unwrap();
    assert_eq!(batches, [chain::blocks(&chain::genesis(), 1)[0].block.batches()[0].as_ref().clone()]);
    assert_eq!(SessionStore::open(&folder.path().join("session")).unwrap().read().unwrap().unwrap(), b"key list");
    let accepted = GenesisStore::open(&folder.path().join("genesis")).unwrap().accepted().unwrap().unwrap();
    assert!(accepted.started && accepted.genesis == chain::genesis());
}

fn write_volume(folder: &Path) {
    let mut log = ConsensusLog::open_with(&folder.join("wal"), FILE_BYTES).unwrap().log;
    log.append(b"height three").unwrap();
    log.flush().unwrap();
    log.reset(Height::new(4), b"record").unwrap();
    log.append(b"vote").unwrap();
    log.flush().unwrap();
    let block = &chain::blocks(&chain::genesis(), 1)[0];
    let mut blocks = BlockLog::open_with(&folder.join("blocks"), FILE_BYTES).unwrap();
    blocks.append(&block.block, &block.certificate).unwrap();
    let batch = block.block.batches()[0].clone();
    let (mut batches, _) = BatchLog::open_with(&folder.join("batches"), FILE_BYTES).unwrap();
    batches.append(&[batch], &[Hash::new([7; 32])]).unwrap();
    SessionStore::open(&folder.join("session")).unwrap().write(b"key list").unwrap();
    let genesis = GenesisStore::open(&folder.join("genesis")).unwrap();
    let hash = genesis.accept(&chain::genesis()).unwrap();
    genesis.start(hash).unwrap();
}

/// Every file with its folder, in the order of their names.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut files = Vec::new();
    for folder in folders {
        let mut names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        files.extend(names.into_iter().map(|name| (folder.clone(), name)));
    }
    files
}
