//! Applying blocks: once for each height, in order, the same on every node and after every crash.

use super::TestChain;
use crate::{
    fixtures::{Rotation, block, genesis, session_pair, transfer},
    ledger::{Applied, ApplyError, ExecuteError, MemoryStore, apply_block, apply_genesis, snapshot},
    types::{Hash, Height, Results, Transaction},
};

/// Ten blocks of transfers and rotations.
fn busy_chain() -> TestChain {
    let mut chain = TestChain::new(&[1, 1, 1, 1]);
    for height in 1..=20 {
        let mut transactions: Vec<Transaction> = vec![transfer(chain.incarnation, "alice", "bob", height - 1, height)];
        let co_signer = (height % 5 != 4).then(|| session_pair(height % 4, 1));
        if height % 3 == 0 {
            let rotation = Rotation { n: height % 4, epoch: 2, co_signer, valid_until: 50 };
            transactions.push(rotation.transaction(chain.incarnation));
        }
        chain.run(transactions);
    }
    chain
}

#[test]
fn every_node_computes_the_same_state() {
    let (first, second) = (busy_chain(), busy_chain());
    assert_eq!(first.snapshot(), second.snapshot());
    assert_eq!(first.tip, second.tip);
}

#[test]
fn a_block_that_was_applied_is_not_executed_again() {
    let mut chain = busy_chain();
    let before = chain.snapshot();
    for block in &chain.blocks {
        assert_eq!(apply_block(&mut chain.store, block).unwrap(), Applied::Before);
    }
    assert_eq!(chain.snapshot(), before);
}

/// The block log is ahead of the state by any number of blocks: execution of the rest gives what it gave.
#[test]
fn a_crash_at_any_height_is_made_good_by_executing_again() {
    let chain = busy_chain();
    for crash in 0..chain.blocks.len() {
        let mut store = MemoryStore::new();
        apply_genesis(&mut store, &genesis(&[1, 1, 1, 1])).unwrap();
        for block in &chain.blocks[..crash] {
            apply_block(&mut store, block).unwrap();
        }
        for block in &chain.blocks {
            apply_block(&mut store, block).unwrap();
        }
        assert_eq!(snapshot(&store).unwrap().unwrap(), chain.snapshot(), "crash after {crash}");
    }
}

#[test]
fn a_gap_or_another_parent_is_refused() {
    let mut chain = busy_chain();
    let gap = apply_block(&mut chain.store, &block(22, chain.tip, Vec::new())).unwrap_err();
    assert!(matches!(gap, ApplyError::Execute(ExecuteError::WrongHeight { .. })), "{gap}");
    let parent = apply_block(&mut chain.store, &block(21, Hash::ZERO, Vec::new())).unwrap_err();
    assert!(matches!(parent, ApplyError::Execute(ExecuteError::WrongParent { .. })), "{parent}");
    let other = apply_block(&mut chain.store, &block(20, Hash::ZERO, Vec::new())).unwrap_err();
    assert!(matches!(other, ApplyError::Execute(ExecuteError::WrongParent { .. })), "{other}");
    let zero = apply_block(&mut chain.store, &block(0, Hash::ZERO, Vec::new())).unwrap_err();
    assert!(matches!(zero, ApplyError::Execute(ExecuteError::WrongHeight { .. })), "{zero}");
}

#[test]
fn nothing_is_executed_before_genesis() {
    let mut store = MemoryStore::new();
    assert!(snapshot(&store).unwrap().is_none());
    assert!(apply_block(&mut store, &block(1, Hash::ZERO, Vec::new())).is_err());
}

#[test]
fn genesis_is_applied_once_and_never_another_one() {
    let mut chain = busy_chain();
    let before = chain.snapshot();
    apply_genesis(&mut chain.store, &genesis(&[1, 1, 1, 1])).unwrap();
    assert_eq!(chain.snapshot(), before);
    let other = apply_genesis(&mut chain.store, &genesis(&[1, 1, 1, 2])).unwrap_err();
    assert!(matches!(other, ApplyError::OtherChain { .. }), "{other}");
}

/// Header h + 2 names the results of h: after a restart they are known for the last two heights.
#[test]
fn a_restart_knows_the_results_of_the_last_two_heights() {
    let mut chain = TestChain::new(&[1, 1, 1, 1]);
    let mut results = vec![Results::NONE, chain.snapshot().results];
    assert_eq!(chain.snapshot().progress.results_before, Results::NONE);
    for height in 1..6 {
        let block = block(height, chain.tip, vec![transfer(chain.incarnation, "alice", "bob", height - 1, 1)]);
        let Applied::Now { results: now, .. } = apply_block(&mut chain.store, &block).unwrap() else {
            panic!("before")
        };
        chain.tip = block.hash();
        results.push(now);
        let snapshot = chain.snapshot();
        assert_eq!(snapshot.progress.height, Height::new(height));
        assert_eq!([snapshot.progress.results_before, snapshot.results], results[results.len() - 2..]);
    }
}

/// Genesis gives the first three heights; from then on the state knows exactly three sets ahead, as a replay would.
#[test]
fn the_sets_of_three_heights_follow_each_other() {
    let mut chain = TestChain::new(&[1, 1, 1, 1]);
    let mut previous = chain.snapshot().sets;
    assert_eq!((&previous.first, &previous.second), (&previous.second, &previous.third));
    for height in 1..20 {
        let rotation = Rotation { n: 1, epoch: 2, co_signer: Some(session_pair(1, 1)), valid_until: 50 };
        chain.run(if height == 7 { vec![rotation.transaction(chain.incarnation)] } else { Vec::new() });
        let sets = chain.snapshot().sets;
        assert_eq!((&sets.first, &sets.second), (&previous.second, &previous.third), "{height}");
        assert_eq!(sets.third == previous.third, height != 7, "{height}");
        previous = sets;
    }
}

#[test]
fn an_idle_block_writes_only_its_progress() {
    let mut chain = busy_chain();
    chain.run_to(40);
    let idle = block(41, chain.tip, Vec::new());
    let outcome = crate::ledger::execute_block(&chain.store, &idle).unwrap();
    assert_eq!(outcome.writes.keys().copied().collect::<Vec<_>>(), [crate::ledger::StateKey::progress()]);
}
