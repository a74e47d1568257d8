//! Accounts of a development network whose secret keys everybody knows.
//!
//! They exist so that transfers work without any setup. The key of account `n` is the SHA-256 of a fixed sentence and
//! `n`: whoever reads this file can spend from it. Never give such an account anything on a chain that matters.

use node_core::{
    crypto::KeyPair,
    types::{AccountId, Amount},
};
use sha2::{Digest, Sha256};

/// Accounts that the genesis of a development network funds.
pub const FUNDED: u32 = 100;
/// What each of them gets.
pub const BALANCE: Amount = Amount::new(1_000_000_000);

/// The publicly known key of development account `number`.
pub fn key(number: u32) -> KeyPair {
    let mut hasher = Sha256::new();
    hasher.update(b"althing development account, for development only, ");
    hasher.update(number.to_string());
    KeyPair::from_seed(hasher.finalize().into())
}

/// Development account `number`.
pub fn account(number: u32) -> AccountId {
    AccountId::new(key(number).public())
}

/// The publicly known governance key of a development network.
pub fn governance_key() -> KeyPair {
    KeyPair::from_seed(Sha256::digest("althing development governance, for development only").into())
}

/// Every funded account with its balance.
pub fn funded() -> Vec<(AccountId, Amount)> {
    (0..FUNDED).map(|number| (account(number), BALANCE)).collect()
}

#[cfg(test)]
mod tests {
    use super::account;

    #[test]
    fn development_accounts_are_the_same_everywhere_and_forever() {
        let first = "f2752107abffa517c9e66bc2fcd6365dabbb42c672fa6eb675373841e9bcd5f0";
        assert_eq!(account(0).to_string(), first);
        assert_ne!(account(0), account(1));
    }
}
