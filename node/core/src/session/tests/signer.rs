//! The signer: the right key, a cleared one, within the record.

use super::owner;
use crate::{
    crypto::{verify_proposal, verify_vote},
    fixtures::{genesis, identity, session_key, uid},
    session::{ClearedKey, KeyList, NewKey, RecordError, SignRefusal, Signer, SigningRecord, Slot},
    types::{
        Epoch, Hash, Height, Incarnation, Round, Step, UnsignedProposal, UnsignedVote, VoteKind, VoterEntry, VoterSet,
    },
};

fn incarnation() -> Incarnation {
    Incarnation::new([9; 32])
}

fn cleared_key() -> ClearedKey {
    let owner = owner("pod", "boot", "machine");
    KeyList::new().make(NewKey { seed: [1; 32], epoch: Epoch::new(3), claim: Some(uid("claim")), owner }).unwrap()
}

/// Four voters, of whom number 1 has the given key in epoch 3.
fn voters(key: &ClearedKey) -> VoterSet {
    let genesis = genesis(&[1, 1, 1, 1]);
    let entry = *genesis.voter_set().get(&identity(1)).unwrap();
    let entry = VoterEntry { session_key: key.session_key(), epoch: Epoch::new(3), ..entry };
    genesis.voter_set().with_entry(entry).unwrap().unwrap()
}

fn signer() -> (Signer, VoterSet) {
    let key = cleared_key();
    let voters = voters(&key);
    let mut signer = Signer::new(incarnation(), identity(1), SigningRecord::new());
    signer.add_key(key);
    (signer, voters)
}

fn vote(height: u64, value: Option<Hash>) -> UnsignedVote {
    UnsignedVote { kind: VoteKind::Prevote, height: Height::new(height), round: Round::ZERO, value, voter: identity(1) }
}

#[test]
fn it_signs_with_the_key_of_the_voter_set() {
    let (mut signer, voters) = signer();
    let signed = signer.sign_vote(&voters, vote(4, None)).unwrap();
    assert_eq!(verify_vote(&incarnation(), &voters, &signed.statement), Ok(()));
    assert_eq!(signed.statement.epoch, Epoch::new(3));
    let slot = Slot { height: Height::new(4), round: Round::ZERO, step: Step::Prevote };
    assert_eq!((signed.entry.slot, signer.record().last()), (slot, Some(slot)));
    let proposal = UnsignedProposal {
        height: Height::new(5),
        round: Round::new(1),
        pol_round: Some(Round::ZERO),
        value: Hash::ZERO,
        proposer: identity(1),
    };
    let signed = signer.sign_proposal(&voters, proposal).unwrap();
    assert_eq!(verify_proposal(&incarnation(), &voters, &signed.statement), Ok(()));
}

#[test]
fn it_does_not_sign_with_a_key_that_is_not_cleared() {
    let key = cleared_key();
    let voters = voters(&key);
    let mut signer = Signer::new(incarnation(), identity(1), SigningRecord::new());
    let refusal = SignRefusal::NotCleared { session_key: key.session_key() };
    assert_eq!(signer.sign_vote(&voters, vote(4, None)), Err(refusal.clone()));
    assert!(!signer.can_sign(Height::new(4), &voters));
    signer.add_key(key.clone());
    assert!(signer.can_sign(Height::new(4), &voters));
    signer.remove_key(&key.session_key());
    assert_eq!(signer.sign_vote(&voters, vote(4, None)), Err(refusal));
}

#[test]
fn it_does_not_sign_where_the_set_names_another_key() {
    let (mut signer, _) = signer();
    let genesis = genesis(&[1, 1, 1, 1]);
    let refusal = signer.sign_vote(genesis.voter_set(), vote(4, None)).unwrap_err();
    assert_eq!(refusal, SignRefusal::NotCleared { session_key: session_key(1, 1) });
}

#[test]
fn it_signs_for_its_own_identity_only() {
    let (mut signer, voters) = signer();
    let other = UnsignedVote { voter: identity(2), ..vote(4, None) };
    assert!(matches!(signer.sign_vote(&voters, other), Err(SignRefusal::OtherVoter { .. })));
}

#[test]
fn it_does_not_sign_two_values_in_one_step() {
    let (mut signer, voters) = signer();
    signer.sign_vote(&voters, vote(4, Some(Hash::ZERO))).unwrap();
    let refusal = signer.sign_vote(&voters, vote(4, None)).unwrap_err();
    assert!(matches!(refusal, SignRefusal::Record(RecordError::OtherBytes { .. })));
    let again = signer.sign_vote(&voters, vote(4, Some(Hash::ZERO))).unwrap();
    assert_eq!(again, signer.sign_vote(&voters, vote(4, Some(Hash::ZERO))).unwrap());
}

#[test]
fn it_does_not_sign_what_only_the_pol_round_tells_apart() {
    let (mut signer, voters) = signer();
    let proposal = |pol_round| UnsignedProposal {
        height: Height::new(5),
        round: Round::new(2),
        pol_round,
        value: Hash::ZERO,
        proposer: identity(1),
    };
    signer.sign_proposal(&voters, proposal(None)).unwrap();
    assert!(signer.sign_proposal(&voters, proposal(Some(Round::ZERO))).is_err());
}

#[test]
fn it_signs_nothing_at_heights_that_others_have_seen() {
    let mut key = cleared_key();
    key.nothing_up_to = Height::new(12);
    let voters = voters(&key);
    let mut signer = Signer::new(incarnation(), identity(1), SigningRecord::new());
    signer.add_key(key);
    let refusal = signer.sign_vote(&voters, vote(12, None)).unwrap_err();
    assert_eq!(refusal, SignRefusal::TooEarly { nothing_up_to: Height::new(12) });
    assert!(!signer.can_sign(Height::new(12), &voters) && signer.can_sign(Height::new(13), &voters));
    assert!(signer.sign_vote(&voters, vote(13, None)).is_ok());
}

#[test]
fn a_stopped_signer_signs_nothing_more() {
    let (mut signer, voters) = signer();
    signer.stop();
    assert_eq!(signer.sign_vote(&voters, vote(4, None)), Err(SignRefusal::Stopped));
    assert!(!signer.can_sign(Height::new(4), &voters));
}

#[test]
fn the_record_of_the_volume_binds_a_new_process() {
    let (mut first, voters) = signer();
    first.sign_vote(&voters, vote(4, Some(Hash::ZERO))).unwrap();
    let mut second = Signer::new(incarnation(), identity(1), first.record().clone());
    second.add_key(cleared_key());
    assert!(second.sign_vote(&voters, vote(4, None)).is_err());
    assert!(second.sign_vote(&voters, vote(3, None)).is_err());
    assert!(second.sign_vote(&voters, vote(4, Some(Hash::ZERO))).is_ok());
}
