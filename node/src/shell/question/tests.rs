//! Tests of the tripwire in action: who must answer, when a chain counts as alive, and what a rollback looks like.

use std::time::Duration;

use node_core::{
    crypto::{KeyPair, SigningBytes},
    ledger::{MemoryStore, apply_genesis, snapshot},
    session::{SigningRecord, TripwireQuestion, TripwireResult},
    types::{
        CeremonyNonce, CommitCertificate, CommitSignature, Epoch, Genesis, GenesisDraft, GenesisVoter, Governance,
        GovernanceKey, Hash, Height, Identity, Parameters, ParametersDraft, Power, Round, SessionKey, Signature,
        TimeMs, UnsignedVote, Vote, VoteKind, VoterEntry,
    },
};
use tokio::time::Instant;

use super::{Known, NewestVote, Question};
use crate::shell::view::View;

const NONCE: CeremonyNonce = CeremonyNonce::new([9; 32]);

fn session(number: u8) -> KeyPair {
    KeyPair::from_seed([number; 32])
}

fn identity(number: u8) -> Identity {
    Identity::new(KeyPair::from_seed([100 + number; 32]).public())
}

fn genesis(voters: u8) -> Genesis {
    let voters = (0..voters).map(|number| GenesisVoter {
        entry: VoterEntry {
            identity: identity(number),
            power: Power::new(1),
            session_key: SessionKey::new(session(number).public()),
            epoch: Epoch::FIRST,
        },
        possession: Signature::new([0; 64]),
    });
    Genesis::new(GenesisDraft {
        chain_id: "test".parse().expect("the name is a chain id"),
        time: TimeMs::new(1),
        protocol_version: 1,
        state_version: 1,
        ceremony: NONCE,
        voters: voters.collect(),
        accounts: Vec::new(),
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new([1; 32])] },
        parameters: Parameters::new(ParametersDraft::default()).expect("the default is valid"),
    })
    .expect("the draft is valid")
}

fn view(genesis: &Genesis) -> View {
    let mut store = MemoryStore::new();
    apply_genesis(&mut store, genesis).expect("genesis applies");
    let snapshot = snapshot(&store).expect("the state is readable").expect("genesis is there");
    View::new(&snapshot, Instant::now())
}

fn question(genesis: &Genesis) -> Question {
    let question = TripwireQuestion {
        nonce: NONCE,
        incarnation: genesis.incarnation(),
        identity: identity(0),
        session_key: SessionKey::new(session(0).public()),
        voters: genesis.voter_set().clone(),
    };
    Question::new(question, genesis)
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
    let signature = session(0).sign(&SigningBytes::vote(&genesis.incarnation(), Epoch::FIRST, &vote));
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

struct World {
    view: View,
    record: SigningRecord,
    start: Instant,
}

impl World {
    fn new(genesis: &Genesis) -> Self {
        Self { view: view(genesis), record: SigningRecord::new(), start: Instant::now() }
    }

    fn known(&self, tip: u64, after_s: u64) -> Known<'_> {
        Known {
            record: &self.record,
            tip: Height::new(tip),
            synced: true,
            view: &self.view,
            now: self.start + Duration::from_secs(after_s),
        }
    }
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
    assert!(waits(standing.result(&world.known(7, 0))), "two of four nodes are too few");
    standing.on_answer(identity(2), answer(None, None));
    assert!(waits(standing.result(&world.known(7, 0))), "whether the chain lives is not known yet");
    assert_eq!(
        standing.result(&world.known(7, 60)),
        TripwireResult::Passed { nothing_up_to: Height::ZERO },
        "no block came: the record alone decides"
    );

    let mut living = question(&genesis);
    for number in 1..=2 {
        living.on_answer(identity(number), answer(None, None));
    }
    assert!(waits(living.result(&world.known(7, 0))));
    assert_eq!(
        living.result(&world.known(8, 1)),
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
    let behind = Known { synced: false, ..world.known(3, 0) };
    assert!(waits(question.result(&behind)));
    assert!(waits(question.result(&Known { synced: false, ..world.known(8, 50) })));
    // Height 9 is known now, and nothing came after it.
    assert!(waits(question.result(&world.known(9, 51))));
    assert_eq!(question.result(&world.known(9, 90)), TripwireResult::Passed { nothing_up_to: Height::ZERO });
}

#[test]
fn a_certificate_that_proves_nothing_does_not_hold_the_node_back() {
    let genesis = genesis(4);
    let world = World::new(&genesis);
    let mut question = question(&genesis);
    for number in 1..=2 {
        question.on_answer(identity(number), answer(None, Some(forged(1_000_000))));
    }
    assert!(waits(question.result(&world.known(7, 0))));
    assert_eq!(
        question.result(&world.known(8, 1)),
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
    assert_eq!(question.result(&world.known(5, 0)), TripwireResult::RolledBack);
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
    assert!(waits(question.result(&world.known(7, 60))));
}

#[test]
fn a_single_voter_asks_nobody() {
    let genesis = genesis(1);
    let world = World::new(&genesis);
    let result = question(&genesis).result(&world.known(7, 0));
    assert_eq!(result, TripwireResult::Passed { nothing_up_to: Height::ZERO });
}
