//! What is said of a node: only what the chain and the node itself show.

use althing_crds::conditions::{self, Statement};
use althing_crds::names;
use althing_crds::validator::Role;
use althing_crds::{Condition, ConditionStatus, ConditionType, Reason, ValidatorNodeStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use node_api::proto::{GetStatusResponse, NodeState, SessionState};

use super::observe::{Answer, ChainKnown, Observed};
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
        identity: before.identity,
        claim_uid: before.claim_uid,
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
    let waiting = node.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let is_harmless = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    // The kubelet's own message changes with each try; the reason does not.
    (!is_harmless).then(|| format!("the container waits: {reason}"))
}
