//! Tests of the tripwire in action: who must answer, when a chain counts as alive, and what a rollback looks like.

use crate::{
    crypto::SigningBytes,
    fixtures::{genesis as genesis_of, identity, session_key, session_pair},
    session::{Known, NewestVote, Question, SigningRecord, TripwireQuestion, TripwireResult},
    types::{
        CeremonyNonce, CommitCertificate, CommitSignature, Epoch, Genesis, Hash, Height, Identity, Parameters,
        ParametersDraft, Round, Signature, Timeout, UnsignedVote, Vote, VoteKind, VoterSet,
    },
};

const NONCE: CeremonyNonce = CeremonyNonce::new([9; 32]);

fn genesis(voters: usize) -> Genesis {
    genesis_of(&vec![1; voters])
}

fn question(genesis: &Genesis) -> Question {
    Question::new(TripwireQuestion {
        nonce: NONCE,
        incarnation: genesis.incarnation(),
        identity: identity(0),
        session_key: session_key(0, 1),
        voters: genesis.voter_set().clone(),
    })
}

/// A precommit of voter 0, as another node would show it.
fn vote(genesis: &Genesis, height: u64) -> Vote {
    let vote = UnsignedVote {
        kind: VoteKind::Precommit,
        height: Height::new(height),
        round: Round::ZERO,
        value: None,
        voter: identity(0),
    };
    let signature = session_pair(0, 1).sign(&SigningBytes::vote(&genesis.incarnation(), Epoch::FIRST, &vote));
    Vote { vote, epoch: Epoch::FIRST, signature }
}

/// A certificate with signatures that verify nothing.
fn forged(height: u64) -> CommitCertificate {
    let signatures = (0..3).map(|number| CommitSignature {
        voter: identity(number),
        epoch: Epoch::FIRST,
        signature: Signature::new([0; 64]),
    });
    CommitCertificate::new(Height::new(height), Round::ZERO, Hash::ZERO, signatures.collect()).expect("it has a form")
}

fn answer(vote: Option<Vote>, certificate: Option<CommitCertificate>) -> NewestVote {
    NewestVote { nonce: NONCE, vote, certificate }
}

/// The sets of the first heights are known, and what genesis says is in force.
struct World {
    genesis: Genesis,
    parameters: Parameters,
    record: SigningRecord,
}

impl World {
    fn new(genesis: &Genesis) -> Self {
        Self { genesis: genesis.clone(), parameters: genesis.parameters.clone(), record: SigningRecord::new() }
    }

    fn asked(&self, question: &mut Question, tip: u64, after_s: u64) -> TripwireResult {
        self.asked_while(question, Synced::Yes, tip, after_s)
    }

    fn asked_while(&self, question: &mut Question, synced: Synced, tip: u64, after_s: u64) -> TripwireResult {
        let voters =
            |height: Height| -> Option<&VoterSet> { (height <= Height::new(3)).then(|| self.genesis.voter_set()) };
        question.result(&Known {
            record: &self.record,
            tip: Height::new(tip),
            synced: synced == Synced::Yes,
            parameters: &self.parameters,
            voters: &voters,
            now_ms: after_s * 1_000,
        })
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Synced {
    Yes,
    No,
}

fn waits(result: TripwireResult) -> bool {
    matches!(result, TripwireResult::Waiting { .. })
}

#[test]
fn a_chain_that_waits_for_this_node_is_told_apart_from_one_that_goes_on_without_it() {
    let genesis = genesis(4);
    let world = World::new(&genesis);
    let mut standing = question(&genesis);
    standing.on_answer(identity(1), answer(None, None));
    assert!(waits(world.asked(&mut standing, 7, 0)), "two of four nodes are too few");
    standing.on_answer(identity(2), answer(None, None));
    assert!(waits(world.asked(&mut standing, 7, 0)), "whether the chain lives is not known yet");
    assert_eq!(
        world.asked(&mut standing, 7, 60),
        TripwireResult::Passed { nothing_up_to: Height::ZERO },
        "no block came: the record alone decides"
    );

    let mut living = question(&genesis);
    for number in 1..=2 {
        living.on_answer(identity(number), answer(None, None));
    }
    assert!(waits(world.asked(&mut living, 7, 0)));
    assert_eq!(
        world.asked(&mut living, 8, 1),
        TripwireResult::Passed { nothing_up_to: Height::new(10) },
        "a block came without this node: nothing is signed up to two heights above"
    );
}

#[test]
fn a_node_that_catches_up_does_not_take_old_blocks_for_a_living_chain() {
    let genesis = genesis(4);
    let world = World::new(&genesis);
    let mut question = question(&genesis);
    for number in 1..=2 {
        question.on_answer(identity(number), answer(None, Some(forged(9))));
    }
    assert!(waits(world.asked_while(&mut question, Synced::No, 3, 0)));
    assert!(waits(world.asked_while(&mut question, Synced::No, 8, 50)));
    // Height 9 is known now, and nothing came after it.
    assert!(waits(world.asked(&mut question, 9, 51)));
    assert_eq!(world.asked(&mut question, 9, 90), TripwireResult::Passed { nothing_up_to: Height::ZERO });
}

#[test]
fn a_certificate_that_proves_nothing_does_not_hold_the_node_back() {
    let genesis = genesis(4);
    let world = World::new(&genesis);
    let mut question = question(&genesis);
    for number in 1..=2 {
        question.on_answer(identity(number), answer(None, Some(forged(1_000_000))));
    }
    assert!(waits(world.asked(&mut question, 7, 0)));
    assert_eq!(
        world.asked(&mut question, 8, 1),
        TripwireResult::Passed { nothing_up_to: Height::new(10) },
        "the forged height is ignored"
    );
}

#[test]
fn a_vote_that_the_volume_does_not_know_means_that_it_was_rolled_back() {
    let genesis = genesis(4);
    let world = World::new(&genesis);
    let mut question = question(&genesis);
    question.on_answer(identity(1), answer(Some(vote(&genesis, 5)), None));
    assert_eq!(world.asked(&mut question, 5, 0), TripwireResult::RolledBack);
}

#[test]
fn answers_of_strangers_and_to_other_questions_do_not_count() {
    let genesis = genesis(4);
    let world = World::new(&genesis);
    let mut question = question(&genesis);
    question.on_answer(Identity::new([1; 32]), answer(None, None));
    let other = NewestVote { nonce: CeremonyNonce::new([1; 32]), vote: None, certificate: None };
    question.on_answer(identity(1), other.clone());
    question.on_answer(identity(2), other);
    assert!(waits(world.asked(&mut question, 7, 60)));
}

#[test]
fn a_single_voter_asks_nobody() {
    let genesis = genesis(1);
    let world = World::new(&genesis);
    let result = world.asked(&mut question(&genesis), 7, 0);
    assert_eq!(result, TripwireResult::Passed { nothing_up_to: Height::ZERO });
}

/// Two rounds after a whole interval, by the rules that are in force now and not by those of genesis.
#[test]
fn a_chain_stands_when_two_whole_rounds_by_the_rules_in_force_have_brought_no_block() {
    let genesis = genesis(4);
    let mut world = World::new(&genesis);
    let answered = || {
        let mut question = question(&genesis);
        for number in 1..=2 {
            question.on_answer(identity(number), answer(None, None));
        }
        question
    };
    assert_eq!(Question::settle_ms(&world.parameters), 1_000 + 2_000 + 3_000);
    let mut usual = answered();
    assert!(waits(world.asked(&mut usual, 7, 0)));
    assert!(waits(world.asked(&mut usual, 7, 5)));
    assert_eq!(world.asked(&mut usual, 7, 6), TripwireResult::Passed { nothing_up_to: Height::ZERO });

    // Governance makes the chain slower: what was a standing chain before is a living one now.
    let slow = ParametersDraft {
        block_interval_ms: 30_000,
        propose_timeout: Timeout { base_ms: 10_000, delta_ms: 500 },
        ..ParametersDraft::default()
    };
    world.parameters = Parameters::new(slow).unwrap();
    let mut slower = answered();
    assert!(waits(world.asked(&mut slower, 7, 0)));
    assert!(waits(world.asked(&mut slower, 7, 30)));
    assert_eq!(world.asked(&mut slower, 8, 31), TripwireResult::Passed { nothing_up_to: Height::new(10) });
}
