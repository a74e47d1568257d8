//! Transactions that wait for a block: bounded, in nonce order of each sender, with a lane of their own for sessions.
//!
//! What was in a batch stays until it is included or expires. Of what was not, a transaction that waits behind a gap in
//! its sender's nonces gives way when the pool is full and one comes that does not: anybody can make keys and leave gaps,
//! and nobody may keep others out with it. So does the last of a sender who has no more places, when one comes that must be
//! executed before it. A transaction leaves the queue when a block with it is decided, is remembered until it is
//! executed, and returns if its nonce was ahead. Iteration is in order of keys and of arrival, so equal inputs give
//! equal blocks; what is hashed is only asked, never walked.

mod accounts;
mod batches;
mod nonces;
mod sessions;

use std::collections::{BTreeMap, HashSet, VecDeque};

use thiserror::Error;

use accounts::AccountLane;
pub use batches::{Added, BatchLimits, Batches, Certified, DIGEST_BYTES, Repetition};
use sessions::SessionLane;
pub use sessions::{SESSION_TRANSACTIONS_PER_BLOCK_MAX, SESSION_TRANSACTIONS_PER_IDENTITY_MAX};

pub use crate::crypto::VerifiedTransaction;
use crate::{
    codec::Encode,
    types::{
        AccountId, Block, FailureReason, Height, Incarnation, Nonce, Payload, Receipt, ReceiptStatus, Transaction,
        TransactionBody, TransactionId, VoterSet,
    },
};

/// For how many blocks a transfer may be valid, from the last decided one on: an hour of a chain at its fastest pace, ten
/// of an idle one. What waits in vain is gone after that, and who signs for later signs again.
pub const TRANSFER_VALIDITY_BLOCKS_MAX: u64 = 36_000;

/// The bounds of a mempool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most transactions that wait.
    pub transactions_max: usize,
    /// The most bytes that they take.
    pub bytes_max: usize,
    /// The most transactions of one sender; twice as many where batches have held those that wait behind a missing one.
    pub sender_transactions_max: usize,
    /// How many included transactions are remembered, to know their echoes.
    pub remembered_max: usize,
    /// From so many waiting transactions on that were included too early, those of which it is not known that their nonce
    /// is the next one stay out of batches.
    pub deferred_max: usize,
    /// Of how many accounts the nonce is remembered that executed blocks told.
    pub accounts_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transactions_max: 100_000,
            bytes_max: 64 * 1024 * 1024,
            sender_transactions_max: 4_096,
            remembered_max: 200_000,
            deferred_max: 25_000,
            accounts_max: 100_000,
        }
    }
}

/// Why a transaction was not accepted.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Refusal {
    /// It waits already, or was included lately.
    #[error("the transaction is known already")]
    Known,
    /// It was made for another chain.
    #[error("the transaction is for another incarnation")]
    WrongIncarnation,
    /// No block can include it any more.
    #[error("the transaction has expired")]
    Expired,
    /// The sender's nonce has passed.
    #[error("the nonce was used before")]
    NonceUsed,
    /// Another transaction with this nonce waits.
    #[error("another transaction with this nonce waits")]
    NonceTaken,
    /// The nonce is further ahead than the sender may have transactions.
    #[error("the nonce is too far ahead")]
    TooFarAhead,
    /// The sender has as many transactions as it may have.
    #[error("the sender has too many waiting transactions")]
    SenderFull,
    /// The mempool is full.
    #[error("the mempool is full")]
    Full,
    /// It waited behind a gap in its sender's nonces, and the mempool is full, or its sender has no more places and a
    /// transaction came that must be executed before it.
    #[error("the transaction waits behind a nonce that did not come, and its place was needed")]
    Evicted,
    /// A transfer that is valid for more than [`TRANSFER_VALIDITY_BLOCKS_MAX`] blocks.
    #[error("a transfer is valid for {TRANSFER_VALIDITY_BLOCKS_MAX} blocks at most")]
    ValidTooLong,
    /// A session or governance transaction that would fail if it were executed now.
    #[error("the transaction would fail: {0}")]
    WouldFail(FailureReason),
}

/// How much a block may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Space {
    /// Transactions.
    pub transactions_max: usize,
    /// Bytes of encoded transactions.
    pub bytes_max: usize,
}

/// One waiting transaction.
#[derive(Clone, Debug)]
struct Waiting {
    transaction: VerifiedTransaction,
    bytes: usize,
}

impl Waiting {
    fn new(transaction: VerifiedTransaction) -> Self {
        let bytes = transaction.transaction().encode().len();
        Self { transaction, bytes }
    }

    fn valid_until(&self) -> Height {
        self.transaction.transaction().body().valid_until
    }
}

/// One transaction of a decided block.
#[derive(Clone, Debug)]
struct Included {
    sender: AccountId,
    /// Nothing for a session transaction: it uses none of its sender's.
    nonce: Option<Nonce>,
    /// If it was waiting here.
    waiting: Option<Waiting>,
}

/// Transactions that wait for a block.
#[derive(Clone, Debug)]
pub struct Mempool {
    limits: Limits,
    incarnation: Incarnation,
    /// The last decided height: transactions wait for a later one.
    decided: Height,
    accounts: AccountLane,
    sessions: SessionLane,
    waiting: HashSet<TransactionId>,
    /// What decided blocks include that are not executed yet, in their order.
    included: BTreeMap<Height, Vec<Included>>,
    /// Nonces of what waited here and is included: kept free, since it may come back deferred.
    reserved: HashSet<(AccountId, Nonce)>,
    remembered: HashSet<TransactionId>,
    remembered_order: VecDeque<TransactionId>,
}

impl Mempool {
    /// An empty mempool of a chain whose last decided height is `decided`.
    #[must_use]
    pub fn new(limits: Limits, incarnation: Incarnation, decided: Height) -> Self {
        Self {
            limits,
            incarnation,
            decided,
            accounts: AccountLane::new(limits.deferred_max, limits.accounts_max),
            sessions: SessionLane::default(),
            waiting: HashSet::new(),
            included: BTreeMap::new(),
            reserved: HashSet::new(),
            remembered: HashSet::new(),
            remembered_order: VecDeque::new(),
        }
    }

    /// How many transactions wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The bytes of what waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.accounts.bytes() + self.sessions.bytes()
    }

    /// Whether this transaction waits.
    #[must_use]
    pub fn contains(&self, id: &TransactionId) -> bool {
        self.waiting.contains(id)
    }

    /// Accepts a transaction of an account. Returns what had to give way.
    pub fn add(&mut self, transaction: VerifiedTransaction) -> Result<Vec<TransactionId>, Refusal> {
        self.check(&transaction)?;
        let id = transaction.id();
        let body = transaction.transaction().body();
        if matches!(body.payload, Payload::Transfer(_))
            && body.valid_until > self.decided.saturating_add(TRANSFER_VALIDITY_BLOCKS_MAX)
        {
            return Err(Refusal::ValidTooLong);
        }
        if self.reserved.contains(&(body.sender, body.nonce)) {
            return Err(Refusal::NonceTaken);
        }
        self.accounts.check(body, self.limits.sender_transactions_max)?;
        let mut evicted = if self.is_full() { self.make_room(body)? } else { Vec::new() };
        if let Some(last) = self.accounts.evict_of_sender(body, self.limits.sender_transactions_max) {
            self.waiting.remove(&last);
            evicted.push(last);
        }
        self.accounts.add(Waiting::new(transaction));
        self.waiting.insert(id);
        Ok(evicted)
    }

    fn is_full(&self) -> bool {
        self.accounts.len() >= self.limits.transactions_max || self.accounts.bytes() >= self.limits.bytes_max
    }

    /// Makes room for a transaction that can go into the next batch, if others wait behind a gap.
    fn make_room(&mut self, body: &TransactionBody) -> Result<Vec<TransactionId>, Refusal> {
        let mut evicted = Vec::new();
        while self.accounts.could_go_on(body) && self.is_full() {
            let Some(id) = self.accounts.evict() else { break };
            self.waiting.remove(&id);
            evicted.push(id);
        }
        if evicted.is_empty() { Err(Refusal::Full) } else { Ok(evicted) }
    }

    /// Accepts a session transaction that would succeed with these voters, the newest that are decided.
    pub fn add_session(&mut self, transaction: VerifiedTransaction, voters: &VoterSet) -> Result<(), Refusal> {
        self.check(&transaction)?;
        let id = transaction.id();
        self.sessions.add(Waiting::new(transaction), voters, self.decided)?;
        self.waiting.insert(id);
        Ok(())
    }

    /// What every transaction must fulfil.
    fn check(&self, transaction: &VerifiedTransaction) -> Result<(), Refusal> {
        let body = transaction.transaction().body();
        if self.waiting.contains(&transaction.id()) || self.remembered.contains(&transaction.id()) {
            return Err(Refusal::Known);
        }
        if body.incarnation != self.incarnation {
            return Err(Refusal::WrongIncarnation);
        }
        if body.valid_until <= self.decided {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    /// The transactions for the next block, sessions first, then in order of arrival with each sender's in nonce order.
    /// They go on waiting: only a decided block takes them out.
    #[must_use]
    pub fn pick(&self, space: Space) -> Vec<Transaction> {
        let mut filling = Filling { space, picked: Vec::new() };
        self.sessions.pick(&mut filling);
        self.accounts.pick(&mut filling);
        filling.picked.into_iter().map(VerifiedTransaction::into_transaction).collect()
    }

    /// How many transactions of accounts are in no batch yet.
    #[must_use]
    pub fn unsealed(&self) -> usize {
        self.accounts.unsealed()
    }

    /// The transactions of accounts for a batch, in order of arrival with each sender's in nonce order. They go on waiting,
    /// and are in no later batch unless they come back deferred.
    pub fn seal(&mut self, space: Space) -> Vec<VerifiedTransaction> {
        let mut filling = Filling { space, picked: Vec::new() };
        self.accounts.seal(&mut filling);
        filling.picked
    }

    /// The session transactions for the next block; they travel in no batch before it.
    #[must_use]
    pub fn pick_sessions(&self, space: Space) -> Vec<Transaction> {
        let mut filling = Filling { space, picked: Vec::new() };
        self.sessions.pick(&mut filling);
        filling.picked.into_iter().map(VerifiedTransaction::into_transaction).collect()
    }

    /// Whether session transactions wait.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.sessions.bytes() > 0
    }

    /// A block is decided: what it includes does not wait any more. One that was decided before changes nothing.
    pub fn on_decided(&mut self, block: &Block) {
        let height = block.header().height;
        if height <= self.decided {
            return;
        }
        let mut included = Vec::new();
        for transaction in block.transactions() {
            let body = transaction.body();
            let id = transaction.id();
            let session = body.payload.is_session();
            let waiting = if session { self.sessions.remove(&id) } else { self.accounts.on_included(body, &id) };
            if self.waiting.remove(&id) && !session {
                self.reserved.insert((body.sender, body.nonce));
            }
            self.remember(id);
            let nonce = (!session).then_some(body.nonce);
            included.push(Included { sender: body.sender, nonce, waiting });
        }
        self.included.insert(height, included);
        self.decided = height;
    }

    /// A decided block was executed, with receipts in the order of its transactions. What was deferred waits again.
    /// Returns what expired without being included.
    pub fn on_executed(&mut self, height: Height, receipts: &[Receipt]) -> Vec<TransactionId> {
        let included = self.included.remove(&height).unwrap_or_default();
        let mut expired = Vec::new();
        for (Included { sender, nonce, waiting }, receipt) in included.into_iter().zip(receipts) {
            if let Some(nonce) = nonce.filter(|_| waiting.is_some()) {
                self.reserved.remove(&(sender, nonce));
            }
            match receipt.status {
                ReceiptStatus::Deferred => expired.extend(self.take_back(receipt.transaction, waiting)),
                ReceiptStatus::Executed
                | ReceiptStatus::Failed(
                    FailureReason::NonceUsed | FailureReason::BalanceTooSmall | FailureReason::BalanceOverflow,
                ) => {
                    if let Some(nonce) = nonce {
                        self.accounts.on_nonce(&sender, nonce.saturating_add(1));
                    }
                }
                ReceiptStatus::Failed(_) | ReceiptStatus::Expired => {}
            }
        }
        expired.extend(self.drop_expired());
        expired
    }

    /// A deferred transaction is no echo when it comes again, whether it had been waiting here or not. One that no later
    /// block can include has expired.
    fn take_back(&mut self, id: TransactionId, waiting: Option<Waiting>) -> Option<TransactionId> {
        self.remembered.remove(&id);
        let waiting = waiting?;
        if waiting.valid_until() <= self.decided || self.accounts.take_back(waiting).is_err() {
            return Some(id);
        }
        self.waiting.insert(id);
        None
    }

    fn drop_expired(&mut self) -> Vec<TransactionId> {
        let mut expired = self.accounts.drop_expired(self.decided);
        expired.extend(self.sessions.drop_expired(self.decided));
        for id in &expired {
            self.waiting.remove(id);
        }
        expired
    }

    fn remember(&mut self, id: TransactionId) {
        self.remembered.insert(id);
        self.remembered_order.push_back(id);
        while self.remembered_order.len() > self.limits.remembered_max {
            if let Some(oldest) = self.remembered_order.pop_front() {
                self.remembered.remove(&oldest);
            }
        }
    }
}

/// A block that is being filled.
#[derive(Debug)]
struct Filling {
    space: Space,
    picked: Vec<VerifiedTransaction>,
}

/// Whether a transaction found its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fit {
    /// It is in the block.
    Picked,
    /// The block has no place for it.
    Full,
}

impl Filling {
    fn take(&mut self, waiting: &Waiting) -> Fit {
        if self.space.transactions_max == 0 || self.space.bytes_max < waiting.bytes {
            return Fit::Full;
        }
        self.space.transactions_max -= 1;
        self.space.bytes_max -= waiting.bytes;
        self.picked.push(waiting.transaction.clone());
        Fit::Picked
    }
}

#[cfg(test)]
mod tests;
