//! What is said of a group: only what f+1 voters report, and only while it is fresh.

use std::collections::BTreeMap;
use std::time::Duration;

use althing_crds::conditions::{self, Statement};
use althing_crds::{ConditionStatus, ConditionType, ConsensusGroupStatus, Reason};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::desired;
use super::observe::{Observed, Voter};
use crate::budget::faults;
use crate::chain::agreement::Facts;
use crate::refusal::Refusal;
use crate::validator::desired::is_up_to_date;
use crate::{pause, readings};

/// How far the reconcile came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was done: only a person can help.
    Refused(Refusal),
    /// Nothing was done: the object is paused.
    Paused,
    /// A step failed, and is tried again.
    Failed(String),
    /// Nothing was done yet: a group that had the chain id before is on its way out.
    Waiting(String),
    /// The voters do not all run one genesis yet.
    Ceremony(String),
    /// Voters are restarted one after the other.
    Restarting(String),
    /// A voter joins or leaves the chain.
    Changing(String),
    /// The same, and people must sign for it.
    AwaitingGovernance(String),
    /// Children were written.
    Applied,
    /// All children are as they shall be.
    Unchanged,
}

/// Label of machines, and of their pods, with the zone.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// The new status.
pub fn next(observed: &Observed, progress: &Progress, now: &Time) -> ConsensusGroupStatus {
    let before = observed.status().cloned().unwrap_or_default();
    let generation = observed.group.metadata.generation.unwrap_or(0);
    let facts = observed.facts.as_ref();
    let updated = observed.voters.iter().filter(|voter| is_updated(observed, voter)).count();
    let available = available(observed);
    let reconciling = reconciling(observed, progress, updated);
    let stalled = stalled(observed, progress);
    let ready = ready(&available, &reconciling, &stalled);
    let statements = [ready, reconciling, stalled, available, at_risk(observed)];
    let is_in_ceremony = matches!(progress, Progress::Ceremony(_) | Progress::Failed(_));
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut after = ConsensusGroupStatus {
        observed_generation: Some(generation),
        conditions: readings::in_order(conditions::merge(&before.conditions, &statements, generation, now)),
        replicas: i32::try_from(observed.voters.iter().filter(|voter| voter.node.is_some()).count()).ok(),
        updated_replicas: i32::try_from(updated).ok(),
        signing: facts.map(|facts| format!("{}/{}", facts.signing(), facts.voters.len())),
        signing_power: facts.map(|facts| number(facts.signing_power)),
        total_power: facts.map(|facts| number(facts.total_power)),
        margin: facts
            .filter(|facts| !facts.is_standing || facts.margin == 0)
            .and_then(|facts| i32::try_from(facts.margin).ok()),
        height: facts.map(|facts| number(facts.height)).or(before.height),
        block_age: facts.map(|facts| bucket(facts.block_age).to_string()),
        observed_at: facts.map(|_| now.0.to_string()).or_else(|| before.observed_at.clone()),
        version: version(observed).or_else(|| before.version.clone()),
        chain_id: Some(observed.chain_id.clone()),
        genesis_hash: before.genesis_hash.clone(),
        ceremony: before.ceremony.clone().filter(|_| before.genesis_hash.is_none() || is_in_ceremony),
        disruption: before.disruption.clone(),
        members: before.members.clone(),
        default_image: observed.default_image(),
        children_hash: observed.children_hash.clone(),
    };
    keep_readings(&before, &mut after, now);
    after
}

/// Height and block age alone are no reason to write before their time.
fn keep_readings(before: &ConsensusGroupStatus, after: &mut ConsensusGroupStatus, now: &Time) {
    let is_young = readings::are_young(before.observed_at.as_ref(), now);
    let mut same = after.clone();
    same.height = before.height;
    same.block_age = before.block_age.clone();
    same.observed_at = before.observed_at.clone();
    if is_young && same == *before {
        *after = same;
    }
}

/// True when nothing is expected to change by itself.
pub fn is_settled(status: &ConsensusGroupStatus) -> bool {
    conditions::holds(&status.conditions, ConditionType::Ready)
}

/// The age of a block as a range, so that it is not another one with every look.
pub fn bucket(age: Duration) -> &'static str {
    match age.as_secs() {
        0..10 => "<10s",
        10..60 => "<1m",
        60..600 => "<10m",
        600..3_600 => "<1h",
        _ => ">=1h",
    }
}

fn available(observed: &Observed) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::Available, status, reason, message);
    let has_genesis = observed.status().is_some_and(|status| status.genesis_hash.is_some());
    match &observed.facts {
        None if !has_genesis => {
            say(ConditionStatus::False, Reason::NotStarted, "the chain has not started".to_string())
        }
        None => say(
            ConditionStatus::Unknown,
            Reason::ChainUnknown,
            "fewer voters answer than are needed to believe them".to_string(),
        ),
        Some(facts) if facts.height == 0 => {
            say(ConditionStatus::False, Reason::NotStarted, "the voters are about to make the first block".to_string())
        }
        Some(facts) if !facts.has_quorum() => say(
            ConditionStatus::False,
            Reason::QuorumLost,
            format!(
                "{} of {} voters sign, which is no quorum; these do not: {}",
                facts.signing(),
                facts.voters.len(),
                missing(observed, facts).join(", ")
            ),
        ),
        Some(facts) if facts.is_standing => {
            say(ConditionStatus::False, Reason::BlocksStopped, "the last block is too old".to_string())
        }
        Some(_) => {
            say(ConditionStatus::True, Reason::QuorumSigning, "a quorum signs and the last block is young".to_string())
        }
    }
}

fn at_risk(observed: &Observed) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::QuorumAtRisk, status, reason, message);
    let Some(facts) = observed.facts.as_ref().filter(|facts| facts.height > 0) else {
        return say(ConditionStatus::Unknown, Reason::ChainUnknown, "the voters' state is not known".to_string());
    };
    if facts.voters.len() == 1 {
        return say(
            ConditionStatus::True,
            Reason::SingleVoter,
            "a chain with one voter stands still whenever its node restarts: for development only".to_string(),
        );
    }
    if facts.margin == 0 {
        let who = missing(observed, facts);
        let said = if who.is_empty() { String::new() } else { format!("; these do not sign: {}", who.join(", ")) };
        return say(ConditionStatus::True, Reason::NoMarginLeft, format!("no further voter may fail{said}"));
    }
    if facts.is_standing {
        let why = "blocks stand still: the last ones do not tell who would sign the next one";
        return say(ConditionStatus::Unknown, Reason::BlocksStopped, why.to_string());
    }
    match crowded(observed, facts) {
        Some(why) => say(ConditionStatus::True, Reason::CoLocated, why),
        None => say(ConditionStatus::False, Reason::MarginLeft, "at least one more voter may fail".to_string()),
    }
}

/// The voters that do not sign: by name those of this group, by their identity the others.
fn missing(observed: &Observed, facts: &Facts) -> Vec<String> {
    let silent = facts.voters.iter().filter(|(_, voter)| !voter.is_signing);
    let mut names: Vec<String> = silent
        .map(|(identity, _)| {
            let own = observed.voters.iter().find(|voter| voter.identity() == Some(identity));
            own.map_or_else(|| identity.chars().take(16).collect(), |voter| voter.name.clone())
        })
        .collect();
    names.sort_unstable();
    names
}

/// A machine or zone whose loss alone would exceed the fault budget, and what to do about it.
fn crowded(observed: &Observed, facts: &Facts) -> Option<String> {
    // Kubernetes copies the zone of the machine to the labels of its pods.
    let machine = |pod: &Pod| pod.spec.as_ref()?.node_name.clone();
    let zone = |pod: &Pod| pod.metadata.labels.as_ref()?.get(LABEL_ZONE).cloned();
    let crowd = |domain: &dyn Fn(&Pod) -> Option<String>| {
        let mut power: BTreeMap<String, u64> = BTreeMap::new();
        for voter in &observed.voters {
            let domain = voter.pod.as_ref().and_then(domain);
            let fact = voter.identity().and_then(|identity| facts.voters.get(identity));
            if let (Some(domain), Some(fact)) = (domain, fact) {
                let held = power.entry(domain).or_default();
                *held = held.saturating_add(fact.power);
            }
        }
        let budget = faults(facts.total_power);
        power.into_iter().find(|(_, held)| *held > budget).map(|(domain, _)| domain)
    };
    let few = "holds more voters than may fail";
    crowd(&machine)
        .map(|machine| format!("machine {machine} {few}; placement: Required keeps them apart"))
        .or_else(|| crowd(&zone).map(|zone| format!("zone {zone} {few}; give the cluster machines in other zones")))
}

fn reconciling(observed: &Observed, progress: &Progress, updated: usize) -> Statement {
    let say = |status, reason, message: String| Statement::new(ConditionType::Reconciling, status, reason, message);
    let is_stalled = |node: &althing_crds::ValidatorNode| {
        node.status.as_ref().is_some_and(|status| conditions::holds(&status.conditions, ConditionType::Stalled))
    };
    match progress {
        // kstatus takes a stalled object that still reconciles as one in progress.
        Progress::Refused(_) => say(ConditionStatus::False, Reason::NotStalled, "waiting for a person".to_string()),
        Progress::Failed(why) => say(ConditionStatus::True, Reason::StepFailed, why.clone()),
        Progress::Paused => pause::reconciling(&observed.group.metadata, not_carried_out(observed)),
        Progress::Ceremony(_) if observed.voters.iter().filter_map(|voter| voter.node.as_ref()).any(is_stalled) => {
            say(ConditionStatus::False, Reason::ChildStalled, "a node waits for a person".to_string())
        }
        Progress::Ceremony(why) => say(ConditionStatus::True, Reason::GenesisCeremony, why.clone()),
        Progress::Applied => {
            say(ConditionStatus::True, Reason::ApplyingChildren, "children were made or changed".to_string())
        }
        Progress::Restarting(why) => say(
            ConditionStatus::True,
            Reason::RestartingNodes,
            format!("{updated} of {} voters run what the spec says: {why}", observed.voters.len()),
        ),
        Progress::Waiting(why) => say(ConditionStatus::True, Reason::AwaitingChainId, why.clone()),
        Progress::Changing(_) if observed.newcomer().and_then(|voter| voter.node.as_ref()).is_some_and(is_stalled) => {
            say(ConditionStatus::False, Reason::ChildStalled, "the newcomer's node waits for a person".to_string())
        }
        Progress::Changing(why) => say(ConditionStatus::True, Reason::ChangingVoters, why.clone()),
        Progress::AwaitingGovernance(why) => say(ConditionStatus::True, Reason::AwaitingGovernance, why.clone()),
        // kstatus takes a stalled object that still reconciles as one in progress.
        Progress::Unchanged if observed.voters.iter().filter_map(|voter| voter.node.as_ref()).any(is_stalled) => {
            say(ConditionStatus::False, Reason::ChildStalled, "a node waits for a person".to_string())
        }
        Progress::Unchanged => match (still_starting(observed), growing(observed)) {
            (Some(why), _) => say(ConditionStatus::True, Reason::StartingNodes, why),
            (None, Some(why)) => say(ConditionStatus::True, Reason::VolumeGrowing, why),
            (None, None) => {
                say(ConditionStatus::False, Reason::UpToDate, "all children are as the spec says".to_string())
            }
        },
    }
}

/// What of the spec is not so. A pod that is not there says nothing: it may have been drained.
fn not_carried_out(observed: &Observed) -> Option<String> {
    let spec = &observed.group.spec;
    let (members, wanted) = (observed.members().len(), usize::try_from(spec.replicas).unwrap_or(0));
    if members != wanted {
        return Some(format!("{members} voters instead of {wanted}"));
    }
    let change = observed.status().and_then(|status| status.members.as_ref()?.change.as_ref());
    if change.is_some() || observed.voters.iter().any(|voter| spec.retired.contains(&voter.name)) {
        return Some("a voter has yet to join or leave".to_string());
    }
    let is_former = |voter: &&Voter| {
        let has_former_pod = voter.pod.is_some() && !is_updated(observed, voter);
        has_former_pod || !desired::follows(observed, voter)
    };
    let former: Vec<&str> = observed.voters.iter().filter(is_former).map(|voter| voter.name.as_str()).collect();
    (!former.is_empty()).then(|| format!("these run a former spec: {}", former.join(", ")))
}

/// A volume that is smaller than the spec says.
fn growing(observed: &Observed) -> Option<String> {
    observed.voters.iter().find_map(|voter| {
        let conditions = &voter.node.as_ref()?.status.as_ref()?.conditions;
        let reconciling = conditions::find(conditions, ConditionType::Reconciling)?;
        let is_growing = reconciling.reason == Reason::VolumeGrowing.as_str();
        is_growing.then(|| format!("{}: {}", voter.name, reconciling.message))
    })
}

/// What was made or changed is done when all voters sign; a voter lost later is no change that goes on.
fn still_starting(observed: &Observed) -> Option<String> {
    let before = conditions::find(&observed.status()?.conditions, ConditionType::Reconciling)?;
    let begun = [Reason::GenesisCeremony, Reason::ApplyingChildren, Reason::StartingNodes].map(Reason::as_str);
    if before.status != ConditionStatus::True || !begun.contains(&before.reason.as_str()) {
        return None;
    }
    let Some(facts) = &observed.facts else { return Some("too few voters answer yet".to_string()) };
    let silent = missing(observed, facts);
    (!silent.is_empty()).then(|| format!("these voters do not sign yet: {}", silent.join(", ")))
}

fn stalled(observed: &Observed, progress: &Progress) -> Statement {
    let yes = |reason, message: String| Statement::new(ConditionType::Stalled, ConditionStatus::True, reason, message);
    if let Progress::Refused(refusal) = progress {
        return yes(refusal.reason, refusal.message.clone());
    }
    let waiting = observed.voters.iter().filter(|voter| voter.waits_for_proof());
    let total = observed.facts.as_ref().map_or(observed.voters.len(), |facts| facts.voters.len());
    let total = u64::try_from(total).unwrap_or(u64::MAX);
    // Of a chain that lives elsewhere the own voters alone say nothing.
    let is_known = !observed.is_external() || observed.facts.is_some();
    let is_started = is_known && observed.status().is_some_and(|status| status.genesis_hash.is_some());
    if is_started && u64::try_from(waiting.count()).unwrap_or(0) > faults(total) && !goes_on(observed) {
        return yes(
            Reason::SignersWaiting,
            "more voters than may fail wait for proof that the former owner of their key has ended; the chain stands still".to_string(),
        );
    }
    for voter in &observed.voters {
        let conditions = voter.node.as_ref().and_then(|node| node.status.as_ref()).map(|status| &status.conditions);
        let stalled = conditions.and_then(|all| conditions::find(all, ConditionType::Stalled));
        if let Some(condition) = stalled.filter(|condition| condition.status == ConditionStatus::True) {
            if condition.reason == Reason::DrainBlocked.as_str() {
                return yes(Reason::DrainBlocked, format!("{}: {}", voter.name, condition.message));
            }
            return yes(Reason::ChildStalled, format!("{}: {}: {}", voter.name, condition.reason, condition.message));
        }
    }
    Statement::new(ConditionType::Stalled, ConditionStatus::False, Reason::NotStalled, "nothing needs a person")
}

fn goes_on(observed: &Observed) -> bool {
    observed.facts.as_ref().is_some_and(|facts| facts.has_quorum() && !facts.is_standing)
}

/// Ready: available, not reconciling, not stalled.
pub fn ready(available: &Statement, reconciling: &Statement, stalled: &Statement) -> Statement {
    let say = |status, reason, message: &str| Statement::new(ConditionType::Ready, status, reason, message);
    if stalled.status == ConditionStatus::True {
        return say(ConditionStatus::False, stalled.reason, &stalled.message);
    }
    if available.status != ConditionStatus::True {
        return say(available.status, available.reason, &available.message);
    }
    if reconciling.status == ConditionStatus::True {
        return say(ConditionStatus::False, reconciling.reason, &reconciling.message);
    }
    say(ConditionStatus::True, Reason::NodesReady, "available and up to date")
}

/// The pod of this voter runs what the group's spec says.
fn is_updated(observed: &Observed, voter: &Voter) -> bool {
    let (Some(node), Some(pod)) = (&voter.node, &voter.pod) else { return false };
    desired::follows(observed, voter) && is_up_to_date(node, pod, &observed.installation)
}

/// Versions that the nodes say they run, the most frequent ones first by name.
fn version(observed: &Observed) -> Option<String> {
    let mut versions: Vec<&str> =
        observed.voters.iter().filter_map(|voter| voter.said.as_ref().ok()).map(|said| said.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    (!versions.is_empty()).then(|| versions.join(","))
}

#[cfg(test)]
mod tests;
