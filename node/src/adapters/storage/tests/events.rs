//! Tests of the log of events: what it keeps, disasters, and that it is made again from the blocks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use node_core::{
    ledger::{Recoveries, StateStore as _, apply_genesis, commit_outcome, execute_after, snapshot},
    types::{CertifiedBlock, Genesis, Height},
};

use super::chain;
use crate::adapters::storage::{
    BlockLog, BlockReader, EventLog, EventReader, ExecutedBlock, Kept, Milestones, Past, QmdbStore, RebuildError,
    ReplayError, StorageError, open_events, rebuild_state_from_blocks, verify_events,
};

const FILE_BYTES: u64 = 8192;

/// The volume of a node that has executed some blocks.
struct Volume {
    folder: tempfile::TempDir,
    genesis: Genesis,
    recoveries: Recoveries,
    milestones: Milestones,
    blocks: BlockReader,
    certified: Vec<CertifiedBlock>,
}

impl Volume {
    fn new(count: u64) -> Self {
        let (folder, genesis) = (tempfile::tempdir().unwrap(), chain::genesis());
        let live = tempfile::tempdir().unwrap();
        let certified = chain::run(&mut QmdbStore::open(live.path()).unwrap(), &genesis, count);
        Self::of(folder, genesis, certified, 0)
    }

    /// With the blocks after the first ones only.
    fn of(folder: tempfile::TempDir, genesis: Genesis, certified: Vec<CertifiedBlock>, pruned: usize) -> Self {
        let mut log = BlockLog::open_with(&folder.path().join("blocks"), FILE_BYTES).unwrap();
        for block in &certified[pruned..] {
            log.append(&block.block, &block.certificate).unwrap();
        }
        let milestones = Milestones::open(&folder.path().join("light")).unwrap();
        let (blocks, recoveries) = (log.reader(), Recoveries::default());
        Self { folder, genesis, recoveries, milestones, blocks, certified }
    }

    fn kept(&self) -> Kept<'_> {
        let Self { genesis, recoveries, milestones, blocks, .. } = self;
        Kept { genesis, recoveries, blocks, milestones }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts as a node does: the events, then the state with those of the blocks that it does not hold.
    fn start(&self, past: Past) -> EventLog {
        let store = QmdbStore::open(&self.path().join("state")).unwrap();
        let executed = store.roots().unwrap().map_or(Height::ZERO, |(height, _)| height);
        let log = open_events(self.path(), self.kept(), executed, past, |_| {}).unwrap();
        rebuild_state_from_blocks(self.kept(), &store, Some(log), |_| {}).unwrap().1.unwrap()
    }

    /// Every byte of every event, by height.
    fn all(&self) -> Vec<(u64, String)> {
        let reader = EventReader::open(&self.path().join("events")).unwrap();
        let (first, last) = (reader.first_height().unwrap().get(), reader.last_height().unwrap().get());
        let text = |height| format!("{:?}", reader.read(Height::new(height)).unwrap().unwrap());
        (first..=last).map(|height| (height, text(height))).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path().join("events")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Keeps the events of all blocks.
    fn fill(&self, log: &mut EventLog) {
        self.fill_after(log, 0).unwrap();
    }

    /// Keeps the events of the blocks above a height.
    fn fill_after(&self, log: &mut EventLog, kept: u64) -> Result<(), StorageError> {
        let state = tempfile::tempdir().unwrap();
        let mut store = QmdbStore::open(state.path()).unwrap();
        apply_genesis(&mut store, &self.genesis).unwrap();
        for CertifiedBlock { block, .. } in &self.certified {
            let before = snapshot(&store).unwrap().unwrap();
            let outcome = execute_after(&store, block, &self.recoveries).unwrap().unwrap();
            if block.header().height > Height::new(kept) {
                log.keep(ExecutedBlock { block, before: &before, recoveries: &self.recoveries, outcome: &outcome })?;
            }
            commit_outcome(&mut store, outcome).unwrap();
        }
        Ok(())
    }

    fn small_files(&self) -> EventLog {
        EventLog::open_with(&self.path().join("events"), self.genesis.chain_id.clone(), FILE_BYTES).unwrap()
    }
}

#[test]
fn a_node_keeps_the_events_of_each_block_and_goes_on_after_the_last_one() {
    let whole = Volume::new(9);
    drop(whole.start(Past::MadeAgain));
    let all = whole.all();
    assert_eq!(all.iter().map(|(height, _)| *height).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());

    // A crash after five blocks, and another start with the rest.
    let first = whole.certified[..5].to_vec();
    let mut volume = Volume::of(tempfile::tempdir().unwrap(), chain::genesis(), first, 0);
    drop(volume.start(Past::MadeAgain));
    let mut blocks = BlockLog::open_with(&volume.path().join("blocks"), FILE_BYTES).unwrap();
    for block in &whole.certified[5..] {
        blocks.append(&block.block, &block.certificate).unwrap();
    }
    volume.blocks = blocks.reader();
    let log = volume.start(Past::Left);
    assert_eq!((log.reader().first_height(), log.last_height()), (Some(Height::new(1)), Some(Height::new(9))));
    drop(log);
    assert_eq!(volume.all(), all);
}

#[test]
fn events_that_are_missing_are_made_again_with_the_same_bytes() {
    let volume = Volume::new(7);
    drop(volume.start(Past::MadeAgain));
    let (all, bytes) = (volume.all(), fs::read(&volume.files()[0]).unwrap());
    fs::remove_dir_all(volume.path().join("events")).unwrap();
    drop(volume.start(Past::MadeAgain));
    assert_eq!(volume.all(), all);
    assert_eq!(fs::read(&volume.files()[0]).unwrap(), bytes);
    assert!(!volume.path().join("events.scratch").exists());
}

#[test]
fn a_validator_or_a_node_without_the_first_blocks_begins_after_its_state() {
    for (past, pruned) in [(Past::Left, 0), (Past::MadeAgain, 3)] {
        let volume = Volume::new(7);
        drop(volume.start(Past::MadeAgain));
        fs::remove_dir_all(volume.path().join("events")).unwrap();
        fs::remove_dir_all(volume.path().join("blocks")).unwrap();
        let Volume { folder, genesis, certified, .. } = volume;
        let volume = Volume::of(folder, genesis, certified, pruned);
        let log = volume.start(past);
        assert_eq!((log.reader().first_height(), log.last_height()), (None, None));
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_its_height_made_again() {
    let volume = Volume::new(6);
    drop(volume.start(Past::MadeAgain));
    let all = volume.all();
    let path = volume.files().remove(0);
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The last sectors of the last record were never written.
    let mut torn = whole.clone();
    torn[(used - 600) / 512 * 512..].fill(0);
    fs::write(&path, torn).unwrap();
    drop(volume.start(Past::MadeAgain));
    assert_eq!(volume.all(), all);
    assert!(!volume.path().join("events.damaged").exists(), "what a crash leaves is no damage");
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_turned_bit_is_named_and_the_log_set_aside_and_made_again() {
    let volume = Volume::new(5);
    drop(volume.start(Past::MadeAgain));
    let all = volume.all();
    let path = volume.files().remove(0);
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for place in (0..used).step_by(used / 11) {
        let mut bytes = whole.clone();
        bytes[place] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let error = EventReader::open(&volume.path().join("events")).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(path.to_str().unwrap()), "{place}: {error}");
        drop(volume.start(Past::MadeAgain));
        assert_eq!(volume.all(), all, "bit at {place}");
        assert!(volume.path().join("events.damaged").exists());
    }
}

#[test]
fn a_missing_file_or_a_bit_in_an_older_one_is_named_when_its_events_are_read() {
    let volume = Volume::new(40);
    let mut log = volume.small_files();
    volume.fill(&mut log);
    drop(log);
    let files = volume.files();
    assert!(files.len() > 3, "{files:?}");
    let bytes = fs::read(&files[1]).unwrap();
    let mut turned = bytes.clone();
    turned[900] ^= 1;
    for disaster in [None, Some(turned)] {
        match disaster {
            None => fs::remove_file(&files[1]).unwrap(),
            Some(turned) => fs::write(&files[1], turned).unwrap(),
        }
        let reader = volume.small_files().reader();
        let read = |height| reader.read(Height::new(height));
        let error = (1..=40).find_map(|height| read(height).err()).unwrap();
        assert!(error.is_damage(), "{error}");
        assert!(read(40).unwrap().is_some(), "the newest are there");
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_more_is_written_until_the_log_is_opened_again() {
    let volume = Volume::new(3);
    let mut log = EventLog::open(&volume.path().join("events"), volume.genesis.chain_id.clone()).unwrap();
    volume.fill(&mut log);
    log.fill_disk();
    let longer = Volume::new(5);
    let error = longer.fill_after(&mut log, 3).unwrap_err();
    assert!(matches!(error, StorageError::NoSpace { .. }), "{error}");
    let error = longer.fill_after(&mut log, 3).unwrap_err();
    assert!(matches!(error, StorageError::Failed { .. }), "{error}");
    drop(log);
    let mut log = EventLog::open(&volume.path().join("events"), volume.genesis.chain_id.clone()).unwrap();
    assert_eq!(log.last_height(), Some(Height::new(3)));
    longer.fill_after(&mut log, 3).unwrap();
}

#[test]
fn files_go_when_their_heights_are_not_needed_any_more() {
    let volume = Volume::new(20);
    let mut log = volume.small_files();
    log.limit_files(4);
    volume.fill(&mut log);
    log.prune_below(Height::new(10)).unwrap();
    let reader = log.reader();
    assert_eq!(reader.first_height(), Some(Height::new(9)));
    assert_eq!(reader.read(Height::new(8)).unwrap(), None);
    drop(log);
    assert_eq!(volume.small_files().reader().first_height(), Some(Height::new(9)));
}

#[test]
fn events_that_are_not_those_of_the_blocks_are_found() {
    let volume = Volume::new(5);
    drop(volume.start(Past::MadeAgain));
    let verify = || verify_events(volume.path(), volume.kept(), &volume.path().join("scratch"), |_| {});
    assert_eq!(verify().unwrap(), (Height::new(1), Height::new(5)));
    // A log of another chain: whole, and wrong.
    fs::remove_dir_all(volume.path().join("events")).unwrap();
    let other = node_core::types::ChainId::new("other").unwrap();
    volume.fill(&mut EventLog::open(&volume.path().join("events"), other).unwrap());
    let error = verify().unwrap_err();
    let ReplayError::Rebuild(RebuildError::Events { height, source }) = &error else { panic!("{error}") };
    assert_eq!(*height, Height::new(1));
    assert!(source.to_string().contains("the events of height 1 are not those of its block"), "{source}");
    assert!(!volume.path().join("scratch").exists());
}
