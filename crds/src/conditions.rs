//! Conditions: what is true of an object, since when and why, with the rules by which they change.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reasons::Reason;
use crate::schemas;

/// Longest message that is kept; the rest is cut off.
pub const MESSAGE_BYTES_MAX: usize = 1_024;

/// One thing that is true, false or unknown of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is spoken about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// True, False, or Unknown when it cannot be seen now.
    pub status: ConditionStatus,
    /// Generation of the spec that this was said about.
    #[serde(default)]
    pub observed_generation: i64,
    /// When the status last changed.
    #[schemars(schema_with = "schemas::time")]
    pub last_transition_time: Time,
    /// One word for programs.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"))]
    pub reason: String,
    /// One sentence for people.
    #[schemars(length(max = 1_024))]
    pub message: String,
}

/// What a condition speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// The object is what its spec says and does its work.
    Ready,
    /// The operator is changing something.
    Reconciling,
    /// Only a person can help.
    Stalled,
    /// Networks and groups: a quorum signs and the last block is young.
    Available,
    /// Networks and groups: one more failure may stop the chain.
    QuorumAtRisk,
    /// Nodes: it has the chain's last blocks.
    Synced,
    /// Nodes: the other voters see its votes.
    Signing,
}

impl ConditionType {
    /// The conditions of a BlockchainNetwork and of a ConsensusGroup.
    pub const OF_GROUPS: [Self; 5] =
        [Self::Ready, Self::Reconciling, Self::Stalled, Self::Available, Self::QuorumAtRisk];
    /// The conditions of a ValidatorNode.
    pub const OF_NODES: [Self; 5] = [Self::Ready, Self::Reconciling, Self::Stalled, Self::Synced, Self::Signing];

    /// The name in `status.conditions[].type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Available => "Available",
            Self::QuorumAtRisk => "QuorumAtRisk",
            Self::Synced => "Synced",
            Self::Signing => "Signing",
        }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be seen now.
    Unknown,
}

/// What shall be said from now on; [`merge`] turns it into a [`Condition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What is spoken about.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why.
    pub reason: Reason,
    /// The same for people, one sentence.
    pub message: String,
}

impl Statement {
    /// A statement.
    #[must_use]
    pub fn new(kind: ConditionType, status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// The conditions of the new status: one for each statement, in the order given. The transition time of a condition
/// moves to `now` only when its status changes, so that saying the same again writes nothing. Conditions that no
/// statement speaks about are kept behind the others.
#[must_use]
pub fn merge(current: &[Condition], statements: &[Statement], generation: i64, now: &Time) -> Vec<Condition> {
    let spoken_of = |condition: &&Condition| statements.iter().any(|statement| statement.kind == condition.kind);
    let fresh = statements.iter().map(|statement| {
        let before = current.iter().find(|condition| condition.kind == statement.kind);
        let unchanged = before.filter(|condition| condition.status == statement.status);
        Condition {
            kind: statement.kind,
            status: statement.status,
            observed_generation: generation,
            last_transition_time: unchanged
                .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone()),
            reason: statement.reason.as_str().to_string(),
            message: cut(&statement.message),
        }
    });
    fresh.chain(current.iter().filter(|condition| !spoken_of(condition)).cloned()).collect()
}

/// The condition of this type.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// True if there is a condition of this type and its status is `True`.
#[must_use]
pub fn holds(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status == ConditionStatus::True)
}

fn cut(message: &str) -> String {
    let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    message.get(..end).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time(text.parse().expect("a time"))
    }

    fn ready(status: ConditionStatus, message: &str) -> Statement {
        Statement::new(ConditionType::Ready, status, Reason::NodesReady, message)
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let first = merge(&[], &[ready(ConditionStatus::True, "all run")], 1, &at("2026-01-01T00:00:00Z"));
        let again = merge(&first, &[ready(ConditionStatus::True, "all run")], 1, &at("2026-01-02T00:00:00Z"));
        assert_eq!(first, again);
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = merge(&[], &[ready(ConditionStatus::True, "a")], 1, &at("2026-01-01T00:00:00Z"));
        let reworded = merge(&first, &[ready(ConditionStatus::True, "b")], 2, &at("2026-01-02T00:00:00Z"));
        assert_eq!(reworded[0].last_transition_time, at("2026-01-01T00:00:00Z"));
        assert_eq!((reworded[0].message.as_str(), reworded[0].observed_generation), ("b", 2));
        let turned = merge(&reworded, &[ready(ConditionStatus::False, "b")], 2, &at("2026-01-03T00:00:00Z"));
        assert_eq!(turned[0].last_transition_time, at("2026-01-03T00:00:00Z"));
    }

    #[test]
    fn conditions_that_nobody_speaks_about_are_kept() {
        let first = merge(&[], &[ready(ConditionStatus::True, "a")], 1, &at("2026-01-01T00:00:00Z"));
        let stalled = Statement::new(ConditionType::Stalled, ConditionStatus::False, Reason::NotStalled, "");
        let both = merge(&first, &[stalled], 1, &at("2026-01-02T00:00:00Z"));
        assert_eq!(
            both.iter().map(|condition| condition.kind).collect::<Vec<_>>(),
            [ConditionType::Stalled, ConditionType::Ready]
        );
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let conditions =
            merge(&[], &[ready(ConditionStatus::True, &"ä".repeat(1_000))], 1, &at("2026-01-01T00:00:00Z"));
        assert!(conditions[0].message.len() <= MESSAGE_BYTES_MAX);
    }
}
