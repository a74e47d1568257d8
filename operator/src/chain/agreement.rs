//! Which facts about a chain count: those that voters with more than f power report freshly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::budget::{faults, margin, quorum};

/// What one node reports about the chain. Its identity is proved by the certificate of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Identity of the node, hexadecimal.
    pub reporter: String,
    /// Newest height that it has finalised and executed.
    pub height: u64,
    /// How old that block was to it when it answered.
    pub block_age: Duration,
    /// When it answered.
    pub answered: Instant,
    /// Over how many heights [`VoterSeen::heights_seen`] counts.
    pub window: u32,
    /// The voter set.
    pub voters: Vec<VoterSeen>,
}

/// One entry of the voter set as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VoterSeen {
    /// Identity, hexadecimal.
    pub identity: String,
    /// Voting power.
    pub power: u64,
    /// Session public key, hexadecimal.
    pub session_key: String,
    /// Epoch of that key.
    pub epoch: u64,
    /// At how many heights of the window a verified precommit was seen.
    pub heights_seen: u32,
    /// Newest height of which a verified precommit was seen; 0 for none.
    pub last_precommit: u64,
}

/// What more than f power says about a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Height that the chain has reached.
    pub height: u64,
    /// Age of its newest block.
    pub block_age: Duration,
    /// That block is too old: who signed it and those before it says nothing of who would sign the next one.
    pub is_standing: bool,
    /// The voters by identity.
    pub voters: BTreeMap<String, VoterFact>,
    /// Power of all voters.
    pub total_power: u64,
    /// Power of those that sign.
    pub signing_power: u64,
    /// How many more voters may fail, heaviest first, before the quorum is lost.
    pub margin: u32,
    /// The newest height of which more than f power of the other voters has seen a precommit, by identity.
    pub last_precommits: BTreeMap<String, u64>,
    /// A change of the voters that may begin to count at any height.
    pub pending: Option<Pending>,
    /// They are of an earlier height than the last step of a change of the voters, which may not show in them.
    pub is_late: bool,
    /// Which of these voters are whose is not known: the identity of one that runs in this cluster is not.
    pub is_nameless: bool,
}

/// A change of the voters that the operator puts before the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Who comes, and with what power.
    pub joins: Option<(String, u64)>,
    /// Who goes.
    pub leaves: Option<String>,
}

/// What more than f power says about one voter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterFact {
    /// Voting power.
    pub power: u64,
    /// Its precommits are seen at most heights.
    pub is_signing: bool,
    /// Session key and epoch that count, when enough voters name the same.
    pub session: Option<(String, u64)>,
}

impl Facts {
    /// Voters that sign.
    pub fn signing(&self) -> usize {
        self.voters.values().filter(|voter| voter.is_signing).count()
    }

    /// The same where these voters do not sign: heights that stand still say nothing of who would sign the next one.
    #[must_use]
    pub fn without(mut self, silent: &BTreeSet<String>) -> Self {
        for (identity, voter) in &mut self.voters {
            voter.is_signing &= !silent.contains(identity);
        }
        let signing: Vec<u64> =
            self.voters.values().filter(|voter| voter.is_signing).map(|voter| voter.power).collect();
        self.signing_power = signing.iter().sum();
        self.margin = margin(self.total_power, signing);
        self
    }

    /// The same while this change may begin to count.
    #[must_use]
    pub fn expecting(mut self, pending: Pending) -> Self {
        self.pending = Some(pending);
        self
    }

    /// The voters once the pending change counts; a newcomer is silent at first. None if nothing will be different.
    pub fn voters_to_come(&self) -> Option<BTreeMap<String, VoterFact>> {
        let Pending { joins, leaves } = self.pending.as_ref()?;
        let mut voters = self.voters.clone();
        if let Some(leaver) = leaves {
            voters.remove(leaver);
        }
        if let Some((newcomer, power)) = joins {
            let silent = VoterFact { power: *power, is_signing: false, session: None };
            voters.entry(newcomer.clone()).or_insert(silent);
        }
        (voters != self.voters).then_some(voters)
    }

    /// Whether enough power signs.
    pub fn has_quorum(&self) -> bool {
        self.signing_power >= quorum(self.total_power)
    }
}

/// How old what is counted may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Now.
    pub now: Instant,
    /// Age of a report above which it is left out.
    pub report_age_max: Duration,
    /// Age of the newest block from which the chain stands.
    pub block_age_max: Duration,
}

impl Limits {
    fn age(&self, report: &Report) -> Duration {
        self.now.saturating_duration_since(report.answered)
    }
}

/// The facts that these reports prove, if enough voters answer. Reports that are too old and all but the first of one
/// reporter are left out.
pub fn agree(reports: &[Report], limits: &Limits) -> Option<Facts> {
    let mut reporters = BTreeSet::new();
    let is_fresh = |report: &&Report| limits.age(report) <= limits.report_age_max;
    let fresh: Vec<&Report> =
        reports.iter().filter(is_fresh).filter(|report| reporters.insert(report.reporter.as_str())).collect();
    let set = agreed_set(&fresh)?;
    let total_power: u64 = set.values().fold(0, |sum, power| sum.saturating_add(*power));
    let enough = faults(total_power).saturating_add(1);
    let members: Vec<(&Report, u64)> =
        fresh.iter().filter_map(|report| set.get(&report.reporter).map(|power| (*report, *power))).collect();

    let height = highest_reported(&members, enough)?;
    let block_age = youngest_reported(&members, height, enough, limits)?;
    let voters: BTreeMap<String, VoterFact> = set
        .iter()
        .map(|(identity, power)| (identity.clone(), voter_fact(&members, identity, *power, enough)))
        .collect();
    let signing: Vec<u64> = voters.values().filter(|voter| voter.is_signing).map(|voter| voter.power).collect();
    let signing_power = signing.iter().sum();
    let last_precommits =
        set.keys().map(|identity| (identity.clone(), last_precommit(&members, identity, enough))).collect();
    let margin = margin(total_power, signing);
    // Before the first block nobody has signed anything that could be lost.
    let is_standing = height > 0 && block_age >= limits.block_age_max;
    Some(Facts {
        height,
        block_age,
        is_standing,
        voters,
        total_power,
        signing_power,
        margin,
        last_precommits,
        pending: None,
        is_late: false,
        is_nameless: false,
    })
}

type Set = BTreeMap<String, u64>;

/// The voter set that members with more than f of its own power report; of several, the one with the highest reporter.
fn agreed_set(reports: &[&Report]) -> Option<Set> {
    let mut candidates: BTreeMap<Set, (u64, u64)> = BTreeMap::new();
    for report in reports {
        let set: Set = report.voters.iter().map(|voter| (voter.identity.clone(), voter.power)).collect();
        let power = set.get(&report.reporter).copied().unwrap_or(0);
        let (backing, height) = candidates.entry(set).or_default();
        *backing = backing.saturating_add(power);
        *height = (*height).max(report.height);
    }
    candidates
        .into_iter()
        .filter(|(set, (backing, _))| {
            let total = set.values().fold(0u64, |sum, power| sum.saturating_add(*power));
            *backing > faults(total)
        })
        .max_by_key(|(_, (_, height))| *height)
        .map(|(set, _)| set)
}

/// The greatest height such that enough power is at it or above.
fn highest_reported(members: &[(&Report, u64)], enough: u64) -> Option<u64> {
    let mut heights: Vec<(u64, u64)> = members.iter().map(|(report, power)| (report.height, *power)).collect();
    heights.sort_unstable_by(|left, right| right.cmp(left));
    first_with_enough(&heights, enough)
}

/// The smallest age such that enough power at or above this height says that its newest block is at most that old.
fn youngest_reported(members: &[(&Report, u64)], height: u64, enough: u64, limits: &Limits) -> Option<Duration> {
    let mut ages: Vec<(Duration, u64)> = members
        .iter()
        .filter(|(report, _)| report.height >= height)
        .map(|(report, power)| (report.block_age.saturating_add(limits.age(report)), *power))
        .collect();
    ages.sort_unstable();
    first_with_enough(&ages, enough)
}

fn first_with_enough<T: Copy>(sorted: &[(T, u64)], enough: u64) -> Option<T> {
    let mut sum: u64 = 0;
    for (value, power) in sorted {
        sum = sum.saturating_add(*power);
        if sum >= enough {
            return Some(*value);
        }
    }
    None
}

fn voter_fact(members: &[(&Report, u64)], identity: &str, power: u64, enough: u64) -> VoterFact {
    let mut seen_by: u64 = 0;
    let mut sessions: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for (report, reporter_power) in members {
        let Some(voter) = report.voters.iter().find(|voter| voter.identity == identity) else { continue };
        if report.window > 0 && voter.heights_seen > report.window / 2 {
            seen_by = seen_by.saturating_add(*reporter_power);
        }
        let backing = sessions.entry((voter.session_key.clone(), voter.epoch)).or_default();
        *backing = backing.saturating_add(*reporter_power);
    }
    // Of two keys that both have backing, during a rotation, the one with the higher epoch is the newer.
    let session = sessions.into_iter().filter(|(_, backing)| *backing >= enough).map(|(session, _)| session);
    VoterFact { power, is_signing: seen_by >= enough, session: session.max_by_key(|(_, epoch)| *epoch) }
}

/// The newest height of which enough power of the others has seen this voter's precommit. A voter speaks for itself
/// only when it is the only one.
fn last_precommit(members: &[(&Report, u64)], identity: &str, enough: u64) -> u64 {
    let is_alone = members.iter().all(|(report, _)| report.reporter == identity);
    let mut heights: Vec<(u64, u64)> = members
        .iter()
        .filter(|(report, _)| is_alone || report.reporter != identity)
        .filter_map(|(report, power)| {
            let voter = report.voters.iter().find(|voter| voter.identity == identity)?;
            Some((voter.last_precommit, *power))
        })
        .collect();
    heights.sort_unstable_by(|left, right| right.cmp(left));
    first_with_enough(&heights, enough).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    const FRESH: Duration = Duration::from_secs(30);

    /// What these reports prove at this time after they were made.
    fn agree(reports: &[Report], later: Duration) -> Option<Facts> {
        let made = reports.first()?.answered;
        let limits = Limits { now: made + later, report_age_max: FRESH, block_age_max: Duration::from_secs(10) };
        super::agree(reports, &limits)
    }

    fn name(number: usize) -> String {
        format!("v{number}")
    }

    /// What voter `number` of `powers` reports when it sees the voters of `signing` sign.
    fn report(number: usize, powers: &[u64], height: u64, signing: &[usize]) -> Report {
        let voters = powers.iter().enumerate().map(|(other, power)| VoterSeen {
            identity: name(other),
            power: *power,
            session_key: format!("k{other}"),
            epoch: 0,
            heights_seen: if signing.contains(&other) { 10 } else { 5 },
            last_precommit: if signing.contains(&other) { height } else { 0 },
        });
        Report {
            reporter: name(number),
            height,
            block_age: Duration::from_secs(1),
            answered: *START,
            window: 10,
            voters: voters.collect(),
        }
    }

    #[test]
    fn a_chain_that_stands_still_has_no_margin_of_voters_that_are_silent() {
        let powers = [1, 1, 1, 1];
        let seen = [report(0, &powers, 7, &[0, 1, 2, 3]), report(1, &powers, 7, &[0, 1, 2, 3])];
        let facts = agree(&seen, Duration::ZERO).expect("two of four are more than f");
        assert_eq!((facts.signing(), facts.margin), (4, 1), "the window still shows the last precommits of all");
        let facts = facts.without(&[name(2), name(3)].into());
        assert_eq!((facts.signing(), facts.signing_power, facts.margin, facts.has_quorum()), (2, 2, 0, false));
    }

    #[test]
    fn four_equal_voters_need_two_reports() {
        let powers = [1, 1, 1, 1];
        let one = [report(0, &powers, 7, &[0, 1, 2, 3])];
        assert_eq!(agree(&one, Duration::ZERO), None);
        let two = [report(0, &powers, 7, &[0, 1, 2]), report(1, &powers, 9, &[0, 1, 2])];
        let facts = agree(&two, Duration::ZERO).expect("two of four are more than f");
        assert_eq!((facts.height, facts.signing(), facts.margin, facts.has_quorum()), (7, 3, 0, true));
    }

    #[test]
    fn a_stale_or_repeated_report_does_not_count() {
        let powers = [1, 1, 1, 1];
        let two = [report(0, &powers, 7, &[]), report(1, &powers, 7, &[])];
        assert!(agree(&two, FRESH).is_some());
        assert_eq!(agree(&two, FRESH + Duration::from_millis(1)), None, "nobody has answered lately");
        let mut late = two;
        late[0].answered += Duration::from_millis(1);
        assert_eq!(agree(&late, FRESH), None, "only one of two has");
        assert_eq!(agree(&[report(0, &powers, 7, &[]), report(0, &powers, 7, &[])], Duration::ZERO), None);
    }

    #[test]
    fn half_of_the_window_is_not_most_of_it() {
        let powers = [1];
        let mut half = report(0, &powers, 7, &[]);
        assert_eq!(agree(&[half.clone()], Duration::ZERO).expect("one voter").signing(), 0);
        half.voters[0].heights_seen = 6;
        assert_eq!(agree(&[half.clone()], Duration::ZERO).expect("one voter").signing(), 1);
        half.window = 0;
        assert_eq!(agree(&[half], Duration::ZERO).expect("one voter").signing(), 0);
    }

    #[test]
    fn a_set_is_believed_only_from_its_own_members() {
        let mut strangers: Vec<Report> = (0..4).map(|number| report(number, &[1, 1, 1, 1], 9, &[])).collect();
        for (number, stranger) in strangers.iter_mut().enumerate() {
            stranger.reporter = format!("x{number}");
        }
        assert_eq!(agree(&strangers, Duration::ZERO), None);
    }

    #[test]
    fn what_at_most_f_power_invents_is_never_a_fact() {
        for seed in 0..2_000 {
            let mut random = StdRng::seed_from_u64(seed);
            let powers: Vec<u64> = (0..random.random_range(1..8)).map(|_| random.random_range(1..6)).collect();
            let total: u64 = powers.iter().sum();
            let signing: Vec<usize> = (0..powers.len()).filter(|_| random.random_bool(0.7)).collect();
            let height = random.random_range(10..100);
            let mut faulty_power = 0;
            let mut reports = Vec::new();
            for (number, power) in powers.iter().enumerate() {
                if faulty_power + power <= faults(total) && random.random_bool(0.6) {
                    faulty_power += power;
                    let invented: Vec<usize> = (0..powers.len()).filter(|_| random.random_bool(0.5)).collect();
                    reports.push(report(number, &powers, random.random_range(0..10_000), &invented));
                } else if random.random_bool(0.9) {
                    reports.push(report(number, &powers, height, &signing));
                }
            }
            let Some(facts) = agree(&reports, Duration::ZERO) else { continue };
            assert!(facts.height <= height, "seed {seed}: height {} was invented", facts.height);
            for (identity, voter) in &facts.voters {
                let honest = signing.iter().any(|number| name(*number) == *identity);
                assert!(honest || !voter.is_signing, "seed {seed}: signing of {identity} was invented");
            }
        }
    }

    #[test]
    fn a_voters_own_word_about_its_votes_does_not_count() {
        let powers = [1, 1, 1, 1];
        let mut own = report(0, &powers, 9, &[0, 1, 2, 3]);
        own.voters[0].last_precommit = 9;
        let mut other = report(1, &powers, 9, &[0, 1, 2, 3]);
        other.voters[0].last_precommit = 8;
        let mut third = report(2, &powers, 9, &[0, 1, 2, 3]);
        third.voters[0].last_precommit = 5;
        let facts = agree(&[own.clone(), other.clone()], Duration::ZERO).expect("two of four are more than f");
        assert_eq!(facts.last_precommits.get("v0"), Some(&0), "one other is not enough");
        let facts = agree(&[own, other, third], Duration::ZERO).expect("three");
        assert_eq!(facts.last_precommits.get("v0"), Some(&5));
        let alone = agree(&[report(0, &[1], 9, &[0])], Duration::ZERO).expect("one");
        assert_eq!(alone.last_precommits.get("v0"), Some(&9));
    }

    #[test]
    fn a_chain_stands_when_its_last_block_is_too_old_and_not_before_its_first() {
        let powers = [1, 1, 1, 1];
        let reports = |height| [report(0, &powers, height, &[0, 1, 2, 3]), report(1, &powers, height, &[0, 1, 2, 3])];
        let stands = |height, later| agree(&reports(height), Duration::from_secs(later)).expect("two").is_standing;
        assert!(!stands(7, 8), "one second when it was reported, eight since");
        assert!(stands(7, 9));
        assert!(!stands(0, 9));
    }
}
