//! Whose turn it is to propose: by weight from height to height, everybody in turn from round to round.

use crate::types::{Height, Round, VoterEntry, VoterSet};

/// The proposer of a round.
///
/// The heights go around the voters in proportion to their power (reduced by its greatest common divisor). Within a
/// height every further round passes the turn to the next voter, whatever its power, so that one dead voter of great
/// power costs one round and not as many as its power.
#[must_use]
pub fn proposer_at(voters: &VoterSet, height: Height, round: Round) -> &VoterEntry {
    let entries = voters.entries();
    let divisor = entries.iter().fold(0, |divisor, entry| greatest_common_divisor(divisor, entry.power.get())).max(1);
    let slots = (voters.total_power().get() / divisor).max(1);
    let mut slot = height.get() % slots;
    let mut first = 0;
    for (index, entry) in entries.iter().enumerate() {
        let width = entry.power.get() / divisor;
        if slot < width {
            first = index;
            break;
        }
        slot -= width;
    }
    let count = entries.len().max(1);
    let turns = usize::try_from(round.get()).unwrap_or(usize::MAX) % count;
    entries.get((first + turns) % count).expect("a voter set has at least one entry, and the index is below the count")
}

fn greatest_common_divisor(first: u64, second: u64) -> u64 {
    if second == 0 { first } else { greatest_common_divisor(second, first % second) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Identity, Power, SessionKey};

    fn voters(powers: &[u64]) -> VoterSet {
        let entry = |(index, power): (usize, &u64)| VoterEntry {
            identity: Identity::new([index as u8; 32]),
            power: Power::new(*power),
            session_key: SessionKey::new([index as u8; 32]),
            epoch: Epoch::FIRST,
        };
        VoterSet::new(powers.iter().enumerate().map(entry).collect()).unwrap()
    }

    fn turns(powers: &[u64], heights: std::ops::Range<u64>, round: u32) -> Vec<u8> {
        let voters = voters(powers);
        heights
            .map(|height| proposer_at(&voters, Height::new(height), Round::new(round)).identity.as_bytes()[0])
            .collect()
    }

    #[test]
    fn equal_voters_take_turns() {
        assert_eq!(turns(&[7, 7, 7, 7], 0..6, 0), [0, 1, 2, 3, 0, 1]);
        assert_eq!(turns(&[7, 7, 7, 7], 0..6, 1), [1, 2, 3, 0, 1, 2]);
    }

    #[test]
    fn heights_are_shared_by_power() {
        assert_eq!(turns(&[20, 10, 30], 0..7, 0), [0, 0, 1, 2, 2, 2, 0]);
    }

    #[test]
    fn every_round_passes_to_another_voter() {
        let voters = voters(&[1_000_000_007, 1, 1, 1]);
        let of = |round| proposer_at(&voters, Height::new(5), Round::new(round)).identity.as_bytes()[0];
        assert_eq!((0..5).map(of).collect::<Vec<_>>(), [0, 1, 2, 3, 0]);
    }
}
