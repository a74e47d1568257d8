//! Signatures: single and batch verification agree, and every field of what is signed is bound.

use super::{
    InvalidSignature, KeyPoints, NoMemory, PublicPoint, SignatureCheck, SigningBytes, verify, verify_all,
    verify_certificate, verify_each, verify_genesis, verify_proposal, verify_transaction, verify_transactions,
    verify_vote,
};
use crate::{
    fixtures::{Dice, Rotation, account, genesis, identity, identity_pair, key_pair, session_pair, signed, transfer},
    types::{
        AccountId, CommitCertificate, CommitCertificateError, CommitSignature, Epoch, Genesis, GenesisError, Hash,
        Height, Incarnation, Proposal, Round, Signature, Transaction, TransactionSignature, UnsignedProposal,
        UnsignedVote, Vote, VoteKind,
    },
};

fn check(n: u64, valid: bool) -> SignatureCheck {
    let pair = key_pair(&format!("key {}", n % 7));
    let bytes = n.to_be_bytes().to_vec();
    let signature = pair.sign(if valid { &bytes } else { b"other bytes" });
    SignatureCheck { key: pair.public(), bytes, signature }
}

#[test]
fn batches_find_exactly_the_bad_signatures() {
    let mut dice = Dice::new(3);
    for count in [0, 1, 2, 3, 255, 256, 257, 600] {
        let valid: Vec<bool> = (0..count).map(|_| dice.below(50) != 0).collect();
        let checks: Vec<SignatureCheck> = (0..).zip(&valid).map(|(n, valid)| check(n, *valid)).collect();
        assert_eq!(verify_each(&mut NoMemory, &checks), valid, "{count}");
        assert_eq!(verify_all(&checks), valid.iter().all(|valid| *valid), "{count}");
    }
}

#[test]
fn a_batch_verifies_the_same_way_every_time() {
    let checks: Vec<SignatureCheck> = (0..64).map(|n| check(n, true)).collect();
    for _ in 0..3 {
        assert!(verify_all(&checks));
    }
}

/// ZIP-215 leaves no freedom: every pair of small-order points as key and R, in canonical and other encodings, with s = 0
/// and with s = the order of the group, is judged in a batch as it is alone.
#[test]
fn single_and_batch_verification_agree_on_odd_encodings() {
    let mut encodings: Vec<[u8; 32]> =
        curve25519_dalek::constants::EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    // y = 1, y = p, y = p + 1 and a y on no point, with either sign.
    let prime = |last: u8| {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (last, 0x7f);
        bytes
    };
    for mut bytes in [[0; 32], prime(0xed), prime(0xee), [2; 32]] {
        encodings.push(bytes);
        bytes[31] |= 0x80;
        encodings.push(bytes);
    }
    let mut order = [0; 32];
    order[..16].copy_from_slice(&27_742_317_777_372_353_535_851_937_790_883_648_493u128.to_le_bytes());
    order[31] = 0x10;
    let (mut good, mut bad) = (0, 0);
    for key in &encodings {
        for commitment in &encodings {
            for response in [[0; 32], order] {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(commitment);
                signature[32..].copy_from_slice(&response);
                let odd =
                    SignatureCheck { key: *key, bytes: b"anything".to_vec(), signature: Signature::new(signature) };
                let alone = verify(&odd.key, &odd.bytes, &odd.signature).is_ok();
                if alone {
                    good += 1
                } else {
                    bad += 1
                }
                assert_eq!(verify_all(&[check(1, true), odd.clone()]), alone, "{odd:?}");
            }
        }
    }
    assert!(good > 50 && bad > 50, "{good} good, {bad} bad");
}

/// A memory that says the wrong thing is noticed: the point that was found is the one that counts.
#[test]
fn the_points_of_keys_are_those_that_were_found() {
    struct Wrong;
    impl KeyPoints for Wrong {
        fn find(&mut self, _: &[u8; 32]) -> Option<PublicPoint> {
            PublicPoint::of(&key_pair("somebody else").public())
        }
    }
    let checks: Vec<SignatureCheck> = (0..8).map(|n| check(n, true)).collect();
    assert_eq!(verify_each(&mut NoMemory, &checks), [true; 8]);
    // One by one no memory is asked, so all turn out to be right in the end.
    assert_eq!(verify_each(&mut Wrong, &checks), [true; 8]);
}

/// ZIP-215: keys and signatures with points of small order verify alone and in a batch alike. The identity point as key
/// and as R with s = 0 is the simplest of them.
#[test]
fn single_and_batch_verification_agree_on_small_order_points() {
    let mut identity_point = [0; 32];
    identity_point[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let odd = SignatureCheck { key: identity_point, bytes: b"anything".to_vec(), signature: Signature::new(signature) };
    assert!(verify(&odd.key, &odd.bytes, &odd.signature).is_ok());
    assert_eq!(verify_each(&mut NoMemory, &[check(1, true), odd, check(2, false)]), [true, true, false]);
}

#[test]
fn a_key_that_is_no_point_is_refused() {
    let not_a_point = [2; 32];
    assert!(verify(&not_a_point, b"bytes", &Signature::new([0; 64])).is_err());
    let bad = SignatureCheck { key: not_a_point, bytes: Vec::new(), signature: Signature::new([0; 64]) };
    assert_eq!(verify_each(&mut NoMemory, &[check(1, true), bad]), [true, false]);
}

fn vote(incarnation: &Incarnation, n: u64, kind: VoteKind, value: Option<Hash>) -> Vote {
    let vote = UnsignedVote { kind, height: Height::new(4), round: Round::ZERO, value, voter: identity(n) };
    let signature = session_pair(n, 1).sign(&SigningBytes::vote(incarnation, Epoch::FIRST, &vote));
    Vote { vote, epoch: Epoch::FIRST, signature }
}

#[test]
fn every_field_of_a_vote_is_bound_by_its_signature() {
    let genesis = genesis(&[1, 1, 1, 1]);
    let (incarnation, voters) = (genesis.incarnation(), genesis.voter_set());
    let vote = vote(&incarnation, 1, VoteKind::Prevote, Some(Hash::ZERO));
    assert_eq!(verify_vote(&incarnation, voters, &vote), Ok(()));
    let change = |change: fn(&mut Vote)| {
        let mut changed = vote;
        change(&mut changed);
        verify_vote(&incarnation, voters, &changed)
    };
    let bad = Err(InvalidSignature::Vote { identity: identity(1) });
    assert_eq!(change(|vote| vote.vote.kind = VoteKind::Precommit), bad);
    assert_eq!(change(|vote| vote.vote.height = Height::new(5)), bad);
    assert_eq!(change(|vote| vote.vote.round = Round::new(1)), bad);
    assert_eq!(change(|vote| vote.vote.value = None), bad);
    assert_eq!(change(|vote| vote.vote.voter = identity(2)), Err(InvalidSignature::Vote { identity: identity(2) }));
    assert_eq!(
        change(|vote| vote.vote.voter = identity(9)),
        Err(InvalidSignature::NotAVoter { identity: identity(9) })
    );
    assert_eq!(change(|vote| vote.epoch = Epoch::new(2)), Err(InvalidSignature::WrongEpoch { identity: identity(1) }));
    assert_eq!(verify_vote(&Incarnation::new([1; 32]), voters, &vote), bad);
}

/// Without `pol_round` in the bytes anyone could alter it and frame the proposer.
#[test]
fn the_pol_round_of_a_proposal_is_bound_by_its_signature() {
    let genesis = genesis(&[1, 1, 1, 1]);
    let incarnation = genesis.incarnation();
    let unsigned = UnsignedProposal {
        height: Height::new(4),
        round: Round::new(2),
        pol_round: None,
        value: Hash::ZERO,
        proposer: identity(1),
    };
    let signature = session_pair(1, 1).sign(&SigningBytes::proposal(&incarnation, Epoch::FIRST, &unsigned));
    let mut proposal = Proposal { proposal: unsigned, epoch: Epoch::FIRST, signature };
    assert_eq!(verify_proposal(&incarnation, genesis.voter_set(), &proposal), Ok(()));
    proposal.proposal.pol_round = Some(Round::ZERO);
    assert!(verify_proposal(&incarnation, genesis.voter_set(), &proposal).is_err());
}

fn certificate(incarnation: &Incarnation, signers: &[u64]) -> CommitCertificate {
    let signatures = signers.iter().map(|n| {
        let Vote { epoch, signature, vote } = vote(incarnation, *n, VoteKind::Precommit, Some(Hash::ZERO));
        CommitSignature { voter: vote.voter, epoch, signature }
    });
    CommitCertificate::new(Height::new(4), Round::ZERO, Hash::ZERO, signatures.collect()).unwrap()
}

#[test]
fn a_certificate_needs_a_quorum_of_power() {
    let genesis = genesis(&[1, 1, 1, 4]);
    let (incarnation, voters) = (genesis.incarnation(), genesis.voter_set());
    let verify = |signers: &[u64]| verify_certificate(&incarnation, voters, &certificate(&incarnation, signers));
    assert_eq!(voters.quorum().get(), 5);
    assert_eq!(verify(&[0, 3]), Ok(()));
    assert!(matches!(verify(&[0, 1, 2]), Err(CommitCertificateError::BelowQuorum { .. })));
    assert!(matches!(verify(&[3, 9]), Err(CommitCertificateError::NotAVoter { .. })));
}

#[test]
fn a_certificate_with_one_bad_signature_is_refused() {
    let genesis = genesis(&[1, 1, 1, 1]);
    let incarnation = genesis.incarnation();
    let other = certificate(&Incarnation::new([1; 32]), &[1]).signatures()[0];
    let mut signatures = certificate(&incarnation, &[0, 2, 3]).signatures().to_vec();
    signatures.push(other);
    let mixed = CommitCertificate::new(Height::new(4), Round::ZERO, Hash::ZERO, signatures).unwrap();
    let error = verify_certificate(&incarnation, genesis.voter_set(), &mixed).unwrap_err();
    assert_eq!(error, CommitCertificateError::BadSignature { height: Height::new(4) });
}

#[test]
fn a_voter_signs_a_certificate_once() {
    let twice = [certificate(&Incarnation::new([1; 32]), &[1]).signatures()[0]; 2].to_vec();
    assert!(CommitCertificate::new(Height::new(4), Round::ZERO, Hash::ZERO, twice).is_err());
}

#[test]
fn genesis_voters_prove_that_they_hold_their_keys() {
    let good = genesis(&[1, 1, 1, 1]);
    assert_eq!(verify_genesis(&good), Ok(()));
    let mut draft = good.into_draft();
    draft.ceremony = crate::types::CeremonyNonce::new([8; 32]);
    let other_ceremony = Genesis::new(draft).unwrap();
    assert!(matches!(verify_genesis(&other_ceremony), Err(GenesisError::Possession { .. })));
}

fn incarnation() -> Incarnation {
    genesis(&[1, 1, 1, 1]).incarnation()
}

#[test]
fn transactions_are_verified_in_one_batch_and_answered_in_order() {
    let mut transactions: Vec<Transaction> = (0..40).map(|n| transfer(incarnation(), "alice", "bob", n, 1)).collect();
    let forged = transfer(incarnation(), "alice", "bob", 99, 1).signatures().to_vec();
    transactions[7] = Transaction::new(transactions[7].body().clone(), forged).unwrap();
    transactions[20] = Rotation { n: 1, epoch: 2, co_signer: None, valid_until: 50 }.transaction(incarnation());
    let answers = verify_transactions(transactions.clone());
    for (index, (answer, transaction)) in answers.into_iter().zip(transactions).enumerate() {
        assert_eq!(answer.is_ok(), index != 7, "{index}");
        if let Ok(verified) = answer {
            assert_eq!(verified.id(), transaction.id());
            assert_eq!(verified.into_transaction(), transaction);
        }
    }
}

#[test]
fn a_transfer_is_signed_by_its_sender_alone() {
    let body = transfer(incarnation(), "alice", "bob", 0, 1).body().clone();
    assert!(verify_transaction(signed(body.clone(), &key_pair("alice"))).is_ok());
    assert!(verify_transaction(signed(body.clone(), &key_pair("bob"))).is_err());
    assert!(verify_transaction(Transaction::new(body.clone(), Vec::new()).unwrap()).is_err());
    let bytes = SigningBytes::transaction(&body);
    let mut both: Vec<TransactionSignature> = ["alice", "bob"]
        .map(|name| TransactionSignature { key: *account(name).as_bytes(), signature: key_pair(name).sign(&bytes) })
        .to_vec();
    both.sort_by_key(|signature| signature.key);
    assert!(verify_transaction(Transaction::new(body, both).unwrap()).is_err());
}

#[test]
fn signatures_of_a_transaction_are_in_order_and_different() {
    let transaction = transfer(incarnation(), "alice", "bob", 0, 1);
    let twice = [transaction.signatures(), transaction.signatures()].concat();
    assert!(Transaction::new(transaction.body().clone(), twice).is_err());
}

#[test]
fn a_rotation_needs_the_identity_and_the_possession_of_the_new_key() {
    let rotation = Rotation { n: 1, epoch: 2, co_signer: None, valid_until: 50 };
    let transaction = rotation.transaction(incarnation());
    assert!(verify_transaction(transaction.clone()).is_ok());
    assert!(verify_transaction(signed(transaction.body().clone(), &identity_pair(2))).is_err());
    // The possession is bound to the validity: a new one needs the new key again.
    let mut body = transaction.body().clone();
    body.valid_until = Height::new(51);
    assert!(verify_transaction(signed(body, &identity_pair(1))).is_err());
    let mut body = transaction.body().clone();
    body.sender = AccountId::from(identity(2));
    assert!(verify_transaction(signed(body, &identity_pair(1))).is_err());
}

#[test]
fn an_objection_carries_no_signature_of_the_identity() {
    let rotation = Rotation { n: 1, epoch: 2, co_signer: None, valid_until: 50 };
    let objection = rotation.objection(incarnation(), &session_pair(1, 1));
    assert!(verify_transaction(objection.clone()).is_ok());
    assert!(verify_transaction(signed(objection.body().clone(), &identity_pair(1))).is_err());
}
