//! Accounts during one block: read once, changed in memory, written at the end.

use std::collections::HashMap;

use super::{Account, ExecuteError, StateKey, StateRead, WriteSet, execute::load};
use crate::{
    codec::Encode,
    types::{AccountId, FailureReason, Nonce, ReceiptStatus, TransactionBody, Transfer},
};

/// The accounts that a block has touched so far.
pub(super) struct Accounts<'a> {
    state: &'a dyn StateRead,
    /// In the order in which they were touched first.
    touched: Vec<Touched>,
    /// Where an account is among them. Only asked, never walked: its order is different in every process.
    places: HashMap<AccountId, usize>,
}

struct Touched {
    key: StateKey,
    /// As it is in the store.
    before: Account,
    now: Account,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(state: &'a dyn StateRead) -> Self {
        Self { state, touched: Vec::new(), places: HashMap::new() }
    }

    /// Executes a transfer by a sender whose signature was checked before.
    pub(super) fn transfer(
        &mut self,
        body: &TransactionBody,
        transfer: &Transfer,
    ) -> Result<ReceiptStatus, ExecuteError> {
        let Transfer { to, amount } = transfer;
        let sender = self.get(&body.sender)?;
        if let NonceCheck::Refused(status) = check_nonce(body, sender) {
            return Ok(status);
        }
        // From here on the nonce is taken, or a transfer that fails for its balance could be executed again later.
        sender.nonce = next(sender.nonce);
        let Some(rest) = sender.balance.checked_sub(amount.get()) else {
            return Ok(ReceiptStatus::Failed(FailureReason::BalanceTooSmall));
        };
        // The sender may be the receiver.
        let before = std::mem::replace(&mut sender.balance, rest);
        let receiver = self.get(to)?;
        if let Some(received) = receiver.balance.checked_add(amount.get()) {
            receiver.balance = received;
            return Ok(ReceiptStatus::Executed);
        }
        self.get(&body.sender)?.balance = before;
        Ok(ReceiptStatus::Failed(FailureReason::BalanceOverflow))
    }

    /// Takes the nonce of a transaction that moves no amount.
    pub(super) fn take_nonce(&mut self, body: &TransactionBody) -> Result<NonceCheck, ExecuteError> {
        let sender = self.get(&body.sender)?;
        let check = check_nonce(body, sender);
        if check == NonceCheck::Next {
            sender.nonce = next(sender.nonce);
        }
        Ok(check)
    }

    /// The writes of all accounts that are not what they were.
    pub(super) fn write_to(self, writes: &mut WriteSet) {
        let changed = self.touched.into_iter().filter(|touched| touched.before != touched.now);
        // Sorted at once: an insertion for each would look for its place.
        writes.append(&mut changed.map(|touched| (touched.key, Some(touched.now.encode()))).collect());
    }

    fn get(&mut self, id: &AccountId) -> Result<&mut Account, ExecuteError> {
        let place = match self.places.get(id) {
            Some(place) => *place,
            None => {
                let key = StateKey::account(id);
                let before: Account = load(self.state, &key)?.unwrap_or_default();
                self.places.insert(*id, self.touched.len());
                self.touched.push(Touched { key, before, now: before });
                self.touched.len() - 1
            }
        };
        let touched = self.touched.get_mut(place).expect("every place is that of a touched account");
        Ok(&mut touched.now)
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
