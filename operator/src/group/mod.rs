//! `ConsensusGroup`: the voters of one chain, its genesis ceremony, its disruption budget and truthful status.

pub mod desired;
pub mod external;
pub mod facts;
pub mod genesis;
pub mod members;
pub mod observe;
pub mod outside;
pub mod proof;
pub mod rollout;
pub mod status;
pub mod validate;

mod ceremony;
mod disruption;
#[cfg(test)]
pub mod fixtures;
mod membership;
mod pending;
mod recount;

use std::sync::Arc;
use std::time::{Duration, Instant};

use althing_crds::group::Members;
use althing_crds::{ConsensusGroup, ConsensusGroupStatus, Reason, ValidatorNode, names};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};

use crate::apply::AllOutcome;
use crate::config::{APPLIED, AWAITED, SETTLED, UNSETTLED};
use crate::context::Context;
use crate::error::Error;
use crate::events;
use crate::kinds::{Child, Kind, Owner, is_controlled};
use crate::memory::TOLD_AGE_MAX;
use crate::pause::is_paused;
use crate::reconcile::{self, Words};
use crate::refusal::Refusal;
use crate::validator::pods::is_counted;
use observe::Observed;
use status::Progress;

/// One look at a group. It answers how long to wait before the next one.
pub async fn reconcile(group: ConsensusGroup, context: Arc<Context>) -> Result<Duration, Error> {
    if group.metadata.deletion_timestamp.is_some() {
        context.shared.book.forget(&group.namespace().unwrap_or_default(), &group.name_any());
        context.shared.first_seen.forget(&group.uid().unwrap_or_default());
        return Ok(SETTLED);
    }
    let group = observe::current(&context, group).await?;
    let owner = owner(&group)?;
    let is_paused = is_paused(&group);
    let mut observed = observe::observe(&context, group).await?;
    share(&context, &owner, &observed);
    note_pods(&context, &observed);
    let done = match validate::validate(&observed) {
        Err(refusal) => {
            // The refusal is said whatever comes of protecting.
            let protected = protect(&context, &owner, &mut observed).await;
            let pause = write_status(&context, &observed, &Progress::Refused(refusal)).await?;
            return protected.map(|()| pause);
        }
        Ok(_) if is_paused => protect(&context, &owner, &mut observed).await.map(|()| Progress::Paused),
        Ok(()) => match validate::awaited(&observed) {
            Some(why) => protect(&context, &owner, &mut observed).await.map(|()| Progress::Waiting(why)),
            None => advance(&context, &owner, &mut observed).await,
        },
    };
    let (context, observed) = (&*context, &observed);
    let write = |progress| async move { write_status(context, observed, &progress).await };
    let words = Words { refused: Progress::Refused, failed: Progress::Failed };
    reconcile::end(context, &owner.what(), done, words, write).await
}

/// The disruption budget of a group that is paused, or waits for a person, goes on following who signs: protecting is not
/// disrupting, and what is drained meanwhile must not rest on an old number.
async fn protect(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<(), Error> {
    if observed.kept_genesis().is_none() {
        return Ok(());
    }
    count_voters(context, owner, observed, false).await?;
    // Of a spec that nothing can be built from there is none.
    let Ok(budget) = desired::budget(observed) else { return Ok(()) };
    let cached = cached(context, owner, &budget);
    // A name that belongs to somebody else is said later.
    context.shared.writer.apply(owner, &budget, cached.as_ref()).await?;
    count_voters(context, owner, observed, true).await
}

/// Lets the nodes' reconcilers know what the voters report.
fn share(context: &Context, owner: &Owner, observed: &Observed) {
    let has_changed = context.shared.book.record(&owner.namespace, &owner.name, observed.facts.clone());
    if has_changed {
        for voter in &observed.voters {
            context.wakers.node(&owner.namespace, &voter.name);
        }
    }
}

/// Remembers at which height each pod was first seen: only newer votes are its own.
fn note_pods(context: &Context, observed: &Observed) {
    let has_begun = observed.is_external() || observed.kept_genesis().is_some() || !observe::is_open(observed.status());
    let facts = observed.facts.as_ref();
    if facts.is_some() || !has_begun {
        let pods: Vec<String> = observed.voters.iter().filter_map(|voter| voter.pod.as_ref()?.uid()).collect();
        let group = observed.group.uid().unwrap_or_default();
        context.shared.first_seen.note(&group, &pods, facts.map(|facts| facts.height));
    }
}

/// Brings children and genesis one step closer to what they shall be.
async fn advance(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Progress, Error> {
    if let Some(refusal) = external::adopt(context, owner, observed).await? {
        return Ok(Progress::Refused(refusal));
    }
    if let Some(refusal) = ceremony::ensure_governance(context, owner, observed).await? {
        return Ok(Progress::Refused(refusal));
    }
    count_voters(context, owner, observed, false).await?;
    knows_its_voters(context, owner, observed).await?;
    let children = desired::children(observed)?;
    let recorded = observed.children_hash.as_deref();
    let cached = |child: &Child| cached(context, owner, child);
    let written = match context.shared.writer.apply_all(owner, &children, recorded, cached).await? {
        AllOutcome::Taken(what) => return Ok(Progress::Refused(taken(&what))),
        AllOutcome::Applied { written, hash } => {
            observed.children_hash = hash;
            written
        }
    };
    count_voters(context, owner, observed, true).await?;
    prune(context, owner, observed, &children).await?;
    match ceremony::advance(context, owner, observed).await? {
        ceremony::Advance::Refused(refusal) => Ok(Progress::Refused(refusal)),
        ceremony::Advance::Waiting(why) => {
            // A pod that cannot start, as with a wrong image, is replaced here too.
            match disruption::advance(context, owner, observed).await? {
                disruption::Progress::Stuck(why) => Ok(Progress::Refused(stuck(why))),
                disruption::Progress::Done | disruption::Progress::Going(_) if observed.is_external() => {
                    Ok(Progress::Changing(why))
                }
                disruption::Progress::Done | disruption::Progress::Going(_) => Ok(Progress::Ceremony(why)),
            }
        }
        ceremony::Advance::Done => carry_on(context, owner, observed, written).await,
    }
}

/// Restarts and changes of voters draw on one budget. A restart that was begun comes to its end first, then a change that was,
/// or the replacement of a voter that may be lost; while it waits for what others do, restarts go on.
async fn carry_on(
    context: &Context,
    owner: &Owner,
    observed: &mut Observed,
    written: usize,
) -> Result<Progress, Error> {
    let change = if !disruption::holds_a_voter(observed) && membership::is_under_way(owner, observed) {
        Some(membership::advance(context, owner, observed).await?)
    } else {
        None
    };
    if let Some(membership::Progress::Going(why)) = change {
        return Ok(Progress::Changing(why));
    }
    match disruption::advance(context, owner, observed).await? {
        disruption::Progress::Stuck(why) => Ok(Progress::Refused(stuck(why))),
        disruption::Progress::Going(why) => Ok(Progress::Restarting(why)),
        disruption::Progress::Done => {
            let change = match change {
                Some(change) => change,
                None => membership::advance(context, owner, observed).await?,
            };
            Ok(changing(change, written))
        }
    }
}

/// No node is made for a voter that has left, or of a group that is gone, which a cache that is behind does not know: before
/// one is made, the API server is asked who the voters are.
async fn knows_its_voters(context: &Context, owner: &Owner, observed: &Observed) -> Result<(), Error> {
    let is_there = |number: u32| context.node(&owner.namespace, &names::node(&owner.name, number)).is_some();
    if desired::numbers(observed).into_iter().all(is_there) {
        return Ok(());
    }
    let live = observe::live(context, owner).await?;
    let of = |status: Option<&ConsensusGroupStatus>| status.and_then(|status| status.members.clone());
    let is_same = live.is_some_and(|live| of(live.status.as_ref()) == of(observed.status()));
    if is_same { Ok(()) } else { Err(Error::Conflict { what: owner.what() }) }
}

fn changing(change: membership::Progress, written: usize) -> Progress {
    match change {
        membership::Progress::Refused(refusal) => Progress::Refused(refusal),
        membership::Progress::Going(why) | membership::Progress::Waiting(why) => Progress::Changing(why),
        membership::Progress::AwaitingGovernance(why) => Progress::AwaitingGovernance(why),
        membership::Progress::Settled if written == 0 => Progress::Unchanged,
        membership::Progress::Settled => Progress::Applied,
    }
}

fn stuck(why: String) -> Refusal {
    Refusal::new(Reason::RolloutPaused, why)
}

/// Marks the live pods that the disruption budget counts: of voters that sign. One that does not sign costs nothing when
/// it goes, and must not stand in for one that does; nor does a new pod while only the votes of the one before were seen.
/// Marks are taken away before the budget is written and set after it, so that at no moment more pods may go than the budget
/// permits.
async fn count_voters(context: &Context, owner: &Owner, observed: &mut Observed, shall: bool) -> Result<(), Error> {
    let (facts, first_seen) = (observed.facts.as_ref(), &context.shared.first_seen);
    for voter in &mut observed.voters {
        let wanted = desired::shall_be_counted(voter, facts);
        let newest = voter.identity().and_then(|identity| facts?.last_precommits.get(identity)).copied();
        let has_voted =
            |pod: &Pod| pod.uid().is_some_and(|uid| first_seen.has_voted(&owner.uid, &uid, newest.unwrap_or(0)));
        let Some(pod) = voter.pod.as_mut().filter(|pod| is_counted(pod) != shall) else { continue };
        if wanted != Some(shall) || shall && !has_voted(pod) {
            continue;
        }
        if !shall {
            recount::request(context, owner);
        }
        context.shared.writer.label_pod(pod, names::LABEL_VOTER, shall.then_some("true")).await?;
        if !shall && let Some(labels) = pod.metadata.labels.as_mut() {
            labels.remove(names::LABEL_VOTER);
        }
    }
    if shall { Ok(()) } else { recount::recount(context, owner).await }
}

fn cached(context: &Context, owner: &Owner, child: &Child) -> Option<ObjectMeta> {
    match child.kind {
        Kind::ValidatorNode => context.node(&owner.namespace, &child.name).map(|node| node.metadata),
        Kind::NetworkPolicy
        | Kind::ServiceAccount
        | Kind::ConfigMap
        | Kind::Secret
        | Kind::Service
        | Kind::PersistentVolumeClaim
        | Kind::PodDisruptionBudget
        | Kind::ConsensusGroup
        | Kind::StatefulSet
        | Kind::Deployment
        | Kind::HorizontalPodAutoscaler
        | Kind::Ingress
        | Kind::TlsRoute => context.children.get(child.kind, &owner.namespace, &child.name),
    }
}

fn taken(what: &str) -> Refusal {
    Refusal::new(
        Reason::NameTaken,
        format!("{what} exists and belongs to somebody else; remove it or choose another name"),
    )
}

/// Deletes children that the group shall not have any more. Once there is a genesis the chain decides about voters: the
/// node of one is deleted when it is written down that it left, and the chain says so too.
async fn prune(context: &Context, owner: &Owner, observed: &Observed, children: &[Child]) -> Result<(), Error> {
    let is_wanted = |kind: Kind, name: &str| children.iter().any(|child| child.kind == kind && child.name == name);
    // They are looked for when the wanted ones have changed, and now and then.
    let wanted: Vec<String> = children.iter().map(|child| child.what("")).collect();
    let memory = &context.shared.memories.pruned;
    if memory.get(&owner.uid, &owner.name).as_ref() != Some(&wanted) {
        let (at, mut pruned) = (Instant::now(), 0);
        for kind in [Kind::Service, Kind::PodDisruptionBudget] {
            let mut orphans = context.children.owned_by(kind, &owner.uid);
            orphans.retain(|meta| !meta.name.as_deref().is_some_and(|name| is_wanted(kind, name)));
            pruned += context.shared.writer.prune(owner, kind, &orphans).await?;
        }
        if pruned == 0 {
            memory.put(&owner.uid, &owner.name, at, wanted);
        }
    }
    if observe::is_open(observed.status()) && observed.genesis == observe::GenesisRead::Missing {
        let orphans: Vec<ObjectMeta> = context
            .nodes_of(&owner.namespace, &owner.name)
            .into_iter()
            .filter(|node| {
                !is_wanted(Kind::ValidatorNode, &node.name_any()) && is_controlled(&node.metadata, &owner.uid)
            })
            .map(|node| node.metadata)
            .collect();
        if !orphans.is_empty() && is_open_live(context, owner).await? {
            context.shared.writer.prune(owner, Kind::ValidatorNode, &orphans).await?;
        }
    }
    prune_former_voters(context, owner, observed).await
}

/// No genesis is written down, as the API server says now, and none is kept.
async fn is_open_live(context: &Context, owner: &Owner) -> Result<bool, Error> {
    let maps: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let name = names::genesis_config_map(&owner.name);
    let (group, kept) = tokio::try_join!(observe::live(context, owner), async {
        maps.get_metadata_opt(&name).await.map_err(Error::read(format!("ConfigMap {name}")))
    })?;
    Ok(kept.is_none() && group.is_some_and(|group| observe::is_open(group.status.as_ref())))
}

async fn prune_former_voters(context: &Context, owner: &Owner, observed: &Observed) -> Result<(), Error> {
    let Some(facts) = &observed.facts else { return Ok(()) };
    let has_left = |node: &ValidatorNode, members: &Members| {
        let number = names::node_number(&owner.name, &node.name_any()).and_then(|number| i32::try_from(number).ok());
        let Some(number) = number else { return false };
        let is_member = members.numbers.contains(&number);
        let changes = members.change.as_ref().is_some_and(|change| change.number == number);
        let identity = node.status.as_ref().and_then(|status| status.identity.as_ref());
        let votes = identity.is_some_and(|identity| facts.voters.contains_key(identity));
        !is_member && !changes && !votes && is_controlled(&node.metadata, &owner.uid)
    };
    let nodes = context.nodes_of(&owner.namespace, &owner.name);
    let written = observed.status().and_then(|status| status.members.as_ref());
    if !written.is_some_and(|members| nodes.iter().any(|node| has_left(node, members))) {
        return Ok(());
    }
    // What was read may be older than what this process wrote: a voter that has just come would be taken for one that left.
    let live = observe::live(context, owner).await?;
    let Some(members) = live.and_then(|live| live.status?.members) else { return Ok(()) };
    let former = nodes.into_iter().filter(|node| has_left(node, &members)).map(|node| node.metadata);
    context.shared.writer.prune(owner, Kind::ValidatorNode, &former.collect::<Vec<_>>()).await?;
    Ok(())
}

/// Writes the status if it changed, tells about it, and says when to look again.
async fn write_status(context: &Context, observed: &Observed, progress: &Progress) -> Result<Duration, Error> {
    let before = observed.status().cloned().unwrap_or_default();
    let uid = observed.group.uid().unwrap_or_default();
    if matches!(progress, Progress::Applied) && !before.conditions.is_empty() && context.applies_quietly(&uid) {
        return Ok(APPLIED);
    }
    let after = status::next(observed, progress, &Time(Timestamp::now()));
    let is_settled = status::is_settled(&after);
    if !is_settled && context.can_wait(&uid, &before.conditions, &after.conditions) {
        return Ok(TOLD_AGE_MAX);
    }
    let drafts = events::transitions(&before.conditions, &after.conditions);
    let mut changed = observed.group.clone();
    changed.status = Some(after.clone());
    let written = context.shared.writer.status(observed.status(), &changed, &after).await?;
    if written.is_some() {
        context.told(&uid);
        context.publish(&observed.group.object_ref(&()), &drafts).await;
    }
    let lacks_mark = desired::lacks_mark(&observed.voters, observed.facts.as_ref());
    // Before there is a genesis nobody votes.
    let is_recounted = observed.kept_genesis().is_none() || recount::is_done(context, &owner(&observed.group)?);
    let has_processes = observed.voters.iter().any(|voter| voter.connection.is_some());
    Ok(match has_processes {
        _ if is_settled && is_recounted && !lacks_mark => SETTLED,
        true => UNSETTLED,
        false => AWAITED,
    })
}

fn owner(group: &ConsensusGroup) -> Result<Owner, Error> {
    const KIND: &str = "ConsensusGroup";
    Ok(Owner {
        kind: KIND,
        namespace: group.namespace().ok_or(Error::Incomplete { kind: KIND, field: "namespace" })?,
        name: group.name_any(),
        uid: group.uid().ok_or(Error::Incomplete { kind: KIND, field: "uid" })?,
        manager: names::MANAGER_GROUP,
        label: names::LABEL_GROUP,
    })
}
