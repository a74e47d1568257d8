//! A full pool: who gives way to whom, and who never does.

use std::collections::{BTreeMap, BTreeSet};

use super::{ALL, incarnation, include, pay, pool_with, sealed, until, verified};
use crate::{
    crypto::VerifiedTransaction,
    fixtures::{Dice, block, transfer},
    mempool::{Limits, Mempool, Refusal},
    types::{Hash, Height, Receipt, ReceiptStatus, TransactionId},
};

const TIGHT: Limits = Limits {
    transactions_max: 20,
    bytes_max: 1_000_000,
    sender_transactions_max: 8,
    remembered_max: 1_000,
    deferred_max: 4,
    accounts_max: 1_000,
};

fn from(name: &str, nonce: u64) -> VerifiedTransaction {
    verified(transfer(incarnation(), name, "bob", nonce, 1))
}

/// Transactions whose predecessor never comes, of as many keys as it takes.
fn ahead(keys: std::ops::Range<u64>) -> Vec<VerifiedTransaction> {
    keys.flat_map(|key| (1..=8).map(move |nonce| from(&format!("stranger {key}"), nonce))).collect()
}

/// A pool that was filled to the last place by strangers who leave a gap, as far as it lets them.
fn filled() -> Mempool {
    let mut pool = pool_with(TIGHT);
    let first = ahead(0..1);
    for transaction in &first[..4] {
        pool.add(transaction.clone()).unwrap();
    }
    assert_eq!(pool.seal(ALL).len(), 4, "nobody knows that they are ahead");
    include(&mut pool, 1, &first[..4].iter().map(|sent| (sent, ReceiptStatus::Deferred)).collect::<Vec<_>>());
    for transaction in ahead(1..9) {
        let _ = pool.add(transaction);
    }
    assert_eq!((pool.seal(ALL).len(), pool.len()), (0, 20));
    pool
}

#[test]
fn keys_that_leave_gaps_do_not_keep_others_out() {
    let mut pool = filled();
    let mut evicted = BTreeSet::new();
    for nonce in 0..8 {
        evicted.extend(pool.add(pay("alice", nonce)).unwrap());
        evicted.extend(pool.add(pay("carol", nonce)).unwrap());
    }
    assert_eq!((evicted.len(), pool.len()), (16, 20));
    assert!(evicted.iter().all(|id| !pool.contains(id)));
    assert_eq!(sealed(&mut pool).len(), 16);
    // What was deferred stays, whatever comes.
    assert!(ahead(0..1)[..4].iter().all(|deferred| pool.contains(&deferred.id())));
    assert_eq!(pool.add(pay("bob", 0)), Err(Refusal::Full));
}

#[test]
fn the_newest_of_the_sender_with_most_gives_way() {
    let mut pool = pool_with(Limits { transactions_max: 5, deferred_max: 0, ..TIGHT });
    let arrivals = [("one", 3), ("two", 5), ("two", 2), ("one", 4), ("two", 4)];
    for (name, nonce) in arrivals {
        pool.add(from(name, nonce)).unwrap();
    }
    assert!(pool.seal(ALL).is_empty());
    let gone = |pool: &mut Mempool, nonce| pool.add(pay("alice", nonce)).unwrap();
    assert_eq!(gone(&mut pool, 0), [from("two", 4).id()]);
    // Two of each are left: the sender's number decides, and the newest of that one goes first.
    let next = gone(&mut pool, 1);
    assert!(next == [from("two", 2).id()] || next == [from("one", 4).id()], "{next:?}");
}

#[test]
fn what_waits_behind_a_gap_itself_takes_nobodys_place() {
    let mut pool = filled();
    assert_eq!(pool.add(from("another stranger", 7)), Err(Refusal::Full));
    pool.add(pay("alice", 0)).unwrap();
    assert_eq!(pool.add(pay("alice", 2)), Err(Refusal::Full));
    assert_eq!(pool.add(pay("alice", 1)).map(|evicted| evicted.len()), Ok(1));
}

#[test]
fn a_full_pool_knows_accounts_whose_nonce_blocks_have_told() {
    let mut pool = filled();
    include(&mut pool, 2, &[(&pay("carol", 4), ReceiptStatus::Executed)]);
    assert_eq!(pool.add(pay("carol", 5)).map(|evicted| evicted.len()), Ok(1));
    assert_eq!(sealed(&mut pool), [("carol".to_owned(), 5)]);
    assert_eq!(pool.add(pay("carol", 7)), Err(Refusal::Full));
}

#[test]
fn when_few_are_deferred_what_may_be_next_goes_into_batches_again() {
    let mut pool = pool_with(TIGHT);
    let deferred: Vec<_> = (1..=4).map(|nonce| until(nonce, 10)).collect();
    for transaction in &deferred {
        pool.add(transaction.clone()).unwrap();
    }
    pool.seal(ALL);
    include(&mut pool, 1, &deferred.iter().map(|sent| (sent, ReceiptStatus::Deferred)).collect::<Vec<_>>());
    pool.add(pay("carol", 7)).unwrap();
    assert_eq!(sealed(&mut pool), Vec::new());
    assert_eq!(include(&mut pool, 10, &[]), 4, "the deferred ones expire");
    assert_eq!(sealed(&mut pool), [("carol".to_owned(), 7)]);
}

/// The receipts of a block that included these before their turn.
fn too_early(sent: &[VerifiedTransaction]) -> Vec<(&VerifiedTransaction, ReceiptStatus)> {
    sent.iter().map(|sent| (sent, ReceiptStatus::Deferred)).collect()
}

#[test]
fn the_missing_nonce_of_a_sender_without_places_takes_that_of_its_last() {
    // Nothing may be deferred, so nothing is in a batch before its turn.
    let mut pool = pool_with(Limits { deferred_max: 0, ..TIGHT });
    for nonce in 3..11 {
        pool.add(pay("alice", nonce)).unwrap();
    }
    assert!(pool.seal(ALL).is_empty());
    assert_eq!(pool.add(pay("alice", 11)), Err(Refusal::SenderFull));
    for nonce in 0..3 {
        assert_eq!(pool.add(pay("alice", nonce)), Ok(vec![pay("alice", 10 - nonce).id()]));
        let expected = [("alice".to_owned(), nonce)];
        assert_eq!(sealed(&mut pool).first_chunk(), Some(&expected));
    }
    assert_eq!(pool.len(), 8);
    assert!(sealed(&mut pool).is_empty(), "all eight are in batches, in order");
    assert_eq!(pool.add(pay("alice", 8)), Err(Refusal::SenderFull));
}

#[test]
fn the_missing_nonce_has_a_place_where_batches_hold_all_that_is_later() {
    let mut pool = pool_with(Limits { deferred_max: 20, ..TIGHT });
    let early: Vec<VerifiedTransaction> = (2..10).map(|nonce| pay("alice", nonce)).collect();
    for transaction in &early {
        pool.add(transaction.clone()).unwrap();
    }
    assert_eq!(pool.seal(ALL).len(), 8, "nobody knows that they are ahead");
    include(&mut pool, 1, &too_early(&early));
    assert_eq!(pool.add(pay("alice", 10)), Err(Refusal::SenderFull));
    for nonce in [1, 0] {
        assert_eq!(pool.add(pay("alice", nonce)), Ok(Vec::new()), "nothing that a batch held gives way");
    }
    assert!(early.iter().all(|early| pool.contains(&early.id())));
    assert_eq!(sealed(&mut pool), [("alice".to_owned(), 0), ("alice".to_owned(), 1)]);
    let missing = [pay("alice", 0), pay("alice", 1)];
    include(&mut pool, 2, &[(&missing[0], ReceiptStatus::Executed), (&missing[1], ReceiptStatus::Executed)]);
    assert_eq!(sealed(&mut pool).len(), 8);
}

#[test]
fn a_sender_never_has_more_than_twice_its_places() {
    let mut pool = pool_with(Limits { transactions_max: 100, deferred_max: 100, ..TIGHT });
    for nonce in (0..100).rev() {
        let _ = pool.add(pay("alice", nonce));
        pool.seal(ALL);
    }
    assert_eq!(pool.len(), 16);
    let mut full = pool_with(Limits { sender_transactions_max: 100, ..TIGHT });
    for nonce in 1..21 {
        full.add(pay("alice", nonce)).unwrap();
    }
    full.seal(ALL);
    assert_eq!(full.add(pay("alice", 0)), Err(Refusal::Full), "the pool's bound holds for all");
}

/// What was in a batch is acknowledged to clients: it leaves by a block or by its last height and in no other way.
#[test]
fn what_was_sealed_is_never_evicted() {
    let names: Vec<String> = (0..6).map(|key| format!("sender {key}")).collect();
    let all: Vec<VerifiedTransaction> =
        names.iter().flat_map(|name| (0..8).map(move |nonce| from(name, nonce))).collect();
    let place: BTreeMap<TransactionId, (usize, u64)> =
        all.iter().enumerate().map(|(index, sent)| (sent.id(), (index / 8, index as u64 % 8))).collect();
    let mut evictions = 0;
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut pool = pool_with(Limits { transactions_max: 10, deferred_max: 2, ..TIGHT });
        let mut nonces = [0_u64; 6];
        let mut height = 0;
        let mut batched: BTreeSet<TransactionId> = BTreeSet::new();
        let mut queue: Vec<VerifiedTransaction> = Vec::new();
        for _ in 0..300 {
            match dice.below(8) {
                0 => {
                    for transaction in pool.seal(ALL) {
                        batched.insert(transaction.id());
                        queue.push(transaction);
                    }
                }
                1 if !queue.is_empty() => {
                    let count = 1 + usize::try_from(dice.below(queue.len() as u64)).unwrap();
                    let named: Vec<VerifiedTransaction> = queue.drain(..count).collect();
                    height += 1;
                    let list = named.iter().map(|sent| sent.transaction().clone()).collect();
                    pool.on_decided(&block(height, Hash::ZERO, list));
                    let mut receipts = Vec::new();
                    for (index, sent) in (0_u32..).zip(&named) {
                        let (sender, nonce) = place[&sent.id()];
                        let status = match nonce.cmp(&nonces[sender]) {
                            std::cmp::Ordering::Less => unreachable!("a nonce is sealed once at a time"),
                            std::cmp::Ordering::Equal => ReceiptStatus::Executed,
                            std::cmp::Ordering::Greater => ReceiptStatus::Deferred,
                        };
                        if status == ReceiptStatus::Executed {
                            nonces[sender] += 1;
                            batched.remove(&sent.id());
                        }
                        let (transaction, height) = (sent.id(), Height::new(height));
                        receipts.push(Receipt { transaction, height, index, status });
                    }
                    pool.on_executed(Height::new(height), &receipts);
                }
                _ => {
                    let sent = &all[usize::try_from(dice.below(all.len() as u64)).unwrap()];
                    for id in pool.add(sent.clone()).unwrap_or_default() {
                        evictions += 1;
                        assert!(!batched.contains(&id), "seed {seed}: {:?} was in a batch", place[&id]);
                        assert!(!pool.contains(&id));
                    }
                }
            }
            assert!(batched.iter().all(|id| pool.contains(id)), "seed {seed}: something that was in a batch is gone");
        }
    }
    assert!(evictions > 100, "only {evictions} evictions");
}
