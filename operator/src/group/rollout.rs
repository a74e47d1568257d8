//! Which voter may be restarted now, decided from what its pods run and what the chain can bear. Pure.

use crate::chain::agreement::{Facts, faults};

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
    /// It is ready.
    pub is_ready: bool,
}

/// A restart that was begun: which node, and the pod that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// ValidatorNode.
    pub node: String,
    /// UID of the pod.
    pub pod_uid: String,
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
    /// The restart that was written down is over.
    Finish,
}

/// The next move. One restart at a time; nothing is begun unless the chain bears it, and while too few voters answer
/// nothing is begun at all.
pub fn decide(members: &[Member], begun: Option<&Begun>, facts: Option<&Facts>) -> Move {
    match begun {
        Some(begun) => go_on(members, begun, facts),
        None => begin(members, facts),
    }
}

fn go_on(members: &[Member], begun: &Begun, facts: Option<&Facts>) -> Move {
    let found = members.iter().enumerate().find(|(_, member)| member.name == begun.node);
    let Some((index, member)) = found else { return Move::Finish };
    match &member.pod {
        None => Move::Wait(format!("waiting for a new pod of {}", member.name)),
        Some(pod) if pod.uid == begun.pod_uid && pod.is_deleting => {
            Move::Wait(format!("the pod of {} is stopping", member.name))
        }
        Some(pod) if pod.uid == begun.pod_uid => Move::Evict(index),
        // The spec has changed again, perhaps because this pod cannot start.
        Some(pod) if !pod.is_current => Move::Finish,
        Some(pod) if pod.is_ready && is_signing(member, facts) => Move::Finish,
        Some(pod) if pod.is_failing => {
            Move::Wait(format!("{} does not start with the new spec, so no other voter is restarted", member.name))
        }
        Some(_) => Move::Wait(format!("waiting for {} to sign again", member.name)),
    }
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
    // A pod that fails, as with an image that cannot be pulled, signs nothing and costs nothing.
    if let Some((index, _, _)) = ready.iter().find(|(_, _, pod)| pod.is_failing) {
        return Move::Begin(*index);
    }
    if let Some((_, member, _)) = ready.iter().find(|(_, _, pod)| !pod.is_ready) {
        return Move::Wait(format!("waiting for {} to start", member.name));
    }
    let Some(facts) = facts else {
        return Move::Wait("too few voters answer to know whether one may be restarted".to_string());
    };
    let silent = ready.iter().find(|(_, member, _)| !is_signing(member, Some(facts)));
    let Some((index, member, _)) = silent.or_else(|| ready.last()) else {
        return Move::Wait("the new spec is being applied".to_string());
    };
    if bears(facts, member) {
        Move::Begin(*index)
    } else {
        Move::Wait(format!("{} may not be restarted now: no further voter may stop", member.name))
    }
}

fn is_signing(member: &Member, facts: Option<&Facts>) -> bool {
    let voter = member.identity.as_ref().and_then(|identity| facts?.voters.get(identity));
    voter.is_some_and(|voter| voter.is_signing)
}

/// Whether the chain bears the loss of this voter. One that does not sign costs nothing more; a chain that tolerates no
/// fault stands still meanwhile, which its status says.
fn bears(facts: &Facts, member: &Member) -> bool {
    let voter = member.identity.as_ref().and_then(|identity| facts.voters.get(identity));
    let power = voter.filter(|voter| voter.is_signing).map_or(0, |voter| voter.power);
    let down = facts.total_power.saturating_sub(facts.signing_power);
    let budget = faults(facts.total_power);
    power == 0 || facts.voters.len() == 1 || down.saturating_add(power) <= budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::fixtures;

    fn member(number: usize, is_current: bool) -> Member {
        let pod =
            MemberPod { uid: format!("u{number}"), is_current, is_deleting: false, is_failing: false, is_ready: true };
        Member { name: format!("n{number}"), identity: Some(format!("i{number}")), is_observed: true, pod: Some(pod) }
    }

    fn members(current: [bool; 4]) -> Vec<Member> {
        current.into_iter().enumerate().map(|(number, is_current)| member(number, is_current)).collect()
    }

    fn facts(silent: &[usize]) -> Facts {
        let mut facts = fixtures::facts(&["i0", "i1", "i2", "i3"]);
        for number in silent {
            facts.voters.get_mut(&format!("i{number}")).expect("there").is_signing = false;
            facts.signing_power -= 1;
        }
        facts
    }

    fn begun(number: usize) -> Begun {
        Begun { node: format!("n{number}"), pod_uid: format!("u{number}") }
    }

    #[test]
    fn voters_are_restarted_one_at_a_time_from_the_highest_number() {
        assert_eq!(decide(&members([true; 4]), None, Some(&facts(&[]))), Move::Nothing);
        assert_eq!(decide(&members([false; 4]), None, Some(&facts(&[]))), Move::Begin(3));
        assert_eq!(decide(&members([false; 4]), Some(&begun(3)), Some(&facts(&[]))), Move::Evict(3));
        let mut waiting = members([false, false, false, true]);
        waiting[3].pod.as_mut().expect("there").uid = "new".to_string();
        assert!(matches!(decide(&waiting, Some(&begun(3)), Some(&facts(&[3]))), Move::Wait(_)));
        assert_eq!(decide(&waiting, Some(&begun(3)), Some(&facts(&[]))), Move::Finish);
        assert_eq!(decide(&waiting, None, Some(&facts(&[]))), Move::Begin(2));
    }

    #[test]
    fn nothing_is_restarted_beyond_the_fault_budget_or_without_facts() {
        assert!(matches!(decide(&members([false, false, false, true]), None, Some(&facts(&[3]))), Move::Wait(_)));
        assert!(matches!(decide(&members([false; 4]), None, None), Move::Wait(_)));
        // The one that is down already may be.
        assert_eq!(decide(&members([false; 4]), None, Some(&facts(&[1]))), Move::Begin(1));
    }

    #[test]
    fn a_pod_that_fails_is_replaced_first_and_without_facts() {
        let mut stuck = members([true, false, true, false]);
        stuck[1].pod.as_mut().expect("there").is_failing = true;
        assert_eq!(decide(&stuck, None, None), Move::Begin(1));
        // Its replacement in a running rollout, after the spec went back.
        assert_eq!(decide(&stuck, Some(&Begun { node: "n1".into(), pod_uid: "old".into() }), None), Move::Finish);
    }

    #[test]
    fn a_pod_that_is_starting_is_left_alone() {
        let mut starting = members([true, false, true, false]);
        starting[1].pod.as_mut().expect("there").is_ready = false;
        assert!(matches!(decide(&starting, None, Some(&facts(&[1]))), Move::Wait(_)));
    }

    #[test]
    fn a_single_voter_may_be_restarted() {
        let one = [member(0, false)];
        assert_eq!(decide(&one, None, Some(&fixtures::facts(&["i0"]))), Move::Begin(0));
    }

    #[test]
    fn a_spec_that_is_not_applied_yet_restarts_nobody() {
        let mut early = members([false; 4]);
        for member in &mut early {
            member.is_observed = false;
        }
        assert!(matches!(decide(&early, None, Some(&facts(&[]))), Move::Wait(_)));
    }
}
