//! The fault budget of a chain: how much power may be taken away on purpose now. Every disruption asks here.
//!
//! The budget is f less the power that does not sign now, where f is what the protocol tolerates of the power of all
//! voters, those outside this cluster included. It is computed from facts that f+1 voters agree on; without them there
//! is no budget, and nothing is disrupted. A voter whose pod is known to be gone does not sign, whatever the last ten
//! heights say. With f = 0 a chain stands still while any voter is down: there, planned disruptions are allowed one at
//! a time, and the status says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::chain::agreement::Facts;

/// Most power that may be faulty.
pub fn faults(total_power: u64) -> u64 {
    total_power.saturating_sub(1) / 3
}

/// Least power that decides: more than two thirds.
pub fn quorum(total_power: u64) -> u64 {
    let twice = u128::from(total_power).saturating_mul(2) / 3;
    u64::try_from(twice).unwrap_or(u64::MAX).saturating_add(1)
}

/// How many of the signing voters may fail, heaviest first, before less than a quorum is left.
pub fn margin(total_power: u64, mut signing: Vec<u64>) -> u32 {
    signing.sort_unstable_by(|left, right| right.cmp(left));
    let mut left: u64 = signing.iter().sum();
    let mut failures = 0;
    for power in signing {
        left = left.saturating_sub(power);
        if left < quorum(total_power) {
            break;
        }
        failures += 1;
    }
    failures
}

/// Why nobody may be stopped, and no voter changed, while the last block is too old.
pub const STANDING: &str = "blocks stand still, and who would sign is not known";

/// What may be taken away now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Whose votes were seen says nothing of who signs now: nothing may be taken away.
    is_closed: bool,
    faults: u64,
    down: u64,
    signing: BTreeMap<String, Share>,
}

/// A voter whose votes the others see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    power: u64,
    /// It counts as down all the same: this cluster knows better.
    is_absent: bool,
}

impl Budget {
    /// The budget of a chain. `absent` are the identities of voters of which this cluster knows that no ready pod runs
    /// that the disruption budget counts.
    pub fn of(facts: &Facts, absent: &BTreeSet<String>) -> Self {
        let share = |identity: &String, power: u64| Share { power, is_absent: absent.contains(identity) };
        let signing: BTreeMap<String, Share> = facts
            .voters
            .iter()
            .filter(|(_, voter)| voter.is_signing)
            .map(|(identity, voter)| (identity.clone(), share(identity, voter.power)))
            .collect();
        let present = signing.values().filter(|share| !share.is_absent);
        let power = present.fold(0u64, |sum, share| sum.saturating_add(share.power));
        let down = facts.total_power.saturating_sub(power);
        Self { is_closed: facts.is_standing, faults: faults(facts.total_power), down, signing }
    }

    /// Power that may still stop.
    pub fn left(&self) -> u64 {
        if self.is_closed {
            return 0;
        }
        self.faults.saturating_sub(self.down)
    }

    /// The chain tolerates no fault at all: it stands still during every restart.
    pub fn tolerates_nothing(&self) -> bool {
        self.faults == 0
    }

    /// The chain stands still: who does not sign is not known, and nobody may be stopped.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether this voter may be stopped now. One that does not sign costs nothing; one that counts as down although its
    /// votes are seen may have come back a moment ago, and costs what it weighs.
    pub fn permits(&self, identity: &str) -> bool {
        if self.is_closed {
            return false;
        }
        let Some(share) = self.signing.get(identity) else { return true };
        let others = if share.is_absent { self.down.saturating_sub(share.power) } else { self.down };
        if self.tolerates_nothing() { others == 0 } else { others.saturating_add(share.power) <= self.faults }
    }

    /// How many of these voters may be stopped, whichever they are: the largest number such that the heaviest of them
    /// together stay inside the budget.
    pub fn allowed(&self, voters: &BTreeSet<String>) -> usize {
        if self.is_closed {
            return 0;
        }
        let present = self.signing.iter().filter(|(identity, share)| !share.is_absent && voters.contains(*identity));
        let mut powers: Vec<u64> = present.map(|(_, share)| share.power).collect();
        if self.tolerates_nothing() {
            return usize::from(self.down == 0 && !powers.is_empty());
        }
        powers.sort_unstable_by(|left, right| right.cmp(left));
        let mut spent: u64 = 0;
        let stays_inside = |power: &u64| {
            spent = spent.saturating_add(*power);
            spent <= self.left()
        };
        powers.into_iter().take_while(stays_inside).count()
    }
}

/// How many pods of these voters must stay, as the disruption budget of Kubernetes counts. Without a budget all of them.
pub fn pods_needed(budget: Option<&Budget>, voters: &BTreeSet<String>, pods: usize) -> u16 {
    let allowed = budget.map_or(0, |budget| budget.allowed(voters));
    u16::try_from(pods.saturating_sub(allowed)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
