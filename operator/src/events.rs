//! Events: one for each change of a condition, and for what a person should know beside them.

use std::sync::{Mutex, PoisonError};

use althing_crds::{Condition, ConditionStatus, ConditionType};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube_runtime::events::{Event, EventType, Recorder, Reporter};

use crate::error::Error;
use crate::lease::Leadership;

/// Events that are remembered.
const REMEMBERED_MAX: usize = 500;
/// Most characters that the API server takes in a note.
const NOTE_CHARACTERS_MAX: usize = 1_000;

/// An event before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// True for a Warning.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// One sentence.
    pub note: String,
}

impl Draft {
    /// Something that a person should look at.
    pub fn warning(reason: &str, note: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.to_string(), note: note.into() }
    }

    /// Something that went as it should.
    pub fn normal(reason: &str, note: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.to_string(), note: note.into() }
    }
}

/// The events that a change of conditions deserves: one for each condition that begins or ceases to hold, and one for
/// each bad one that holds for another reason than before. The steps on the way there, of which every start has several
/// for each object, stand in the conditions alone, and so does what being Ready says too.
pub fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let holds = |condition: &Condition| condition.status == ConditionStatus::True;
    let is_ready = |conditions: &[Condition]| {
        conditions.iter().any(|condition| condition.kind == ConditionType::Ready && holds(condition))
    };
    let becomes_ready = is_ready(after) && !is_ready(before);
    for condition in after {
        let former = before.iter().find(|former| former.kind == condition.kind);
        let same_status = former.is_some_and(|former| holds(former) == holds(condition) || is_a_step(condition));
        let same_reason = former.is_some_and(|former| former.reason == condition.reason);
        let bad = is_bad(condition);
        let worth_saying = match former {
            // The first statement about an object is news only when it is bad news.
            None => bad,
            Some(former) => !same_status || (bad && (!same_reason || former.status != condition.status)),
        };
        if worth_saying && !(becomes_ready && holds(condition) && is_part_of_ready(condition)) {
            let note = format!("{} is {}: {}", condition.kind.as_str(), word(condition.status), condition.message);
            drafts.push(Draft { warning: bad, reason: condition.reason.clone(), note });
        }
    }
    drafts
}

/// Says how far the way to Ready is.
fn is_a_step(condition: &Condition) -> bool {
    match condition.kind {
        ConditionType::Reconciling | ConditionType::Synced => true,
        ConditionType::Stalled
        | ConditionType::Available
        | ConditionType::QuorumAtRisk
        | ConditionType::Ready
        | ConditionType::Signing => false,
    }
}

/// What is Ready has it.
fn is_part_of_ready(condition: &Condition) -> bool {
    match condition.kind {
        ConditionType::Available | ConditionType::Signing | ConditionType::Synced => true,
        ConditionType::Stalled | ConditionType::QuorumAtRisk | ConditionType::Ready | ConditionType::Reconciling => {
            false
        }
    }
}

fn is_bad(condition: &Condition) -> bool {
    match condition.kind {
        ConditionType::Stalled => condition.status == ConditionStatus::True,
        ConditionType::Available => condition.status == ConditionStatus::False && condition.reason != "NotStarted",
        ConditionType::QuorumAtRisk
        | ConditionType::Ready
        | ConditionType::Reconciling
        | ConditionType::Synced
        | ConditionType::Signing => false,
    }
}

fn word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "true",
        ConditionStatus::False => "false",
        ConditionStatus::Unknown => "unknown",
    }
}

/// Sends events.
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorder: Mutex<(Recorder, usize)>,
}

impl Events {
    /// Events in the name of this process.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter =
            Reporter { controller: "althing.dev/operator".to_string(), instance: Some(instance.to_string()) };
        let recorder = Mutex::new((Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, reporter, recorder }
    }

    /// A recorder remembers every event for minutes, so that the same one again is counted and not sent: after enough of them
    /// another one takes its place.
    fn recorder(&self) -> Recorder {
        let mut kept = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1 += 1;
        if kept.1 > REMEMBERED_MAX {
            *kept = (Recorder::new(self.client.clone(), self.reporter.clone()), 1);
        }
        kept.0.clone()
    }

    /// Sends events about one object. A lost event is logged and not tried again.
    pub async fn publish(&self, leadership: &Leadership, about: &ObjectReference, drafts: &[Draft]) {
        for draft in drafts {
            let event = Event {
                type_: if draft.warning { EventType::Warning } else { EventType::Normal },
                reason: draft.reason.clone(),
                note: Some(draft.note.chars().take(NOTE_CHARACTERS_MAX).collect()),
                action: "Reconcile".to_string(),
                secondary: None,
            };
            let sent = match leadership.remaining() {
                Ok(limit) => tokio::time::timeout(limit, self.recorder().publish(&event, about)).await,
                Err(error) => {
                    tracing::debug!(%error, reason = %draft.reason, "event not sent");
                    return;
                }
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, reason = %draft.reason, "event not sent"),
                Err(_) => tracing::warn!(error = %Error::LeadershipLost, reason = %draft.reason, "event not sent"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use althing_crds::Reason;
    use althing_crds::conditions::{Statement, merge};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn conditions(statements: &[Statement]) -> Vec<Condition> {
        merge(&[], statements, 1, &Time(Timestamp::UNIX_EPOCH))
    }

    fn stalled(status: ConditionStatus, reason: Reason) -> Statement {
        Statement::new(ConditionType::Stalled, status, reason, "why")
    }

    #[test]
    fn saying_the_same_again_is_no_event() {
        let same = conditions(&[stalled(ConditionStatus::True, Reason::NameTaken)]);
        assert_eq!(transitions(&same, &same), []);
    }

    #[test]
    fn a_stall_is_a_warning_and_its_end_is_not() {
        let bad = conditions(&[stalled(ConditionStatus::True, Reason::NameTaken)]);
        let good = conditions(&[stalled(ConditionStatus::False, Reason::NotStalled)]);
        assert_eq!(transitions(&[], &bad), [Draft::warning("NameTaken", "Stalled is true: why")]);
        assert_eq!(transitions(&bad, &good), [Draft::normal("NotStalled", "Stalled is false: why")]);
        assert_eq!(transitions(&[], &good), []);
    }

    #[test]
    fn steps_on_the_way_are_no_events() {
        let of = |kind, status| conditions(&[Statement::new(kind, status, Reason::Pending, "why")]);
        let count = |kind, before, after| transitions(&of(kind, before), &of(kind, after)).len();
        assert_eq!(count(ConditionType::Reconciling, ConditionStatus::True, ConditionStatus::False), 0);
        assert_eq!(count(ConditionType::Ready, ConditionStatus::Unknown, ConditionStatus::False), 0);
        assert_eq!(count(ConditionType::Ready, ConditionStatus::False, ConditionStatus::True), 1);
        assert_eq!(count(ConditionType::Signing, ConditionStatus::True, ConditionStatus::Unknown), 1);
        assert_eq!(count(ConditionType::Available, ConditionStatus::Unknown, ConditionStatus::False), 1);
    }

    #[test]
    fn what_becomes_ready_is_one_event() {
        let of = |status| {
            let kinds = [ConditionType::Ready, ConditionType::Synced, ConditionType::Signing];
            conditions(&kinds.map(|kind| Statement::new(kind, status, Reason::Pending, "why")))
        };
        let (not, ready) = (of(ConditionStatus::False), of(ConditionStatus::True));
        let said =
            |before, after| -> Vec<String> { transitions(before, after).into_iter().map(|draft| draft.note).collect() };
        assert_eq!(said(&not, &ready), ["Ready is true: why"]);
        assert_eq!(said(&ready, &not), ["Ready is false: why", "Signing is false: why"], "bad news is told whole");
        let mut signs = not.clone();
        signs[2] = ready[2].clone();
        assert_eq!(said(&not, &signs), ["Signing is true: why"], "without being Ready");
    }

    #[test]
    fn another_reason_to_stall_is_said_too() {
        let before = conditions(&[stalled(ConditionStatus::True, Reason::NameTaken)]);
        let after = conditions(&[stalled(ConditionStatus::True, Reason::IdentityLost)]);
        assert_eq!(transitions(&before, &after).len(), 1);
    }
}
