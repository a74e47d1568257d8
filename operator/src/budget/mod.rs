//! The fault budget of a chain: how much power may be taken away on purpose now. Every disruption asks here.
//!
//! The budget is f less the power that does not sign now, where f is what the protocol tolerates of the power of all
//! voters, those outside this cluster included. It is computed from facts that f+1 voters agree on; without them there
//! is no budget, and nothing is disrupted. A voter whose pod is known to be gone does not sign, whatever the last ten
//! heights say. With f = 0 a chain stands still while any voter is down: there, planned disruptions are allowed one at
//! a time, and the status says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::chain::agreement::{Facts, VoterFact};

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

/// What may be taken away now. While a change of the voters may begin to count at any height, it has to be borne before
/// and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Whose votes were seen says nothing of who signs or votes now, or is no quorum: nothing may be taken away.
    is_closed: bool,
    now: Account,
    after: Option<Account>,
}

/// The budget of one set of voters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
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
        let after = facts.voters_to_come().map(|voters| Account::of(&voters, absent));
        // The chain makes blocks with a quorum: where less is seen, somebody was not seen.
        let is_blind = facts.height > 0 && !facts.has_quorum();
        let is_closed = facts.is_standing || facts.is_late || facts.is_nameless || is_blind;
        Self { is_closed, now: Account::of(&facts.voters, absent), after }
    }

    fn accounts(&self) -> impl Iterator<Item = &Account> {
        std::iter::once(&self.now).chain(&self.after)
    }

    /// Power that may still stop.
    pub fn left(&self) -> u64 {
        if self.is_closed {
            return 0;
        }
        self.accounts().map(Account::left).min().unwrap_or(0)
    }

    /// Whether this voter may be stopped now. One that does not sign costs nothing while a quorum does; one that counts as down
    /// although its votes are seen may have come back a moment ago, and costs what it weighs.
    pub fn permits(&self, identity: &str) -> bool {
        !self.is_closed && self.accounts().all(|account| account.permits(identity))
    }

    /// How many of these voters may be stopped, whichever they are: the largest number such that the heaviest of them
    /// together stay inside the budget.
    pub fn allowed(&self, voters: &BTreeSet<String>) -> usize {
        if self.is_closed {
            return 0;
        }
        self.accounts().map(|account| account.allowed(voters)).min().unwrap_or(0)
    }
}

impl Account {
    fn of(voters: &BTreeMap<String, VoterFact>, absent: &BTreeSet<String>) -> Self {
        let sum = |powers: &mut dyn Iterator<Item = u64>| powers.fold(0u64, u64::saturating_add);
        let share = |identity: &String, power: u64| Share { power, is_absent: absent.contains(identity) };
        let signing: BTreeMap<String, Share> = voters
            .iter()
            .filter(|(_, voter)| voter.is_signing)
            .map(|(identity, voter)| (identity.clone(), share(identity, voter.power)))
            .collect();
        let present = sum(&mut signing.values().filter(|share| !share.is_absent).map(|share| share.power));
        let total = sum(&mut voters.values().map(|voter| voter.power));
        Self { faults: faults(total), down: total.saturating_sub(present), signing }
    }

    fn left(&self) -> u64 {
        self.faults.saturating_sub(self.down)
    }

    /// The chain tolerates no fault at all: it stands still during every restart.
    fn tolerates_nothing(&self) -> bool {
        self.faults == 0
    }

    fn permits(&self, identity: &str) -> bool {
        let Some(share) = self.signing.get(identity) else { return true };
        let others = if share.is_absent { self.down.saturating_sub(share.power) } else { self.down };
        if self.tolerates_nothing() { others == 0 } else { others.saturating_add(share.power) <= self.faults }
    }

    fn allowed(&self, voters: &BTreeSet<String>) -> usize {
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
