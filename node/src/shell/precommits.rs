//! Which voters this node has seen precommit lately, late votes included.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use node_core::types::{Height, Identity, Vote, VoteKind};
use tokio::time::Instant;

/// Heights over which a voter's precommits are counted.
pub const WINDOW_HEIGHTS: u64 = 10;
/// Heights of one voter that are kept. A voter may be some heights ahead of this node.
const KEPT_HEIGHTS_MAX: usize = 32;
/// Voters that are kept: two full sets, since a set may be replaced as a whole.
const KEPT_VOTERS_MAX: usize = 512;

/// What was seen of one voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Heights of the window with a precommit of this voter.
    pub heights_in_window: u32,
    /// The newest height with one.
    pub last_height: Height,
    /// Time since that one arrived.
    pub last_age: Duration,
}

#[derive(Debug)]
struct Seen {
    heights: BTreeSet<Height>,
    last_arrival: Instant,
}

/// Precommits by voter, for the newest heights of each.
///
/// Certificates do not answer this: they usually hold only the first 2/3 of the votes. Forgotten when the process ends,
/// so a node that just started reports nobody until it has seen votes itself.
#[derive(Debug, Default)]
pub struct SeenPrecommits {
    voters: BTreeMap<Identity, Seen>,
}

impl SeenPrecommits {
    /// Takes a vote whose signature was checked.
    pub fn record(&mut self, vote: &Vote, now: Instant) {
        if vote.vote.kind != VoteKind::Precommit {
            return;
        }
        let voter = vote.vote.voter;
        if !self.voters.contains_key(&voter) && self.voters.len() >= KEPT_VOTERS_MAX {
            self.forget_the_longest_silent();
        }
        let seen = self.voters.entry(voter).or_insert_with(|| Seen { heights: BTreeSet::new(), last_arrival: now });
        if seen.heights.last().is_none_or(|newest| vote.vote.height > *newest) {
            seen.last_arrival = now;
        }
        seen.heights.insert(vote.vote.height);
        if seen.heights.len() > KEPT_HEIGHTS_MAX {
            seen.heights.pop_first();
        }
    }

    /// What was seen of `voter`, with the window that ends at `newest`; nothing if it was never seen.
    pub fn of(&self, voter: &Identity, newest: Height, now: Instant) -> Option<Sighting> {
        let seen = self.voters.get(voter)?;
        let last_height = *seen.heights.last()?;
        let oldest = newest.saturating_sub(WINDOW_HEIGHTS - 1).max(Height::new(1));
        let in_window = if newest < oldest { 0 } else { seen.heights.range(oldest..=newest).count() };
        Some(Sighting {
            heights_in_window: u32::try_from(in_window).unwrap_or(u32::MAX),
            last_height,
            last_age: now.saturating_duration_since(seen.last_arrival),
        })
    }

    fn forget_the_longest_silent(&mut self) {
        let silent = self.voters.iter().min_by_key(|(_, seen)| seen.last_arrival).map(|(voter, _)| *voter);
        if let Some(silent) = silent {
            self.voters.remove(&silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_core::types::{Epoch, Height, Identity, Round, Signature, UnsignedVote, Vote, VoteKind};
    use tokio::time::Instant;

    use super::{SeenPrecommits, Sighting};

    fn vote(kind: VoteKind, height: u64) -> Vote {
        let vote = UnsignedVote {
            kind,
            height: Height::new(height),
            round: Round::ZERO,
            value: None,
            voter: Identity::new([1; 32]),
        };
        Vote { vote, epoch: Epoch::FIRST, signature: Signature::new([0; 64]) }
    }

    #[test]
    fn a_late_precommit_counts_in_the_window_and_a_prevote_never() {
        let start = Instant::now();
        let mut seen = SeenPrecommits::default();
        let voter = Identity::new([1; 32]);
        seen.record(&vote(VoteKind::Prevote, 20), start);
        assert_eq!(seen.of(&voter, Height::new(20), start), None);
        for height in [8, 12, 14, 13] {
            seen.record(&vote(VoteKind::Precommit, height), start + Duration::from_millis(height));
        }
        let now = start + Duration::from_millis(20);
        assert_eq!(
            seen.of(&voter, Height::new(20), now),
            Some(Sighting { heights_in_window: 3, last_height: Height::new(14), last_age: Duration::from_millis(6) })
        );
    }

    #[test]
    fn only_the_newest_heights_are_kept() {
        let start = Instant::now();
        let mut seen = SeenPrecommits::default();
        for height in 1..1000 {
            seen.record(&vote(VoteKind::Precommit, height), start);
        }
        let sighting = seen.of(&Identity::new([1; 32]), Height::new(5), start);
        assert_eq!(sighting.map(|sighting| sighting.heights_in_window), Some(0));
    }
}
