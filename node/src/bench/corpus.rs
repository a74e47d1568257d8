//! The corpus: transfers signed in advance, on disk under the hash of what they are made of.
//!
//! Transaction `i` is of account `i mod accounts` with nonce `i / accounts`, so the pair stands for the transaction: no
//! other one with it is ever signed here. The transactions of account `a` all go to node `a mod nodes`.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use node_api::transactions::{TransferTerms, transfer};
use node_core::{
    codec::{Encode, Writer},
    crypto::KeyPair,
    types::{AccountId, Amount, Hash, Height, Incarnation, Nonce},
};
use prost::bytes::Bytes;

use super::BenchError;
use crate::devnet::accounts;

/// Raised when the content of a corpus of the same name changes.
const VERSION: u32 = 1;
/// Every so many transactions the progress is shown.
const PROGRESS_INTERVAL: usize = 100_000;

/// What a corpus is made of.
#[derive(Clone, Copy, Debug)]
pub struct CorpusRequest {
    /// The chain.
    pub incarnation: Incarnation,
    /// How many accounts take turns.
    pub accounts: usize,
    /// How many nodes the accounts are spread over.
    pub nodes: usize,
    /// How many transactions.
    pub transactions: usize,
    /// The last height at which they may be executed.
    pub valid_until: Height,
    /// What each of them moves.
    pub amount: u64,
}

/// The order of a corpus: transaction `i + accounts` is the one after transaction `i` of the same account.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// How many transactions there are.
    pub transactions: usize,
    /// How many accounts take turns.
    pub accounts: usize,
}

impl Order {
    /// The one before of the same account.
    pub fn before(&self, index: usize) -> Option<usize> {
        index.checked_sub(self.accounts)
    }
}

/// Keys of the accounts.
#[derive(Debug)]
pub struct Wallets {
    keys: Vec<KeyPair>,
    numbers: HashMap<AccountId, usize>,
}

/// Signed transactions in memory, backed by a file.
#[derive(Debug)]
pub struct Corpus {
    request: CorpusRequest,
    bytes: Bytes,
    transaction_bytes: usize,
}

impl Wallets {
    /// The keys of the first development accounts, which a local network funds.
    pub fn development(accounts: usize) -> Self {
        Self::new(on_all_cores(accounts, |number| accounts::key(u32::try_from(number).unwrap_or(u32::MAX))))
    }

    /// The keys of accounts that nobody has heard of, unless the same seed was used before.
    pub fn from_seed(accounts: usize, seed: u64) -> Self {
        Self::new(on_all_cores(accounts, |number| {
            let mut writer = Writer::new();
            writer.u64(seed);
            writer.u64(number as u64);
            KeyPair::from_seed(*Hash::tagged("althing/bench-account/1", &writer.into_bytes()).as_bytes())
        }))
    }

    fn new(keys: Vec<KeyPair>) -> Self {
        let numbers = keys.iter().enumerate().map(|(number, key)| (AccountId::new(key.public()), number)).collect();
        Self { keys, numbers }
    }

    /// Each account with the same balance.
    pub fn funded(&self, balance: Amount) -> Vec<(AccountId, Amount)> {
        self.keys.iter().map(|key| (AccountId::new(key.public()), balance)).collect()
    }

    /// How many accounts there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The number of an account.
    pub fn number(&self, account: &AccountId) -> Option<usize> {
        self.numbers.get(account).copied()
    }
}

impl Corpus {
    /// Takes the corpus from `directory`, or signs it and keeps it there.
    pub fn open(directory: &Path, request: CorpusRequest, wallets: &Wallets) -> Result<Self, BenchError> {
        let path = directory.join(format!("{}.corpus", request.name()));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes = request.sign(wallets);
                fs::create_dir_all(directory).map_err(BenchError::file("make", directory))?;
                write(&path, &bytes).map_err(BenchError::file("write", &path))?;
                bytes
            }
            Err(source) => return Err(BenchError::File { action: "read", path, source }),
        };
        let transaction_bytes = bytes.len().checked_div(request.transactions).unwrap_or_default();
        Ok(Self { request, bytes: bytes.into(), transaction_bytes })
    }

    /// How many transactions there are.
    pub fn len(&self) -> usize {
        self.request.transactions
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes each of them has.
    pub fn transaction_bytes(&self) -> usize {
        self.transaction_bytes
    }

    /// One transaction.
    pub fn transaction(&self, index: usize) -> Bytes {
        let start = index.min(self.len()) * self.transaction_bytes;
        self.bytes.slice(start..(start + self.transaction_bytes).min(self.bytes.len()))
    }

    /// Which transactions come one after the other.
    pub fn order(&self) -> Order {
        Order { transactions: self.len(), accounts: self.request.accounts }
    }

    /// The index of the transaction of an account with this nonce.
    pub fn index(&self, account: usize, nonce: Nonce) -> Option<usize> {
        let nonce = usize::try_from(nonce.get()).ok()?;
        let index = nonce.checked_mul(self.request.accounts)?.checked_add(account)?;
        (index < self.len()).then_some(index)
    }
}

impl CorpusRequest {
    fn name(&self) -> Hash {
        let Self { incarnation, accounts, nodes, transactions, valid_until, amount } = self;
        let mut writer = Writer::new();
        writer.u32(VERSION);
        incarnation.encode_to(&mut writer);
        writer.u64(*accounts as u64);
        writer.u64(*nodes as u64);
        writer.u64(*transactions as u64);
        valid_until.encode_to(&mut writer);
        writer.u64(*amount);
        Hash::tagged("althing/bench-corpus/1", &writer.into_bytes())
    }

    fn sign(&self, wallets: &Wallets) -> Vec<u8> {
        let done = AtomicUsize::new(0);
        let signed = on_all_cores(self.transactions, |index| {
            let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
            if so_far.is_multiple_of(PROGRESS_INTERVAL) {
                eprintln!("bench: signed {so_far} of {} transactions", self.transactions);
            }
            self.one(wallets, index)
        });
        signed.concat()
    }

    fn one(&self, wallets: &Wallets, index: usize) -> Vec<u8> {
        let account = index % self.accounts;
        let receiver = (account * 7_919 + 1) % self.accounts;
        let key = |number: usize| wallets.keys.get(number).expect("there is a key for every account");
        let terms = TransferTerms {
            incarnation: self.incarnation,
            nonce: Nonce::new((index / self.accounts) as u64),
            valid_until: self.valid_until,
            to: AccountId::new(key(receiver).public()),
            amount: Amount::new(self.amount),
        };
        transfer(key(account), &terms).encode()
    }
}

/// In one step, so that an interrupted run leaves no half of a corpus.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary: PathBuf = path.with_extension("part");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    fs::rename(&temporary, path)
}

/// The results for 0 to `count`, in order, made by one thread a core.
fn on_all_cores<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let make = &make;
        let work = (0..count).step_by(share).map(|first| {
            let last = (first + share).min(count);
            scope.spawn(move || (first..last).map(make).collect::<Vec<T>>())
        });
        let handles: Vec<_> = work.collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("signing does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use node_core::{
        codec::Decode,
        crypto::verify_transaction,
        types::{Hash, Height, Transaction},
    };

    use super::{Corpus, CorpusRequest, Wallets};

    #[test]
    fn a_corpus_has_every_nonce_of_every_account_once_and_is_read_back() {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let wallets = Wallets::development(3);
        let request = CorpusRequest {
            incarnation: Hash::ZERO.into(),
            accounts: 3,
            nodes: 1,
            transactions: 8,
            valid_until: Height::new(9),
            amount: 1,
        };
        let first = Corpus::open(directory.path(), request, &wallets).expect("it is signed");
        let again = Corpus::open(directory.path(), request, &wallets).expect("it is read");
        for index in 0..8 {
            let bytes = first.transaction(index);
            assert_eq!(bytes, again.transaction(index));
            let transaction = Transaction::decode(&bytes).expect("it is a transaction");
            let body = transaction.body();
            let account = wallets.number(&body.sender).expect("the sender is one of the accounts");
            assert_eq!(first.index(account, body.nonce), Some(index));
            assert!(verify_transaction(transaction.clone()).is_ok());
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 1);
    }
}
