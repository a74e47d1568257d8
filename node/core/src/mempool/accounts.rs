//! The lane of accounts: each sender's transactions in nonce order, all senders in order of arrival.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Filling, Fit, Refusal, Waiting, nonces::ExecutedNonces};
use crate::types::{AccountId, Height, Nonce, TransactionBody, TransactionId};

/// What waits of all accounts.
#[derive(Clone, Debug, Default)]
pub(super) struct AccountLane {
    senders: HashMap<AccountId, Sender>,
    /// In order of arrival: whose transaction with which nonce.
    arrivals: BTreeMap<u64, (AccountId, Nonce)>,
    /// Those of them that are in no batch yet, and do not wait behind a gap as far as is known.
    unsealed: BTreeMap<u64, (AccountId, Nonce)>,
    /// Their arrivals by the last height at which they may be executed.
    expiries: BTreeSet<(Height, u64)>,
    next_arrival: u64,
    bytes: usize,
    /// The senders of whom something waits behind a gap that no batch ever held, by how much.
    gaps: BTreeSet<(usize, AccountId)>,
    /// The arrivals of those that a batch has held: they were included too early. They are never dropped to make room.
    deferred: HashSet<u64>,
    /// So many of them are enough: see [`AccountLane::is_strict`].
    deferred_max: usize,
    /// What executed blocks say of accounts.
    executed: ExecutedNonces,
}

/// What waits of one account.
#[derive(Clone, Debug, Default)]
struct Sender {
    waiting: BTreeMap<Nonce, (u64, Waiting)>,
    /// The account's nonce is at least this.
    floor: Nonce,
    /// A transaction with this nonce was included too early: it waits until the one before it is included.
    held_from: Option<Nonce>,
    /// Those that are in no batch and could go into none when that was tried, by arrival: looked at again when something
    /// about this sender changes, and not before, however many they are.
    behind_gap: BTreeMap<u64, Nonce>,
    /// Those of the same kind that a batch has held before.
    held_back: BTreeMap<u64, Nonce>,
}

impl Sender {
    /// The nonce to begin with: the lowest that can still be executed, unless that one is held. A strict lane takes none
    /// of which it does not know that it is the next one.
    fn first(&self, strict: bool) -> Option<Nonce> {
        let (first, _) = self.waiting.range(self.floor..).next()?;
        let held = self.held_from.is_some_and(|held| *first >= held);
        let ahead = strict && *first != self.floor;
        if held || ahead { None } else { Some(*first) }
    }

    /// The highest nonce that waits behind a gap and that no batch ever held.
    fn last_behind_gap(&self) -> Option<Nonce> {
        self.behind_gap.values().max().copied()
    }
}

impl Sender {
    /// The transactions up to this nonce that can go into a batch now, in order of nonce: nothing where one is missing
    /// before them.
    fn run_up_to(
        &self,
        nonce: Nonce,
        unsealed: &BTreeMap<u64, (AccountId, Nonce)>,
        sealed: &BTreeSet<u64>,
        strict: bool,
    ) -> Vec<(u64, &Waiting)> {
        let open = |nonce: Nonce| {
            let (arrival, waiting) = self.waiting.get(&nonce)?;
            (unsealed.contains_key(arrival) && !sealed.contains(arrival)).then_some((*arrival, waiting))
        };
        let mut run: Vec<(u64, &Waiting)> = Vec::new();
        let mut lowest = nonce;
        let mut next = Some(nonce);
        while let Some((here, found)) = next.and_then(|here| Some((here, open(here)?))) {
            run.push(found);
            lowest = here;
            next = here.checked_sub(1);
        }
        let follows = lowest.checked_sub(1).is_some_and(|before| self.waiting.contains_key(&before));
        let held = self.held_from.is_some_and(|held| nonce >= held);
        if held || nonce < self.floor || !(follows || self.first(strict) == Some(lowest)) {
            return Vec::new();
        }
        run.reverse();
        run
    }
}

/// Whether a batch has held a transaction before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    /// It comes for the first time.
    Fresh,
    /// It was included too early.
    Deferred,
}

impl AccountLane {
    /// An empty lane. From `deferred_max` deferred transactions on it is strict.
    pub(super) fn new(deferred_max: usize, accounts_max: usize) -> Self {
        Self { deferred_max, executed: ExecutedNonces::new(accounts_max), ..Self::default() }
    }

    /// So many transactions wait that were included too early that no more may become such: whose nonce is not known to be
    /// the next one stays out of batches, and can be dropped.
    fn is_strict(&self) -> bool {
        self.deferred.len() >= self.deferred_max
    }

    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a transaction with this body may wait here.
    pub(super) fn check(&self, body: &TransactionBody, sender_max: usize) -> Result<(), Refusal> {
        let nonce = body.nonce;
        let known = self.senders.get(&body.sender);
        let room = u64::try_from(sender_max).unwrap_or(u64::MAX);
        if nonce < self.floor_of(&body.sender) {
            return Err(Refusal::NonceUsed);
        }
        if self.executed.of(&body.sender).is_some_and(|executed| nonce >= executed.saturating_add(room)) {
            return Err(Refusal::TooFarAhead);
        }
        if known.is_some_and(|sender| sender.waiting.contains_key(&nonce)) {
            return Err(Refusal::NonceTaken);
        }
        if known.is_some_and(|sender| !Self::has_place(sender, nonce, sender_max)) {
            return Err(Refusal::SenderFull);
        }
        Ok(())
    }

    /// The places of a sender are for its lowest nonces: of one that has taken them all a later transaction gives way to
    /// what must come before it. Where batches have held all that is later, and none of it may be dropped, what is
    /// missing before has as many places again; without them nobody could fill the gap before all of it expires.
    fn has_place(sender: &Sender, nonce: Nonce, sender_max: usize) -> bool {
        let count = sender.waiting.len();
        let missing_before = sender.waiting.last_key_value().is_some_and(|(last, _)| nonce < *last);
        let more = missing_before && count < sender_max.saturating_mul(2);
        count < sender_max || more || sender.last_behind_gap().is_some_and(|last| nonce < last)
    }

    /// Drops the last transaction of a sender that has taken all its places, for one with this body.
    pub(super) fn evict_of_sender(&mut self, body: &TransactionBody, sender_max: usize) -> Option<TransactionId> {
        let sender = self.senders.get(&body.sender).filter(|sender| sender.waiting.len() >= sender_max)?;
        let last = sender.last_behind_gap().filter(|last| body.nonce < *last)?;
        self.drop_waiting(&body.sender, last)
    }

    /// Adds a transaction that may wait here.
    pub(super) fn add(&mut self, waiting: Waiting) {
        let body = waiting.transaction.transaction().body();
        let (account, nonce) = (body.sender, body.nonce);
        let floor = self.floor_of(&account);
        self.insert(account, nonce, waiting, Origin::Fresh).floor = floor;
    }

    /// The account's nonce is at least this.
    fn floor_of(&self, account: &AccountId) -> Nonce {
        let known = self.senders.get(account).map(|sender| sender.floor);
        known.max(self.executed.of(account)).unwrap_or_default()
    }

    /// Whether a transaction with this body could go into a batch as soon as it is here, as far as is known.
    pub(super) fn could_go_on(&self, body: &TransactionBody) -> bool {
        let Some(sender) = self.senders.get(&body.sender) else {
            let next = self.executed.of(&body.sender).unwrap_or_default();
            return !self.is_strict() || body.nonce == next;
        };
        let held = sender.held_from.is_some_and(|held| body.nonce >= held);
        let follows = body.nonce.checked_sub(1).is_some_and(|before| {
            let waits = sender.waiting.get(&before);
            waits.is_some_and(|(arrival, _)| !sender.behind_gap.contains_key(arrival))
        });
        let first = match sender.waiting.range(sender.floor..).next() {
            Some((first, _)) => body.nonce < *first,
            None => true,
        };
        let next = body.nonce == sender.floor || (first && !self.is_strict());
        !held && body.nonce >= sender.floor && (follows || next)
    }

    /// Drops the newest transaction that waits behind a gap and was never in a batch, of the sender with most of these.
    pub(super) fn evict(&mut self) -> Option<TransactionId> {
        let (_, account) = self.gaps.last().copied()?;
        let (_, nonce) = self.senders.get(&account)?.behind_gap.last_key_value()?;
        self.drop_waiting(&account, *nonce)
    }

    /// Drops a transaction that no batch has ever held. What waits behind it goes on waiting.
    fn drop_waiting(&mut self, account: &AccountId, nonce: Nonce) -> Option<TransactionId> {
        let sender = self.senders.get_mut(account)?;
        let (arrival, waiting) = sender.waiting.remove(&nonce)?;
        change_gap(&mut self.gaps, *account, sender, |behind_gap| behind_gap.remove(&arrival));
        if sender.waiting.is_empty() {
            self.senders.remove(account);
        }
        self.arrivals.remove(&arrival);
        self.unsealed.remove(&arrival);
        self.expiries.remove(&(waiting.valid_until(), arrival));
        self.bytes -= waiting.bytes;
        Some(waiting.transaction.id())
    }

    fn insert(&mut self, account: AccountId, nonce: Nonce, waiting: Waiting, origin: Origin) -> &mut Sender {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.bytes += waiting.bytes;
        self.arrivals.insert(arrival, (account, nonce));
        self.unsealed.insert(arrival, (account, nonce));
        self.expiries.insert((waiting.valid_until(), arrival));
        if origin == Origin::Deferred {
            self.deferred.insert(arrival);
        }
        let sender = self.senders.entry(account).or_default();
        sender.waiting.insert(nonce, (arrival, waiting));
        if nonce.checked_add(1).is_some_and(|next| sender.waiting.contains_key(&next)) {
            reopen(&mut self.unsealed, &mut self.gaps, account, sender);
        }
        sender
    }

    /// Fills a block. Of each sender only a run without gaps is taken.
    pub(super) fn pick(&self, filling: &mut Filling) {
        let strict = self.is_strict();
        let mut nexts: BTreeMap<AccountId, Nonce> = BTreeMap::new();
        for (account, nonce) in self.arrivals.values() {
            let Some(sender) = self.senders.get(account) else { continue };
            let Some(first) = sender.first(strict) else { continue };
            let next = nexts.entry(*account).or_insert(first);
            // Everything up to the one that arrived now: it may have arrived before its predecessors.
            while *next <= *nonce {
                let Some((_, waiting)) = sender.waiting.get(next) else { break };
                if filling.take(waiting) == Fit::Full {
                    return;
                }
                *next = next.saturating_add(1);
            }
        }
    }

    /// How many transactions can go into a batch, as far as is known.
    pub(super) fn unsealed(&self) -> usize {
        self.unsealed.len()
    }

    /// Fills a batch with transactions that are in none. A sender's transaction follows the one before it, in this batch
    /// or an earlier one; what comes after a gap waits.
    pub(super) fn seal(&mut self, filling: &mut Filling) {
        let strict = self.is_strict();
        let mut sealed = BTreeSet::new();
        let mut behind_gap = Vec::new();
        'batch: for (arrival, (account, nonce)) in &self.unsealed {
            let Some(sender) = self.senders.get(account).filter(|_| !sealed.contains(arrival)) else { continue };
            let run = sender.run_up_to(*nonce, &self.unsealed, &sealed, strict);
            if run.is_empty() {
                behind_gap.push((*arrival, *account, *nonce));
            }
            for (arrival, waiting) in run {
                if filling.take(waiting) == Fit::Full {
                    break 'batch;
                }
                sealed.insert(arrival);
            }
        }
        for arrival in sealed {
            self.unsealed.remove(&arrival);
        }
        for (arrival, account, nonce) in behind_gap {
            self.unsealed.remove(&arrival);
            let Some(sender) = self.senders.get_mut(&account) else { continue };
            if self.deferred.contains(&arrival) {
                sender.held_back.insert(arrival, nonce);
            } else {
                change_gap(&mut self.gaps, account, sender, |behind_gap| behind_gap.insert(arrival, nonce));
            }
        }
    }

    /// A decided block includes a transaction with this body, maybe one that never waited here.
    pub(super) fn on_included(&mut self, body: &TransactionBody, id: &TransactionId) -> Option<Waiting> {
        let sender = self.senders.get_mut(&body.sender)?;
        if sender.held_from.is_some_and(|held| body.nonce.saturating_add(1) >= held) {
            sender.held_from = None;
            reopen(&mut self.unsealed, &mut self.gaps, body.sender, sender);
        }
        let same = sender.waiting.get(&body.nonce).is_some_and(|(_, waiting)| waiting.transaction.id() == *id);
        if same { self.remove(&body.sender, body.nonce) } else { None }
    }

    /// The account's nonce is at least this, says an executed block.
    pub(super) fn on_nonce(&mut self, account: &AccountId, nonce: Nonce) {
        self.executed.note(*account, nonce);
        if let Some(sender) = self.senders.get_mut(account).filter(|sender| sender.floor < nonce) {
            sender.floor = nonce;
            reopen(&mut self.unsealed, &mut self.gaps, *account, sender);
        }
    }

    /// A transaction was included whose nonce was ahead: it waits again, for the one before it.
    pub(super) fn take_back(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        let body = waiting.transaction.transaction().body();
        let (account, nonce) = (body.sender, body.nonce);
        if self.senders.get(&account).is_some_and(|sender| sender.waiting.contains_key(&nonce)) {
            return Err(Refusal::NonceTaken);
        }
        let sender = self.insert(account, nonce, waiting, Origin::Deferred);
        sender.held_from = Some(sender.held_from.map_or(nonce, |held| held.min(nonce)));
        Ok(())
    }

    pub(super) fn drop_expired(&mut self, decided: Height) -> Vec<TransactionId> {
        let mut expired = Vec::new();
        while let Some((valid_until, arrival)) = self.expiries.first().copied() {
            if valid_until > decided {
                break;
            }
            self.expiries.pop_first();
            let waiting = self.arrivals.get(&arrival).copied();
            let waiting = waiting.and_then(|(account, nonce)| self.remove(&account, nonce));
            expired.extend(waiting.map(|waiting| waiting.transaction.id()));
        }
        expired
    }

    /// A sender with nothing waiting is forgotten: the state knows its nonce.
    fn remove(&mut self, account: &AccountId, nonce: Nonce) -> Option<Waiting> {
        let sender = self.senders.get_mut(account)?;
        let (arrival, waiting) = sender.waiting.remove(&nonce)?;
        reopen(&mut self.unsealed, &mut self.gaps, *account, sender);
        if sender.waiting.is_empty() {
            self.senders.remove(account);
        }
        self.arrivals.remove(&arrival);
        self.unsealed.remove(&arrival);
        let was_strict = self.is_strict();
        self.deferred.remove(&arrival);
        if was_strict && !self.is_strict() {
            self.reopen_all();
        }
        self.expiries.remove(&(waiting.valid_until(), arrival));
        self.bytes -= waiting.bytes;
        Some(waiting)
    }

    /// The lane is strict no more: what waits behind a gap that nobody knows of may go on.
    fn reopen_all(&mut self) {
        let Self { senders, unsealed, gaps, .. } = self;
        let accounts: Vec<AccountId> = gaps.iter().map(|(_, account)| *account).collect();
        for account in accounts {
            if let Some(sender) = senders.get_mut(&account) {
                reopen(unsealed, gaps, account, sender);
            }
        }
    }
}

/// Changes what waits of a sender behind a gap, and how it is counted.
fn change_gap<T>(
    gaps: &mut BTreeSet<(usize, AccountId)>,
    account: AccountId,
    sender: &mut Sender,
    change: impl FnOnce(&mut BTreeMap<u64, Nonce>) -> T,
) -> T {
    gaps.remove(&(sender.behind_gap.len(), account));
    let changed = change(&mut sender.behind_gap);
    if !sender.behind_gap.is_empty() {
        gaps.insert((sender.behind_gap.len(), account));
    }
    changed
}

/// Something about a sender has changed: what waited behind a gap may be able to go into a batch.
fn reopen(
    unsealed: &mut BTreeMap<u64, (AccountId, Nonce)>,
    gaps: &mut BTreeSet<(usize, AccountId)>,
    account: AccountId,
    sender: &mut Sender,
) {
    let behind_gap = change_gap(gaps, account, sender, std::mem::take);
    for (arrival, nonce) in behind_gap.into_iter().chain(std::mem::take(&mut sender.held_back)) {
        unsealed.insert(arrival, (account, nonce));
    }
}
