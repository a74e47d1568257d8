//! Which voter may be restarted now, decided from what its pods run and what the chain can bear. Pure.

pub mod turns;

use std::collections::BTreeSet;
use std::time::Duration;

use super::proof::PROOF_DISTANCE;
use crate::budget::{Budget, STANDING};
use crate::chain::agreement::Facts;

/// One voter as a rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of its ValidatorNode.
    pub name: String,
    /// Identity, hexadecimal.
    pub identity: Option<String>,
    /// The StatefulSet has taken up the newest spec.
    pub is_observed: bool,
    /// Its pod.
    pub pod: Option<MemberPod>,
}

/// The pod of a voter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPod {
    /// UID.
    pub uid: String,
    /// It runs what the spec says now.
    pub is_current: bool,
    /// It has a deletionTimestamp.
    pub is_deleting: bool,
    /// It cannot start or ends again and again: waiting for it is in vain.
    pub is_failing: bool,
    /// Its container runs at this moment.
    pub is_running: bool,
    /// It is older than a voter may be until it signs.
    pub is_old: bool,
    /// It is ready.
    pub is_ready: bool,
    /// The disruption budget of Kubernetes counts it; until then it stands for no voter that signs.
    pub is_counted: bool,
}

/// A restart that was begun, as it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// ValidatorNode.
    pub node: String,
    /// UID of the pod that is to go.
    pub pod_uid: String,
    /// Time since it was written down.
    pub age: Duration,
    /// Height of the chain when the new pod was first seen.
    pub after_height: Option<u64>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Every pod runs what the spec says.
    Nothing,
    /// Nothing may be done now, and why.
    Wait(String),
    /// Write down that this member is restarted.
    Begin(usize),
    /// Evict the pod of this member, which was written down.
    Evict(usize),
    /// Write down that the new pod was seen at this height.
    Seen(u64),
    /// Write down that this restart does not come: its pod is still there, and may not go now; why.
    Release(String),
    /// The restarted voter does not come to sign: nothing goes on by itself.
    Stuck(String),
    /// The restart that was written down is over.
    Finish,
}

/// How long a restarted voter may take to sign again; a pod gets 120 s to stop.
pub const SIGNING_TIME_MAX: Duration = Duration::from_secs(240);
/// How long a restart that was written down waits until its pod may go. Later it makes room: another voter may need it more.
const INTENT_AGE_MAX: Duration = Duration::from_secs(30);

/// The next move. One restart at a time; nothing is begun unless the budget permits it, and while too few voters answer
/// nothing is begun at all.
pub fn decide(members: &[Member], begun: Option<&Begun>, facts: Option<&Facts>) -> Move {
    match begun {
        Some(begun) => go_on(members, begun, facts),
        None => begin(members, facts),
    }
}

/// Whether the pod that was written down may go, from what is true now. Everything is looked at again between the
/// intent and the eviction: another voter may have failed meanwhile.
pub fn confirm(members: &[Member], begun: &Begun, facts: Option<&Facts>) -> Result<(), String> {
    let Some(member) = members.iter().find(|member| member.name == begun.node) else {
        return Err(format!("{} is gone", begun.node));
    };
    let Some(pod) = member.pod.as_ref().filter(|pod| pod.uid == begun.pod_uid && !pod.is_deleting) else {
        return Err(format!("the pod of {} is stopping", member.name));
    };
    if pod.is_current {
        return Err(format!("{} runs what the spec says now", member.name));
    }
    if costs_nothing(member, facts) { Ok(()) } else { may_stop(members, member, facts) }
}

/// Its pod fails, as with an image that cannot be pulled, and signs nothing: no container of it runs, or its votes are not
/// seen. One that ended twice and runs again may sign well.
pub fn costs_nothing(member: &Member, facts: Option<&Facts>) -> bool {
    let is_silent = || facts.is_some_and(|facts| is_silent(member, facts));
    member.pod.as_ref().is_some_and(|pod| pod.is_failing && (!pod.is_running || is_silent()))
}

/// The others do not see votes of it, or it has none.
fn is_silent(member: &Member, facts: &Facts) -> bool {
    let Some(identity) = &member.identity else { return false };
    !facts.voters.get(identity).is_some_and(|voter| voter.is_signing)
}

/// The budget of the chain as these members and facts show it.
pub fn budget(members: &[Member], facts: &Facts) -> Budget {
    Budget::of(facts, &absent(members))
}

/// Identities of members without a ready pod that the disruption budget counts.
pub fn absent(members: &[Member]) -> BTreeSet<String> {
    let is_up = |pod: &MemberPod| pod.is_ready && pod.is_counted && !pod.is_deleting;
    let absent = members.iter().filter(|member| !member.pod.as_ref().is_some_and(is_up));
    absent.filter_map(|member| member.identity.clone()).collect()
}

fn may_stop(members: &[Member], member: &Member, facts: Option<&Facts>) -> Result<(), String> {
    let Some(facts) = facts else {
        return Err("too few voters answer to know whether one may be restarted".to_string());
    };
    let budget = budget(members, facts);
    if facts.is_standing {
        return Err(format!("{} may not be restarted now: {STANDING}", member.name));
    }
    if facts.is_nameless {
        return Err(format!("{} may not be restarted now: the identity of a voter is not known", member.name));
    }
    let permitted = member.identity.as_ref().is_some_and(|identity| budget.permits(identity));
    if permitted { Ok(()) } else { Err(format!("{} may not be restarted now: no further voter may stop", member.name)) }
}

fn go_on(members: &[Member], begun: &Begun, facts: Option<&Facts>) -> Move {
    let found = members.iter().enumerate().find(|(_, member)| member.name == begun.node);
    let Some((index, member)) = found else { return Move::Finish };
    let wait = |what: String| {
        if begun.age > SIGNING_TIME_MAX { Move::Stuck(stuck(member, &what)) } else { Move::Wait(what) }
    };
    let Some(pod) = &member.pod else { return wait(format!("waiting for a new pod of {}", member.name)) };
    if pod.uid == begun.pod_uid {
        return match (pod.is_deleting, pod.is_current) {
            (true, _) => Move::Wait(format!("the pod of {} is stopping", member.name)),
            // The spec went back before the pod did.
            (false, true) => Move::Finish,
            (false, false) if begun.age > INTENT_AGE_MAX && !costs_nothing(member, facts) => {
                may_stop(members, member, facts).map_or_else(Move::Release, |()| Move::Evict(index))
            }
            (false, false) => Move::Evict(index),
        };
    }
    // The spec has changed again, perhaps because this pod cannot start.
    if !pod.is_current {
        return Move::Finish;
    }
    if pod.is_failing {
        return Move::Stuck(stuck(member, "its pod does not start with the new spec"));
    }
    let Some(facts) = facts else { return wait("too few voters answer to know who signs".to_string()) };
    match begun.after_height {
        None => Move::Seen(facts.height),
        Some(after) if pod.is_ready && (has_proved(member, facts, after) || is_no_voter(member, facts)) => Move::Finish,
        Some(_) => wait(format!("waiting for {} to sign again", member.name)),
    }
}

fn stuck(member: &Member, why: &str) -> String {
    format!(
        "{} was restarted with the new spec and does not sign: {why}; no other voter is restarted until it signs or the spec changes",
        member.name
    )
}

/// More than f power of the others has seen its precommits of heights that only the new pod can have voted at.
fn has_proved(member: &Member, facts: &Facts, after: u64) -> bool {
    let Some(identity) = &member.identity else { return false };
    let is_signing = facts.voters.get(identity).is_some_and(|voter| voter.is_signing);
    let newest = facts.last_precommits.get(identity).copied().unwrap_or(0);
    is_signing && newest > after.saturating_add(PROOF_DISTANCE)
}

/// It has no vote yet, or not any more: there is nothing to prove.
fn is_no_voter(member: &Member, facts: &Facts) -> bool {
    member.identity.as_ref().is_some_and(|identity| !facts.voters.contains_key(identity))
}

fn begin(members: &[Member], facts: Option<&Facts>) -> Move {
    let outdated: Vec<(usize, &Member, &MemberPod)> = members
        .iter()
        .enumerate()
        .filter_map(|(index, member)| {
            let pod = member.pod.as_ref().filter(|pod| !pod.is_current)?;
            Some((index, member, pod))
        })
        .collect();
    if outdated.is_empty() {
        return Move::Nothing;
    }
    if let Some((_, member, _)) = outdated.iter().find(|(_, _, pod)| pod.is_deleting) {
        return Move::Wait(format!("the pod of {} is stopping", member.name));
    }
    let ready: Vec<&(usize, &Member, &MemberPod)> =
        outdated.iter().filter(|(_, member, _)| member.is_observed).collect();
    if let Some((index, _, _)) = ready.iter().find(|(_, member, _)| costs_nothing(member, facts)) {
        return Move::Begin(*index);
    }
    let is_silent = |member: &Member| facts.is_some_and(|facts| is_silent(member, facts));
    // One that has had its time and is heard of by nobody may wait for this very spec.
    let is_starting = |member: &Member, pod: &MemberPod| !(pod.is_ready || pod.is_old && is_silent(member));
    if let Some((_, member, _)) = ready.iter().find(|(_, member, pod)| is_starting(member, pod)) {
        return Move::Wait(format!("waiting for {} to start", member.name));
    }
    let silent = ready.iter().find(|(_, member, _)| is_silent(member));
    let Some((index, member, _)) = silent.or_else(|| ready.last()) else {
        return Move::Wait("the new spec is being applied".to_string());
    };
    match may_stop(members, member, facts) {
        Ok(()) => Move::Begin(*index),
        Err(why) => Move::Wait(why),
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
