//! Whether this node has been away for so long that it should take a state from its peers instead of all blocks.

use std::{collections::BTreeSet, time::Duration};

use node_core::types::{Height, Identity};

/// The blocks of a chain that goes on come faster. While they come, nobody's word about lost ones counts.
const STANDING_MIN: Duration = Duration::from_secs(10);

/// What is known of it.
#[derive(Debug, Default)]
pub struct Absence {
    /// More than so many blocks behind.
    pub after_blocks: Option<u64>,
    /// Peers that do not keep the next block any more.
    pruned: BTreeSet<Identity>,
}

/// How the node stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The last executed height.
    pub height: Height,
    /// The height that voters of more than the fault budget say they have.
    pub claimed: Height,
    /// For how long no block was executed.
    pub since: Duration,
    /// The number of connected peers.
    pub peers: usize,
}

impl Absence {
    /// For a node that is configured so.
    pub fn new(after_blocks: Option<u64>) -> Self {
        Self { after_blocks, pruned: BTreeSet::new() }
    }

    /// A peer has no block below `first`, and the next one wanted is `next`.
    pub fn on_pruned(&mut self, peer: Identity, first: Height, next: Height) {
        if first > next {
            self.pruned.insert(peer);
        }
    }

    /// A peer is gone.
    pub fn on_disconnected(&mut self, peer: &Identity) {
        self.pruned.remove(peer);
    }

    /// A block was executed: it could be had.
    pub fn on_executed(&mut self) {
        self.pruned.clear();
    }

    /// Why a state is wanted, if one is. More than a third of the peers must say that blocks are lost, so that faulty ones
    /// alone cannot take a voter away from a chain that stands still.
    pub fn reason(&self, standing: Standing) -> Option<String> {
        let Standing { height, claimed, since, peers } = standing;
        let behind = claimed.get().saturating_sub(height.get());
        if self.after_blocks.is_some_and(|after| behind > after) {
            return Some(format!("this node is {behind} blocks behind"));
        }
        let lost = self.pruned.len();
        (since > STANDING_MIN && lost > 0 && lost.saturating_mul(3) > peers)
            .then(|| format!("{lost} of {peers} peers do not keep block {} any more", height.next()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_core::types::{Height, Identity};

    use super::{Absence, Standing};

    fn standing(claimed: u64, since_s: u64, peers: usize) -> Standing {
        Standing { height: Height::new(10), claimed: Height::new(claimed), since: Duration::from_secs(since_s), peers }
    }

    #[test]
    fn a_node_is_away_when_enough_power_is_far_ahead() {
        let absence = Absence::new(Some(100));
        assert_eq!(absence.reason(standing(110, 60, 3)), None);
        assert_eq!(absence.reason(standing(111, 0, 3)), Some("this node is 101 blocks behind".to_owned()));
        assert_eq!(Absence::new(None).reason(standing(1_000_000, 60, 3)), None);
    }

    #[test]
    fn a_third_of_the_peers_cannot_send_a_node_away() {
        let mut absence = Absence::new(None);
        let next = Height::new(11);
        absence.on_pruned(Identity::new([1; 32]), Height::new(11), next);
        assert_eq!(absence.reason(standing(10, 60, 1)), None, "the next block is kept");
        absence.on_pruned(Identity::new([1; 32]), Height::new(50), next);
        absence.on_pruned(Identity::new([1; 32]), Height::new(60), next);
        assert_eq!(absence.reason(standing(10, 60, 3)), None);
        absence.on_pruned(Identity::new([2; 32]), Height::new(50), next);
        assert_eq!(absence.reason(standing(10, 5, 3)), None, "blocks came a moment ago");
        let reason = "2 of 3 peers do not keep block 11 any more".to_owned();
        assert_eq!(absence.reason(standing(10, 60, 3)), Some(reason));
        absence.on_disconnected(&Identity::new([2; 32]));
        assert_eq!(absence.reason(standing(10, 60, 3)), None);
        absence.on_pruned(Identity::new([2; 32]), Height::new(50), next);
        absence.on_executed();
        assert_eq!(absence.reason(standing(10, 60, 3)), None);
    }
}
