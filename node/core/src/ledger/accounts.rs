//! Accounts during one block: read once, changed in memory, written at the end.

use std::collections::BTreeMap;

use super::{Account, ExecuteError, StateKey, StateRead, WriteSet, execute::load};
use crate::{
    codec::Encode,
    types::{AccountId, FailureReason, Nonce, ReceiptStatus, TransactionBody, Transfer},
};

/// The accounts that a block has touched so far.
pub(super) struct Accounts<'a> {
    state: &'a dyn StateRead,
    /// As it is in the store, and as it is now.
    touched: BTreeMap<AccountId, (Account, Account)>,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(state: &'a dyn StateRead) -> Self {
        Self { state, touched: BTreeMap::new() }
    }

    /// Executes a transfer by a sender whose signature was checked before.
    pub(super) fn transfer(
        &mut self,
        body: &TransactionBody,
        transfer: &Transfer,
    ) -> Result<ReceiptStatus, ExecuteError> {
        let Transfer { to, amount } = transfer;
        let mut sender = self.get(&body.sender)?;
        if let NonceCheck::Refused(status) = check_nonce(body, &sender) {
            return Ok(status);
        }
        // From here on the nonce is taken, or a transfer that fails for its balance could be executed again later.
        sender.nonce = next(sender.nonce);
        let Some(rest) = sender.balance.checked_sub(amount.get()) else {
            self.set(body.sender, sender);
            return Ok(ReceiptStatus::Failed(FailureReason::BalanceTooSmall));
        };
        let Some(received) = self.receiver_balance(&body.sender, to, rest)?.checked_add(amount.get()) else {
            self.set(body.sender, sender);
            return Ok(ReceiptStatus::Failed(FailureReason::BalanceOverflow));
        };
        sender.balance = rest;
        self.set(body.sender, sender);
        let mut receiver = self.get(to)?;
        receiver.balance = received;
        self.set(*to, receiver);
        Ok(ReceiptStatus::Executed)
    }

    /// Takes the nonce of a transaction that moves no amount.
    pub(super) fn take_nonce(&mut self, body: &TransactionBody) -> Result<NonceCheck, ExecuteError> {
        let sender = self.get(&body.sender)?;
        let check = check_nonce(body, &sender);
        if check == NonceCheck::Next {
            self.set(body.sender, Account { nonce: next(sender.nonce), ..sender });
        }
        Ok(check)
    }

    /// The writes of all accounts that are not what they were.
    pub(super) fn write_to(self, writes: &mut WriteSet) {
        for (id, (before, now)) in self.touched {
            if before != now {
                writes.insert(StateKey::account(&id), Some(now.encode()));
            }
        }
    }

    /// What the receiver has once the amount has left the sender, who may be the receiver.
    fn receiver_balance(
        &mut self,
        sender: &AccountId,
        to: &AccountId,
        rest: crate::types::Amount,
    ) -> Result<crate::types::Amount, ExecuteError> {
        if sender == to { Ok(rest) } else { Ok(self.get(to)?.balance) }
    }

    fn get(&mut self, id: &AccountId) -> Result<Account, ExecuteError> {
        if let Some((_, now)) = self.touched.get(id) {
            return Ok(*now);
        }
        let account: Account = load(self.state, &StateKey::account(id))?.unwrap_or_default();
        self.touched.insert(*id, (account, account));
        Ok(account)
    }

    fn set(&mut self, id: AccountId, account: Account) {
        if let Some((_, now)) = self.touched.get_mut(&id) {
            *now = account;
        }
    }
}

/// Whether it is a transaction's turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NonceCheck {
    /// It is the sender's next one.
    Next,
    /// It is not.
    Refused(ReceiptStatus),
}

fn check_nonce(body: &TransactionBody, sender: &Account) -> NonceCheck {
    match body.nonce.cmp(&sender.nonce) {
        std::cmp::Ordering::Less => NonceCheck::Refused(ReceiptStatus::Failed(FailureReason::NonceUsed)),
        std::cmp::Ordering::Greater => NonceCheck::Refused(ReceiptStatus::Deferred),
        std::cmp::Ordering::Equal => NonceCheck::Next,
    }
}

fn next(nonce: Nonce) -> Nonce {
    nonce.saturating_add(1)
}
