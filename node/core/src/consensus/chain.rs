//! What the engine knows of the chain: its end, what is executed, voters and results of the heights around.

use std::{collections::BTreeMap, sync::Arc};

use super::{effect::HaltReason, faults::Faults};
use crate::{
    ledger::{Outcome, PendingRotation, PendingRotations, Recoveries, Rules, Snapshot},
    types::{
        Genesis, Governance, Hash, Header, Height, Identity, Incarnation, Parameters, RecoveryManifest, Results,
        SessionKey, TimeMs, VoterSet, voters_hash,
    },
};

/// For how many heights the voters are kept after the height is final.
pub const KEPT_HEIGHTS: u64 = 10;

/// The chain up to its last final block.
#[derive(Debug)]
pub struct ChainView {
    genesis: Incarnation,
    incarnation: Incarnation,
    recoveries: Recoveries,
    /// The parameters, by the height from which they are in force.
    parameters: BTreeMap<Height, Arc<Parameters>>,
    /// The parameters of the height that is being decided, and their hash.
    current: (Arc<Parameters>, Hash),
    governance: Governance,
    tip: Height,
    tip_hash: Hash,
    tip_time: TimeMs,
    executed: Height,
    sets: BTreeMap<Height, Arc<VoterSet>>,
    results: BTreeMap<Height, Results>,
    /// Final headers whose claims about voters and results are not compared with the own ones yet.
    unchecked: BTreeMap<Height, Header>,
    rotations: PendingRotations,
}

impl ChainView {
    /// From what was found on disk. Of the headers of the last blocks those above the executed height are compared as soon as
    /// that is possible, by [`ChainView::compare`] at the earliest: the process that took them may have ended before it could.
    pub fn new(
        genesis: &Genesis,
        recoveries: Recoveries,
        tip: Option<&Header>,
        executed: &Snapshot,
        recent: &[Header],
    ) -> Self {
        let Snapshot { chain: _, progress, results, sets, rotations, pending_parameters: _ } = executed;
        let height = progress.height;
        let mut chain = Self {
            genesis: genesis.incarnation(),
            incarnation: recoveries.newest().map_or_else(|| genesis.incarnation(), RecoveryManifest::incarnation),
            recoveries,
            parameters: BTreeMap::new(),
            current: (Arc::new(genesis.parameters.clone()), genesis.parameters.hash()),
            governance: genesis.governance.clone(),
            tip: tip.map_or(Height::ZERO, |header| header.height),
            tip_hash: tip.map_or_else(|| genesis.hash(), Header::hash),
            tip_time: tip.map_or(genesis.time, |header| header.time),
            executed: height,
            sets: BTreeMap::new(),
            results: BTreeMap::from([(height, *results)]),
            unchecked: recent
                .iter()
                .filter(|header| header.height > height)
                .map(|header| (header.height, header.clone()))
                .collect(),
            rotations: rotations.clone(),
        };
        chain.follow_rules(&executed.rules());
        if let Some(before) = height.checked_sub(1) {
            chain.results.insert(before, progress.results_before);
        }
        for (distance, set) in [(1, &sets.first), (2, &sets.second), (3, &sets.third)] {
            chain.insert_set(height.saturating_add(distance), set);
        }
        if chain.recoveries.before(height.next()).is_some() {
            chain.rotations = PendingRotations::default();
        }
        chain
    }

    /// What everything that is signed now is bound to.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// What everything signed at a height is bound to.
    pub fn incarnation_at(&self, height: Height) -> Incarnation {
        let before = self.recoveries.all().rev().find(|manifest| manifest.height < height);
        before.map_or(self.genesis, RecoveryManifest::incarnation)
    }

    /// The last height that stands before the newest recovery; nobody signs there any more.
    pub fn recovered_height(&self) -> Height {
        self.recoveries.newest().map_or(Height::ZERO, |manifest| manifest.height)
    }

    /// The set of a height as the last executed block says it, or as a recovery between the two changes it.
    fn insert_set(&mut self, height: Height, set: &VoterSet) {
        let executed = self.executed;
        let between = self.recoveries.all().find(|manifest| executed <= manifest.height && manifest.height < height);
        // A manifest that does not fit the state would be no recovery of this chain: the next header shows it.
        let renewed = between.and_then(|manifest| manifest.renewed(set).ok().flatten());
        self.sets.insert(height, Arc::new(renewed.unwrap_or_else(|| set.clone())));
    }

    /// The parameters of the height that is being decided.
    pub fn parameters(&self) -> &Parameters {
        &self.current.0
    }

    /// Their hash.
    pub fn parameters_hash(&self) -> Hash {
        self.current.1
    }

    /// Who may change the chain, as far as it is executed.
    pub fn governance(&self) -> &Governance {
        &self.governance
    }

    /// The last final height.
    pub fn tip(&self) -> Height {
        self.tip
    }

    /// The hash of the last final header; the genesis hash before block 1.
    pub fn tip_hash(&self) -> Hash {
        self.tip_hash
    }

    /// The time of the last final header; that of genesis before block 1.
    pub fn tip_time(&self) -> TimeMs {
        self.tip_time
    }

    /// The height that is being decided.
    pub fn next(&self) -> Height {
        self.tip.next()
    }

    /// The last executed height.
    pub fn executed(&self) -> Height {
        self.executed
    }

    /// The voters of a height, if they are decided and not yet forgotten.
    pub fn voters(&self, height: Height) -> Option<&Arc<VoterSet>> {
        self.sets.get(&height)
    }

    /// The newest voters that are decided.
    pub fn newest_voters(&self) -> Option<&Arc<VoterSet>> {
        self.sets.last_key_value().map(|(_, set)| set)
    }

    /// One of the known sets names this session key.
    pub fn names(&self, key: &SessionKey) -> bool {
        self.sets.values().any(|voters| voters.entries().iter().any(|entry| entry.session_key == *key))
    }

    /// The oldest voters of whom something holds, for a test.
    pub fn oldest_voters(&self, holds: impl Fn(&VoterSet) -> bool) -> Option<Arc<VoterSet>> {
        self.sets.values().find(|voters| holds(voters)).cloned()
    }

    /// What the header of this height must say about the results of `height - 2`, once that is executed.
    pub fn results_for(&self, height: Height) -> Option<Results> {
        match height.checked_sub(2) {
            None => Some(Results::NONE),
            Some(executed) => self.results.get(&executed).copied(),
        }
    }

    /// What the header of this height must say about voters, once `height - 2` is executed.
    pub fn voters_hash_for(&self, height: Height) -> Option<Hash> {
        Some(voters_hash(self.voters(height)?, self.voters(height.next())?))
    }

    /// The rotation of an identity that does not count yet.
    pub fn pending_rotation(&self, identity: &Identity) -> Option<&PendingRotation> {
        self.rotations.of(identity)
    }

    /// Consensus may start at the next height: `next - 3` is executed, so its voters are known.
    pub fn may_start_next(&self) -> bool {
        self.next().get() <= self.executed.get().saturating_add(3) && self.voters(self.next()).is_some()
    }

    /// A non-nil vote or a proposal at the next height is possible: `next - 2` is executed.
    pub fn may_vote_next(&self) -> bool {
        self.next().get() <= self.executed.get().saturating_add(2)
    }

    /// A block became final.
    pub fn commit(&mut self, header: &Header, faults: Faults) -> Result<(), HaltReason> {
        if header.parent != self.tip_hash || header.height != self.next() {
            return Err(HaltReason::Forked { height: header.height });
        }
        self.tip = header.height;
        self.tip_hash = header.hash();
        self.tip_time = header.time;
        self.choose_parameters();
        self.unchecked.insert(header.height, header.clone());
        self.compare(faults)
    }

    /// A block was executed. Out of order it is ignored.
    pub fn execute(&mut self, outcome: &Outcome, results: Results, faults: Faults) -> Result<(), HaltReason> {
        let height = outcome.height;
        if height != self.executed.next() {
            return Ok(());
        }
        self.executed = height;
        self.results.insert(height, results);
        let third = &outcome.sets.third;
        if faults.changes_count_at_once {
            self.insert_set(height.saturating_add(1), third);
            self.insert_set(height.saturating_add(2), third);
        }
        self.insert_set(height.saturating_add(3), third);
        let recovers = self.recoveries.before(height.next()).is_some();
        self.rotations = if recovers { PendingRotations::default() } else { outcome.rotations.clone() };
        self.follow_rules(&outcome.rules);
        let compared = self.compare(faults);
        self.sets = self.sets.split_off(&self.tip.saturating_sub(KEPT_HEIGHTS).min(self.executed));
        self.results = self.results.split_off(&self.tip.saturating_sub(3).min(self.executed.saturating_sub(1)));
        compared
    }

    /// Takes what the last executed height says about parameters and governance.
    fn follow_rules(&mut self, rules: &Rules) {
        let Rules { parameters, pending, governance } = rules;
        self.parameters.insert(self.executed.next(), Arc::new(parameters.clone()));
        if let Some(pending) = pending {
            self.parameters.insert(pending.counts_from, Arc::new(pending.parameters.clone()));
        }
        self.governance = governance.clone();
        self.choose_parameters();
    }

    /// The parameters of a height, if they are decided and not yet forgotten.
    fn parameters_at(&self, height: Height) -> Option<&Arc<Parameters>> {
        self.parameters.range(..=height).next_back().map(|(_, parameters)| parameters)
    }

    fn choose_parameters(&mut self) {
        let next = self.next();
        if let Some(found) = self.parameters_at(next).filter(|found| found.as_ref() != self.current.0.as_ref()).cloned()
        {
            let hash = found.hash();
            self.current = (found, hash);
        }
        // Final headers from two heights above the last executed one on are still to be compared.
        let oldest = self.executed.min(self.tip);
        if let Some(kept) = self.parameters.range(..=oldest).next_back().map(|(height, _)| *height) {
            self.parameters = self.parameters.split_off(&kept);
        }
    }

    /// Compares final headers with what this node computed. A difference cannot be repaired from inside.
    pub fn compare(&mut self, faults: Faults) -> Result<(), HaltReason> {
        while let Some(entry) = self.unchecked.first_entry() {
            let height = *entry.key();
            if self.executed.saturating_add(2) < height {
                return Ok(());
            }
            let header = entry.remove();
            let differ = self.results_for(height).is_some_and(|results| results != header.results);
            if differ && !faults.results_unchecked {
                return Err(HaltReason::ResultsDiffer { height: height.saturating_sub(2) });
            }
            // The last header before a recovery named the voters that the recovery has changed.
            let stands = self.recoveries.before(height.next()).is_none();
            if stands && self.voters_hash_for(height).is_some_and(|hash| hash != header.voters_hash) {
                return Err(HaltReason::VotersDiffer { height });
            }
            if self.parameters_at(height).is_some_and(|parameters| parameters.hash() != header.parameters_hash) {
                return Err(HaltReason::ParametersDiffer { height });
            }
        }
        Ok(())
    }
}
