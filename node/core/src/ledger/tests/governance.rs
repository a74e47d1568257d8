//! Governance: who may change the chain, from when a change counts, and what bounds it.

use std::collections::BTreeMap;

use super::TestChain;
use crate::{
    crypto::KeyPair,
    fixtures::{Dice, Rotation, govern, governance_pair, identity, new_voter, session_key, session_pair},
    ledger::{VOTERS_MIN, account, moved_power},
    types::{
        AccountId, Epoch, FailureReason, Governance, GovernanceChange, GovernanceKey, Identity, NewVoter, Parameters,
        ParametersDraft, Power, ReceiptStatus, SessionKey, VoterSet,
    },
};

const EXECUTED: ReceiptStatus = ReceiptStatus::Executed;

fn failed(reason: FailureReason) -> ReceiptStatus {
    ReceiptStatus::Failed(reason)
}

impl TestChain {
    /// One change in a block of its own, signed by the governance key of the fixtures.
    fn govern(&mut self, change: GovernanceChange) -> ReceiptStatus {
        self.govern_by(change, &[governance_pair(0)])
    }

    fn govern_by(&mut self, change: GovernanceChange, signers: &[KeyPair]) -> ReceiptStatus {
        let nonce = account(&self.store, &AccountId::governance()).unwrap().nonce.get();
        let transaction = govern(self.incarnation, nonce, change, signers);
        self.run(vec![transaction])[0]
    }

    fn add(&mut self, n: u64, power: u64) -> ReceiptStatus {
        let voter = new_voter(self.incarnation, n, 1, power);
        self.govern(GovernanceChange::AddVoter(voter))
    }

    fn remove(&mut self, n: u64) -> ReceiptStatus {
        self.govern(GovernanceChange::RemoveVoter { identity: identity(n) })
    }

    /// The powers of the voters at the next three heights.
    fn powers(&self) -> [Vec<u64>; 3] {
        let sets = self.snapshot().sets;
        [sets.first, sets.second, sets.third].map(|set| set.entries().iter().map(|entry| entry.power.get()).collect())
    }

    fn counts(&self) -> [usize; 3] {
        self.powers().map(|powers| powers.len())
    }
}

fn parameters(block_interval_ms: u64) -> Parameters {
    Parameters::new(ParametersDraft { block_interval_ms, ..ParametersDraft::default() }).unwrap()
}

#[test]
fn a_voter_that_block_h_votes_in_counts_from_h_plus_3() {
    let mut chain = TestChain::new(&[1; 4]);
    assert_eq!(chain.add(4, 1), EXECUTED);
    assert_eq!(chain.counts(), [4, 4, 5]);
    assert_eq!(chain.voter(4, 4).session_key, session_key(4, 1));
    chain.run_to(3);
    assert_eq!(chain.counts(), [5, 5, 5]);
}

#[test]
fn a_voter_that_block_h_votes_out_votes_until_h_plus_2() {
    let mut chain = TestChain::new(&[1; 5]);
    assert_eq!(chain.remove(2), EXECUTED);
    assert_eq!(chain.counts(), [5, 5, 4]);
}

#[test]
fn only_enough_governance_keys_and_nobody_else_change_the_chain() {
    let mut chain = TestChain::new(&[1; 4]);
    let mut keys: Vec<GovernanceKey> = (0..3).map(|n| GovernanceKey::new(governance_pair(n).public())).collect();
    keys.sort();
    assert_eq!(chain.govern(GovernanceChange::SetKeys(Governance { threshold: 2, keys })), EXECUTED);
    let change = |chain: &TestChain| GovernanceChange::AddVoter(new_voter(chain.incarnation, 4, 1, 1));
    let wrong: [&[KeyPair]; 3] = [
        &[governance_pair(1)],
        &[governance_pair(0), session_pair(0, 1)],
        &[governance_pair(0), governance_pair(1), session_pair(0, 1)],
    ];
    for signers in wrong {
        let change = change(&chain);
        assert_eq!(chain.govern_by(change, signers), failed(FailureReason::WrongSigners));
    }
    let right = change(&chain);
    assert_eq!(chain.govern_by(right, &[governance_pair(2), governance_pair(0)]), EXECUTED);
}

#[test]
fn a_governance_transaction_counts_once_and_in_order() {
    let mut chain = TestChain::new(&[1; 5]);
    let keys = [governance_pair(0)];
    let set = |nonce, power| {
        let change = GovernanceChange::SetPower { identity: identity(0), power: Power::new(power) };
        govern(chain.incarnation, nonce, change, &keys)
    };
    let (first, second) = (set(0, 2), set(1, 1));
    assert_eq!(chain.run(vec![second.clone()]), [ReceiptStatus::Deferred]);
    assert_eq!(chain.run(vec![first.clone(), second.clone()]), [EXECUTED, EXECUTED]);
    assert_eq!(chain.run(vec![first]), [failed(FailureReason::NonceUsed)]);
    assert_eq!(chain.powers()[2], [1; 5]);
}

#[test]
fn a_change_that_fails_takes_its_nonce_and_one_of_strangers_does_not() {
    let mut chain = TestChain::new(&[1; 4]);
    assert_eq!(chain.remove(9), failed(FailureReason::NotAVoter));
    let stranger = GovernanceChange::RemoveVoter { identity: identity(1) };
    assert_eq!(chain.govern_by(stranger, &[session_pair(0, 1)]), failed(FailureReason::WrongSigners));
    assert_eq!(account(&chain.store, &AccountId::governance()).unwrap().nonce.get(), 1);
}

#[test]
fn less_than_a_third_of_the_power_changes_hands_in_a_block() {
    let change = |chain: &mut TestChain, n, power| {
        chain.govern(GovernanceChange::SetPower { identity: identity(n), power: Power::new(power) })
    };
    let mut chain = TestChain::new(&[10; 4]);
    assert_eq!(change(&mut chain, 0, 24), failed(FailureReason::ChangeTooLarge));
    assert_eq!(change(&mut chain, 0, 23), EXECUTED);
    assert_eq!(chain.add(4, 18), failed(FailureReason::ChangeTooLarge));
    assert_eq!(chain.add(4, 17), EXECUTED);
    // The largest voter of 23 in 70 can leave no more in one block.
    assert_eq!(change(&mut chain, 0, 24), EXECUTED);
    assert_eq!(chain.remove(0), failed(FailureReason::ChangeTooLarge));
}

#[test]
fn the_bound_holds_for_all_changes_of_a_block_together() {
    let mut chain = TestChain::new(&[1; 8]);
    let keys = [governance_pair(0)];
    let remove =
        |nonce, n| govern(chain.incarnation, nonce, GovernanceChange::RemoveVoter { identity: identity(n) }, &keys);
    let block = vec![remove(0, 0), remove(1, 1), remove(2, 2)];
    assert_eq!(chain.run(block), [EXECUTED, EXECUTED, failed(FailureReason::ChangeTooLarge)]);
    assert_eq!(chain.remove(3), EXECUTED);
    assert_eq!(chain.counts(), [8, 6, 5]);
}

#[test]
fn the_last_four_voters_stay() {
    let mut chain = TestChain::new(&[1; 5]);
    assert_eq!(chain.remove(0), EXECUTED);
    assert_eq!(chain.remove(1), failed(FailureReason::TooFewVoters));
    let mut alone = TestChain::new(&[1]);
    assert_eq!(alone.remove(0), failed(FailureReason::TooFewVoters));
    // Nobody can join a single voter: it would be more than a third of the power.
    assert_eq!(alone.add(1, 1), failed(FailureReason::ChangeTooLarge));
}

#[test]
fn a_voter_replaces_another_in_one_change() {
    let mut chain = TestChain::new(&[1; 4]);
    let voter = new_voter(chain.incarnation, 4, 1, 1);
    assert_eq!(chain.govern(GovernanceChange::ReplaceVoter { former: identity(3), voter }), EXECUTED);
    assert_eq!(chain.counts(), [4, 4, 4]);
    assert!(chain.snapshot().sets.third.get(&identity(3)).is_none());
    assert_eq!(chain.voter(4, 4).epoch, Epoch::FIRST);
}

#[test]
fn an_identity_gets_another_session_key_and_its_pending_rotation_is_void() {
    let mut chain = TestChain::new(&[1; 4]);
    let rotation = Rotation { n: 2, epoch: 2, co_signer: None, valid_until: 50 };
    let transaction = rotation.transaction(chain.incarnation);
    assert_eq!(chain.run(vec![transaction]), [EXECUTED]);
    let voter = NewVoter { ..new_voter(chain.incarnation, 2, 2, 1) };
    let same_key = GovernanceChange::ReplaceVoter { former: identity(2), voter };
    assert_eq!(chain.govern(same_key), failed(FailureReason::SessionKeyUsed), "its own rotation has that key");
    let other = crate::fixtures::new_voter_with(chain.incarnation, 2, 2, 1, &session_pair(2, 7));
    assert_eq!(chain.govern(GovernanceChange::ReplaceVoter { former: identity(2), voter: other }), EXECUTED);
    assert_eq!(chain.snapshot().rotations.all(), []);
    chain.run_to(20);
    assert_eq!((chain.voter(21, 2).session_key, chain.voter(21, 2).epoch), (session_key(2, 7), Epoch::new(2)));
}

#[test]
fn epochs_grow_and_session_keys_never_come_back_also_across_removal() {
    let mut chain = TestChain::new(&[1; 5]);
    assert_eq!(chain.remove(4), EXECUTED);
    chain.run_to(6);
    let again = |chain: &mut TestChain, epoch: u64, key: &KeyPair| {
        let voter = crate::fixtures::new_voter_with(chain.incarnation, 4, epoch, 1, key);
        chain.govern(GovernanceChange::AddVoter(voter))
    };
    assert_eq!(again(&mut chain, 1, &session_pair(4, 2)), failed(FailureReason::WrongEpoch));
    assert_eq!(again(&mut chain, 2, &session_pair(4, 1)), failed(FailureReason::SessionKeyUsed));
    assert_eq!(again(&mut chain, 2, &session_pair(0, 1)), failed(FailureReason::SessionKeyUsed));
    assert_eq!(again(&mut chain, 3, &session_pair(4, 2)), failed(FailureReason::WrongEpoch));
    assert_eq!(again(&mut chain, 2, &session_pair(4, 2)), EXECUTED);
    assert_eq!(again(&mut chain, 3, &session_pair(4, 3)), failed(FailureReason::AlreadyAVoter));
}

#[test]
fn a_key_that_a_block_voted_in_and_out_again_never_comes_back() {
    let mut chain = TestChain::new(&[1; 5]);
    let keys = [governance_pair(0)];
    let add = GovernanceChange::AddVoter(new_voter(chain.incarnation, 5, 1, 1));
    let transactions = [add.clone(), GovernanceChange::RemoveVoter { identity: identity(5) }, add];
    let block =
        (0..).zip(transactions).map(|(nonce, change)| govern(chain.incarnation, nonce, change, &keys)).collect();
    assert_eq!(chain.run(block), [EXECUTED, EXECUTED, failed(FailureReason::WrongEpoch)]);
    let voter = crate::fixtures::new_voter_with(chain.incarnation, 5, 2, 1, &session_pair(5, 1));
    assert_eq!(chain.govern(GovernanceChange::AddVoter(voter)), failed(FailureReason::SessionKeyUsed));
}

#[test]
fn parameters_that_block_h_changes_count_from_h_plus_3() {
    let mut chain = TestChain::new(&[1; 4]);
    let in_force = |chain: &TestChain| {
        [1, 2, 3].map(|ahead| {
            let height = crate::types::Height::new(chain.height + ahead);
            chain.snapshot().rules().at(height).block_interval_ms
        })
    };
    let before = ParametersDraft::default().block_interval_ms;
    assert_eq!(chain.govern(GovernanceChange::SetParameters(parameters(77))), EXECUTED);
    assert_eq!(in_force(&chain), [before, before, 77]);
    let again = GovernanceChange::SetParameters(parameters(78));
    assert_eq!(chain.govern(again.clone()), failed(FailureReason::ParametersPending));
    chain.run_to(3);
    assert_eq!(in_force(&chain), [77, 77, 77]);
    assert_eq!(chain.govern(GovernanceChange::SetParameters(parameters(77))), failed(FailureReason::NothingChanges));
    assert_eq!(chain.govern(again), EXECUTED);
    chain.run_to(20);
    assert_eq!(in_force(&chain), [78, 78, 78]);
}

#[test]
fn a_governance_transaction_expires() {
    let mut chain = TestChain::new(&[1; 5]);
    let transaction =
        govern(chain.incarnation, 0, GovernanceChange::RemoveVoter { identity: identity(1) }, &[governance_pair(0)]);
    let last = transaction.body().valid_until.get();
    chain.run_to(last);
    assert_eq!(chain.run(vec![transaction]), [ReceiptStatus::Expired]);
}

/// What was ever in a voter entry: who had the key, with which epoch, and whether it has left.
type Ever = BTreeMap<SessionKey, (Identity, Epoch, bool)>;

fn look_at(ever: &mut Ever, epochs: &mut BTreeMap<Identity, Epoch>, set: &VoterSet) {
    for (key, (identity, _, left)) in ever.iter_mut() {
        *left |= set.get(identity).is_none_or(|entry| entry.session_key != *key);
    }
    for entry in set.entries() {
        let (identity, epoch, left) = ever.entry(entry.session_key).or_insert((entry.identity, entry.epoch, false));
        assert_eq!((*identity, *epoch), (entry.identity, entry.epoch), "a key changed its owner or number");
        assert!(!*left, "a key came back");
        let highest = epochs.entry(entry.identity).or_insert(entry.epoch);
        assert!(entry.epoch >= *highest, "an epoch went back");
        *highest = entry.epoch;
    }
}

fn some_change(dice: &mut Dice, chain: &TestChain) -> GovernanceChange {
    let n = dice.below(9);
    let ever = crate::ledger::highest_epoch(&chain.store, &identity(n)).unwrap().map_or(0, Epoch::get);
    let epoch = ever + dice.below(3);
    let power = dice.below(6);
    let voter = new_voter(chain.incarnation, n, epoch.max(1), power);
    match dice.below(5) {
        0 => GovernanceChange::AddVoter(voter),
        1 => GovernanceChange::ReplaceVoter { former: identity(dice.below(9)), voter },
        2 => GovernanceChange::RemoveVoter { identity: identity(n) },
        3 => GovernanceChange::SetPower { identity: identity(n), power: Power::new(power) },
        _ => GovernanceChange::SetParameters(parameters(100 + dice.below(3))),
    }
}

#[test]
fn whatever_governance_asks_for_the_bounds_hold() {
    let mut executed = BTreeMap::new();
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let mut chain = TestChain::new(&[3, 2, 2, 1, 1]);
        let (mut ever, mut epochs) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..60 {
            let before = chain.snapshot();
            look_at(&mut ever, &mut epochs, &before.sets.third);
            let nonce = account(&chain.store, &AccountId::governance()).unwrap().nonce.get();
            let mut change = |nonce| {
                let change = some_change(&mut dice, &chain);
                govern(chain.incarnation, nonce, change, &[governance_pair(0)])
            };
            let mut block: Vec<_> = (nonce..nonce + 3).map(&mut change).collect();
            block.truncate(dice.below(4) as usize);
            // Rotations by their identities change no power, and are bounded by rules of their own.
            let rotates = dice.below(4) == 0;
            if rotates && let Some(entry) = before.sets.third.get(&identity(dice.below(5))) {
                let n = (0..9).find(|n| identity(*n) == entry.identity).unwrap();
                let valid_until = chain.height + 20;
                let rotation = Rotation { n, epoch: entry.epoch.get() + 1, co_signer: None, valid_until };
                block.push(rotation.transaction(chain.incarnation));
            }
            for status in chain.run(block) {
                *executed.entry(format!("{status:?}")).or_insert(0) += 1;
            }
            let after = chain.snapshot();
            assert_eq!((&after.sets.first, &after.sets.second), (&before.sets.second, &before.sets.third));
            let third = &after.sets.third;
            let rotated = |set: &VoterSet| {
                let keys = third
                    .entries()
                    .iter()
                    .filter(|entry| set.get(&entry.identity).is_some_and(|old| old.epoch != entry.epoch));
                keys.count()
            };
            if rotated(&before.sets.third) == 0 {
                let moved = moved_power(&before.sets.third, third).get();
                assert!(moved * 3 < before.sets.third.total_power().get(), "{moved} in seed {seed}");
            }
            assert!(third.count() >= before.sets.third.count().min(VOTERS_MIN));
        }
        look_at(&mut ever, &mut epochs, &chain.snapshot().sets.third);
    }
    for wanted in
        ["Executed", "Failed(ChangeTooLarge)", "Failed(TooFewVoters)", "Failed(WrongEpoch)", "Failed(SessionKeyUsed)"]
    {
        assert!(executed.contains_key(wanted), "{wanted} never happened: {executed:?}");
    }
}
