//! The lane of accounts: each sender's transactions in nonce order, all senders in order of arrival.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Filling, Fit, Refusal, Waiting};
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
}

impl Sender {
    /// The nonce to begin with: the lowest that can still be executed, unless that one is held.
    fn first(&self) -> Option<Nonce> {
        let (first, _) = self.waiting.range(self.floor..).next()?;
        let held = self.held_from.is_some_and(|held| *first >= held);
        if held { None } else { Some(*first) }
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
        if held || nonce < self.floor || !(follows || self.first() == Some(lowest)) {
            return Vec::new();
        }
        run.reverse();
        run
    }
}

impl AccountLane {
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, waiting: Waiting, state: Option<Nonce>, sender_max: usize) -> Result<(), Refusal> {
        let body = waiting.transaction.transaction().body();
        let (account, nonce) = (body.sender, body.nonce);
        let known = self.senders.get(&account);
        let floor = known.map_or(Nonce::ZERO, |sender| sender.floor).max(state.unwrap_or_default());
        let room = u64::try_from(sender_max).unwrap_or(u64::MAX);
        if nonce < floor {
            return Err(Refusal::NonceUsed);
        }
        if state.is_some() && nonce >= floor.saturating_add(room) {
            return Err(Refusal::TooFarAhead);
        }
        if known.is_some_and(|sender| sender.waiting.contains_key(&nonce)) {
            return Err(Refusal::NonceTaken);
        }
        if known.is_some_and(|sender| sender.waiting.len() >= sender_max) {
            return Err(Refusal::SenderFull);
        }
        self.insert(account, nonce, waiting);
        self.on_nonce(&account, floor);
        Ok(())
    }

    fn insert(&mut self, account: AccountId, nonce: Nonce, waiting: Waiting) -> &mut Sender {
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.bytes += waiting.bytes;
        self.arrivals.insert(arrival, (account, nonce));
        self.unsealed.insert(arrival, (account, nonce));
        self.expiries.insert((waiting.valid_until(), arrival));
        let sender = self.senders.entry(account).or_default();
        sender.waiting.insert(nonce, (arrival, waiting));
        if nonce.checked_add(1).is_some_and(|next| sender.waiting.contains_key(&next)) {
            reopen(&mut self.unsealed, account, sender);
        }
        sender
    }

    /// Fills a block. Of each sender only a run without gaps is taken.
    pub(super) fn pick(&self, filling: &mut Filling) {
        let mut nexts: BTreeMap<AccountId, Nonce> = BTreeMap::new();
        for (account, nonce) in self.arrivals.values() {
            let Some(sender) = self.senders.get(account) else { continue };
            let Some(first) = sender.first() else { continue };
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
        let mut sealed = BTreeSet::new();
        let mut behind_gap = Vec::new();
        'batch: for (arrival, (account, nonce)) in &self.unsealed {
            let Some(sender) = self.senders.get(account).filter(|_| !sealed.contains(arrival)) else { continue };
            let run = sender.run_up_to(*nonce, &self.unsealed, &sealed);
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
            if let Some(sender) = self.senders.get_mut(&account) {
                sender.behind_gap.insert(arrival, nonce);
            }
        }
    }

    /// A decided block includes a transaction with this body, maybe one that never waited here.
    pub(super) fn on_included(&mut self, body: &TransactionBody, id: &TransactionId) -> Option<Waiting> {
        let sender = self.senders.get_mut(&body.sender)?;
        if sender.held_from.is_some_and(|held| body.nonce.saturating_add(1) >= held) {
            sender.held_from = None;
            reopen(&mut self.unsealed, body.sender, sender);
        }
        let same = sender.waiting.get(&body.nonce).is_some_and(|(_, waiting)| waiting.transaction.id() == *id);
        if same { self.remove(&body.sender, body.nonce) } else { None }
    }

    /// The account's nonce is at least this, says an executed block.
    pub(super) fn on_nonce(&mut self, account: &AccountId, nonce: Nonce) {
        if let Some(sender) = self.senders.get_mut(account).filter(|sender| sender.floor < nonce) {
            sender.floor = nonce;
            reopen(&mut self.unsealed, *account, sender);
        }
    }

    /// A transaction was included whose nonce was ahead: it waits again, for the one before it.
    pub(super) fn take_back(&mut self, waiting: Waiting) -> Result<(), Refusal> {
        let body = waiting.transaction.transaction().body();
        let (account, nonce) = (body.sender, body.nonce);
        if self.senders.get(&account).is_some_and(|sender| sender.waiting.contains_key(&nonce)) {
            return Err(Refusal::NonceTaken);
        }
        let sender = self.insert(account, nonce, waiting);
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
        sender.behind_gap.remove(&arrival);
        reopen(&mut self.unsealed, *account, sender);
        if sender.waiting.is_empty() {
            self.senders.remove(account);
        }
        self.arrivals.remove(&arrival);
        self.unsealed.remove(&arrival);
        self.expiries.remove(&(waiting.valid_until(), arrival));
        self.bytes -= waiting.bytes;
        Some(waiting)
    }
}

/// Something about a sender has changed: what waited behind a gap may be able to go into a batch.
fn reopen(unsealed: &mut BTreeMap<u64, (AccountId, Nonce)>, account: AccountId, sender: &mut Sender) {
    for (arrival, nonce) in std::mem::take(&mut sender.behind_gap) {
        unsealed.insert(arrival, (account, nonce));
    }
}
