//! Turns in a chain that several members run: each operator reads the budget from the chain, but the chain shows a voter
//! that stops only some blocks later. So that two operators do not begin within those blocks, a voter may be stopped only in
//! the first part of its own turn. Turns follow the height, which all read from the same chain. Pure.

use std::collections::BTreeSet;

use crate::chain::agreement::Facts;

/// A turn has at least this many blocks: a stop is seen after six of them, and operators may be some blocks apart.
const BLOCKS_MIN: u64 = 64;
/// A turn of an idle chain lasts at least this long, so that a pod has stopped before it ends.
const TIME_MIN_MS: u64 = 60_000;
/// A stop may begin in the first of so many parts of a turn.
const PARTS: u64 = 4;

/// Why this voter may not be stopped at this height; nothing if it may. `own` are the identities of all nodes that this
/// operator looks after: while the chain has no other voters there are no turns.
pub fn wait(own: &BTreeSet<String>, identity: &str, facts: &Facts, block_interval_ms: u64) -> Option<String> {
    let is_alone = facts.voters.keys().all(|voter| own.contains(voter));
    let costs = facts.voters.get(identity).is_some_and(|voter| voter.is_signing);
    let place = facts.voters.keys().position(|voter| voter == identity);
    let (false, true, Some(place)) = (is_alone, costs, place) else { return None };
    let (blocks, voters) = (blocks(block_interval_ms), u64::try_from(facts.voters.len()).unwrap_or(u64::MAX));
    let round = blocks.saturating_mul(voters);
    let begin = blocks.saturating_mul(u64::try_from(place).unwrap_or(u64::MAX));
    let within = facts.height.checked_rem(round)?;
    if within >= begin && within - begin < blocks / PARTS {
        return None;
    }
    let left = if within < begin { begin - within } else { round.saturating_sub(within).saturating_add(begin) };
    Some(format!(
        "other members have voters too: it is stopped in its turn, at height {}",
        facts.height.saturating_add(left)
    ))
}

fn blocks(block_interval_ms: u64) -> u64 {
    TIME_MIN_MS.div_ceil(block_interval_ms.max(1)).max(BLOCKS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::fixtures;

    fn at(height: u64) -> Facts {
        Facts { height, ..fixtures::facts(&["i0", "i1", "i2", "i3", "i4"]) }
    }

    fn own(numbers: &[u32]) -> BTreeSet<String> {
        numbers.iter().map(|number| format!("i{number}")).collect()
    }

    #[test]
    fn who_runs_all_voters_waits_for_no_turn() {
        for height in 0..1_000 {
            assert_eq!(wait(&own(&[0, 1, 2, 3, 4]), "i3", &at(height), 1_000), None);
        }
    }

    #[test]
    fn a_voter_that_does_not_sign_and_a_node_without_a_vote_wait_for_no_turn() {
        let mut facts = at(100);
        facts.voters.get_mut("i4").expect("there").is_signing = false;
        assert_eq!(wait(&own(&[4]), "i4", &facts, 1_000), None);
        assert_eq!(wait(&own(&[9]), "i9", &facts, 1_000), None);
    }

    #[test]
    fn the_message_names_the_height_at_which_the_turn_begins() {
        for height in 0..1_000 {
            let Some(why) = wait(&own(&[2]), "i2", &at(height), 1_000) else { continue };
            let named: u64 = why.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a height");
            assert!(named > height && wait(&own(&[2]), "i2", &at(named), 1_000).is_none(), "{height}: {why}");
            assert!(wait(&own(&[2]), "i2", &at(named - 1), 1_000).is_some(), "{height}: {why}");
        }
    }

    /// One operator stops a voter at a height, another one at another: never within the blocks that a stop needs to be seen.
    #[test]
    fn two_operators_never_begin_before_the_chain_shows_the_other_one() {
        for interval in [10, 500, 1_000, 60_000] {
            let length = blocks(interval);
            let shown = length / PARTS * (PARTS - 1);
            let may =
                |number: u32, height| wait(&own(&[number]), &format!("i{number}"), &at(height), interval).is_none();
            let mut last: Option<(u32, u64)> = None;
            for height in 0..length * 12 {
                for number in 0..5 {
                    if !may(number, height) {
                        continue;
                    }
                    let (before, since) = last.unwrap_or((number, height));
                    assert!(before == number || height - since > shown, "{before} at {since}, {number} at {height}");
                    last = Some((number, height));
                }
            }
            assert!(last.is_some_and(|(_, height)| height > length * 11), "turns come again");
        }
    }
}
