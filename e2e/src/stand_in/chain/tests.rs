//! Voters of a chain that come and go: from when they sign, and what a change must not meet.

use node_api::governance::{GovernanceTerms, unsigned, with_signature};
use node_core::crypto::{KeyPair, SigningBytes, verify_transaction};
use node_core::types::{
    CeremonyNonce, ChainId, GenesisDraft, GenesisVoter, Governance, GovernanceKey, Incarnation, NewVoter, Parameters,
    ParametersDraft, Power,
};

use super::*;

/// The pod of every node.
const POD: &str = "a";

fn pair(number: u8, of: u8) -> KeyPair {
    KeyPair::from_seed([number + 16 * of; 32])
}

fn identity(number: u8) -> Identity {
    Identity::new(pair(number, 0).public())
}

fn session(number: u8) -> SessionKey {
    SessionKey::new(pair(number, 1).public())
}

fn genesis(voters: u8) -> Genesis {
    let chain_id = ChainId::new("demo-main").expect("a chain id");
    let ceremony = CeremonyNonce::new([7; 32]);
    let voter = |number: u8| {
        let bytes = SigningBytes::genesis_possession(&chain_id, &ceremony, &identity(number), &session(number));
        let entry = VoterEntry {
            identity: identity(number),
            power: Power::new(1),
            session_key: session(number),
            epoch: Epoch::FIRST,
        };
        GenesisVoter { entry, possession: pair(number, 1).sign(&bytes) }
    };
    Genesis::new(GenesisDraft {
        chain_id: chain_id.clone(),
        time: TimeMs::new(1),
        protocol_version: 1,
        state_version: 1,
        ceremony,
        voters: (0..voters).map(voter).collect(),
        accounts: vec![],
        governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(pair(0, 2).public())] },
        parameters: Parameters::new(ParametersDraft::default()).expect("parameters"),
    })
    .expect("a genesis")
}

/// A chain whose voters all run, at this height.
fn chain(voters: u8, height: u64) -> (Chain, Incarnation) {
    let genesis = genesis(voters);
    let mut chain = Chain::new(&genesis).expect("a chain");
    (0..voters).for_each(|number| chain.run(identity(number), POD, session(number)));
    for _ in 0..height {
        tick(&mut chain).expect("a quorum signs");
    }
    (chain, genesis.incarnation())
}

fn tick(chain: &mut Chain) -> Option<Moved> {
    chain.tick().expect("it executes")
}

fn change(chain: &Chain, incarnation: Incarnation, change: GovernanceChange) -> VerifiedTransaction {
    let GovernanceView { height, nonce, rules: _ } = chain.governance().expect("a state");
    let terms = GovernanceTerms { incarnation, nonce, valid_until: height.saturating_add(100) };
    let signed = with_signature(&unsigned(&terms, change), &pair(0, 2)).expect("there is room");
    verify_transaction(signed).expect("a signature")
}

fn joins(incarnation: Incarnation, number: u8) -> GovernanceChange {
    let (identity, session_key, epoch) = (identity(number), session(number), Epoch::FIRST);
    let bytes = SigningBytes::voter_possession(&incarnation, &identity, epoch, &session_key);
    let possession = pair(number, 1).sign(&bytes);
    GovernanceChange::AddVoter(NewVoter { identity, power: Power::new(1), epoch, session_key, possession })
}

fn names(identities: &BTreeSet<Identity>) -> Vec<u8> {
    (0..9).filter(|number| identities.contains(&identity(*number))).collect()
}

#[test]
fn a_node_follows_before_it_is_voted_in_and_signs_three_heights_after_that() {
    let (mut chain, incarnation) = chain(4, 40);
    chain.run(identity(4), POD, session(4));
    let view = |chain: &Chain| chain.view(&identity(4)).expect("it follows");
    assert!(!view(&chain).is_synced && view(&chain).height == 0);
    let mut ticks = 0;
    while !view(&chain).is_synced {
        tick(&mut chain).expect("four sign");
        ticks += 1;
    }
    assert!(ticks > 5, "it has come to the last of 40 blocks at once");
    assert_eq!(view(&chain).vote(&identity(4)), None);
    let joins = change(&chain, incarnation, joins(incarnation, 4));
    assert_eq!(chain.submit(joins), (Ok(()), Meets::Nothing));
    let counts: Vec<(usize, usize)> = (0..5)
        .map(|_| {
            let moved = tick(&mut chain).expect("a quorum");
            assert!(moved.absent.is_empty() && moved.hasty.is_empty());
            (moved.signers.len(), moved.voters.count())
        })
        .collect();
    assert_eq!(counts, [(4, 4), (4, 4), (4, 5), (5, 5), (5, 5)]);
    assert_eq!(view(&chain).vote(&identity(4)), Some(view(&chain).height));
}

#[test]
fn one_that_is_voted_in_before_it_has_the_last_blocks_is_absent() {
    let (mut chain, incarnation) = chain(4, 60);
    chain.run(identity(4), POD, session(4));
    let joins = change(&chain, incarnation, joins(incarnation, 4));
    chain.submit(joins).0.expect("taken");
    let first = tick(&mut chain).expect("a quorum");
    assert_eq!((names(&first.hasty), names(&first.absent)), (vec![4], vec![]));
    tick(&mut chain).expect("a quorum");
    let third = tick(&mut chain).expect("a quorum");
    assert_eq!((names(&third.hasty), names(&third.absent)), (vec![], vec![4]));
    // Of five four are a quorum.
    assert!(chain.stop(&identity(0), POD));
    assert!(tick(&mut chain).is_none());
}

#[test]
fn one_that_is_voted_out_signs_no_more_and_needs_another_key_to_come_back() {
    let (mut chain, incarnation) = chain(5, 12);
    assert_eq!(chain.next_epoch(&identity(4)).expect("a state"), None, "it is a voter");
    let leaves = change(&chain, incarnation, GovernanceChange::RemoveVoter { identity: identity(4) });
    chain.submit(leaves).0.expect("taken");
    let signers: Vec<usize> = (0..4).map(|_| tick(&mut chain).expect("a quorum").signers.len()).collect();
    assert_eq!(signers, [5, 5, 5, 4]);
    assert_eq!(chain.next_epoch(&identity(4)).expect("a state"), Some(Epoch::new(2)));
    // A quorum of the four that are left.
    assert!(chain.stop(&identity(4), POD) && chain.stop(&identity(0), POD));
    assert!(tick(&mut chain).is_some());
    assert!(chain.stop(&identity(1), POD));
    assert!(tick(&mut chain).is_none());
}

#[test]
fn two_changes_meet_until_the_first_one_counts() {
    let (mut chain, incarnation) = chain(7, 3);
    let leaves = |number: u8| GovernanceChange::RemoveVoter { identity: identity(number) };
    let first = change(&chain, incarnation, leaves(6));
    assert_eq!(chain.submit(first.clone()), (Ok(()), Meets::Nothing));
    assert_eq!(chain.submit(first), (Ok(()), Meets::Nothing), "the same from another node");
    let hasty = change(&chain, incarnation, leaves(5));
    assert_eq!(chain.submit(hasty), (Err(Refusal::NonceTaken), Meets::AnotherChange));
    for _ in 0..2 {
        tick(&mut chain).expect("a quorum");
        let hasty = change(&chain, incarnation, leaves(5));
        assert_eq!(chain.submit(hasty).1, Meets::AnotherChange);
    }
    let (mut chain, _) = self::chain(7, 3);
    let first = change(&chain, incarnation, leaves(6));
    chain.submit(first).0.expect("taken");
    for _ in 0..3 {
        tick(&mut chain).expect("a quorum");
    }
    let next = change(&chain, incarnation, leaves(5));
    assert_eq!(chain.submit(next), (Ok(()), Meets::Nothing));
}

#[test]
fn a_stranger_changes_nothing() {
    let (mut chain, incarnation) = chain(5, 3);
    let leaves = GovernanceChange::RemoveVoter { identity: identity(4) };
    let terms = GovernanceTerms { incarnation, nonce: Nonce::ZERO, valid_until: Height::new(90) };
    let signed = with_signature(&unsigned(&terms, leaves), &pair(1, 2)).expect("there is room");
    let taken = chain.submit(verify_transaction(signed).expect("a signature")).0;
    assert_eq!(taken, Err(Refusal::WouldFail(FailureReason::WrongSigners)));
}

#[test]
fn the_late_end_of_a_former_process_does_not_end_the_next_one() {
    let (mut chain, _) = chain(4, 3);
    chain.run(identity(0), "b", session(0));
    assert!(!chain.stop(&identity(0), POD), "the next pod already runs");
    assert_eq!(tick(&mut chain).expect("a quorum").signers.len(), 4);
    assert!(chain.stop(&identity(0), "b") && !chain.stop(&identity(0), "b"));
}
