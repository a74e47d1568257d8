//! What is said of a node: only what the chain and the node itself show.

use althing_crds::conditions::{self, Statement};
use althing_crds::validator::Role;
use althing_crds::{Condition, ConditionStatus, ConditionType, Reason, ValidatorNodeStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use node_api::proto::{GetStatusResponse, NodeState, SessionState};

use super::desired;
use super::observe::{Answer, ChainKnown, Observed};
use super::pods::{failing, is_pod_ready, unschedulable};
use super::volume;
use crate::certificates;
use crate::chain::agreement::VoterFact;
use crate::issuer::Issuance;
use crate::parts::{Installation, default_image_of};
use crate::pause;
use crate::refusal::Refusal;

/// How far the reconcile came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was done: only a person can help.
    Refused(Refusal),
    /// Nothing was done: the object is paused.
    Paused,
    /// A step failed, and is tried again.
    Failed(String),
    /// Something that the children need is not there yet.
    Waiting(String),
    /// Children were written.
    Applied,
    /// All children are as they shall be.
    Unchanged,
}

/// A node may be this many blocks behind what f+1 voters report and still count as caught up.
const LAG_MAX: u64 = 3;
/// For so many seconds a pod may be without a machine before somebody has to help: an autoscaler may make one.
const UNPLACED_S_MAX: i64 = 30;

/// The new status.
pub fn next(observed: &Observed, progress: &Progress, installation: &Installation, now: &Time) -> ValidatorNodeStatus {
    let before = observed.node.status.clone().unwrap_or_default();
    let generation = observed.node.metadata.generation.unwrap_or(0);
    let synced = synced(observed);
    let signing = signing(observed);
    let stalled = match drain_blocked(observed, installation, now) {
        Some(why) if !matches!(progress, Progress::Refused(_)) => {
            Statement::new(ConditionType::Stalled, ConditionStatus::True, Reason::DrainBlocked, why)
        }
        Some(_) | None => stalled(observed, progress),
    };
    let mut reconciling = reconciling(observed, progress, installation);
    // kstatus takes a stalled object that still reconciles as one in progress.
    if *progress == Progress::Unchanged && stalled.status == ConditionStatus::True {
        reconciling.status = ConditionStatus::False;
    }
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
        certificate_expires: observed.tls.as_ref().and_then(certificates::expires).or(before.certificate_expires),
        default_image: default_image_of(&observed.node, installation),
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
        // Its own word against itself counts more than votes of the process before.
        Some(_) if waits_for_proof(observed) => say(
            ConditionStatus::False,
            Reason::WaitingForGrant,
            "the node waits for proof that the former owner of its key has ended",
        ),
        Some(voter) if voter.is_signing => {
            say(ConditionStatus::True, Reason::VotesSeen, "the other voters see its precommits")
        }
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
    if let Some(refusal) = observed.issuance.as_ref().and_then(Issuance::refusal) {
        return yes(refusal.reason, refusal.message.clone());
    }
    Statement::new(ConditionType::Stalled, ConditionStatus::False, Reason::NotStalled, "nothing needs a person")
}

/// Why a voter that ran before cannot come back: its machine was drained or is full, and it may run on no other. Not while
/// it is restarted by its group, which then says itself what is wrong with the new spec.
fn drain_blocked(observed: &Observed, installation: &Installation, now: &Time) -> Option<String> {
    let pod = observed.pod.as_ref()?;
    let said = unschedulable(pod)?;
    let group = observed.group.as_ref()?.status.as_ref()?;
    let node = &observed.node;
    let has_run = node.status.as_ref().is_some_and(|status| status.genesis_hash.is_some());
    let is_restarted = group.disruption.as_ref().is_some_and(|disruption| disruption.node == node.name_any());
    let is_current = desired::is_up_to_date(node, pod, installation);
    let since = said.last_transition_time.as_ref();
    let is_lasting = since.is_none_or(|since| now.0.duration_since(since.0).as_secs() >= UNPLACED_S_MAX);
    let is_blocked = node.spec.role == Role::Validator && has_run && !is_restarted && is_current && is_lasting;
    let why = said.message.as_deref().unwrap_or("the scheduler does not say why");
    is_blocked.then(|| {
        format!(
            "its machine was drained or is full, and its pod may run on no other ({why}); uncordon the machine, or make room where its volume can be"
        )
    })
}

fn reconciling(observed: &Observed, progress: &Progress, installation: &Installation) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::Reconciling, status, reason, message);
    match progress {
        // kstatus takes a stalled object that still reconciles as one in progress.
        Progress::Refused(_) => say(ConditionStatus::False, Reason::NotStalled, "waiting for a person".to_string()),
        Progress::Failed(why) => say(ConditionStatus::True, Reason::StepFailed, why.clone()),
        Progress::Paused => {
            let is_former = |pod: &&Pod| !desired::is_up_to_date(&observed.node, pod, installation);
            let why = observed.pod.as_ref().filter(is_former).map(|_| "the pod runs a former spec".to_string());
            pause::reconciling(&observed.node.metadata, why)
        }
        Progress::Waiting(_) | Progress::Unchanged
            if let Some((reason, why)) = observed.issuance.as_ref().and_then(Issuance::awaited) =>
        {
            say(ConditionStatus::True, reason, why)
        }
        Progress::Waiting(why) => say(ConditionStatus::True, Reason::ApplyingChildren, why.clone()),
        Progress::Applied => {
            say(ConditionStatus::True, Reason::ApplyingChildren, "children were made or changed".to_string())
        }
        Progress::Unchanged if observed.pod.as_ref().is_none_or(|pod| !is_pod_ready(pod)) => {
            say(ConditionStatus::True, Reason::StartingNodes, "the pod is starting".to_string())
        }
        Progress::Unchanged => match observed.claim.as_ref().and_then(volume::growing) {
            Some((capacity, requested)) => {
                let message =
                    format!("the volume has {capacity} and shall have {requested}: the storage makes it larger");
                say(ConditionStatus::True, Reason::VolumeGrowing, message)
            }
            None => say(ConditionStatus::False, Reason::UpToDate, "all children are as the spec says".to_string()),
        },
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

#[cfg(test)]
mod tests;
