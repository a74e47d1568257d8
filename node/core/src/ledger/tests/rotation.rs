//! Rotations of session keys: when they count, who may object, and what bounds them.

use super::TestChain;
use crate::{
    crypto::KeyPair,
    fixtures::{Rotation, identity, session_key, session_pair},
    ledger::{PendingRotations, highest_epoch},
    types::{Epoch, FailureReason, Height, ReceiptStatus, Transaction},
};

const EXECUTED: ReceiptStatus = ReceiptStatus::Executed;

fn failed(reason: FailureReason) -> [ReceiptStatus; 1] {
    [ReceiptStatus::Failed(reason)]
}

fn chain() -> TestChain {
    TestChain::new(&[1, 1, 1, 1])
}

fn identity_only(n: u64, epoch: u64) -> Rotation {
    Rotation { n, epoch, co_signer: None, valid_until: 50 }
}

fn co_signed(n: u64, epoch: u64, co_signer: KeyPair) -> Rotation {
    Rotation { n, epoch, co_signer: Some(co_signer), valid_until: 50 }
}

impl TestChain {
    fn rotate(&mut self, rotation: &Rotation) -> Vec<ReceiptStatus> {
        let transaction = rotation.transaction(self.incarnation);
        self.run(vec![transaction])
    }

    fn object(&mut self, rotation: &Rotation, signer: &KeyPair) -> Vec<ReceiptStatus> {
        let transaction = rotation.objection(self.incarnation, signer);
        self.run(vec![transaction])
    }

    /// The epochs of voter `n` at the next three heights.
    fn epochs(&self, n: u64) -> [u64; 3] {
        [1, 2, 3].map(|ahead| self.voter(self.height + ahead, n).epoch.get())
    }
}

#[test]
fn a_co_signed_rotation_of_block_h_counts_from_h_plus_3() {
    let mut chain = chain();
    chain.run_to(6);
    assert_eq!(chain.rotate(&co_signed(1, 2, session_pair(1, 1))), [EXECUTED]);
    assert_eq!(chain.epochs(1), [1, 1, 2]);
    assert_eq!(chain.voter(10, 1).session_key, session_key(1, 2));
    assert_eq!(chain.voter(9, 1).session_key, session_key(1, 1));
    assert_eq!(chain.voter(10, 0).session_key, session_key(0, 1));
    chain.run_to(9);
    assert_eq!(chain.epochs(1), [2, 2, 2]);
}

#[test]
fn an_identity_only_rotation_of_block_h_counts_from_h_plus_13() {
    let mut chain = chain();
    chain.run_to(6);
    assert_eq!(chain.rotate(&identity_only(1, 2)), [EXECUTED]);
    chain.run_to(16);
    assert_eq!(chain.epochs(1), [1, 1, 1]);
    chain.run_to(17);
    assert_eq!(chain.epochs(1), [1, 1, 2]);
    assert_eq!(chain.voter(20, 1).session_key, session_key(1, 2));
}

#[test]
fn the_current_key_voids_an_identity_only_rotation_for_ten_blocks() {
    for (objection, expected) in
        [(1, EXECUTED), (10, EXECUTED), (11, ReceiptStatus::Failed(FailureReason::NothingToKeep))]
    {
        let mut chain = chain();
        chain.run_to(6);
        chain.rotate(&identity_only(1, 2));
        chain.run_to(6 + objection);
        assert_eq!(chain.object(&identity_only(1, 2), &session_pair(1, 1)), [expected], "at H+{objection}");
        chain.run_to(30);
        let epoch = if expected == EXECUTED { 1 } else { 2 };
        assert_eq!(chain.epochs(1), [epoch; 3], "at H+{objection}");
    }
}

#[test]
fn an_objection_in_the_block_of_the_rotation_is_too_early() {
    let mut chain = chain();
    let rotation = identity_only(1, 2);
    let transactions: Vec<Transaction> =
        vec![rotation.transaction(chain.incarnation), rotation.objection(chain.incarnation, &session_pair(1, 1))];
    let statuses = chain.run(transactions);
    assert_eq!(statuses, [EXECUTED, ReceiptStatus::Failed(FailureReason::NothingToKeep)]);
}

#[test]
fn only_the_current_session_key_objects() {
    let mut chain = chain();
    chain.rotate(&identity_only(1, 2));
    for signer in [session_pair(1, 2), session_pair(2, 1), crate::fixtures::identity_pair(1)] {
        assert_eq!(chain.object(&identity_only(1, 2), &signer), failed(FailureReason::NotCurrentSessionKey));
    }
    assert_eq!(chain.object(&identity_only(2, 2), &session_pair(2, 1)), failed(FailureReason::NothingToKeep));
}

#[test]
fn nobody_objects_to_a_co_signed_rotation() {
    let mut chain = chain();
    let rotation = co_signed(1, 2, session_pair(1, 1));
    chain.rotate(&rotation);
    assert_eq!(chain.object(&rotation, &session_pair(1, 1)), failed(FailureReason::NothingToKeep));
    assert_eq!(chain.epochs(1), [1, 2, 2]);
}

/// A copy of the identity cannot displace a live voter, nor by trying again.
#[test]
fn a_voided_rotation_leaves_the_epoch_free() {
    let mut chain = chain();
    for _ in 0..3 {
        assert_eq!(chain.rotate(&identity_only(1, 2)), [EXECUTED]);
        assert_eq!(chain.object(&identity_only(1, 2), &session_pair(1, 1)), [EXECUTED]);
    }
    assert_eq!(chain.rotate(&co_signed(1, 2, session_pair(1, 1))), [EXECUTED]);
    assert_eq!(chain.epochs(1), [1, 1, 2]);
}

#[test]
fn a_wrong_co_signature_does_not_pass_for_none() {
    let mut chain = chain();
    for signer in [session_pair(1, 2), session_pair(2, 1), crate::fixtures::identity_pair(1)] {
        assert_eq!(chain.rotate(&co_signed(1, 2, signer)), failed(FailureReason::NotCurrentSessionKey));
    }
    assert_eq!(chain.snapshot().rotations, PendingRotations::default());
}

#[test]
fn an_identity_has_one_rotation_at_a_time_until_it_counts() {
    let mut chain = chain();
    chain.rotate(&co_signed(1, 2, session_pair(1, 1)));
    assert_eq!(chain.rotate(&co_signed(1, 3, session_pair(1, 2))), failed(FailureReason::RotationPending));
    assert_eq!(chain.rotate(&co_signed(1, 3, session_pair(1, 2))), failed(FailureReason::RotationPending));
    assert_eq!(chain.height, 3);
    assert_eq!(chain.rotate(&co_signed(1, 3, session_pair(1, 2))), [EXECUTED]);
    assert_eq!(chain.epochs(1), [2, 2, 3]);
}

#[test]
fn identity_only_rotations_cover_at_most_f_power() {
    let mut chain = TestChain::new(&[1; 7]);
    assert_eq!(chain.rotate(&identity_only(1, 2)), [EXECUTED]);
    assert_eq!(chain.rotate(&identity_only(2, 2)), [EXECUTED]);
    assert_eq!(chain.rotate(&identity_only(3, 2)), failed(FailureReason::TooMuchPowerPending));
    // What the current key agrees to is no silence and has no such bound.
    assert_eq!(chain.rotate(&co_signed(3, 2, session_pair(3, 1))), [EXECUTED]);
    // Room again once one of them is void or counts.
    assert_eq!(chain.object(&identity_only(1, 2), &session_pair(1, 1)), [EXECUTED]);
    assert_eq!(chain.rotate(&identity_only(4, 2)), [EXECUTED]);
}

#[test]
fn the_power_of_a_heavy_voter_counts() {
    let mut chain = TestChain::new(&[5, 2, 2, 1]);
    assert_eq!(chain.rotate(&identity_only(0, 2)), failed(FailureReason::TooMuchPowerPending));
    assert_eq!(chain.rotate(&identity_only(1, 2)), [EXECUTED]);
    assert_eq!(chain.rotate(&identity_only(2, 2)), failed(FailureReason::TooMuchPowerPending));
    assert_eq!(chain.rotate(&identity_only(3, 2)), [EXECUTED]);
}

#[test]
fn the_epoch_is_one_more_than_the_current_one() {
    let mut chain = chain();
    for epoch in [0, 1, 3, 9] {
        assert_eq!(chain.rotate(&identity_only(1, epoch)), failed(FailureReason::WrongEpoch), "{epoch}");
    }
    assert_eq!(highest_epoch(&chain.store, &identity(1)).unwrap(), Some(Epoch::FIRST));
    chain.rotate(&co_signed(1, 2, session_pair(1, 1)));
    assert_eq!(highest_epoch(&chain.store, &identity(1)).unwrap(), Some(Epoch::new(2)));
    chain.run_to(10);
    assert_eq!(chain.rotate(&co_signed(1, 2, session_pair(1, 2))), failed(FailureReason::WrongEpoch));
}

/// A rotation of voter `n` to a key of another voter, or to an earlier key of its own.
fn rotation_to(chain: &TestChain, n: u64, epoch: u64, key: (u64, u64)) -> Transaction {
    use crate::{
        crypto::SigningBytes,
        fixtures::{identity_pair, signed},
        types::Payload,
    };
    let rotation = identity_only(n, epoch);
    let mut terms = rotation.terms(chain.incarnation);
    terms.new_key = session_key(key.0, key.1);
    let mut body = rotation.transaction(chain.incarnation).body().clone();
    let Payload::RotateSession(payload) = &mut body.payload else { panic!("not a rotation") };
    payload.new_key = terms.new_key;
    payload.possession = session_pair(key.0, key.1).sign(&SigningBytes::rotation_possession(&terms));
    signed(body, &identity_pair(n))
}

#[test]
fn a_session_key_that_was_ever_used_is_refused() {
    let mut chain = TestChain::new(&[1; 7]);
    let others_key = rotation_to(&chain, 1, 2, (2, 1));
    assert_eq!(chain.run(vec![others_key]), failed(FailureReason::SessionKeyUsed));
    chain.rotate(&co_signed(1, 2, session_pair(1, 1)));
    chain.run_to(10);
    let former_key = rotation_to(&chain, 1, 3, (1, 1));
    assert_eq!(chain.run(vec![former_key]), failed(FailureReason::SessionKeyUsed));
    chain.rotate(&identity_only(3, 2));
    let pending_key = rotation_to(&chain, 4, 2, (3, 2));
    assert_eq!(chain.run(vec![pending_key]), failed(FailureReason::SessionKeyUsed));
}

#[test]
fn a_rotation_is_valid_for_at_most_100_blocks() {
    let mut chain = chain();
    let rotation = |valid_until| Rotation { valid_until, ..identity_only(1, 2) };
    assert_eq!(chain.rotate(&rotation(102)), failed(FailureReason::ValidityTooLong));
    assert_eq!(chain.rotate(&rotation(102)), [EXECUTED]);
    assert_eq!(chain.rotate(&rotation(2)), [ReceiptStatus::Expired]);
}

#[test]
fn who_does_not_vote_does_not_rotate() {
    let mut chain = chain();
    assert_eq!(chain.rotate(&identity_only(9, 2)), failed(FailureReason::NotAVoter));
    assert_eq!(chain.object(&identity_only(9, 2), &session_pair(9, 1)), failed(FailureReason::NotAVoter));
}

#[test]
fn a_single_voter_rotates_only_with_its_current_key() {
    for power in [1, 10] {
        let mut chain = TestChain::new(&[power]);
        assert_eq!(chain.rotate(&identity_only(0, 2)), failed(FailureReason::SingleVoter));
        assert_eq!(chain.rotate(&co_signed(0, 2, session_pair(0, 1))), [EXECUTED]);
        assert_eq!(chain.epochs(0), [1, 1, 2]);
    }
}

#[test]
fn rotations_of_different_voters_in_one_block_all_count() {
    let mut chain = chain();
    let transactions = (0..4).map(|n| co_signed(n, 2, session_pair(n, 1)).transaction(chain.incarnation)).collect();
    assert_eq!(chain.run(transactions), [EXECUTED; 4]);
    for n in 0..4 {
        assert_eq!(chain.epochs(n), [1, 1, 2]);
    }
}

#[test]
fn pending_rotations_say_when_they_count() {
    let mut chain = TestChain::new(&[1; 7]);
    chain.run_to(4);
    let rotations = [co_signed(1, 2, session_pair(1, 1)), identity_only(2, 2)];
    chain.run(rotations.iter().map(|rotation| rotation.transaction(chain.incarnation)).collect());
    let counts_from =
        |chain: &TestChain, n| chain.snapshot().rotations.of(&identity(n)).map(|pending| pending.counts_from());
    assert_eq!(counts_from(&chain, 1), Some(Height::new(8)));
    assert_eq!(counts_from(&chain, 2), Some(Height::new(18)));
    chain.run_to(8);
    assert_eq!(counts_from(&chain, 1), None);
    chain.run_to(18);
    assert_eq!(chain.snapshot().rotations, PendingRotations::default());
}
