//! The safety rules that every cluster case watches, as a pure collection of observations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

/// A step of a round in which a validator signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A proposal.
    Proposal,
    /// A prevote.
    Prevote,
    /// A precommit.
    Precommit,
}

/// A signed message as some node received it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignedMessage {
    /// Identity of the signer, hex.
    pub identity: String,
    /// Session key that signed, hex.
    pub session_key: String,
    /// Height it speaks of.
    pub height: u64,
    /// Round it speaks of.
    pub round: u32,
    /// Step it speaks of.
    pub step: Step,
    /// Exactly the bytes that were signed.
    pub signed_bytes: Vec<u8>,
}

/// A rule that was broken, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two hashes of one height.
    Fork {
        /// The height.
        height: u64,
        /// Which node has which hash.
        hashes: BTreeMap<String, BTreeSet<String>>,
    },
    /// Two different messages of one session key for one step.
    ConflictingSignatures {
        /// The signer's identity.
        identity: String,
        /// Height, round, step.
        at: (u64, u32, Step),
    },
    /// Two session keys of one identity at one height.
    TwoKeys {
        /// The signer's identity.
        identity: String,
        /// The height.
        height: u64,
    },
    /// A message that was seen is not in the signing log of the voter that signed it.
    NotInLog {
        /// The signer's identity.
        identity: String,
        /// Height, round, step.
        at: (u64, u32, Step),
    },
    /// A transaction that was answered `Final` is not in the chain of a node.
    LostTransaction {
        /// The transaction.
        id: String,
        /// The node that lacks it.
        node: String,
    },
    /// More voting power was silent at once than the case allows.
    BudgetExceeded {
        /// Voters that did not sign.
        silent: u64,
        /// Voters that the case may take.
        allowed: u64,
    },
    /// More pods of voters were stopping, not ready or missing at once than the case allows.
    TooManyAway {
        /// The voters.
        away: BTreeSet<String>,
        /// Voters that the case may take.
        allowed: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork { height, hashes } => write!(formatter, "fork at height {height}: {hashes:?}"),
            Self::ConflictingSignatures { identity, at: (height, round, step) } => {
                write!(formatter, "{identity} signed two messages for height {height}, round {round}, {step:?}")
            }
            Self::TwoKeys { identity, height } => {
                write!(formatter, "{identity} signed with two session keys at height {height}")
            }
            Self::NotInLog { identity, at: (height, round, step) } => {
                write!(
                    formatter,
                    "{identity} has no log of what it signed for height {height}, round {round}, {step:?}"
                )
            }
            Self::LostTransaction { id, node } => write!(formatter, "transaction {id} is missing on {node}"),
            Self::BudgetExceeded { silent, allowed } => {
                write!(formatter, "{silent} voters were silent at once, the case allows {allowed}")
            }
            Self::TooManyAway { away, allowed } => {
                write!(formatter, "the pods of {away:?} were away at once, the case allows {allowed}")
            }
        }
    }
}

/// What the signing log on a voter's volume holds: everything it signed at one height.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningLog {
    /// Identity of the voter, hex.
    pub identity: String,
    /// The height that the log belongs to.
    pub height: u64,
    /// The messages by round and step, as they travel.
    pub messages: BTreeMap<(u32, Step), BTreeSet<Vec<u8>>>,
}

/// Identity, height, round, step, session key: where only one message may be signed.
type Slot = (String, u64, u32, Step, String);

/// Everything seen so far.
#[derive(Debug, Default)]
pub struct Observations {
    hashes: BTreeMap<u64, BTreeMap<String, BTreeSet<String>>>,
    transactions: BTreeMap<String, BTreeSet<String>>,
    messages: BTreeMap<Slot, BTreeSet<Vec<u8>>>,
    keys: BTreeMap<(String, u64), BTreeSet<String>>,
    acknowledged: BTreeSet<String>,
    acknowledged_height: u64,
    logs: Vec<SigningLog>,
    silent_max: u64,
    away_most: BTreeSet<String>,
    times_ms: BTreeMap<u64, u64>,
}

/// How much was seen; a case whose figures are zero has watched nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Heights of which at least one block was seen.
    pub heights: usize,
    /// Different signed messages.
    pub messages: usize,
    /// Transactions that were answered `Final`.
    pub acknowledged: usize,
    /// Different messages that the signing logs on the volumes hold.
    pub logged: usize,
    /// Most voters that were silent at the same time.
    pub silent_max: u64,
    /// Most voters whose pods were away at the same time.
    pub away_max: usize,
    /// Longest time between two blocks, by the times in their headers; of every height that was seen with its successor.
    pub gap_max_ms: u64,
}

impl Counts {
    /// What two watches of one case saw.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            heights: self.heights + other.heights,
            messages: self.messages + other.messages,
            acknowledged: self.acknowledged + other.acknowledged,
            logged: self.logged + other.logged,
            silent_max: self.silent_max.max(other.silent_max),
            away_max: self.away_max.max(other.away_max),
            gap_max_ms: self.gap_max_ms.max(other.gap_max_ms),
        }
    }
}

impl Observations {
    /// A node shows a finalised block and the transactions in it.
    pub fn block(&mut self, node: &str, height: u64, hash: &str, transactions: &[String]) {
        let at_height = self.hashes.entry(height).or_default();
        at_height.entry(hash.to_string()).or_default().insert(node.to_string());
        let present = self.transactions.entry(node.to_string()).or_default();
        present.extend(transactions.iter().cloned());
    }

    /// The time in the header of a block.
    pub fn block_time(&mut self, height: u64, time_ms: u64) {
        self.times_ms.insert(height, time_ms);
    }

    /// Some node received a signed message.
    pub fn message(&mut self, message: SignedMessage) {
        let SignedMessage { identity, session_key, height, round, step, signed_bytes } = message;
        self.keys.entry((identity.clone(), height)).or_default().insert(session_key.clone());
        let at = (identity, height, round, step, session_key);
        self.messages.entry(at).or_default().insert(signed_bytes);
    }

    /// A signing log was read, after everything that is to be compared with it was seen.
    pub fn signing_log(&mut self, log: SigningLog) {
        self.logs.push(log);
    }

    /// A client was told that a transaction is final, in the block of this height.
    pub fn acknowledged(&mut self, id: &str, height: u64) {
        self.acknowledged.insert(id.to_string());
        self.acknowledged_height = self.acknowledged_height.max(height);
    }

    /// So many voters are not signing at this moment.
    pub fn silent(&mut self, voters: u64) {
        self.silent_max = self.silent_max.max(voters);
    }

    /// The pods of these voters are away at this moment.
    pub fn away(&mut self, voters: BTreeSet<String>) {
        if voters.len() > self.away_most.len() {
            self.away_most = voters;
        }
    }

    /// How much was seen.
    pub fn counts(&self) -> Counts {
        Counts {
            heights: self.hashes.len(),
            messages: self.messages.values().map(BTreeSet::len).sum(),
            acknowledged: self.acknowledged.len(),
            logged: self.logs.iter().flat_map(|log| log.messages.values()).map(BTreeSet::len).sum(),
            silent_max: self.silent_max,
            away_max: self.away_most.len(),
            gap_max_ms: self.gap_max_ms(),
        }
    }

    fn gap_max_ms(&self) -> u64 {
        let pairs = self.times_ms.iter().zip(self.times_ms.iter().skip(1));
        let next_to_each_other = pairs.filter(|((height, _), (next, _))| **height + 1 == **next);
        next_to_each_other.map(|((_, time), (_, next))| next.saturating_sub(*time)).max().unwrap_or(0)
    }

    /// Highest height of which a block was seen.
    pub fn height_max(&self) -> u64 {
        self.hashes.keys().next_back().copied().unwrap_or(0)
    }

    /// Highest height of a block that was seen, or that holds what was acknowledged.
    pub fn height_to_read(&self) -> u64 {
        self.height_max().max(self.acknowledged_height)
    }

    /// The rules that were broken. `nodes` must all hold every acknowledged transaction; `away_allowed` voters may have
    /// been silent at once, and the pods of as many away.
    pub fn violations(&self, nodes: &[String], away_allowed: u64) -> Vec<Violation> {
        let mut found = vec![];
        for (height, hashes) in &self.hashes {
            if hashes.len() > 1 {
                found.push(Violation::Fork { height: *height, hashes: hashes.clone() });
            }
        }
        for ((identity, height, round, step, _), bytes) in &self.messages {
            if bytes.len() > 1 {
                let at = (*height, *round, *step);
                found.push(Violation::ConflictingSignatures { identity: identity.clone(), at });
            }
        }
        for ((identity, height), keys) in &self.keys {
            if keys.len() > 1 {
                found.push(Violation::TwoKeys { identity: identity.clone(), height: *height });
            }
        }
        found.extend(self.logs.iter().flat_map(|log| self.against_log(log)));
        for node in nodes {
            let present = self.transactions.get(node);
            for id in &self.acknowledged {
                if !present.is_some_and(|present| present.contains(id)) {
                    found.push(Violation::LostTransaction { id: id.clone(), node: node.clone() });
                }
            }
        }
        if self.silent_max > away_allowed {
            found.push(Violation::BudgetExceeded { silent: self.silent_max, allowed: away_allowed });
        }
        if u64::try_from(self.away_most.len()).unwrap_or(u64::MAX) > away_allowed {
            found.push(Violation::TooManyAway { away: self.away_most.clone(), allowed: away_allowed });
        }
        found
    }

    /// Disk before wire: what was seen of a voter at the height of its log is in the log, and nothing else beside it.
    fn against_log<'a>(&'a self, log: &'a SigningLog) -> impl Iterator<Item = Violation> + 'a {
        let twice = log.messages.iter().filter(|(_, bytes)| bytes.len() > 1).map(|((round, step), _)| {
            Violation::ConflictingSignatures { identity: log.identity.clone(), at: (log.height, *round, *step) }
        });
        let seen = self
            .messages
            .iter()
            .filter(|((identity, height, ..), _)| *identity == log.identity && *height == log.height);
        let unlogged = seen.filter_map(|((identity, height, round, step, _), bytes)| {
            let logged = log.messages.get(&(*round, *step));
            let whole = logged.is_some_and(|logged| bytes.is_subset(logged));
            (!whole).then(|| Violation::NotInLog { identity: identity.clone(), at: (*height, *round, *step) })
        });
        twice.chain(unlogged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(session_key: &str, signed_bytes: &[u8]) -> SignedMessage {
        SignedMessage {
            identity: "a".into(),
            session_key: session_key.into(),
            height: 7,
            round: 0,
            step: Step::Precommit,
            signed_bytes: signed_bytes.to_vec(),
        }
    }

    #[test]
    fn a_clean_run_has_no_violation() {
        let mut seen = Observations::default();
        seen.block("one", 7, "h", &["t".into()]);
        seen.block("two", 7, "h", &["t".into()]);
        seen.message(vote("k", b"x"));
        seen.message(vote("k", b"x"));
        seen.acknowledged("t", 1);
        seen.signing_log(log(&[b"x"]));
        seen.silent(1);
        seen.away(["one".into()].into());
        assert_eq!(seen.violations(&["one".into(), "two".into()], 1), vec![]);
        assert_eq!(
            seen.counts(),
            Counts { heights: 1, messages: 1, acknowledged: 1, logged: 1, silent_max: 1, away_max: 1, gap_max_ms: 0 }
        );
    }

    /// The signing log of voter `a` at height 7 with these precommits of round 0.
    fn log(precommits: &[&[u8]]) -> SigningLog {
        let messages = precommits.iter().map(|bytes| bytes.to_vec()).collect();
        SigningLog { identity: "a".into(), height: 7, messages: BTreeMap::from([((0, Step::Precommit), messages)]) }
    }

    #[test]
    fn a_message_that_is_not_in_its_log_is_found() {
        let mut seen = Observations::default();
        seen.message(vote("k", b"x"));
        seen.signing_log(SigningLog { messages: BTreeMap::new(), ..log(&[]) });
        seen.signing_log(log(&[b"y"]));
        let expected = Violation::NotInLog { identity: "a".into(), at: (7, 0, Step::Precommit) };
        assert_eq!(seen.violations(&[], 0), vec![expected.clone(), expected]);
    }

    #[test]
    fn a_log_of_another_height_or_voter_says_nothing_about_a_message() {
        let mut seen = Observations::default();
        seen.message(vote("k", b"x"));
        seen.signing_log(SigningLog { height: 8, ..log(&[]) });
        seen.signing_log(SigningLog { identity: "b".into(), ..log(&[]) });
        assert_eq!(seen.violations(&[], 0), vec![]);
    }

    #[test]
    fn two_messages_of_one_step_in_a_log_conflict() {
        let mut seen = Observations::default();
        seen.signing_log(log(&[b"x", b"y"]));
        let expected = Violation::ConflictingSignatures { identity: "a".into(), at: (7, 0, Step::Precommit) };
        assert_eq!(seen.violations(&[], 0), vec![expected]);
    }

    #[test]
    fn the_longest_gap_is_between_neighbours() {
        let mut seen = Observations::default();
        for (height, time_ms) in [(1, 1_000), (2, 1_500), (3, 2_700), (7, 9_000)] {
            seen.block_time(height, time_ms);
        }
        assert_eq!(seen.counts().gap_max_ms, 1_200);
    }

    #[test]
    fn two_hashes_of_one_height_are_a_fork() {
        let mut seen = Observations::default();
        seen.block("one", 7, "h", &[]);
        seen.block("two", 7, "g", &[]);
        assert!(matches!(seen.violations(&[], 0).as_slice(), [Violation::Fork { height: 7, .. }]));
    }

    #[test]
    fn two_messages_of_one_step_conflict() {
        let mut seen = Observations::default();
        seen.message(vote("k", b"x"));
        seen.message(vote("k", b"y"));
        let expected = Violation::ConflictingSignatures { identity: "a".into(), at: (7, 0, Step::Precommit) };
        assert_eq!(seen.violations(&[], 0), vec![expected]);
    }

    #[test]
    fn two_keys_at_one_height_are_found() {
        let mut seen = Observations::default();
        seen.message(vote("k", b"x"));
        seen.message(vote("l", b"x"));
        assert_eq!(seen.violations(&[], 0), vec![Violation::TwoKeys { identity: "a".into(), height: 7 }]);
    }

    #[test]
    fn an_acknowledged_transaction_must_be_on_every_node() {
        let mut seen = Observations::default();
        seen.block("one", 7, "h", &["t".into()]);
        seen.acknowledged("t", 1);
        let expected = Violation::LostTransaction { id: "t".into(), node: "two".into() };
        assert_eq!(seen.violations(&["one".into(), "two".into()], 0), vec![expected]);
    }

    #[test]
    fn more_silent_voters_than_allowed_are_found() {
        let mut seen = Observations::default();
        seen.silent(2);
        assert_eq!(seen.violations(&[], 1), vec![Violation::BudgetExceeded { silent: 2, allowed: 1 }]);
    }

    #[test]
    fn more_pods_away_than_allowed_are_found_although_nobody_was_silent_for_long() {
        let mut seen = Observations::default();
        let two: BTreeSet<String> = ["one".into(), "two".into()].into();
        for away in [["one".into()].into(), two.clone(), BTreeSet::new()] {
            seen.away(away);
        }
        assert_eq!(seen.violations(&[], 2), vec![]);
        assert_eq!(seen.violations(&[], 1), vec![Violation::TooManyAway { away: two, allowed: 1 }]);
    }

    #[test]
    fn the_figures_of_two_watches_are_sums_and_worst_values() {
        let one = Counts { heights: 5, acknowledged: 1, away_max: 1, gap_max_ms: 700, ..Counts::default() };
        let two = Counts { heights: 3, acknowledged: 4, silent_max: 2, gap_max_ms: 600, ..Counts::default() };
        let both =
            Counts { heights: 8, acknowledged: 5, silent_max: 2, away_max: 1, gap_max_ms: 700, ..Counts::default() };
        assert_eq!(one.with(two), both);
    }
}
