//! What the main loop knows of the executed chain: how far it is, who votes, what changes next.

use std::{collections::BTreeMap, time::Duration};

use node_core::{
    ledger::{PendingRotations, Progress, Snapshot},
    types::{Epoch, Hash, Height, Identity, Incarnation, Power, SessionKey, VoterEntry, VoterSet},
};
use tokio::time::Instant;

use super::state::Executed;
use crate::adapters::p2p::Roster;

/// Sets of past heights that are kept, for late votes.
const PAST_SETS: u64 = 10;
/// Peers whose height is remembered.
const CLAIMS_MAX: usize = 512;

/// The executed chain as of now.
#[derive(Debug)]
pub struct View {
    /// What signatures are bound to.
    pub incarnation: Incarnation,
    /// The newest executed block.
    pub progress: Progress,
    /// When this process had executed it, or found it on its disk.
    pub executed_at: Instant,
    /// How old it was then by its own time; nothing for one that was executed.
    age_at_start: Duration,
    /// Rotations that do not count yet.
    pub rotations: PendingRotations,
    sets: BTreeMap<Height, VoterSet>,
    claims: BTreeMap<Identity, Height>,
}

impl View {
    /// From the state that was found on disk, at `now`, which is `now_ms` by the clock of this machine.
    pub fn new(snapshot: &Snapshot, now: Instant, now_ms: u64) -> Self {
        let first = snapshot.progress.height.next();
        let sets = [&snapshot.sets.first, &snapshot.sets.second, &snapshot.sets.third];
        let heights = [first, first.next(), first.next().next()];
        Self {
            incarnation: snapshot.chain.incarnation,
            progress: snapshot.progress,
            executed_at: now,
            age_at_start: age(&snapshot.progress, now_ms),
            rotations: snapshot.rotations.clone(),
            sets: heights.into_iter().zip(sets.into_iter().cloned()).collect(),
            claims: BTreeMap::new(),
        }
    }

    /// A block was executed.
    pub fn on_executed(&mut self, executed: &Executed, now: Instant) {
        self.progress = executed.progress;
        self.executed_at = now;
        self.age_at_start = Duration::ZERO;
        self.rotations = executed.outcome.rotations.clone();
        let newest = executed.outcome.height.next().next().next();
        self.sets.insert(newest, executed.outcome.sets.third.clone());
        let oldest = executed.outcome.height.saturating_sub(PAST_SETS);
        self.sets.retain(|height, _| *height >= oldest);
    }

    /// A peer says how far it is.
    pub fn on_claim(&mut self, peer: Identity, height: Height) {
        if self.claims.len() < CLAIMS_MAX || self.claims.contains_key(&peer) {
            self.claims.insert(peer, height);
        }
    }

    /// How old the newest block is, for people and for the operator: voters that start again on a chain that stands still do not
    /// make it look young. What waits for a block that comes counts from [`View::executed_at`].
    pub fn block_age(&self) -> Duration {
        self.age_at_start.saturating_add(self.executed_at.elapsed())
    }

    /// The newest executed height.
    pub fn height(&self) -> Height {
        self.progress.height
    }

    /// The hash of that block, or of genesis.
    pub fn block(&self) -> Hash {
        self.progress.block
    }

    /// The voters of a height, if they are decided and not long past.
    pub fn voters(&self, height: Height) -> Option<&VoterSet> {
        self.sets.get(&height)
    }

    /// The voters of the next height.
    pub fn next_voters(&self) -> Option<&VoterSet> {
        self.voters(self.height().next())
    }

    /// The voters of the next heights, as far as they are decided.
    pub fn roster(&self) -> Option<Roster> {
        let mut voters = BTreeMap::new();
        for (_, set) in self.sets.range(self.height().next()..) {
            for entry in set.entries() {
                let power = voters.entry(entry.identity).or_insert(entry.power);
                *power = entry.power.max(*power);
            }
        }
        let fault_budget = self.next_voters()?.fault_budget();
        Some(Roster { incarnation: self.incarnation, voters, fault_budget })
    }

    /// The entry of a voter at a height.
    pub fn entry(&self, height: Height, voter: &Identity) -> Option<VoterEntry> {
        self.voters(height)?.get(voter).copied()
    }

    /// The epoch in which a voter's session key counts or counted, as far as the sets at hand say.
    pub fn epoch_of(&self, voter: &Identity, key: &SessionKey) -> Option<Epoch> {
        let entries = self.sets.values().rev().filter_map(|set| set.get(voter));
        entries.filter(|entry| entry.session_key == *key).map(|entry| entry.epoch).next()
    }

    /// The highest height that voters of more than the fault budget say they have: at least one of them is honest.
    pub fn highest_claimed(&self) -> Height {
        let Some(voters) = self.next_voters() else { return self.height() };
        let mut claims: Vec<(Height, Power)> =
            self.claims.iter().filter_map(|(peer, height)| Some((*height, voters.get(peer)?.power))).collect();
        claims.sort_by_key(|(height, _)| std::cmp::Reverse(*height));
        let budget = voters.fault_budget().get();
        let mut power = 0;
        for (height, share) in claims {
            power += share.get();
            if power > budget {
                return height.max(self.height());
            }
        }
        self.height()
    }
}

/// How old the newest block is by its own time. Nobody has made the genesis that a chain begins with at a height, and a clock
/// that is behind says nothing.
fn age(progress: &Progress, now_ms: u64) -> Duration {
    if progress.height == Height::ZERO {
        return Duration::ZERO;
    }
    Duration::from_millis(now_ms.saturating_sub(progress.time.get()))
}

#[cfg(test)]
mod tests {
    use node_core::{
        crypto::KeyPair,
        ledger::{Applied, MemoryStore, apply_block, apply_genesis, snapshot},
        types::{
            Block, CeremonyNonce, ChainId, Genesis, GenesisDraft, GenesisVoter, Governance, GovernanceKey, Header,
            Parameters, ParametersDraft, Round, Signature, TimeMs, voters_hash,
        },
    };

    use super::*;

    const GENESIS_MS: u64 = 1_700_000_000_000;
    const HOUR_MS: u64 = 3_600_000;
    const HOUR: Duration = Duration::from_secs(3_600);
    /// More than a test takes.
    const SHORT: Duration = Duration::from_secs(600);

    fn key(seed: u8) -> [u8; 32] {
        KeyPair::from_seed([seed; 32]).public()
    }

    fn genesis() -> Genesis {
        let entry = VoterEntry {
            identity: Identity::new(key(1)),
            power: Power::new(1),
            session_key: SessionKey::new(key(2)),
            epoch: Epoch::FIRST,
        };
        Genesis::new(GenesisDraft {
            chain_id: ChainId::new("view-test").expect("a chain id"),
            time: TimeMs::new(GENESIS_MS),
            protocol_version: 1,
            state_version: 1,
            ceremony: CeremonyNonce::new([7; 32]),
            voters: vec![GenesisVoter { entry, possession: Signature::new([1; 64]) }],
            accounts: Vec::new(),
            governance: Governance { threshold: 1, keys: vec![GovernanceKey::new(key(3))] },
            parameters: Parameters::new(ParametersDraft::default()).expect("the defaults are good"),
        })
        .expect("a genesis")
    }

    /// A chain that executes empty blocks, one a second.
    struct Chain {
        genesis: Genesis,
        store: MemoryStore,
    }

    impl Chain {
        fn new() -> Self {
            let (genesis, mut store) = (genesis(), MemoryStore::new());
            apply_genesis(&mut store, &genesis).expect("an empty store takes it");
            Self { genesis, store }
        }

        fn snapshot(&self) -> Snapshot {
            snapshot(&self.store).expect("readable").expect("there is a genesis")
        }

        fn run(&mut self) -> Executed {
            let before = self.snapshot().progress;
            let header = Header {
                height: before.height.next(),
                round: Round::new(0),
                parent: before.block,
                proposer: Identity::new(key(1)),
                time: TimeMs::new(GENESIS_MS + before.height.next().get() * 1_000),
                batches: Vec::new(),
                voters_hash: voters_hash(self.genesis.voter_set(), self.genesis.voter_set()),
                results: before.results_before,
                parameters_hash: self.genesis.parameters.hash(),
            };
            let block = Block::new(header, Vec::new()).expect("a block");
            let Applied::Now { outcome, results } = apply_block(&mut self.store, &block).expect("it can be executed")
            else {
                panic!("the block was applied before")
            };
            Executed { outcome, results, progress: self.snapshot().progress, duration: Duration::ZERO }
        }
    }

    fn at_start(chain: &Chain, now_ms: u64) -> View {
        View::new(&chain.snapshot(), Instant::now(), now_ms)
    }

    #[test]
    fn a_block_that_was_old_when_the_node_started_is_not_young() {
        let mut chain = Chain::new();
        chain.run();
        let mut view = at_start(&chain, GENESIS_MS + 1_000 + HOUR_MS);
        assert!(view.block_age() >= HOUR && view.block_age() < HOUR + SHORT);
        assert!(view.executed_at.elapsed() < SHORT, "what waits for blocks begins to wait now");
        view.on_executed(&chain.run(), Instant::now());
        assert!(view.block_age() < SHORT, "that one is new");
    }

    #[test]
    fn a_clock_that_is_behind_and_a_chain_without_a_block_make_nothing_old() {
        let mut chain = Chain::new();
        assert!(at_start(&chain, GENESIS_MS + HOUR_MS).block_age() < SHORT);
        chain.run();
        assert!(at_start(&chain, GENESIS_MS - HOUR_MS).block_age() < SHORT);
        assert!(at_start(&chain, 0).block_age() < SHORT, "a clock before 1970");
    }
}
