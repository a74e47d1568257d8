//! Tests of bringing the state up to the blocks: missing, behind, ahead, of another chain, with other results.

use std::path::Path;

use node_core::{
    ledger::{Recoveries, StateKey, StateStore as _, WriteSet, account, apply_block_after, apply_genesis, snapshot},
    types::{
        Amount, Block, CertifiedBlock, Epoch, Genesis, Hash, Header, Height, RecoveredVoter, RecoveryManifest,
        SessionKey, Signature, TimeMs, VoterEntry, voters_hash,
    },
};

use super::chain;
use crate::adapters::storage::{
    BlockLog, BlockReader, Kept, Milestones, QmdbStore, RebuildError, Rebuilt, rebuild_state_from_blocks,
};

fn block_log(folder: &Path, blocks: &[CertifiedBlock]) -> BlockReader {
    let mut log = BlockLog::open_with(&folder.join("blocks"), 8192).unwrap();
    for block in blocks {
        log.append(&block.block, &block.certificate).unwrap();
    }
    log.reader()
}

fn open(folder: &Path) -> QmdbStore {
    QmdbStore::open(&folder.join("state")).unwrap()
}

fn rebuild(blocks: &BlockReader, state: &QmdbStore) -> Result<Rebuilt, RebuildError> {
    rebuild_told(blocks, state, |_| {})
}

fn rebuild_told(
    blocks: &BlockReader,
    state: &QmdbStore,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<Rebuilt, RebuildError> {
    rebuild_with(&Recoveries::default(), blocks, state, progress)
}

fn rebuild_with(
    recoveries: &Recoveries,
    blocks: &BlockReader,
    state: &QmdbStore,
    progress: impl Fn(Height) + Send + 'static,
) -> Result<Rebuilt, RebuildError> {
    let milestones = Milestones::open(&state.folder().with_file_name("light")).unwrap();
    let kept = Kept { genesis: &chain::genesis(), recoveries, blocks, milestones: &milestones };
    rebuild_state_from_blocks(kept, state, None, progress).map(|(rebuilt, _)| rebuilt)
}

#[test]
fn a_missing_state_is_made_again_with_the_same_roots() {
    let (live, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut running = open(live.path());
    let blocks = chain::run(&mut running, &chain::genesis(), 25);
    let state = open(folder.path());
    let rebuilt = rebuild(&block_log(folder.path(), &blocks), &state).unwrap();
    assert_eq!(rebuilt, Rebuilt { from: None, to: Height::new(25) });
    assert_eq!(state.roots().unwrap(), running.roots().unwrap());
    assert_eq!(account(&state, &chain::paid(25)).unwrap().balance, Amount::new(25));
}

#[test]
fn a_state_behind_the_blocks_catches_up_and_one_level_with_them_stays() {
    let (live, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut running = open(live.path());
    let blocks = chain::run(&mut running, &chain::genesis(), 9);
    let mut state = open(folder.path());
    chain::run(&mut state, &chain::genesis(), 6);
    let log = block_log(folder.path(), &blocks);
    let (heights, told) = std::sync::mpsc::channel();
    let rebuilt = rebuild_told(&log, &state, move |height| {
        heights.send(height.get()).unwrap();
    });
    assert_eq!(rebuilt.unwrap(), Rebuilt { from: Some(Height::new(6)), to: Height::new(9) });
    assert_eq!(told.iter().collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(state.roots().unwrap(), running.roots().unwrap());
    assert_eq!(rebuild(&log, &state).unwrap(), Rebuilt { from: Some(Height::new(9)), to: Height::new(9) });
}

#[test]
fn without_blocks_the_state_is_that_of_genesis() {
    let folder = tempfile::tempdir().unwrap();
    let state = open(folder.path());
    rebuild(&block_log(folder.path(), &[]), &state).unwrap();
    assert_eq!(account(&state, &chain::rich()).unwrap().balance, Amount::new(1_000_000));
}

#[test]
fn a_state_ahead_of_the_blocks_means_that_blocks_were_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = open(folder.path());
    let blocks = chain::run(&mut state, &chain::genesis(), 5);
    let lost = rebuild(&block_log(folder.path(), &blocks[..3]), &state);
    assert!(matches!(lost, Err(RebuildError::BlocksLost { .. })), "{lost:?}");
}

#[test]
fn a_gap_between_state_and_blocks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = chain::blocks(&chain::genesis(), 8);
    let gap = rebuild(&block_log(folder.path(), &blocks[4..]), &open(folder.path())).unwrap_err();
    assert!(matches!(gap, RebuildError::Gap { .. }), "{gap}");
    assert!(gap.to_string().starts_with("block 1 is not kept"), "{gap}");
}

#[test]
fn a_state_that_differs_from_what_the_blocks_name_is_refused() {
    let (live, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let blocks = chain::run(&mut open(live.path()), &chain::genesis(), 5);
    // Somebody is richer here than on the chain.
    let mut state = open(folder.path());
    let mut draft = chain::genesis().into_draft();
    draft.accounts[0].1 = Amount::new(2_000_000);
    apply_genesis(&mut state, &Genesis::new(draft).unwrap()).unwrap();
    let refused = rebuild(&block_log(folder.path(), &blocks), &state);
    assert!(matches!(refused, Err(RebuildError::Apply(_))), "{refused:?}");
    drop(state);
    let other = tempfile::tempdir().unwrap();
    let mut state = open(other.path());
    chain::run(&mut state, &chain::genesis(), 2);
    let extra = WriteSet::from([(StateKey::account(&chain::paid(77)), Some(vec![0; 16]))]);
    let progress = state.get(&StateKey::progress()).unwrap();
    // A commit that no block made, at the height of block 3.
    state.commit(Height::new(3), extra).unwrap();
    assert_eq!(state.get(&StateKey::progress()).unwrap(), progress);
    let refused = rebuild(&block_log(other.path(), &blocks), &state);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn results_that_a_block_names_wrongly_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    // These name no results, which is right for the first block only.
    let blocks = chain::blocks(&chain::genesis(), 5);
    let differ = rebuild(&block_log(folder.path(), &blocks), &open(folder.path())).unwrap_err();
    assert!(matches!(differ, RebuildError::ResultsDiffer { .. }), "{differ}");
    assert!(differ.to_string().starts_with("block 2 names other results of block 0"), "{differ}");
}

/// Why a state at height 3 does not follow a fourth block that says what `claim` makes of the truth.
fn refusal_of(claim: fn(&mut Header)) -> Option<RebuildError> {
    let (live, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut blocks = chain::run(&mut open(live.path()), &chain::genesis(), 4);
    let last = blocks.pop().unwrap().block;
    let mut header = last.header().clone();
    claim(&mut header);
    blocks.push(chain::certified(Block::of_shared(header, last.batches().to_vec()).unwrap()));
    let mut state = open(folder.path());
    chain::run(&mut state, &chain::genesis(), 3);
    rebuild(&block_log(folder.path(), &blocks), &state).err()
}

#[test]
fn voters_and_parameters_that_a_block_names_wrongly_are_noticed() {
    let height = Height::new(4);
    assert!(refusal_of(|_| {}).is_none());
    let voters = refusal_of(|header| header.voters_hash = Hash::ZERO).unwrap();
    assert!(matches!(voters, RebuildError::VotersDiffer { height: at } if at == height), "{voters}");
    let parameters = refusal_of(|header| header.parameters_hash = Hash::ZERO).unwrap();
    assert!(matches!(parameters, RebuildError::ParametersDiffer { height: at } if at == height), "{parameters}");
    let results = refusal_of(|header| header.results.receipts_root = Hash::ZERO).unwrap();
    assert!(matches!(results, RebuildError::ResultsDiffer { height: at } if at == height), "{results}");
}

/// What every voter of genesis goes on with after a block.
fn recovery_after(last: &Block) -> RecoveryManifest {
    let genesis = chain::genesis();
    let fresh = |entry: &VoterEntry| RecoveredVoter {
        identity: entry.identity,
        epoch: Epoch::new(2),
        session_key: SessionKey::new(*entry.identity.as_bytes()),
        possession: Signature::new([1; 64]),
    };
    RecoveryManifest {
        chain_id: genesis.chain_id.clone(),
        genesis: genesis.hash(),
        number: 1,
        parent: genesis.incarnation(),
        height: last.header().height,
        block: last.hash(),
        state_root: Hash::ZERO,
        voters: genesis.voter_set().entries().iter().map(fresh).collect(),
    }
}

#[test]
fn blocks_after_a_recovery_name_the_voters_of_its_manifest() {
    let live = tempfile::tempdir().unwrap();
    let mut running = open(live.path());
    let mut blocks = chain::run(&mut running, &chain::genesis(), 4);
    let recoveries = Recoveries::new([recovery_after(&blocks[3].block)]);
    for height in 5..=7 {
        let now = recoveries.recovered(snapshot(&running).unwrap().unwrap()).unwrap();
        let header = Header {
            height: Height::new(height),
            parent: now.progress.block,
            time: TimeMs::new(now.progress.time.get() + 1_000),
            batches: Vec::new(),
            voters_hash: voters_hash(&now.sets.first, &now.sets.second),
            results: now.progress.results_before,
            ..blocks[3].block.header().clone()
        };
        let block = chain::certified(Block::new(header, Vec::new()).unwrap());
        apply_block_after(&mut running, &block.block, &recoveries).unwrap();
        blocks.push(block);
    }
    for executed in [0, 3, 4, 5] {
        let folder = tempfile::tempdir().unwrap();
        let log = block_log(folder.path(), &blocks);
        let mut state = open(folder.path());
        apply_genesis(&mut state, &chain::genesis()).unwrap();
        for block in &blocks[..executed] {
            apply_block_after(&mut state, &block.block, &recoveries).unwrap();
        }
        rebuild_with(&recoveries, &log, &state, |_| {}).unwrap();
        assert_eq!(state.roots().unwrap(), running.roots().unwrap(), "from height {executed}");
    }
    let folder = tempfile::tempdir().unwrap();
    let unknown = rebuild(&block_log(folder.path(), &blocks), &open(folder.path())).unwrap_err();
    assert!(matches!(unknown, RebuildError::VotersDiffer { height } if height == Height::new(5)), "{unknown}");
}
