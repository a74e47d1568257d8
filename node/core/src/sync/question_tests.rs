//! Who is asked for which blocks, and what becomes of answers: in time, late, false.

use super::{BLOCKS_PER_REQUEST, BlockSync, BlocksQuestion};
use crate::{
    consensus::DropReason,
    fixtures::{block, identity},
    types::{CertifiedBlock, CommitCertificate, CommitSignature, Epoch, Hash, Height, Identity, Round, Signature},
};

const TIP: Height = Height::new(10);

fn blocks(from: u64, count: u64) -> Vec<CertifiedBlock> {
    let one = |height| {
        let block = block(height, Hash::ZERO, Vec::new());
        let signature = Signature::new([1; 64]);
        let signatures = vec![CommitSignature { voter: identity(0), epoch: Epoch::FIRST, signature }];
        let certificate = CommitCertificate::new(Height::new(height), Round::ZERO, block.hash(), signatures).unwrap();
        CertifiedBlock { block, certificate }
    };
    (from..from + count).map(one).collect()
}

/// Two peers that are far ahead.
fn behind() -> (BlockSync, Identity, Identity) {
    let (one, two) = (identity(1), identity(2));
    let mut sync = BlockSync::default();
    for peer in [one, two] {
        sync.on_status(peer, Height::new(1_000), TIP);
    }
    (sync, one, two)
}

fn ask(sync: &mut BlockSync) -> BlocksQuestion {
    sync.ask(TIP).expect("there is somebody to ask")
}

fn queued(sync: &mut BlockSync) -> Vec<u64> {
    let mut heights = Vec::new();
    let mut next = TIP.next();
    while let Some((_, block)) = sync.take(next) {
        assert_eq!(block.block.header().height, next);
        heights.push(next.get());
        next = next.next();
    }
    heights
}

#[test]
fn a_question_without_an_answer_costs_nothing_that_the_same_peer_sent_before() {
    let (mut sync, ..) = behind();
    let first = ask(&mut sync);
    sync.on_blocks(first.peer, blocks(11, 16), TIP).unwrap();
    // The other one answers, and then the first one is slow.
    let second = ask(&mut sync);
    assert_ne!(second.peer, first.peer);
    sync.on_timeout(second.request, TIP);
    let third = ask(&mut sync);
    assert_eq!((third.peer, third.first), (first.peer, Height::new(27)));
    sync.on_timeout(third.request, TIP);
    assert_eq!(queued(&mut sync), (11..=26).collect::<Vec<_>>());
}

#[test]
fn a_late_answer_is_used_and_no_offence() {
    let (mut sync, ..) = behind();
    let slow = ask(&mut sync);
    sync.on_timeout(slow.request, TIP);
    let other = ask(&mut sync);
    assert_eq!((other.first, other.peer == slow.peer), (slow.first, false));
    assert_eq!(sync.on_blocks(slow.peer, blocks(11, 16), TIP), Ok(()));
    // Nobody has to send the same again: the next question is for what follows. The answer of the other is no offence either.
    sync.on_status(slow.peer, Height::new(1_000), TIP);
    assert_eq!(ask(&mut sync).first, Height::new(27));
    assert_eq!(sync.on_blocks(other.peer, blocks(11, 16), TIP), Ok(()));
    assert_eq!(queued(&mut sync), (11..=26).collect::<Vec<_>>());
}

#[test]
fn an_answer_that_comes_twice_or_was_never_asked_for_is_an_offence() {
    let (mut sync, ..) = behind();
    let slow = ask(&mut sync);
    assert_eq!(sync.on_blocks(identity(9), blocks(11, 16), TIP), Err(DropReason::Unrequested));
    sync.on_timeout(slow.request, TIP);
    assert_eq!(sync.on_blocks(slow.peer, blocks(12, 16), TIP), Err(DropReason::Unrequested), "another range");
    assert_eq!(sync.on_blocks(slow.peer, blocks(11, 16), TIP), Ok(()));
    assert_eq!(sync.on_blocks(slow.peer, blocks(11, 16), TIP), Err(DropReason::Unrequested), "a second time");
}

#[test]
fn a_false_answer_costs_the_peer_everything_that_it_sent() {
    let (mut sync, one, two) = behind();
    let first = ask(&mut sync);
    sync.on_blocks(first.peer, blocks(11, 16), TIP).unwrap();
    let other = if first.peer == one { two } else { one };
    sync.forget_peer(&other);
    let second = ask(&mut sync);
    assert_eq!(second.peer, first.peer);
    let many = blocks(27, u64::from(BLOCKS_PER_REQUEST) + 1);
    assert_eq!(sync.on_blocks(second.peer, many, TIP), Err(DropReason::Unrequested));
    assert_eq!(queued(&mut sync), Vec::<u64>::new());
    assert_eq!(sync.ask(TIP), None, "it says again how far it is before it is asked");
}

#[test]
fn a_peer_that_has_nothing_to_send_is_not_asked_again_and_keeps_what_it_sent() {
    let (mut sync, ..) = behind();
    let first = ask(&mut sync);
    sync.on_blocks(first.peer, blocks(11, 16), TIP).unwrap();
    let second = ask(&mut sync);
    sync.on_blocks(second.peer, Vec::new(), TIP).unwrap();
    let third = ask(&mut sync);
    assert_eq!(third.peer, first.peer);
    sync.on_blocks(third.peer, Vec::new(), TIP).unwrap();
    assert_eq!(sync.ask(TIP), None);
    assert_eq!(queued(&mut sync), (11..=26).collect::<Vec<_>>());
}

#[test]
fn a_peer_that_has_not_kept_the_next_blocks_keeps_what_it_sent_before() {
    let (mut sync, ..) = behind();
    let first = ask(&mut sync);
    sync.on_blocks(first.peer, blocks(11, 16), TIP).unwrap();
    let second = ask(&mut sync);
    sync.on_pruned(&second.peer, TIP);
    let third = ask(&mut sync);
    assert_eq!((third.peer, third.first), (first.peer, Height::new(27)), "the other one is asked at once");
    sync.on_pruned(&third.peer, TIP);
    assert_eq!(sync.ask(TIP), None, "nobody has them");
    assert_eq!(queued(&mut sync), (11..=26).collect::<Vec<_>>());
}
