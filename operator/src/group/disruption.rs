//! Performs planned restarts: written down first, then looked at again, then through the Eviction API, exactly the pod
//! that was meant.

use std::time::Duration;

use althing_crds::group::Disruption;
use althing_crds::{ConditionType, ConsensusGroupStatus, Reason, ValidatorNode, conditions};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::api::Preconditions;
use kube::{Api, Resource, ResourceExt};

use super::observe::{self, Observed, Voter};
use super::rollout::{Begun, Member, MemberPod, Move, SIGNING_TIME_MAX, confirm, costs_nothing, decide, turns};
use super::{ceremony, desired, facts, outside};
use crate::chain::agreement::Facts;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::kinds::Owner;
use crate::parts::Installation;
use crate::pause::is_paused;
use crate::validator::desired::is_up_to_date;
use crate::validator::pods::{failing, is_counted, is_older_than, is_pod_ready, is_running};

/// Why pods are restarted, in `status.disruption`.
const REASON: &str = "SpecChanged";

/// How far the planned restarts are.
pub enum Progress {
    /// Every pod runs what the spec says.
    Done,
    /// It goes on by itself; what is waited for.
    Going(String),
    /// The voter that was restarted does not come to sign.
    Stuck(String),
}

/// Takes the next move.
pub async fn advance(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Progress, Error> {
    let installation = context.installation();
    let members: Vec<Member> = observed.voters.iter().map(|voter| member(voter, &installation)).collect();
    let begun = begun(observed);
    match decide(&members, begun.as_ref(), observed.facts.as_ref()) {
        Move::Nothing => Ok(Progress::Done),
        Move::Wait(why) => Ok(Progress::Going(why)),
        // Another one takes its place.
        Move::Stuck(_) if is_retired(observed, begun.as_ref()) => {
            ceremony::save(context, observed, |status| status.disruption = None).await?;
            Ok(Progress::Going("the voter that was restarted is to be replaced".to_string()))
        }
        Move::Stuck(why) => Ok(Progress::Stuck(why)),
        Move::Release(why) => {
            ceremony::save(context, observed, |status| status.disruption = None).await?;
            tell(context, observed, "RestartPutOff", why.clone()).await;
            Ok(Progress::Going(why))
        }
        Move::Finish => {
            ceremony::save(context, observed, |status| status.disruption = None).await?;
            let note = format!("the restart of {} is over", begun.map(|begun| begun.node).unwrap_or_default());
            tell(context, observed, "RestartFinished", note).await;
            Ok(Progress::Going("the next voter follows".to_string()))
        }
        Move::Seen(height) => {
            ceremony::save(context, observed, |status| {
                if let Some(disruption) = status.disruption.as_mut() {
                    disruption.after_height = i64::try_from(height).ok();
                }
            })
            .await?;
            let node = begun.map(|begun| begun.node).unwrap_or_default();
            Ok(Progress::Going(format!("waiting for {node} to sign above height {height}")))
        }
        Move::Begin(index) => {
            if let Some(why) = members.get(index).and_then(|member| waits(observed, member, observed.facts.as_ref())) {
                return Ok(Progress::Going(why));
            }
            let Some((name, uid)) =
                members.get(index).and_then(|member| Some((member.name.clone(), member.pod.as_ref()?.uid.clone())))
            else {
                return Ok(Progress::Done);
            };
            ceremony::save(context, observed, |status| write_down(status, &name, &uid)).await?;
            tell(context, observed, "RestartBegun", format!("{name} is restarted: its spec has changed")).await;
            evict(context, owner, observed, index).await
        }
        Move::Evict(index) => evict(context, owner, observed, index).await,
    }
}

/// A restart of a voter is written down. That of a newcomer holds nobody up: it costs no vote, and the newcomer may need the
/// change that brings it to the chain to become ready.
pub fn holds_a_voter(observed: &Observed) -> bool {
    let Some(begun) = begun(observed) else { return false };
    !observed.voters.iter().any(|voter| voter.name == begun.node && observed.is_newcomer(voter))
}

/// The spec does not want the voter any more that was restarted.
fn is_retired(observed: &Observed, begun: Option<&Begun>) -> bool {
    begun.is_some_and(|begun| observed.group.spec.retired.contains(&begun.node))
}

/// Why this voter has to wait for its turn in a chain that others run as well.
fn waits(observed: &Observed, member: &Member, facts: Option<&Facts>) -> Option<String> {
    if costs_nothing(member, facts) {
        return None;
    }
    let (Some(identity), Some(facts)) = (&member.identity, facts) else { return None };
    let own = observed.voters.iter().filter_map(|voter| voter.identity().map(str::to_string)).collect();
    turns::wait(&own, identity, facts, observed.block_interval_ms())
}

/// The restart that is written down.
fn begun(observed: &Observed) -> Option<Begun> {
    let disruption = observed.status()?.disruption.as_ref()?;
    let since = disruption.since.parse::<Timestamp>().ok();
    // Nothing is old because a clock is ahead.
    let age = since.and_then(|since| Duration::try_from(Timestamp::now().duration_since(since)).ok());
    Some(Begun {
        node: disruption.node.clone(),
        pod_uid: disruption.pod_uid.clone(),
        age: age.unwrap_or(Duration::ZERO),
        after_height: disruption.after_height.and_then(|height| u64::try_from(height).ok()),
    })
}

fn write_down(status: &mut ConsensusGroupStatus, node: &str, pod_uid: &str) {
    status.disruption = Some(Disruption {
        node: node.to_string(),
        pod_uid: pod_uid.to_string(),
        reason: REASON.to_string(),
        since: Timestamp::now().to_string(),
        after_height: None,
    });
}

fn member(voter: &Voter, installation: &Installation) -> Member {
    let is_observed = voter.node.as_ref().is_some_and(is_taken_up);
    let pod = match (&voter.node, &voter.pod) {
        (Some(node), Some(pod)) => Some(MemberPod {
            uid: pod.uid().unwrap_or_default(),
            is_current: is_up_to_date(node, pod, installation),
            is_deleting: pod.metadata.deletion_timestamp.is_some(),
            is_failing: failing(pod).is_some(),
            is_running: is_running(pod),
            is_old: is_older_than(pod, SIGNING_TIME_MAX),
            is_ready: is_pod_ready(pod),
            is_counted: is_counted(pod),
        }),
        (Some(_) | None, _) => None,
    };
    Member { name: voter.name.clone(), identity: voter.identity().map(str::to_string), is_observed, pod }
}

/// The node's StatefulSet has its newest spec. That of a node which is paused, or waits for a person, keeps the former
/// one: a new pod of it would be of the former spec once more, and restarted for ever.
fn is_taken_up(node: &ValidatorNode) -> bool {
    let Some(status) = &node.status else { return false };
    let reconciling = conditions::find(&status.conditions, ConditionType::Reconciling);
    let keeps = [Reason::Paused, Reason::NotStalled].map(Reason::as_str);
    let is_kept = reconciling.is_some_and(|condition| keeps.contains(&condition.reason.as_str()));
    status.observed_generation == node.metadata.generation && !is_kept && !is_paused(node)
}

/// Evicts exactly the pod that was written down, if everything that speaks for it is still true.
async fn evict(context: &Context, owner: &Owner, observed: &Observed, index: usize) -> Result<Progress, Error> {
    let (Some(begun), Some(voter)) = (begun(observed), observed.voters.get(index)) else { return Ok(Progress::Done) };
    let name = althing_crds::names::pod(&voter.name);
    let live = look_again(context, owner, observed, Some(&voter.name)).await?;
    if let Err(why) = confirm(&live.members, &begun, live.facts.as_ref()) {
        return Ok(Progress::Going(why));
    }
    let member = live.members.iter().find(|member| member.name == voter.name);
    if let Some(why) = member.and_then(|member| waits(observed, member, live.facts.as_ref())) {
        return Ok(Progress::Going(why));
    }
    let Some(Some(resource_version)) = live.target else {
        return Ok(Progress::Going(format!("the pod of {} is gone", voter.name)));
    };
    let is_free = member.is_some_and(|member| costs_nothing(member, live.facts.as_ref()));
    if !is_free && !live.is_budget_current {
        return Ok(Progress::Going("waiting until the disruption budget counts the voters as they are".to_string()));
    }
    let preconditions = Preconditions { uid: Some(begun.pod_uid.clone()), resource_version: Some(resource_version) };
    match context.shared.writer.evict(&owner.namespace, &name, preconditions).await {
        Ok(()) => Ok(Progress::Going(format!("the pod of {} is stopping", voter.name))),
        Err(Error::Write { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 429) => {
            Ok(Progress::Going(format!("the disruption budget does not let {} stop now", voter.name)))
        }
        Err(error) => match several_budgets(&error) {
            Some(why) => Ok(Progress::Stuck(format!(
                "the pod of {} cannot be evicted: {why}; remove the one that is not the group's",
                voter.name
            ))),
            None => Err(error),
        },
    }
}

/// The API server evicts no pod that several disruption budgets count, in its own words.
fn several_budgets(error: &Error) -> Option<&str> {
    let Error::Write { source, .. } = error else { return None };
    let kube::Error::Api(status) = &**source else { return None };
    status.message.contains("more than one PodDisruptionBudget").then_some(status.message.as_str())
}

/// What is true now, from the API server and the voters themselves.
pub struct Live {
    /// The voters.
    pub members: Vec<Member>,
    /// What they say.
    pub facts: Option<Facts>,
    /// The disruption controller has seen the newest budget, and it is what these facts ask for.
    pub is_budget_current: bool,
    /// The version of the pod that is to go.
    target: Option<Option<String>>,
}

/// Reads pods, budget and the spec of the voter that is meant from the API server and asks every voter, past all caches.
pub async fn look_again(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    target: Option<&str>,
) -> Result<Live, Error> {
    let (voters, outside) = tokio::try_join!(
        observe::voters_again(context, owner, observed, target),
        outside::ask(context, owner, observed),
    )?;
    let installation = context.installation();
    let members: Vec<Member> = voters.iter().map(|voter| member(voter, &installation)).collect();
    let facts = facts::gather(context, owner, observed, (&voters, &outside));
    let pod = voters.iter().find(|voter| Some(voter.name.as_str()) == target).and_then(|voter| voter.pod.as_ref());
    let name = althing_crds::names::disruption_budget(&owner.name);
    let api: Api<PodDisruptionBudget> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let budget = api.get_opt(&name).await.map_err(Error::read(format!("PodDisruptionBudget {name}")))?;
    let wanted = desired::pods_needed(&voters, facts.as_ref());
    let counted: Vec<&Pod> =
        voters.iter().filter_map(|voter| voter.pod.as_ref()).filter(|pod| is_counted(pod)).collect();
    let healthy = counted.iter().filter(|pod| is_pod_ready(pod)).count();
    let is_current = |budget: &PodDisruptionBudget| is_current(budget, usize::from(wanted), (counted.len(), healthy));
    Ok(Live {
        target: pod.map(ResourceExt::resource_version),
        is_budget_current: budget.as_ref().is_some_and(is_current),
        members,
        facts,
    })
}

/// The disruption controller has seen this minimum, and these pods: so many that are counted, and so many of them that are
/// ready. It lets no more go than that leaves.
fn is_current(budget: &PodDisruptionBudget, wanted: usize, (counted, healthy): (usize, usize)) -> bool {
    let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let said = budget.spec.as_ref().and_then(|spec| spec.min_available.clone());
    let Some(status) = &budget.status else { return false };
    said == Some(IntOrString::Int(number(wanted)))
        && status.observed_generation == budget.metadata.generation
        && status.expected_pods == Some(number(counted))
        && status.disruptions_allowed.is_some_and(|allowed| allowed <= number(healthy.saturating_sub(wanted)))
}

async fn tell(context: &Context, observed: &Observed, reason: &str, note: String) {
    context.publish(&observed.group.object_ref(&()), &[Draft::normal(reason, note)]).await;
}

#[cfg(test)]
mod tests {
    use althing_crds::conditions::{ConditionStatus, Statement};
    use althing_crds::group::Members;
    use althing_crds::names;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::validator::fixtures;

    fn said(status: ConditionStatus, reason: Reason) -> ValidatorNode {
        let mut node = fixtures::node("demo-main-0");
        let statement = Statement::new(ConditionType::Reconciling, status, reason, "m");
        let conditions = conditions::merge(&[], &[statement], 3, &Time(Timestamp::UNIX_EPOCH));
        node.status.as_mut().expect("there").conditions = conditions;
        node
    }

    #[test]
    fn a_restarted_newcomer_does_not_hold_up_the_change_that_brings_it_to_the_chain() {
        let mut seen = super::super::fixtures::observed();
        assert!(!holds_a_voter(&seen));
        let status = seen.group.status.as_mut().expect("there");
        status.members = Some(Members { numbers: vec![0, 1, 2], change: None, height: None });
        write_down(status, "demo-main-2", "u");
        assert!(holds_a_voter(&seen));
        write_down(seen.group.status.as_mut().expect("there"), "demo-main-3", "u");
        assert!(!holds_a_voter(&seen), "3 joins");
        write_down(seen.group.status.as_mut().expect("there"), "demo-main-9", "u");
        assert!(holds_a_voter(&seen), "nobody knows it");
    }

    #[test]
    fn a_disruption_budget_that_has_not_seen_the_pods_as_they_are_is_not_current() {
        let budget = |minimum: i32, expected: i32, allowed: i32| -> PodDisruptionBudget {
            serde_json::from_value(serde_json::json!({
                "metadata": {"generation": 2},
                "spec": {"minAvailable": minimum},
                "status": {"observedGeneration": 2, "expectedPods": expected, "currentHealthy": expected,
                    "desiredHealthy": minimum, "disruptionsAllowed": allowed},
            }))
            .expect("a budget")
        };
        assert!(is_current(&budget(5, 7, 2), 5, (7, 7)));
        assert!(!is_current(&budget(5, 7, 2), 5, (6, 6)), "a voter fell silent: as many must stay, one less may go");
        assert!(is_current(&budget(5, 6, 1), 5, (6, 6)));
        assert!(!is_current(&budget(5, 6, 1), 5, (6, 5)), "a pod has just become unready");
        assert!(is_current(&budget(5, 6, 0), 5, (6, 6)), "a drain has taken one");
        assert!(!is_current(&budget(4, 6, 1), 5, (6, 6)), "another minimum");
        let mut unseen = budget(5, 6, 1);
        unseen.metadata.generation = Some(3);
        assert!(!is_current(&unseen, 5, (6, 6)));
    }

    #[test]
    fn a_node_that_keeps_its_former_spec_is_not_restarted_for_the_new_one() {
        assert!(is_taken_up(&said(ConditionStatus::False, Reason::UpToDate)));
        assert!(is_taken_up(&said(ConditionStatus::True, Reason::StartingNodes)));
        assert!(!is_taken_up(&said(ConditionStatus::True, Reason::Paused)));
        assert!(!is_taken_up(&said(ConditionStatus::False, Reason::NotStalled)), "it waits for a person");
        let mut paused = said(ConditionStatus::False, Reason::UpToDate);
        paused.annotations_mut().insert(names::ANNOTATION_PAUSE.to_string(), "true".to_string());
        assert!(!is_taken_up(&paused), "its word is of the time before the pause");
        let mut newer = said(ConditionStatus::False, Reason::UpToDate);
        newer.metadata.generation = Some(4);
        assert!(!is_taken_up(&newer));
    }
}
