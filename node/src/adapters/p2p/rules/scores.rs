//! What a peer may do before it is sent away, and for how long.
//!
//! An offence counts against the identity that the TLS connection proved, never against an address, and only for what an
//! honest node checks before it sends: so nobody can make others ban somebody else. Voters and configured peers pause for
//! seconds only, and never voters of more than `f` power at once: a fault that all nodes of a release share cannot keep
//! them apart.

use std::collections::{BTreeMap, BTreeSet};

use node_core::types::Identity;

use super::Roster;

/// Points at which a peer is sent away.
const POINTS_MAX: u64 = 100;
/// One point is forgiven in this time.
const FORGIVEN_MS: u64 = 1_000;
/// How long a stranger stays away at first; each time twice as long.
const BAN_MS_FIRST: u64 = 60_000;
const BAN_MS_MAX: u64 = 3_600_000;
/// How long a voter or a configured peer stays away.
const PAUSE_MS: u64 = 10_000;
/// After so long without a ban the next one is shorter again.
const BAN_FORGIVEN_MS: u64 = 6 * 3_600_000;
/// Peers that are remembered.
const PEERS_MAX: usize = 512;

/// What a peer did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offence {
    /// It sent bytes that are no message of a version that it says it speaks.
    Malformed,
    /// It sent a transaction or a batch with a wrong signature, which a node verifies before it passes it on.
    BadSignature,
    /// It sent a peer record that its identity did not sign.
    ForgedRecord,
    /// It answered what was not asked, or spoke for somebody else. A late answer is one of these, so it costs little.
    Unasked,
    /// For a second it sent more messages than are read.
    Flood,
}

impl Offence {
    /// For metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadSignature => "bad_signature",
            Self::ForgedRecord => "forged_record",
            Self::Unasked => "unasked",
            Self::Flood => "flood",
        }
    }

    const fn points(self) -> u64 {
        match self {
            Self::Malformed => POINTS_MAX,
            Self::ForgedRecord => 50,
            Self::BadSignature => 25,
            // A question is asked again after two seconds, so late answers are forgiven faster than they come.
            Self::Unasked => 1,
            Self::Flood => 3,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    points: u64,
    /// When the points were right.
    at_ms: u64,
    bans: u32,
    banned_until_ms: u64,
}

impl Standing {
    fn forgive(&mut self, now_ms: u64) {
        let quiet_ms = now_ms.saturating_sub(self.banned_until_ms.max(self.at_ms));
        if quiet_ms >= BAN_FORGIVEN_MS {
            self.bans = 0;
        }
        self.points = self.points.saturating_sub(now_ms.saturating_sub(self.at_ms) / FORGIVEN_MS);
        self.at_ms = now_ms;
    }
}

/// The standing of peers.
#[derive(Debug, Default)]
pub struct Scores {
    configured: BTreeSet<Identity>,
    peers: BTreeMap<Identity, Standing>,
}

impl Scores {
    /// Nobody has done anything; these peers are in the configuration.
    pub fn new(configured: BTreeSet<Identity>) -> Self {
        Self { configured, peers: BTreeMap::new() }
    }

    /// For how many milliseconds more a peer stays away, if it does.
    pub fn banned_ms(&self, peer: &Identity, now_ms: u64) -> Option<u64> {
        let until_ms = self.peers.get(peer)?.banned_until_ms;
        until_ms.checked_sub(now_ms).filter(|left_ms| *left_ms > 0)
    }

    /// A peer did something. The answer is for how many milliseconds it is sent away, if that was too much.
    pub fn report(&mut self, peer: Identity, offence: Offence, roster: Option<&Roster>, now_ms: u64) -> Option<u64> {
        let voter = roster.is_some_and(|roster| roster.voters.contains_key(&peer));
        // What is too much is not read in time; more than that would be a way to silence a busy voter.
        if voter && offence == Offence::Flood {
            return None;
        }
        if self.banned_ms(&peer, now_ms).is_some() {
            return None;
        }
        let may_pause = !voter || self.leaves_a_quorum(&peer, roster, now_ms);
        self.make_room(&peer, now_ms);
        let short = voter || self.configured.contains(&peer);
        let standing = self.peers.entry(peer).or_default();
        standing.forgive(now_ms);
        standing.points = standing.points.saturating_add(offence.points()).min(POINTS_MAX);
        if standing.points < POINTS_MAX || !may_pause {
            return None;
        }
        let ban_ms = if short { PAUSE_MS } else { (BAN_MS_FIRST << standing.bans.min(10)).min(BAN_MS_MAX) };
        *standing = Standing {
            points: 0,
            at_ms: now_ms,
            bans: standing.bans.saturating_add(1),
            banned_until_ms: now_ms.saturating_add(ban_ms),
        };
        Some(ban_ms)
    }

    /// Whether the voters that are away, and this one, have no more power than may fail.
    fn leaves_a_quorum(&self, peer: &Identity, roster: Option<&Roster>, now_ms: u64) -> bool {
        let Some(roster) = roster else { return true };
        let away = |voter: &Identity| voter == peer || self.banned_ms(voter, now_ms).is_some();
        let powers = roster.voters.iter().filter(|(voter, _)| away(voter)).map(|(_, power)| power.get());
        powers.fold(0, u64::saturating_add) <= roster.fault_budget.get()
    }

    /// The one that is forgiven soonest is forgotten first.
    fn make_room(&mut self, peer: &Identity, now_ms: u64) {
        if self.peers.len() < PEERS_MAX || self.peers.contains_key(peer) {
            return;
        }
        let order = |standing: &Standing| {
            let points = standing.points.saturating_sub(now_ms.saturating_sub(standing.at_ms) / FORGIVEN_MS);
            (standing.banned_until_ms.max(now_ms), points)
        };
        let victim = self.peers.iter().min_by_key(|(_, standing)| order(standing)).map(|(victim, _)| *victim);
        victim.map(|victim| self.peers.remove(&victim));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use node_core::types::{Identity, Incarnation, Power};

    use super::{BAN_MS_FIRST, BAN_MS_MAX, Offence, PAUSE_MS, PEERS_MAX, Roster, Scores};

    fn identity(number: u16) -> Identity {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        Identity::new(bytes)
    }

    fn four_voters() -> Roster {
        Roster {
            incarnation: Incarnation::new([9; 32]),
            voters: (1..=4).map(|number| (identity(number), Power::new(1))).collect(),
            fault_budget: Power::new(1),
        }
    }

    #[test]
    fn a_stranger_that_sends_what_is_no_message_is_away_for_ever_longer_up_to_an_hour() {
        let (mut scores, stranger, mut now_ms) = (Scores::default(), identity(50), 0);
        let mut bans = Vec::new();
        for _ in 0..9 {
            let ban_ms = scores.report(stranger, Offence::Malformed, None, now_ms).unwrap();
            assert_eq!(scores.banned_ms(&stranger, now_ms), Some(ban_ms));
            now_ms += ban_ms;
            assert_eq!(scores.banned_ms(&stranger, now_ms), None);
            bans.push(ban_ms / BAN_MS_FIRST);
        }
        assert_eq!(bans, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let next_day_ms = now_ms + 24 * BAN_MS_MAX;
        assert_eq!(scores.report(stranger, Offence::Malformed, None, next_day_ms), Some(BAN_MS_FIRST));
    }

    #[test]
    fn late_answers_of_a_slow_peer_are_forgiven_before_they_add_up() {
        let mut scores = Scores::default();
        for second in (0..100_000).step_by(2) {
            assert_eq!(scores.report(identity(50), Offence::Unasked, None, second * 1_000), None);
        }
        let burst = (0..120).filter_map(|_| scores.report(identity(51), Offence::Unasked, None, 0));
        assert_eq!(burst.count(), 1, "the same at once is too much");
    }

    #[test]
    fn a_voter_pauses_for_seconds_however_often() {
        let (mut scores, roster) = (Scores::default(), four_voters());
        for time in 0..5 {
            let now_ms = time * 2 * PAUSE_MS;
            assert_eq!(scores.report(identity(1), Offence::Malformed, Some(&roster), now_ms), Some(PAUSE_MS));
        }
    }

    #[test]
    fn voters_of_more_power_than_may_fail_are_never_away_at_once() {
        let (mut scores, roster) = (Scores::default(), four_voters());
        let report = |scores: &mut Scores, voter| scores.report(voter, Offence::Malformed, Some(&roster), 0);
        assert_eq!(report(&mut scores, identity(1)), Some(PAUSE_MS));
        for voter in 2..=4 {
            assert_eq!(report(&mut scores, identity(voter)), None);
        }
        assert_eq!(scores.report(identity(2), Offence::Unasked, Some(&roster), PAUSE_MS), None, "points were forgiven");
        assert_eq!(scores.report(identity(3), Offence::Malformed, Some(&roster), PAUSE_MS), Some(PAUSE_MS));
    }

    #[test]
    fn a_busy_voter_is_slowed_down_and_never_sent_away() {
        let (mut scores, roster) = (Scores::default(), four_voters());
        let away = (0..1_000).filter_map(|_| scores.report(identity(1), Offence::Flood, Some(&roster), 0));
        assert_eq!(away.count(), 0);
        let away = (0..40).filter_map(|_| scores.report(identity(50), Offence::Flood, Some(&roster), 0));
        assert_eq!(away.count(), 1);
    }

    #[test]
    fn a_configured_peer_pauses_for_seconds() {
        let mut scores = Scores::new(BTreeSet::from([identity(60)]));
        assert_eq!(scores.report(identity(60), Offence::Malformed, None, 0), Some(PAUSE_MS));
    }

    #[test]
    fn strangers_in_any_number_take_bounded_memory_and_free_no_one_who_is_away() {
        let mut scores = Scores::default();
        scores.report(identity(0), Offence::Malformed, None, 0);
        for number in 1..2 * PEERS_MAX as u16 {
            scores.report(identity(number), Offence::Unasked, None, 0);
        }
        assert_eq!(scores.peers.len(), PEERS_MAX);
        assert!(scores.banned_ms(&identity(0), 0).is_some());
    }
}
