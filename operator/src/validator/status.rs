//! What is said of a node: only what the chain and the node itself show.

use althing_crds::conditions::{self, Statement};
use althing_crds::names;
use althing_crds::validator::Role;
use althing_crds::{Condition, ConditionStatus, ConditionType, Reason, ValidatorNodeStatus};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_api::proto::{GetStatusResponse, NodeState, SessionState};

use super::observe::{Answer, ChainKnown, Observed};
use super::volume;
use crate::chain::agreement::VoterFact;
use crate::refusal::Refusal;

/// How far the reconcile came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was done: only a person can help.
    Refused(Refusal),
    /// Nothing was done: the object is paused.
    Paused,
    /// Something that the children need is not there yet.
    Waiting(String),
    /// Children were written.
    Applied,
    /// All children are as they shall be.
    Unchanged,
}

/// A node may be this many blocks behind what f+1 voters report and still count as caught up.
const LAG_MAX: u64 = 3;

/// The new status.
pub fn next(observed: &Observed, progress: &Progress, now: &Time) -> ValidatorNodeStatus {
    let before = observed.node.status.clone().unwrap_or_default();
    let generation = observed.node.metadata.generation.unwrap_or(0);
    let synced = synced(observed);
    let signing = signing(observed);
    let reconciling = reconciling(observed, progress);
    let stalled = stalled(observed, progress);
    let ready = ready(observed, &[&synced, &signing, &stalled]);
    let mut statements = vec![ready, reconciling, stalled];
    // Before this process has asked the voters it has nothing new to say about the chain.
    let is_first_look = observed.chain == ChainKnown::NotAsked
        && conditions::find(&before.conditions, ConditionType::Signing).is_some();
    if is_first_look {
        statements.retain(|statement| statement.kind != ConditionType::Ready);
    } else {
        statements.extend([synced, signing]);
    }
    let said = match &observed.answer {
        Answer::Says(said) => Some(said.as_ref()),
        Answer::NoPod | Answer::Silent(_) => None,
    };
    let fact = fact(observed);
    ValidatorNodeStatus {
        observed_generation: Some(generation),
        conditions: in_order(conditions::merge(&before.conditions, &statements, generation, now)),
        genesis_hash: said
            .filter(|said| !said.genesis_hash.is_empty())
            .map(|said| hex::encode(&said.genesis_hash))
            .or(before.genesis_hash),
        session_key: fact.and_then(|fact| fact.session.as_ref()).map(|(key, _)| key.clone()).or(before.session_key),
        epoch: fact
            .and_then(|fact| fact.session.as_ref())
            .and_then(|(_, epoch)| i64::try_from(*epoch).ok())
            .or(before.epoch),
        power: observed.power().and_then(|power| i64::try_from(power).ok()).or(before.power),
        version: said.map(|said| said.version.clone()).or(before.version),
        volume_used: said.and_then(volume::used).map(str::to_string).or(before.volume_used),
        p2p_address: observed.external_address.clone(),
        identity: before.identity,
        claim_uid: before.claim_uid,
        children_hash: observed.children_hash.clone(),
    }
}

/// True when nothing is expected to change by itself.
pub fn is_settled(status: &ValidatorNodeStatus) -> bool {
    conditions::holds(&status.conditions, ConditionType::Ready)
        && !conditions::holds(&status.conditions, ConditionType::Reconciling)
}

fn in_order(mut conditions: Vec<Condition>) -> Vec<Condition> {
    let place = |condition: &Condition| ConditionType::OF_NODES.iter().position(|kind| *kind == condition.kind);
    conditions.sort_by_key(place);
    conditions
}

fn fact(observed: &Observed) -> Option<&VoterFact> {
    let identity = observed.recorded_identity()?;
    match &observed.chain {
        ChainKnown::Known(facts) => facts.voters.get(identity),
        ChainKnown::Unknown | ChainKnown::NotAsked => None,
    }
}

fn synced(observed: &Observed) -> Statement {
    let say = |status, reason, message: &str| Statement::new(ConditionType::Synced, status, reason, message);
    let said = match &observed.answer {
        Answer::NoPod => return say(ConditionStatus::Unknown, Reason::PodNotRunning, "there is no running pod"),
        Answer::Silent(_) => return say(ConditionStatus::Unknown, Reason::Unreachable, "the node does not answer"),
        Answer::Says(said) => said,
    };
    if !has_started(said) {
        return say(ConditionStatus::False, Reason::NotStarted, "the node waits for its genesis");
    }
    match &observed.chain {
        ChainKnown::Known(facts) if !said.synced || said.height.saturating_add(LAG_MAX) < facts.height => {
            say(ConditionStatus::False, Reason::CatchingUp, "the node is fetching blocks")
        }
        ChainKnown::Known(_) => say(ConditionStatus::True, Reason::CaughtUp, "the node has the last blocks"),
        ChainKnown::Unknown | ChainKnown::NotAsked => {
            say(ConditionStatus::Unknown, Reason::ChainUnknown, "too few voters answer to know the chain's height")
        }
    }
}

fn signing(observed: &Observed) -> Statement {
    let say = |status, reason, message: &str| Statement::new(ConditionType::Signing, status, reason, message);
    let facts = match &observed.chain {
        ChainKnown::Known(facts) => facts,
        ChainKnown::Unknown | ChainKnown::NotAsked => {
            let started = observed.group.as_ref().and_then(|group| group.status.as_ref());
            return if started.is_some_and(|status| status.genesis_hash.is_some()) {
                say(ConditionStatus::Unknown, Reason::ChainUnknown, "too few voters answer to know who signs")
            } else {
                say(ConditionStatus::False, Reason::NotStarted, "the chain has not started")
            };
        }
    };
    match observed.recorded_identity().and_then(|identity| facts.voters.get(identity)) {
        Some(voter) if voter.is_signing => {
            say(ConditionStatus::True, Reason::VotesSeen, "the other voters see its precommits")
        }
        Some(_) if waits_for_proof(observed) => say(
            ConditionStatus::False,
            Reason::WaitingForGrant,
            "the node waits for proof that the former owner of its key has ended",
        ),
        Some(_) => say(ConditionStatus::False, Reason::VotesMissing, "the other voters do not see its precommits"),
        None => say(ConditionStatus::False, Reason::NotAVoter, "the node has no power on the chain"),
    }
}

fn session_state(observed: &Observed) -> Option<SessionState> {
    match &observed.answer {
        Answer::Says(said) => said.session.as_ref().map(node_api::proto::Session::state),
        Answer::NoPod | Answer::Silent(_) => None,
    }
}

fn waits_for_proof(observed: &Observed) -> bool {
    session_state(observed) == Some(SessionState::WaitingForProof)
}

fn has_started(said: &GetStatusResponse) -> bool {
    match said.state() {
        NodeState::Unspecified | NodeState::WaitingForGenesis | NodeState::GenesisAccepted => false,
        NodeState::WaitingForGrant | NodeState::Syncing | NodeState::Running | NodeState::Halted => true,
    }
}

fn stalled(observed: &Observed, progress: &Progress) -> Statement {
    let yes = |reason, message: String| Statement::new(ConditionType::Stalled, ConditionStatus::True, reason, message);
    if let Progress::Refused(refusal) = progress {
        return yes(refusal.reason, refusal.message.clone());
    }
    match session_state(observed) {
        Some(SessionState::IdentityContested) => {
            return yes(
                Reason::IdentityContested,
                "another process with this identity replaced the session key; find it before anything else".to_string(),
            );
        }
        Some(SessionState::Compromised) => {
            return yes(
                Reason::NodeHalted,
                "the node saw a signature of its key that it did not make, or its volume is older than its votes"
                    .to_string(),
            );
        }
        Some(_) | None => {}
    }
    if let Answer::Says(said) = &observed.answer {
        if said.state() == NodeState::Halted {
            return yes(Reason::NodeHalted, format!("the node has stopped: {}", said.state_reason));
        }
        let recorded = observed
            .group
            .as_ref()
            .and_then(|group| group.status.as_ref())
            .and_then(|status| status.genesis_hash.clone());
        let held = hex::encode(&said.genesis_hash);
        if let Some(recorded) = recorded.filter(|recorded| !held.is_empty() && *recorded != held) {
            return yes(
                Reason::RetainedDataMismatch,
                format!("the volume holds genesis {held}, the chain has {recorded}"),
            );
        }
    }
    Statement::new(ConditionType::Stalled, ConditionStatus::False, Reason::NotStalled, "nothing needs a person")
}

fn reconciling(observed: &Observed, progress: &Progress) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::Reconciling, status, reason, message);
    match progress {
        // kstatus takes a stalled object that still reconciles as one in progress.
        Progress::Refused(_) => say(ConditionStatus::False, Reason::NotStalled, "waiting for a person".to_string()),
        Progress::Paused => {
            say(ConditionStatus::False, Reason::Paused, "the annotation althing.dev/pause is set".to_string())
        }
        Progress::Waiting(why) => say(ConditionStatus::True, Reason::ApplyingChildren, why.clone()),
        Progress::Applied => {
            say(ConditionStatus::True, Reason::ApplyingChildren, "children were made or changed".to_string())
        }
        Progress::Unchanged if observed.pod.as_ref().is_none_or(|pod| !is_pod_ready(pod)) => {
            say(ConditionStatus::True, Reason::StartingNodes, "the pod is starting".to_string())
        }
        Progress::Unchanged => {
            say(ConditionStatus::False, Reason::UpToDate, "all children are as the spec says".to_string())
        }
    }
}

fn ready(observed: &Observed, others: &[&Statement]) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::Ready, status, reason, message);
    let Some(pod) = &observed.pod else {
        return say(ConditionStatus::False, Reason::PodNotRunning, "there is no pod".to_string());
    };
    if let Some(why) = failing(pod) {
        return say(ConditionStatus::False, Reason::PodFailing, why);
    }
    let is_voter = observed.node.spec.role == Role::Validator;
    for statement in others {
        let needed = match statement.kind {
            ConditionType::Stalled => ConditionStatus::False,
            ConditionType::Signing if !is_voter => continue,
            ConditionType::Synced
            | ConditionType::Signing
            | ConditionType::Ready
            | ConditionType::Reconciling
            | ConditionType::Available
            | ConditionType::QuorumAtRisk => ConditionStatus::True,
        };
        if statement.status != needed {
            let status = match statement.status {
                ConditionStatus::Unknown => ConditionStatus::Unknown,
                ConditionStatus::True | ConditionStatus::False => ConditionStatus::False,
            };
            return say(status, statement.reason, statement.message.clone());
        }
    }
    if !is_pod_ready(pod) {
        return say(ConditionStatus::False, Reason::PodNotRunning, "the pod is not ready".to_string());
    }
    say(ConditionStatus::True, Reason::NodesReady, "the node does its work".to_string())
}

/// The pod is ready and not about to go.
pub fn is_pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ready =
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}

/// The disruption budget counts the pod: it stands for a voter that signs.
pub fn is_counted(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(names::LABEL_VOTER)).is_some_and(|value| value == "true")
}

/// Why the pod cannot start, if it cannot.
pub fn failing(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.as_ref().into_iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    if let Some(condition) = unschedulable {
        return Some(format!("the pod finds no machine: {}", condition.message.clone().unwrap_or_default()));
    }
    let node = status.container_statuses.as_ref()?.iter().find(|status| status.name == names::CONTAINER)?;
    if let Some(why) = ended_again(node) {
        return Some(why);
    }
    let waiting = node.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let is_harmless = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    // The kubelet's words change with each try; what is wrong does not.
    let what = match reason {
        "ErrImagePull" | "ImagePullBackOff" => "its image cannot be pulled",
        "CrashLoopBackOff" => "it ends again and again, see its logs",
        "ErrImageNeverPull" | "InvalidImageName" => "its image cannot be used",
        other => other,
    };
    let image = node.image.as_str();
    (!is_harmless).then(|| format!("the container waits: {what} ({image})"))
}

/// A process that failed once may do better the second time; one that failed twice and is not ready does not start.
fn ended_again(node: &ContainerStatus) -> Option<String> {
    let last = node.last_state.as_ref()?.terminated.as_ref()?;
    let fails = last.exit_code != 0 && node.restart_count >= 2 && !node.ready;
    fails.then(|| format!("the container waits: it ends again and again, see its logs ({})", node.image))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::super::fixtures::{IDENTITY, facts, observed, says};
    use super::*;

    type Change = fn(&mut Observed);

    fn now() -> Time {
        Time(Timestamp::UNIX_EPOCH)
    }

    /// `Ready=True/NodesReady Reconciling=False/UpToDate ...`
    fn said(observed: &Observed, progress: &Progress) -> String {
        let status = next(observed, progress, &now());
        let words: Vec<String> = status
            .conditions
            .iter()
            .map(|condition| format!("{}={:?}/{}", condition.kind.as_str(), condition.status, condition.reason))
            .collect();
        words.join(" ")
    }

    #[test]
    fn a_healthy_node_is_ready_because_others_see_its_votes() {
        assert_eq!(
            said(&observed(), &Progress::Unchanged),
            "Ready=True/NodesReady Reconciling=False/UpToDate Stalled=False/NotStalled Synced=True/CaughtUp Signing=True/VotesSeen"
        );
        let status = next(&observed(), &Progress::Unchanged, &now());
        assert_eq!((status.power, status.epoch, status.session_key.as_deref()), (Some(1), Some(1), Some("5e55")));
        assert!(is_settled(&status));
    }

    #[test]
    fn each_state_of_a_node_is_said_as_it_is() {
        let cases: [(&str, Change, &str); 8] = [
            (
                "no answer",
                |seen| seen.answer = Answer::Silent("refused".into()),
                "Ready=Unknown/Unreachable Reconciling=False/UpToDate Stalled=False/NotStalled Synced=Unknown/Unreachable Signing=True/VotesSeen",
            ),
            (
                "no pod",
                |seen| {
                    seen.pod = None;
                    seen.answer = Answer::NoPod;
                },
                "Ready=False/PodNotRunning Reconciling=True/StartingNodes Stalled=False/NotStalled Synced=Unknown/PodNotRunning Signing=True/VotesSeen",
            ),
            (
                "chain unknown",
                |seen| seen.chain = ChainKnown::Unknown,
                "Ready=Unknown/ChainUnknown Reconciling=False/UpToDate Stalled=False/NotStalled Synced=Unknown/ChainUnknown Signing=Unknown/ChainUnknown",
            ),
            (
                "votes missing",
                |seen| {
                    let mut chain = facts(&[IDENTITY]);
                    chain.voters.get_mut(IDENTITY).expect("there").is_signing = false;
                    seen.chain = ChainKnown::Known(Box::new(chain));
                },
                "Ready=False/VotesMissing Reconciling=False/UpToDate Stalled=False/NotStalled Synced=True/CaughtUp Signing=False/VotesMissing",
            ),
            (
                "far behind what f+1 report",
                |seen| {
                    let mut chain = facts(&[IDENTITY]);
                    chain.height = 104;
                    seen.chain = ChainKnown::Known(Box::new(chain));
                },
                "Ready=False/CatchingUp Reconciling=False/UpToDate Stalled=False/NotStalled Synced=False/CatchingUp Signing=True/VotesSeen",
            ),
            (
                "another genesis",
                |seen| {
                    let mut other = says();
                    other.genesis_hash = vec![1; 32];
                    seen.answer = Answer::Says(Box::new(other));
                },
                "Ready=False/RetainedDataMismatch Reconciling=False/UpToDate Stalled=True/RetainedDataMismatch Synced=True/CaughtUp Signing=True/VotesSeen",
            ),
            (
                "halted",
                |seen| {
                    let mut halted = says();
                    halted.state = node_api::proto::NodeState::Halted.into();
                    seen.answer = Answer::Says(Box::new(halted));
                },
                "Ready=False/NodeHalted Reconciling=False/UpToDate Stalled=True/NodeHalted Synced=True/CaughtUp Signing=True/VotesSeen",
            ),
            (
                "contested",
                |seen| {
                    let mut contested = says();
                    let state = SessionState::IdentityContested.into();
                    contested.session = Some(node_api::proto::Session { state, ..Default::default() });
                    seen.answer = Answer::Says(Box::new(contested));
                },
                "Ready=False/IdentityContested Reconciling=False/UpToDate Stalled=True/IdentityContested Synced=True/CaughtUp Signing=True/VotesSeen",
            ),
        ];
        for (name, change, expected) in cases {
            let mut seen = observed();
            change(&mut seen);
            assert_eq!(said(&seen, &Progress::Unchanged), expected, "{name}");
        }
    }

    #[test]
    fn a_refusal_stalls_and_does_not_reconcile() {
        let refusal = Refusal::new(Reason::IdentityLost, "gone");
        let said = said(&observed(), &Progress::Refused(refusal));
        assert!(
            said.starts_with("Ready=False/IdentityLost Reconciling=False/NotStalled Stalled=True/IdentityLost"),
            "{said}"
        );
    }

    #[test]
    fn before_the_first_answers_nothing_new_is_said_about_the_chain() {
        let mut seen = observed();
        seen.node.status = Some(next(&seen, &Progress::Unchanged, &now()));
        let before = seen.node.status.clone();
        seen.chain = ChainKnown::NotAsked;
        assert_eq!(Some(next(&seen, &Progress::Unchanged, &now())), before);
    }

    #[test]
    fn at_rest_the_status_is_the_same() {
        let mut seen = observed();
        seen.node.status = Some(next(&seen, &Progress::Unchanged, &now()));
        let later = Time(Timestamp::from_second(3_600).expect("a time"));
        let mut says = says();
        says.height = 101;
        seen.answer = Answer::Says(Box::new(says));
        assert_eq!(Some(next(&seen, &Progress::Unchanged, &later)), seen.node.status);
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named() {
        let mut pod = super::super::fixtures::pod("demo-main-0");
        let waiting = "{name: node, image: a, imageID: a, ready: false, restartCount: 0, state: {waiting: {reason: ImagePullBackOff}}}";
        let status = serde_yaml::from_str(waiting).expect("parses");
        pod.status.as_mut().expect("there").container_statuses = Some(vec![status]);
        assert_eq!(failing(&pod), Some("the container waits: its image cannot be pulled (a)".to_string()));
    }
}
