//! The tripwire: enough answers, right signatures, nothing that the volume does not know.

use crate::{
    crypto::SigningBytes,
    fixtures::{genesis, identity, session_key, session_pair},
    session::{RecordEntry, SigningRecord, Slot, Tripwire, TripwireAnswer, TripwireQuestion, TripwireResult},
    types::{CeremonyNonce, Epoch, Hash, Height, Power, Round, UnsignedVote, Vote, VoteKind},
};

const NONCE: CeremonyNonce = CeremonyNonce::new([4; 32]);

/// Voter 0 asks about its own key; all powers are 1.
fn tripwire(voters: usize) -> Tripwire {
    let genesis = genesis(&vec![1; voters]);
    Tripwire::new(TripwireQuestion {
        nonce: NONCE,
        incarnation: genesis.incarnation(),
        identity: identity(0),
        session_key: session_key(0, 1),
        voters: genesis.voter_set().clone(),
    })
}

fn vote(tripwire: &Tripwire, height: u64, signer: u64) -> Vote {
    let vote = UnsignedVote {
        kind: VoteKind::Precommit,
        height: Height::new(height),
        round: Round::ZERO,
        value: Some(Hash::ZERO),
        voter: identity(0),
    };
    let bytes = SigningBytes::vote(&tripwire.question().incarnation, Epoch::FIRST, &vote);
    Vote { vote, epoch: Epoch::FIRST, signature: session_pair(signer, 1).sign(&bytes) }
}

fn answer(n: u64, vote: Option<Vote>) -> TripwireAnswer {
    TripwireAnswer { nonce: NONCE, from: identity(n), vote, certified: Height::ZERO }
}

/// A record that holds these votes.
fn record(tripwire: &Tripwire, votes: &[Vote]) -> SigningRecord {
    let mut record = SigningRecord::new();
    for Vote { vote, epoch, .. } in votes {
        let bytes = SigningBytes::vote(&tripwire.question().incarnation, *epoch, vote);
        let slot = Slot { height: vote.height, round: vote.round, step: vote.kind.step() };
        record.add(RecordEntry::new(slot, &bytes)).unwrap();
    }
    record
}

#[test]
fn it_waits_for_all_but_f_power_itself_included() {
    let mut tripwire = tripwire(4);
    let record = SigningRecord::new();
    for n in [1, 1, 0] {
        tripwire.on_answer(&answer(n, None));
    }
    let waiting = TripwireResult::Waiting { answered: Power::new(2), needed: Power::new(3) };
    assert_eq!(tripwire.result(&record), waiting);
    tripwire.on_answer(&answer(3, None));
    assert_eq!(tripwire.result(&record), TripwireResult::Passed { nothing_up_to: Height::ZERO });
}

#[test]
fn the_only_voter_needs_nobody() {
    let passed = TripwireResult::Passed { nothing_up_to: Height::ZERO };
    assert_eq!(tripwire(1).result(&SigningRecord::new()), passed);
}

#[test]
fn answers_to_another_question_and_of_strangers_do_not_count() {
    let mut tripwire = tripwire(4);
    tripwire.on_answer(&TripwireAnswer { nonce: CeremonyNonce::new([5; 32]), ..answer(1, None) });
    tripwire.on_answer(&answer(9, None));
    let waiting = TripwireResult::Waiting { answered: Power::new(1), needed: Power::new(3) };
    assert_eq!(tripwire.result(&SigningRecord::new()), waiting);
}

#[test]
fn votes_that_the_volume_knows_pass() {
    let mut tripwire = tripwire(4);
    let (older, newest) = (vote(&tripwire, 7, 0), vote(&tripwire, 8, 0));
    tripwire.on_answer(&answer(1, Some(newest)));
    tripwire.on_answer(&answer(2, Some(older)));
    let record = record(&tripwire, &[older, newest]);
    assert_eq!(tripwire.result(&record), TripwireResult::Passed { nothing_up_to: Height::ZERO });
}

#[test]
fn one_newer_vote_shows_a_rolled_back_volume_however_few_answer() {
    let mut tripwire = tripwire(4);
    let (known, newer) = (vote(&tripwire, 7, 0), vote(&tripwire, 8, 0));
    tripwire.on_answer(&answer(1, Some(newer)));
    assert_eq!(tripwire.result(&record(&tripwire, &[known])), TripwireResult::RolledBack);
    assert_eq!(tripwire.result(&SigningRecord::new()), TripwireResult::RolledBack);
}

#[test]
fn a_vote_counts_only_with_the_signature_of_the_key() {
    let mut tripwire = tripwire(4);
    let forged = vote(&tripwire, 99, 1);
    tripwire.on_answer(&answer(1, Some(forged)));
    assert!(matches!(tripwire.result(&SigningRecord::new()), TripwireResult::Waiting { .. }));
}

#[test]
fn on_a_live_chain_nothing_is_signed_up_to_the_highest_certificate_plus_two() {
    let mut tripwire = tripwire(4);
    for (n, certified) in [(1, 20), (2, 22), (3, 21)] {
        tripwire.on_answer(&TripwireAnswer { certified: Height::new(certified), ..answer(n, None) });
    }
    let passed = TripwireResult::Passed { nothing_up_to: Height::new(24) };
    assert_eq!(tripwire.result(&SigningRecord::new()), passed);
}
