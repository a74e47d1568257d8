//! The nonces of accounts as executed blocks told them, as many as are worth remembering.

use std::collections::HashMap;

use crate::types::{AccountId, Nonce};

/// Two generations: what is not used while the younger one fills up is forgotten with the older one.
#[derive(Clone, Debug, Default)]
pub(super) struct ExecutedNonces {
    young: HashMap<AccountId, Nonce>,
    old: HashMap<AccountId, Nonce>,
    accounts_max: usize,
}

impl ExecutedNonces {
    /// Remembers so many accounts at most.
    pub(super) fn new(accounts_max: usize) -> Self {
        Self { accounts_max, ..Self::default() }
    }

    /// The account's nonce is at least this; nothing if no executed block was about the account for long.
    pub(super) fn of(&self, account: &AccountId) -> Option<Nonce> {
        self.young.get(account).or_else(|| self.old.get(account)).copied()
    }

    /// An executed block says that the account's nonce is at least this.
    pub(super) fn note(&mut self, account: AccountId, nonce: Nonce) {
        let before = self.of(&account).unwrap_or_default();
        if self.young.len() >= self.accounts_max / 2 && !self.young.contains_key(&account) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(account, before.max(nonce));
    }
}
