//! The checkers of voter sets: what one block may change, and that no key and no epoch ever comes back.

use std::collections::BTreeMap;

use node_core::{
    ledger::Outcome,
    types::{Epoch, Height, Identity, SessionKey, VoterEntry, VoterSet},
};

use super::checks::Violation;

/// What was ever in a set.
#[derive(Default)]
pub struct SetChecks {
    /// Whose key, with which epoch, and whether it has left.
    keys: BTreeMap<SessionKey, (Identity, Epoch, bool)>,
    epochs: BTreeMap<Identity, Epoch>,
}

impl SetChecks {
    /// A block has decided the set of one more height, after `before`.
    pub fn on_decided(&mut self, before: &VoterSet, outcome: &Outcome) -> Result<(), Violation> {
        let height = outcome.height.saturating_add(3);
        let after = &outcome.sets.third;
        let rotated = |entry: &VoterEntry| {
            let rotation = outcome.rotations.of(&entry.identity);
            rotation.is_some_and(|pending| pending.counts_from() == height && pending.new_key == entry.session_key)
        };
        // What a rotation changed is no change of governance.
        let key_without_rotation = |entry: &VoterEntry| match before.get(&entry.identity) {
            Some(former) if rotated(entry) => former.session_key,
            _ => entry.session_key,
        };
        let (mut won, mut lost) = (0, 0);
        for entry in after.entries() {
            match before.get(&entry.identity) {
                Some(former) if former.session_key == key_without_rotation(entry) => {
                    won += entry.power.get().saturating_sub(former.power.get());
                    lost += former.power.get().saturating_sub(entry.power.get());
                }
                Some(former) => (won, lost) = (won + entry.power.get(), lost + former.power.get()),
                None => won += entry.power.get(),
            }
        }
        let gone = before.entries().iter().filter(|entry| after.get(&entry.identity).is_none());
        lost += gone.map(|entry| entry.power.get()).sum::<u64>();
        if won.max(lost) * 3 >= before.total_power().get() {
            return Err(Violation::TooMuchPowerMoved(height));
        }
        if after.count() < before.count().min(4) {
            return Err(Violation::TooFewVoters(height));
        }
        self.on_set(height, after)
    }

    /// A set follows the one before it.
    pub fn on_set(&mut self, height: Height, set: &VoterSet) -> Result<(), Violation> {
        for (key, (identity, _, left)) in &mut self.keys {
            *left |= set.get(identity).is_none_or(|entry| entry.session_key != *key);
        }
        for entry in set.entries() {
            let known = self.keys.entry(entry.session_key).or_insert((entry.identity, entry.epoch, false));
            if *known != (entry.identity, entry.epoch, false) {
                return Err(Violation::KeyCameBack(height));
            }
            let highest = self.epochs.entry(entry.identity).or_insert(entry.epoch);
            if entry.epoch < *highest {
                return Err(Violation::EpochWentBack(height));
            }
            *highest = entry.epoch;
        }
        Ok(())
    }
}
