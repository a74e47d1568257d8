//! Tests of bringing the state up to the blocks: missing, behind, ahead, of another chain.

use std::path::Path;

use node_core::{
    ledger::{StateStore as _, account, apply_block, apply_genesis},
    types::{Amount, CertifiedBlock, Genesis, Height, StateRoots},
};

use super::chain;
use crate::adapters::storage::{BlockLog, QmdbStore, RebuildError, Rebuilt, rebuild_state_from_blocks};

fn block_log(folder: &Path, blocks: &[CertifiedBlock]) -> BlockLog {
    let mut log = BlockLog::open_with(folder, 8192).unwrap();
    for block in blocks {
        log.append(&block.block, &block.certificate).unwrap();
    }
    log
}

/// The roots after executing these blocks one by one, as a running node does.
fn run(folder: &Path, genesis: &Genesis, blocks: &[CertifiedBlock]) -> StateRoots {
    let mut store = QmdbStore::open(folder).unwrap();
    apply_genesis(&mut store, genesis).unwrap();
    for block in blocks {
        apply_block(&mut store, &block.block).unwrap();
    }
    store.roots().unwrap().unwrap().1
}

#[test]
fn a_missing_state_is_made_again_with_the_same_roots() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = chain::genesis();
    let blocks = chain::blocks(&genesis, 25);
    let roots = run(&folder.path().join("live"), &genesis, &blocks);
    let log = block_log(&folder.path().join("blocks"), &blocks);
    let state = QmdbStore::open(&folder.path().join("state")).unwrap();
    let rebuilt = rebuild_state_from_blocks(&genesis, &log.reader(), &state, |_| {}).unwrap();
    assert_eq!(rebuilt, Rebuilt { from: None, to: Height::new(25) });
    assert_eq!(state.roots().unwrap(), Some((Height::new(25), roots)));
    assert_eq!(account(&state, &chain::paid(25)).unwrap().balance, Amount::new(25));
}

#[test]
fn a_state_behind_the_blocks_catches_up_and_one_level_with_them_stays() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = chain::genesis();
    let blocks = chain::blocks(&genesis, 9);
    run(&folder.path().join("state"), &genesis, &blocks[..6]);
    let roots = run(&folder.path().join("live"), &genesis, &blocks);
    let log = block_log(&folder.path().join("blocks"), &blocks);
    let state = QmdbStore::open(&folder.path().join("state")).unwrap();
    let (heights, told) = std::sync::mpsc::channel();
    let rebuilt =
        rebuild_state_from_blocks(&genesis, &log.reader(), &state, move |height| heights.send(height.get()).unwrap());
    assert_eq!(rebuilt.unwrap(), Rebuilt { from: Some(Height::new(6)), to: Height::new(9) });
    assert_eq!(told.iter().collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(state.roots().unwrap(), Some((Height::new(9), roots)));
    let again = rebuild_state_from_blocks(&genesis, &log.reader(), &state, |_| {}).unwrap();
    assert_eq!(again, Rebuilt { from: Some(Height::new(9)), to: Height::new(9) });
}

#[test]
fn without_blocks_the_state_is_that_of_genesis() {
    let folder = tempfile::tempdir().unwrap();
    let log = block_log(&folder.path().join("blocks"), &[]);
    let state = QmdbStore::open(&folder.path().join("state")).unwrap();
    rebuild_state_from_blocks(&chain::genesis(), &log.reader(), &state, |_| {}).unwrap();
    assert_eq!(account(&state, &chain::rich()).unwrap().balance, Amount::new(1_000_000));
}

#[test]
fn a_state_ahead_of_the_blocks_means_that_blocks_were_lost() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = chain::genesis();
    let blocks = chain::blocks(&genesis, 5);
    run(&folder.path().join("state"), &genesis, &blocks);
    let log = block_log(&folder.path().join("blocks"), &blocks[..3]);
    let state = QmdbStore::open(&folder.path().join("state")).unwrap();
    let lost = rebuild_state_from_blocks(&genesis, &log.reader(), &state, |_| {});
    assert!(matches!(lost, Err(RebuildError::BlocksLost { .. })), "{lost:?}");
}

#[test]
fn a_gap_between_state_and_blocks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = chain::genesis();
    let blocks = chain::blocks(&genesis, 8);
    let log = block_log(&folder.path().join("blocks"), &blocks[4..]);
    let state = QmdbStore::open(&folder.path().join("state")).unwrap();
    let gap = rebuild_state_from_blocks(&genesis, &log.reader(), &state, |_| {}).unwrap_err();
    assert!(matches!(gap, RebuildError::Gap { .. }), "{gap}");
    assert!(gap.to_string().starts_with("block 1 is not kept"), "{gap}");
}

#[test]
fn a_state_of_another_chain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = chain::genesis();
    run(&folder.path().join("state"), &genesis, &[]);
    let mut draft = genesis.into_draft();
    draft.protocol_version += 1;
    let other = Genesis::new(draft).unwrap();
    let log = block_log(&folder.path().join("blocks"), &[]);
    let state = QmdbStore::open(&folder.path().join("state")).unwrap();
    let refused = rebuild_state_from_blocks(&other, &log.reader(), &state, |_| {});
    assert!(matches!(refused, Err(RebuildError::Apply(_))), "{refused:?}");
}
