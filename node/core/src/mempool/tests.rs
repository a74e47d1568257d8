//! The mempool: order, bounds, echoes, deferral, expiry, and the lane for sessions.

mod eviction;

use std::collections::BTreeSet;

use super::{Limits, Mempool, Refusal, Space, TRANSFER_VALIDITY_BLOCKS_MAX};
use crate::{
    crypto::{VerifiedTransaction, verify_transaction},
    fixtures::{Dice, Rotation, account, block, genesis, key_pair, session_pair, signed, transfer},
    ledger::{Applied, MemoryStore, apply_block, apply_genesis},
    types::{
        Amount, FailureReason, Hash, Height, Incarnation, Nonce, Payload, Receipt, ReceiptStatus, Transaction,
        TransactionBody, Transfer, VoterSet,
    },
};

const ALL: Space = Space { transactions_max: 1_000, bytes_max: 1_000_000 };

fn incarnation() -> Incarnation {
    genesis(&[1, 1, 1, 1]).incarnation()
}

fn voters() -> VoterSet {
    genesis(&[1, 1, 1, 1]).voter_set().clone()
}

fn pool_with(limits: Limits) -> Mempool {
    Mempool::new(limits, incarnation(), Height::ZERO)
}

fn pool() -> Mempool {
    pool_with(Limits::default())
}

fn verified(transaction: Transaction) -> VerifiedTransaction {
    verify_transaction(transaction).unwrap()
}

fn pay(from: &str, nonce: u64) -> VerifiedTransaction {
    verified(transfer(incarnation(), from, "bob", nonce, 1))
}

fn until(nonce: u64, valid_until: u64) -> VerifiedTransaction {
    let body = TransactionBody {
        incarnation: incarnation(),
        sender: account("alice"),
        nonce: Nonce::new(nonce),
        valid_until: Height::new(valid_until),
        payload: Payload::Transfer(Transfer { to: account("bob"), amount: Amount::new(1) }),
    };
    verified(signed(body, &key_pair("alice")))
}

/// Sender and nonce of what the next block would hold.
fn picked(pool: &Mempool, space: Space) -> Vec<(String, u64)> {
    let name = |transaction: &Transaction| {
        let names = ["alice", "bob", "carol"];
        names.into_iter().find(|name| account(name) == transaction.body().sender).unwrap_or("session").to_owned()
    };
    pool.pick(space).iter().map(|transaction| (name(transaction), transaction.body().nonce.get())).collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(name, nonce)| ((*name).to_owned(), *nonce)).collect()
}

/// Decides and executes a block with these statuses.
fn include(pool: &mut Mempool, height: u64, transactions: &[(&VerifiedTransaction, ReceiptStatus)]) -> usize {
    let list = transactions.iter().map(|(transaction, _)| transaction.transaction().clone()).collect();
    pool.on_decided(&block(height, Hash::ZERO, list));
    let receipts: Vec<Receipt> = (0u32..)
        .zip(transactions)
        .map(|(index, (transaction, status))| Receipt {
            transaction: transaction.id(),
            height: Height::new(height),
            index,
            status: *status,
        })
        .collect();
    pool.on_executed(Height::new(height), &receipts).len()
}

#[test]
fn blocks_take_senders_in_order_of_arrival_and_each_in_nonce_order() {
    let mut pool = pool();
    for (from, nonce) in [("alice", 1), ("carol", 0), ("alice", 0), ("carol", 1), ("alice", 2)] {
        pool.add(pay(from, nonce)).unwrap();
    }
    let expected = pairs(&[("alice", 0), ("alice", 1), ("carol", 0), ("carol", 1), ("alice", 2)]);
    assert_eq!(picked(&pool, ALL), expected);
}

#[test]
fn a_gap_keeps_later_nonces_out_of_the_block() {
    let mut pool = pool();
    for nonce in [0, 1, 3] {
        pool.add(pay("alice", nonce)).unwrap();
    }
    assert_eq!(picked(&pool, ALL), pairs(&[("alice", 0), ("alice", 1)]));
    pool.add(pay("alice", 2)).unwrap();
    assert_eq!(picked(&pool, ALL).len(), 4);
}

/// Sender and nonce of the next batch.
fn sealed(pool: &mut Mempool) -> Vec<(String, u64)> {
    let names = ["alice", "bob", "carol"];
    let name = |transaction: &VerifiedTransaction| {
        let body = transaction.transaction().body();
        let name = names.into_iter().find(|name| account(name) == body.sender).unwrap();
        (name.to_owned(), body.nonce.get())
    };
    pool.seal(ALL).iter().map(name).collect()
}

#[test]
fn a_transaction_is_in_one_batch_and_follows_the_one_before_it() {
    let mut pool = pool();
    for (from, nonce) in [("alice", 4), ("carol", 0), ("alice", 3), ("alice", 6)] {
        pool.add(pay(from, nonce)).unwrap();
    }
    assert_eq!(sealed(&mut pool), pairs(&[("alice", 3), ("alice", 4), ("carol", 0)]));
    // What waits behind the gap is not looked at again before the gap is filled.
    assert_eq!((sealed(&mut pool), pool.unsealed(), pool.len()), (Vec::new(), 0, 4));
    pool.add(pay("alice", 5)).unwrap();
    assert_eq!(sealed(&mut pool), pairs(&[("alice", 5), ("alice", 6)]));
}

#[test]
fn a_deferred_transaction_is_sealed_again_after_the_one_before_it() {
    let mut pool = pool();
    pool.add(pay("alice", 1)).unwrap();
    assert_eq!(sealed(&mut pool), pairs(&[("alice", 1)]));
    include(&mut pool, 1, &[(&pay("alice", 1), ReceiptStatus::Deferred)]);
    assert_eq!(sealed(&mut pool), Vec::new());
    include(&mut pool, 2, &[(&pay("alice", 0), ReceiptStatus::Executed)]);
    assert_eq!(sealed(&mut pool), pairs(&[("alice", 1)]));
}

#[test]
fn a_batch_is_filled_up_to_its_space_and_the_rest_goes_into_the_next() {
    let mut pool = pool();
    for nonce in 0..5 {
        pool.add(pay("alice", nonce)).unwrap();
    }
    let counts: Vec<usize> = (0..3).map(|_| pool.seal(Space { transactions_max: 2, ..ALL }).len()).collect();
    assert_eq!(counts, [2, 2, 1]);
}

#[test]
fn a_block_is_filled_up_to_its_space() {
    let mut pool = pool();
    for nonce in 0..5 {
        pool.add(pay("alice", nonce)).unwrap();
    }
    let size = pool.bytes() / 5;
    assert_eq!(picked(&pool, Space { transactions_max: 3, ..ALL }).len(), 3);
    assert_eq!(picked(&pool, Space { bytes_max: 2 * size + 1, ..ALL }).len(), 2);
    assert_eq!(picked(&pool, Space { bytes_max: size - 1, ..ALL }).len(), 0);
}

#[test]
fn a_known_transaction_is_refused_waiting_or_included() {
    let mut pool = pool();
    pool.add(pay("alice", 0)).unwrap();
    assert_eq!(pool.add(pay("alice", 0)), Err(Refusal::Known));
    include(&mut pool, 1, &[(&pay("alice", 0), ReceiptStatus::Executed)]);
    assert!(pool.is_empty() && pool.bytes() == 0);
    assert_eq!(pool.add(pay("alice", 0)), Err(Refusal::Known));
}

#[test]
fn what_a_block_includes_is_known_although_it_never_waited_here() {
    let mut pool = pool();
    include(&mut pool, 1, &[(&pay("alice", 0), ReceiptStatus::Executed)]);
    assert_eq!(pool.add(pay("alice", 0)), Err(Refusal::Known));
}

#[test]
fn used_taken_and_far_nonces_are_refused() {
    let mut pool = pool_with(Limits { sender_transactions_max: 10, ..Limits::default() });
    // Nothing is known of the account: it may have any nonce.
    assert_eq!(pool.add(pay("carol", 15)), Ok(Vec::new()));
    include(&mut pool, 1, &[(&pay("alice", 4), ReceiptStatus::Executed)]);
    let again = verified(transfer(incarnation(), "alice", "carol", 4, 2));
    assert_eq!(pool.add(again), Err(Refusal::NonceUsed));
    pool.add(pay("alice", 5)).unwrap();
    let same_nonce = verified(transfer(incarnation(), "alice", "carol", 5, 2));
    assert_eq!(pool.add(same_nonce), Err(Refusal::NonceTaken));
    assert_eq!(pool.add(pay("alice", 15)), Err(Refusal::TooFarAhead));
    assert_eq!(pool.add(pay("alice", 14)), Ok(Vec::new()));
}

#[test]
fn a_transaction_of_another_chain_or_expired_is_refused() {
    let mut pool = pool();
    let foreign = verified(transfer(Incarnation::new([1; 32]), "alice", "bob", 0, 1));
    assert_eq!(pool.add(foreign), Err(Refusal::WrongIncarnation));
    include(&mut pool, 5, &[]);
    assert_eq!(pool.add(until(0, 5)), Err(Refusal::Expired));
    assert_eq!(pool.add(until(0, 6)), Ok(Vec::new()));
}

#[test]
fn the_bounds_refuse_and_what_can_go_on_is_not_evicted() {
    let limits = Limits { transactions_max: 3, sender_transactions_max: 2, ..Limits::default() };
    let mut pool = pool_with(limits);
    pool.add(pay("alice", 0)).unwrap();
    pool.add(pay("alice", 1)).unwrap();
    assert_eq!(pool.add(pay("alice", 2)), Err(Refusal::SenderFull));
    pool.add(pay("carol", 0)).unwrap();
    assert_eq!(pool.add(pay("bob", 0)), Err(Refusal::Full));
    assert_eq!(picked(&pool, ALL), pairs(&[("alice", 0), ("alice", 1), ("carol", 0)]));
    let one = pool.bytes() / 3;
    let mut pool = pool_with(Limits { bytes_max: 2 * one, ..Limits::default() });
    pool.add(pay("alice", 0)).unwrap();
    pool.add(pay("alice", 1)).unwrap();
    assert_eq!(pool.add(pay("alice", 2)), Err(Refusal::Full));
}

#[test]
fn a_transfer_that_is_valid_for_too_long_is_refused() {
    let mut pool = pool();
    include(&mut pool, 5, &[]);
    let last = 5 + TRANSFER_VALIDITY_BLOCKS_MAX;
    assert_eq!(pool.add(until(0, last + 1)), Err(Refusal::ValidTooLong));
    assert_eq!(pool.add(until(0, last)), Ok(Vec::new()));
}

#[test]
fn a_deferred_transaction_waits_for_the_one_before_it() {
    let mut pool = pool();
    pool.add(pay("alice", 1)).unwrap();
    include(&mut pool, 1, &[(&pay("alice", 1), ReceiptStatus::Deferred)]);
    assert_eq!((pool.len(), picked(&pool, ALL)), (1, Vec::new()));
    pool.add(pay("alice", 0)).unwrap();
    assert_eq!(picked(&pool, ALL), pairs(&[("alice", 0), ("alice", 1)]));
}

#[test]
fn a_deferred_transaction_goes_on_when_others_included_the_one_before_it() {
    let mut pool = pool();
    pool.add(pay("alice", 1)).unwrap();
    include(&mut pool, 1, &[(&pay("alice", 1), ReceiptStatus::Deferred)]);
    include(&mut pool, 2, &[(&pay("alice", 0), ReceiptStatus::Executed)]);
    assert_eq!(picked(&pool, ALL), pairs(&[("alice", 1)]));
}

#[test]
fn a_transaction_is_not_picked_again_between_decision_and_execution() {
    let mut pool = pool();
    pool.add(pay("alice", 0)).unwrap();
    pool.add(pay("alice", 1)).unwrap();
    pool.on_decided(&block(1, Hash::ZERO, vec![pay("alice", 0).into_transaction()]));
    assert_eq!(picked(&pool, ALL), pairs(&[("alice", 1)]));
}

#[test]
fn the_nonce_of_an_included_transaction_stays_free_for_its_return() {
    let mut pool = pool();
    pool.add(pay("alice", 1)).unwrap();
    pool.on_decided(&block(1, Hash::ZERO, vec![pay("alice", 1).into_transaction()]));
    let other = || verified(transfer(incarnation(), "alice", "carol", 1, 2));
    assert_eq!(pool.add(other()), Err(Refusal::NonceTaken));
    include(&mut pool, 1, &[(&pay("alice", 1), ReceiptStatus::Deferred)]);
    assert!(pool.contains(&pay("alice", 1).id()));
    assert_eq!(pool.add(other()), Err(Refusal::NonceTaken));
}

#[test]
fn a_transaction_deferred_at_its_last_height_has_expired() {
    let mut pool = pool();
    pool.add(until(1, 4)).unwrap();
    assert_eq!(include(&mut pool, 4, &[(&until(1, 4), ReceiptStatus::Deferred)]), 1);
    assert!(pool.is_empty());
}

#[test]
fn what_expires_unincluded_is_told_once() {
    let mut pool = pool();
    for (nonce, valid_until) in [(0, 3), (1, 5)] {
        pool.add(until(nonce, valid_until)).unwrap();
    }
    assert_eq!(include(&mut pool, 2, &[]), 0);
    assert_eq!(include(&mut pool, 3, &[]), 1);
    assert_eq!(include(&mut pool, 4, &[]), 0);
    assert_eq!(include(&mut pool, 5, &[]), 1);
    assert!(pool.is_empty() && pool.bytes() == 0);
}

fn rotation(n: u64, co_signer: Option<u64>, valid_until: u64) -> Rotation {
    Rotation { n, epoch: 2, co_signer: co_signer.map(|epoch| session_pair(n, epoch)), valid_until }
}

#[test]
fn sessions_have_their_own_room_and_come_first() {
    let mut pool = pool_with(Limits { transactions_max: 1, ..Limits::default() });
    pool.add(pay("alice", 0)).unwrap();
    assert_eq!(pool.add(pay("alice", 1)), Err(Refusal::Full));
    pool.add_session(verified(rotation(1, None, 50).transaction(incarnation())), &voters()).unwrap();
    assert_eq!(picked(&pool, ALL), pairs(&[("session", 0), ("alice", 0)]));
}

#[test]
fn session_transactions_that_would_fail_are_refused() {
    let mut pool = pool();
    let mut refusal = |transaction: Transaction| pool.add_session(verified(transaction), &voters()).unwrap_err();
    let objection = |signer| rotation(1, None, 50).objection(incarnation(), &signer);
    for (transaction, reason) in [
        (rotation(9, None, 50).transaction(incarnation()), FailureReason::NotAVoter),
        (Rotation { epoch: 3, ..rotation(1, None, 50) }.transaction(incarnation()), FailureReason::WrongEpoch),
        (rotation(1, Some(2), 50).transaction(incarnation()), FailureReason::NotCurrentSessionKey),
        (rotation(1, None, 101).transaction(incarnation()), FailureReason::ValidityTooLong),
        (objection(session_pair(2, 1)), FailureReason::NotCurrentSessionKey),
        (transfer(incarnation(), "alice", "bob", 0, 1), FailureReason::WrongSigners),
    ] {
        assert_eq!(refusal(transaction), Refusal::WouldFail(reason));
    }
}

/// Who has a copy of the identity key can fill its place for rotations, not those of the current session key.
#[test]
fn a_copied_identity_key_cannot_keep_out_the_session_key() {
    let mut pool = pool();
    let mut add = |transaction: Transaction| pool.add_session(verified(transaction), &voters());
    for valid_until in 50..54 {
        add(rotation(1, None, valid_until).transaction(incarnation())).unwrap();
    }
    assert_eq!(add(rotation(1, None, 60).transaction(incarnation())), Err(Refusal::SenderFull));
    assert_eq!(add(rotation(1, Some(1), 50).transaction(incarnation())), Ok(()));
    assert_eq!(add(rotation(1, None, 50).objection(incarnation(), &session_pair(1, 1))), Ok(()));
    assert_eq!(add(rotation(2, None, 50).transaction(incarnation())), Ok(()));
}

/// Against a real ledger: whatever arrives in whatever order, everything accepted ends executed, failed or expired.
#[test]
fn everything_accepted_ends_with_a_receipt_or_expires() {
    for seed in 0..10 {
        let mut dice = Dice::new(seed);
        let genesis = genesis(&[1, 1, 1, 1]);
        let mut store = MemoryStore::new();
        apply_genesis(&mut store, &genesis).unwrap();
        let mut pool = pool();
        let mut open = BTreeSet::new();
        let mut arriving: Vec<VerifiedTransaction> = (0..20).map(|nonce| pay("alice", nonce)).collect();
        arriving.extend((0..5).map(|nonce| until(30 + nonce, 25)));
        let mut parent = genesis.hash();
        for height in 1..60 {
            for _ in 0..dice.below(3) {
                if arriving.is_empty() {
                    break;
                }
                let next = arriving.swap_remove(dice.below(arriving.len() as u64) as usize);
                let id = next.id();
                if pool.add(next).is_ok() {
                    open.insert(id);
                }
            }
            let block = block(height, parent, pool.pick(Space { transactions_max: 4, ..ALL }));
            parent = block.hash();
            pool.on_decided(&block);
            let Applied::Now { outcome, .. } = apply_block(&mut store, &block).unwrap() else { panic!("before") };
            for receipt in &outcome.receipts {
                if receipt.status.is_final() {
                    assert!(open.remove(&receipt.transaction), "seed {seed} height {height}");
                }
            }
            for id in pool.on_executed(Height::new(height), &outcome.receipts) {
                assert!(open.remove(&id), "seed {seed} height {height}");
            }
        }
        assert!(open.is_empty() && pool.is_empty(), "seed {seed}: {open:?} are lost");
    }
}
