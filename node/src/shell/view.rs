//! What the main loop knows of the executed chain: how far it is, who votes, what changes next.

use std::collections::BTreeMap;

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
    /// When this node had executed it.
    pub executed_at: Instant,
    /// Rotations that do not count yet.
    pub rotations: PendingRotations,
    sets: BTreeMap<Height, VoterSet>,
    claims: BTreeMap<Identity, Height>,
}

impl View {
    /// From the state that was found on disk.
    pub fn new(snapshot: &Snapshot, now: Instant) -> Self {
        let first = snapshot.progress.height.next();
        let sets = [&snapshot.sets.first, &snapshot.sets.second, &snapshot.sets.third];
        let heights = [first, first.next(), first.next().next()];
        Self {
            incarnation: snapshot.chain.incarnation,
            progress: snapshot.progress,
            executed_at: now,
            rotations: snapshot.rotations.clone(),
            sets: heights.into_iter().zip(sets.into_iter().cloned()).collect(),
            claims: BTreeMap::new(),
        }
    }

    /// A block was executed.
    pub fn on_executed(&mut self, executed: &Executed, now: Instant) {
        self.progress = executed.progress;
        self.executed_at = now;
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
