//! Transfers: balances, nonces, expiry, and receipts for each of them.

use super::TestChain;
use crate::{
    fixtures::{Dice, account, key_pair, signed, transfer},
    ledger::{Account, account as read_account},
    types::{
        Amount, FailureReason, Height, Incarnation, Nonce, Payload, ReceiptStatus, Transaction, TransactionBody,
        Transfer, merkle_root,
    },
};

const EXECUTED: ReceiptStatus = ReceiptStatus::Executed;

fn failed(reason: FailureReason) -> ReceiptStatus {
    ReceiptStatus::Failed(reason)
}

fn chain() -> TestChain {
    TestChain::new(&[1, 1, 1, 1])
}

/// Nonce and balance.
fn of(chain: &TestChain, name: &str) -> (u64, u64) {
    let Account { nonce, balance } = read_account(&chain.store, &account(name)).unwrap();
    (nonce.get(), balance.get())
}

fn until(incarnation: Incarnation, valid_until: u64) -> Transaction {
    let body = TransactionBody {
        incarnation,
        sender: account("alice"),
        nonce: Nonce::ZERO,
        valid_until: Height::new(valid_until),
        payload: Payload::Transfer(Transfer { to: account("bob"), amount: Amount::new(1) }),
    };
    signed(body, &key_pair("alice"))
}

#[test]
fn a_transfer_moves_the_amount_and_takes_the_nonce() {
    let mut chain = chain();
    let pay = |nonce, to: &str, amount| transfer(chain.incarnation, "alice", to, nonce, amount);
    let transactions = vec![pay(0, "bob", 5), pay(1, "carol", 7)];
    assert_eq!(chain.run(transactions), [EXECUTED, EXECUTED]);
    assert_eq!((of(&chain, "alice"), of(&chain, "bob"), of(&chain, "carol")), ((2, 988), (0, 15), (0, 7)));
}

#[test]
fn what_was_received_can_be_spent_in_the_same_block() {
    let mut chain = chain();
    let transactions =
        vec![transfer(chain.incarnation, "alice", "carol", 0, 7), transfer(chain.incarnation, "carol", "bob", 0, 7)];
    assert_eq!(chain.run(transactions), [EXECUTED, EXECUTED]);
    assert_eq!((of(&chain, "carol"), of(&chain, "bob")), ((1, 0), (0, 17)));
}

#[test]
fn a_transfer_to_oneself_takes_the_nonce_only() {
    let mut chain = chain();
    let transactions = vec![
        transfer(chain.incarnation, "alice", "alice", 0, 1_000),
        transfer(chain.incarnation, "alice", "alice", 1, 1_001),
    ];
    assert_eq!(chain.run(transactions), [EXECUTED, failed(FailureReason::BalanceTooSmall)]);
    assert_eq!(of(&chain, "alice"), (2, 1_000));
}

#[test]
fn a_transfer_beyond_the_balance_fails_and_takes_the_nonce() {
    let mut chain = chain();
    let transactions = vec![transfer(chain.incarnation, "bob", "alice", 0, 11)];
    assert_eq!(chain.run(transactions.clone()), [failed(FailureReason::BalanceTooSmall)]);
    assert_eq!(of(&chain, "bob"), (1, 10));
    assert_eq!(chain.run(transactions), [failed(FailureReason::NonceUsed)]);
}

#[test]
fn a_transaction_is_executed_once() {
    let mut chain = chain();
    let pay = transfer(chain.incarnation, "alice", "bob", 0, 5);
    assert_eq!(chain.run(vec![pay.clone(), pay.clone()]), [EXECUTED, failed(FailureReason::NonceUsed)]);
    assert_eq!(chain.run(vec![pay]), [failed(FailureReason::NonceUsed)]);
    assert_eq!(of(&chain, "bob"), (0, 15));
}

#[test]
fn a_nonce_gap_defers_and_does_not_drop() {
    let mut chain = chain();
    let pay = |nonce| transfer(chain.incarnation, "alice", "bob", nonce, 5);
    let (first, second) = (pay(0), pay(1));
    assert_eq!(chain.run(vec![second.clone()]), [ReceiptStatus::Deferred]);
    assert_eq!(of(&chain, "alice"), (0, 1_000));
    assert_eq!(chain.run(vec![second.clone(), first, second]), [ReceiptStatus::Deferred, EXECUTED, EXECUTED]);
    assert_eq!(of(&chain, "alice"), (2, 990));
}

#[test]
fn a_transaction_is_valid_up_to_its_height_included() {
    let mut chain = chain();
    chain.run_to(4);
    assert_eq!(
        chain.run(vec![until(chain.incarnation, 4), until(chain.incarnation, 5)]),
        [ReceiptStatus::Expired, EXECUTED]
    );
}

#[test]
fn a_transaction_of_another_incarnation_has_no_effect() {
    let mut chain = chain();
    let foreign = transfer(Incarnation::new([1; 32]), "alice", "bob", 0, 5);
    assert_eq!(chain.run(vec![foreign]), [failed(FailureReason::WrongIncarnation)]);
    assert_eq!(of(&chain, "alice"), (0, 1_000));
}

#[test]
fn the_receipts_root_is_the_merkle_root_of_the_receipts_in_order() {
    let mut chain = chain();
    let pay = |nonce| transfer(chain.incarnation, "alice", "bob", nonce, 5);
    let outcome = chain.outcome(vec![pay(0), pay(1), pay(9)]);
    let leaves: Vec<_> = outcome.receipts.iter().map(crate::types::Receipt::hash).collect();
    assert_eq!(outcome.receipts_root, merkle_root(&leaves));
    let indices: Vec<u32> = outcome.receipts.iter().map(|receipt| receipt.index).collect();
    assert_eq!(indices, [0, 1, 2]);
    assert_eq!(chain.outcome(Vec::new()).receipts_root, crate::types::Hash::ZERO);
}

/// Whatever is thrown at it: nothing is made or lost, nonces never go back, and each id is executed at most once.
#[test]
fn random_transfers_conserve_the_sum() {
    let names = ["alice", "bob", "carol", "dave"];
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut chain = chain();
        let mut executed = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let transactions: Vec<Transaction> = (0..dice.below(12))
                .map(|_| {
                    let (from, to) = (names[dice.below(4) as usize], names[dice.below(4) as usize]);
                    let nonce = of(&chain, from).0 + dice.below(3);
                    transfer(chain.incarnation, from, to, nonce.saturating_sub(dice.below(2)), dice.below(400))
                })
                .collect();
            let before = names.map(|name| of(&chain, name).0);
            for receipt in chain.outcome(transactions).receipts {
                if receipt.status == EXECUTED {
                    assert!(executed.insert(receipt.transaction), "seed {seed}");
                }
            }
            let after = names.map(|name| of(&chain, name));
            assert_eq!(after.iter().map(|(_, balance)| balance).sum::<u64>(), 1_010, "seed {seed}");
            assert!(before.iter().zip(after).all(|(before, (after, _))| *before <= after), "seed {seed}");
        }
    }
}
