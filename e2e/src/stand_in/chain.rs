//! One chain: its blocks are executed by the ledger of real nodes, so that its voters change by the real rules; its nodes
//! follow it, and those sign that have its last block and a vote.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use node_core::crypto::VerifiedTransaction;
use node_core::ledger::{self, Applied, MemoryStore, Outcome, Rules};
use node_core::mempool::{Limits, Mempool, Refusal, Space};
use node_core::types::{
    AccountId, Batch, Block, Epoch, FailureReason, Genesis, GovernanceChange, Header, Height, Identity, Nonce, Payload,
    ReceiptStatus, Round, SessionKey, TimeMs, Transaction, TransactionId, VoterEntry, VoterSet, voters_hash,
};

/// Newest heights over which precommits are counted, as real nodes do.
const WINDOW: usize = 10;
/// With each tick a node that is behind fetches this part of what it lacks.
const FETCHED_PART: u64 = 8;
/// Or so many blocks, when that is more.
const FETCHED_MIN: u64 = 4;
/// What one block may hold.
const SPACE: Space = Space { transactions_max: 100, bytes_max: 64 * 1024 };

/// A change of voters that nothing else may meet: from when it is handed in until it counts.
struct UnderWay {
    transaction: TransactionId,
    /// Known once it is executed.
    counts_from: Option<Height>,
}

/// One chain.
pub struct Chain {
    state: MemoryStore,
    mempool: Mempool,
    height: Height,
    last_block: Instant,
    /// By the first height at which they vote.
    sets: BTreeMap<Height, VoterSet>,
    /// Nodes that run, with the pod whose process it is and the key that it signs with.
    running: BTreeMap<Identity, (String, SessionKey)>,
    /// The newest block on each node's volume.
    reached: BTreeMap<Identity, Height>,
    signed: VecDeque<(Height, BTreeSet<Identity>)>,
    last_precommits: BTreeMap<Identity, Height>,
    under_way: Vec<UnderWay>,
}

/// What a node knows of its chain.
#[derive(Clone, Debug)]
pub struct View {
    /// Newest height that it has.
    pub height: u64,
    /// Age of that block.
    pub block_age: Duration,
    /// It has the chain's last block.
    pub is_synced: bool,
    /// Heights that are counted.
    pub window: u32,
    /// The voters of the next height: entry, heights of the window with a precommit, newest height with one.
    pub voters: Vec<(VoterEntry, u32, u64)>,
}

impl View {
    /// The vote of this node, with the newest height that it has signed.
    pub fn vote(&self, identity: &Identity) -> Option<u64> {
        self.voters.iter().find(|(entry, _, _)| entry.identity == *identity).map(|(_, _, last)| *last)
    }
}

/// Who may change a chain, as its newest state says.
#[derive(Clone, Debug)]
pub struct GovernanceView {
    /// Height of that state.
    pub height: Height,
    /// Nonce of the next governance transaction.
    pub nonce: Nonce,
    /// Keys and parameters.
    pub rules: Rules,
}

/// What one more block has brought.
pub struct Moved {
    /// The voters of the next height.
    pub voters: VoterSet,
    /// Who has signed.
    pub signers: BTreeSet<Identity>,
    /// Voters of the next height that would not sign it now.
    pub absent: BTreeSet<Identity>,
    /// Voters that it votes in although they do not run, or lack blocks.
    pub hasty: BTreeSet<Identity>,
}

/// Whether a transaction that was handed in meets another change of voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meets {
    /// No other one is under way.
    Nothing,
    /// Another one has not begun to count.
    AnotherChange,
}

impl Chain {
    /// A chain before its first block.
    pub fn new(genesis: &Genesis) -> Result<Self> {
        let mut state = MemoryStore::new();
        ledger::apply_genesis(&mut state, genesis)?;
        Ok(Self {
            state,
            mempool: Mempool::new(Limits::default(), genesis.incarnation(), Height::ZERO),
            height: Height::ZERO,
            last_block: Instant::now(),
            sets: [(Height::ZERO, genesis.voter_set().clone())].into(),
            running: BTreeMap::new(),
            reached: BTreeMap::new(),
            signed: VecDeque::new(),
            last_precommits: BTreeMap::new(),
            under_way: Vec::new(),
        })
    }

    /// A node runs from now on and goes on from the block that its volume holds.
    pub fn run(&mut self, identity: Identity, pod_uid: &str, session_key: SessionKey) {
        self.running.insert(identity, (pod_uid.to_string(), session_key));
        self.reached.entry(identity).or_insert(Height::ZERO);
    }

    /// The process of this pod does not run any more; false when it did not, or that of the next pod already does.
    pub fn stop(&mut self, identity: &Identity, pod_uid: &str) -> bool {
        let is_this = self.running.get(identity).is_some_and(|(running, _)| running == pod_uid);
        is_this && self.running.remove(identity).is_some()
    }

    fn signs_with(&self, identity: &Identity, session_key: &SessionKey) -> bool {
        self.running.get(identity).is_some_and(|(_, key)| key == session_key)
    }

    /// The voters of a height that is decided.
    fn voters(&self, height: Height) -> Option<&VoterSet> {
        self.sets.range(..=height).next_back().map(|(_, voters)| voters)
    }

    /// What a node knows.
    pub fn view(&self, identity: &Identity) -> Option<View> {
        let height = self.reached.get(identity).copied().unwrap_or(Height::ZERO);
        let window = height.get().min(WINDOW as u64);
        let oldest = height.saturating_sub(window);
        let counted = || self.signed.iter().filter(|(at, _)| *at > oldest && *at <= height);
        let voters = self.voters(height.next())?.entries().iter().map(|entry| {
            let heights = counted().filter(|(_, signers)| signers.contains(&entry.identity)).count();
            let last = self.last_precommits.get(&entry.identity).copied().unwrap_or(Height::ZERO);
            (*entry, u32::try_from(heights).unwrap_or(0), last.get())
        });
        Some(View {
            height: height.get(),
            block_age: self.last_block.elapsed(),
            is_synced: height == self.height,
            window: u32::try_from(window).unwrap_or(0),
            voters: voters.collect(),
        })
    }

    /// Who may change the chain.
    pub fn governance(&self) -> Result<GovernanceView> {
        let snapshot = ledger::snapshot(&self.state)?.context("the state has a genesis")?;
        let nonce = ledger::account(&self.state, &AccountId::governance())?.nonce;
        Ok(GovernanceView { height: snapshot.progress.height, nonce, rules: snapshot.rules() })
    }

    /// The epoch with which a node can be voted in; none of one that is a voter, or will be.
    pub fn next_epoch(&self, identity: &Identity) -> Result<Option<Epoch>> {
        let decided = self.sets.range(self.height.next()..).map(|(_, voters)| voters);
        let mut known = decided.chain(self.voters(self.height.next()));
        if known.any(|voters| voters.get(identity).is_some()) {
            return Ok(None);
        }
        let highest = ledger::highest_epoch(&self.state, identity)?;
        Ok(Some(highest.map_or(Epoch::FIRST, |highest| highest.saturating_add(1))))
    }

    /// Hands a transaction to the mempool, which all nodes share, and says what it meets.
    pub fn submit(&mut self, transaction: VerifiedTransaction) -> (Result<(), Refusal>, Meets) {
        let (id, changes_voters) = (transaction.id(), changes_voters(transaction.transaction()));
        let taken = self.take(transaction);
        // An echo of one that is known says nothing.
        if !changes_voters || taken == Err(Refusal::Known) {
            return (
                taken.or_else(|refusal| if refusal == Refusal::Known { Ok(()) } else { Err(refusal) }),
                Meets::Nothing,
            );
        }
        let meets = if self.under_way.is_empty() { Meets::Nothing } else { Meets::AnotherChange };
        if taken.is_ok() {
            self.under_way.push(UnderWay { transaction: id, counts_from: None });
        }
        (taken, meets)
    }

    fn take(&mut self, transaction: VerifiedTransaction) -> Result<(), Refusal> {
        let is_governance = matches!(transaction.transaction().body().payload, Payload::Governance(_));
        let authorises = |rules: &Rules| rules.governance.authorises(transaction.transaction());
        if is_governance && !self.governance().is_ok_and(|governance| authorises(&governance.rules)) {
            return Err(Refusal::WouldFail(FailureReason::WrongSigners));
        }
        self.mempool.add(transaction).map(drop)
    }

    /// One more block if a quorum of the voters of its height runs, has all blocks before it, and signs.
    pub fn tick(&mut self) -> Result<Option<Moved>> {
        self.fetch();
        let height = self.height.next();
        let voters = self.voters(height).context("the voters of the next height are decided")?;
        let signs = |entry: &&VoterEntry| {
            self.reached.get(&entry.identity) == Some(&self.height)
                && self.signs_with(&entry.identity, &entry.session_key)
        };
        let signing: Vec<&VoterEntry> = voters.entries().iter().filter(signs).collect();
        let power: u64 = signing.iter().map(|entry| entry.power.get()).sum();
        let signers: BTreeSet<Identity> = signing.iter().map(|entry| entry.identity).collect();
        let Some(proposer) = signers.first().copied().filter(|_| power >= voters.quorum().get()) else {
            return Ok(None);
        };
        let block = self.block(height, proposer)?;
        let newest = self.sets.last_key_value().map(|(_, voters)| voters.clone());
        let outcome = self.execute(&block)?;
        let coming = |entry: &&VoterEntry| newest.as_ref().is_some_and(|set| set.get(&entry.identity).is_none());
        let coming = outcome.sets.third.entries().iter().filter(coming).map(|entry| entry.identity);
        let follows = |identity: &Identity| {
            self.running.contains_key(identity) && self.reached.get(identity) == Some(&self.height)
        };
        let hasty = coming.filter(|identity| !follows(identity)).collect();
        self.move_on(height, &signers);
        let next = outcome.sets.first;
        let is_absent = |entry: &&VoterEntry| {
            !self.signs_with(&entry.identity, &entry.session_key)
                || self.reached.get(&entry.identity) != Some(&self.height)
        };
        let absent = next.entries().iter().filter(is_absent).map(|entry| entry.identity).collect();
        Ok(Some(Moved { absent, hasty, signers, voters: next }))
    }

    /// Nodes that are behind come nearer.
    fn fetch(&mut self) {
        let tip = self.height;
        for (_, height) in self.reached.iter_mut().filter(|(identity, _)| self.running.contains_key(identity)) {
            let lacks = tip.get().saturating_sub(height.get());
            *height = height.saturating_add((lacks / FETCHED_PART).max(FETCHED_MIN).min(lacks));
        }
    }

    /// The next block, with what waits for it.
    fn block(&self, height: Height, proposer: Identity) -> Result<Block> {
        let snapshot = ledger::snapshot(&self.state)?.context("the state has a genesis")?;
        let transactions = self.mempool.pick(SPACE);
        let batches = if transactions.is_empty() { vec![] } else { vec![Batch::new(transactions)?] };
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = TimeMs::new(u64::try_from(now_ms).unwrap_or(u64::MAX));
        let header = Header {
            height,
            round: Round::ZERO,
            parent: snapshot.progress.block,
            proposer,
            time: now.max(snapshot.progress.time.saturating_add(1)),
            batches: batches.iter().map(Batch::digest).collect(),
            voters_hash: voters_hash(&snapshot.sets.first, &snapshot.sets.second),
            results: snapshot.progress.results_before,
            parameters_hash: snapshot.chain.parameters.hash(),
        };
        Ok(Block::new(header, batches)?)
    }

    fn execute(&mut self, block: &Block) -> Result<Outcome> {
        let height = block.header().height;
        self.mempool.on_decided(block);
        let Applied::Now { outcome, results: _ } = ledger::apply_block(&mut self.state, block)? else {
            bail!("block {height} was executed before");
        };
        let expired = self.mempool.on_executed(height, &outcome.receipts);
        self.under_way.retain(|change| !expired.contains(&change.transaction));
        for receipt in &outcome.receipts {
            if receipt.status == ReceiptStatus::Deferred {
                continue;
            }
            let counts_from = height.saturating_add(ledger::CHANGE_DELAY_BLOCKS);
            let is_executed = receipt.status == ReceiptStatus::Executed;
            self.under_way.retain(|change| is_executed || change.transaction != receipt.transaction);
            let change = self.under_way.iter_mut().find(|change| change.transaction == receipt.transaction);
            if let Some(change) = change {
                change.counts_from = Some(counts_from);
            }
        }
        let (newest, third) = (self.sets.last_key_value().map(|(_, voters)| voters), &outcome.sets.third);
        if newest != Some(third) {
            self.sets.insert(height.saturating_add(ledger::CHANGE_DELAY_BLOCKS), third.clone());
        }
        Ok(*outcome)
    }

    /// The block is final: whoever had the one before has it.
    fn move_on(&mut self, height: Height, signers: &BTreeSet<Identity>) {
        for (_, reached) in self.reached.iter_mut().filter(|(identity, _)| self.running.contains_key(identity)) {
            if *reached == self.height {
                *reached = height;
            }
        }
        self.height = height;
        self.last_block = Instant::now();
        for signer in signers {
            self.last_precommits.insert(*signer, height);
        }
        self.signed.push_back((height, signers.clone()));
        if self.signed.len() > WINDOW {
            self.signed.pop_front();
        }
        self.under_way.retain(|change| change.counts_from.is_none_or(|from| from > height.next()));
    }
}

/// It moves power between voters.
fn changes_voters(transaction: &Transaction) -> bool {
    match &transaction.body().payload {
        Payload::Governance(change) => match change {
            GovernanceChange::AddVoter(_)
            | GovernanceChange::ReplaceVoter { .. }
            | GovernanceChange::RemoveVoter { .. }
            | GovernanceChange::SetPower { .. } => true,
            GovernanceChange::SetParameters(_) | GovernanceChange::SetKeys(_) => false,
        },
        Payload::Transfer(_) | Payload::RotateSession(_) | Payload::KeepSession(_) => false,
    }
}

#[cfg(test)]
mod tests;
