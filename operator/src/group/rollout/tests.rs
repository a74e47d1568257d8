//! Each move of a rollout from the state that asks for it.

use super::*;
use crate::validator::fixtures;

fn member(number: usize, is_current: bool) -> Member {
    let pod = MemberPod {
        uid: format!("u{number}"),
        is_current,
        is_deleting: false,
        is_failing: false,
        is_running: true,
        is_old: false,
        is_ready: true,
        is_counted: true,
    };
    Member { name: format!("n{number}"), identity: Some(format!("i{number}")), is_observed: true, pod: Some(pod) }
}

fn members(current: [bool; 4]) -> Vec<Member> {
    current.into_iter().enumerate().map(|(number, is_current)| member(number, is_current)).collect()
}

fn pod(members: &mut [Member], number: usize) -> &mut MemberPod {
    members[number].pod.as_mut().expect("there")
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
    Begun { node: format!("n{number}"), pod_uid: format!("u{number}"), age: Duration::from_secs(1), after_height: None }
}

/// The fourth voter was restarted: its new pod runs the new spec.
fn restarted() -> Vec<Member> {
    let mut members = members([false, false, false, true]);
    pod(&mut members, 3).uid = "new".to_string();
    members
}

#[test]
fn voters_are_restarted_one_at_a_time_from_the_highest_number() {
    assert_eq!(decide(&members([true; 4]), None, Some(&facts(&[]))), Move::Nothing);
    assert_eq!(decide(&members([false; 4]), None, Some(&facts(&[]))), Move::Begin(3));
    assert_eq!(decide(&members([false; 4]), Some(&begun(3)), Some(&facts(&[]))), Move::Evict(3));
    assert_eq!(decide(&restarted(), Some(&begun(3)), Some(&facts(&[3]))), Move::Seen(100));
    assert_eq!(decide(&restarted(), None, Some(&facts(&[]))), Move::Begin(2));
}

#[test]
fn only_precommits_that_the_new_pod_must_have_made_end_a_restart() {
    let mut seen = Begun { after_height: Some(98), ..begun(3) };
    assert!(matches!(decide(&restarted(), Some(&seen), Some(&facts(&[]))), Move::Wait(_)), "100 may be of the old pod");
    seen.after_height = Some(97);
    assert_eq!(decide(&restarted(), Some(&seen), Some(&facts(&[]))), Move::Finish);
    assert!(
        matches!(decide(&restarted(), Some(&seen), Some(&facts(&[3]))), Move::Wait(_)),
        "it does not sign steadily"
    );
    assert!(matches!(decide(&restarted(), Some(&seen), None), Move::Wait(_)), "nobody says so");
    let mut unready = restarted();
    pod(&mut unready, 3).is_ready = false;
    assert!(matches!(decide(&unready, Some(&seen), Some(&facts(&[]))), Move::Wait(_)));
}

#[test]
fn a_node_that_has_no_vote_yet_is_restarted_without_proof_and_only_while_the_chain_is_known() {
    let mut newcomer = vec![member(9, false)];
    assert_eq!(decide(&newcomer, None, Some(&facts(&[]))), Move::Begin(0));
    assert!(matches!(decide(&newcomer, None, None), Move::Wait(_)));
    newcomer[0] = member(9, true);
    pod(&mut newcomer, 0).uid = "new".to_string();
    let seen = Begun { after_height: Some(99), ..begun(9) };
    assert_eq!(decide(&newcomer, Some(&seen), Some(&facts(&[]))), Move::Finish);
    pod(&mut newcomer, 0).is_ready = false;
    assert!(matches!(decide(&newcomer, Some(&seen), Some(&facts(&[]))), Move::Wait(_)), "it has to start");
}

#[test]
fn nothing_is_restarted_beyond_the_fault_budget_or_without_facts() {
    assert!(matches!(decide(&members([false, false, false, true]), None, Some(&facts(&[3]))), Move::Wait(_)));
    assert!(matches!(decide(&members([false; 4]), None, None), Move::Wait(_)));
    // The one that is down already may be.
    assert_eq!(decide(&members([false; 4]), None, Some(&facts(&[1]))), Move::Begin(1));
}

#[test]
fn while_blocks_stand_still_nothing_is_restarted_but_pods_that_fail() {
    let mut standing = facts(&[]);
    standing.is_standing = true;
    for silent in [None, Some("i1")] {
        if let Some(silent) = silent {
            standing.voters.get_mut(silent).expect("there").is_signing = false;
        }
        assert!(matches!(decide(&members([false; 4]), None, Some(&standing)), Move::Wait(_)), "{silent:?}");
        assert!(confirm(&members([false; 4]), &begun(1), Some(&standing)).is_err(), "{silent:?}");
    }
    let mut stuck = members([false; 4]);
    let failing = pod(&mut stuck, 2);
    (failing.is_failing, failing.is_running) = (true, false);
    assert_eq!(decide(&stuck, None, Some(&standing)), Move::Begin(2));
    assert_eq!(confirm(&stuck, &begun(2), Some(&standing)), Ok(()));
}

#[test]
fn a_voter_whose_pod_is_gone_is_down_although_its_last_votes_are_still_counted() {
    let mut gone = members([false; 4]);
    gone[0].pod = None;
    assert!(matches!(decide(&gone, None, Some(&facts(&[]))), Move::Wait(_)));
    let mut going = members([false, false, false, true]);
    pod(&mut going, 3).is_deleting = true;
    assert!(matches!(decide(&going, None, Some(&facts(&[]))), Move::Wait(_)));
}

#[test]
fn a_voter_that_the_disruption_budget_does_not_count_yet_is_down() {
    let mut uncounted = members([false, false, false, true]);
    pod(&mut uncounted, 3).is_counted = false;
    assert!(matches!(decide(&uncounted, None, Some(&facts(&[]))), Move::Wait(_)));
}

#[test]
fn between_intent_and_eviction_everything_is_looked_at_again() {
    let all = members([false; 4]);
    assert_eq!(confirm(&all, &begun(3), Some(&facts(&[]))), Ok(()));
    assert!(confirm(&all, &begun(3), Some(&facts(&[0]))).is_err(), "another voter fell silent");
    assert!(confirm(&all, &begun(3), None).is_err(), "nobody answers any more");
    let mut other = all.clone();
    pod(&mut other, 3).uid = "new".to_string();
    assert!(confirm(&other, &begun(3), Some(&facts(&[]))).is_err(), "it is another pod");
    let mut current = all.clone();
    pod(&mut current, 3).is_current = true;
    assert!(confirm(&current, &begun(3), Some(&facts(&[]))).is_err(), "the spec went back");
    let mut unready = all;
    pod(&mut unready, 1).is_ready = false;
    assert!(confirm(&unready, &begun(3), Some(&facts(&[]))).is_err(), "another pod is not ready");
}

#[test]
fn a_pod_that_fails_is_replaced_first_and_without_facts() {
    let mut stuck = members([true, false, true, false]);
    let failing = pod(&mut stuck, 1);
    (failing.is_failing, failing.is_ready, failing.is_running) = (true, false, false);
    assert_eq!(decide(&stuck, None, None), Move::Begin(1));
    assert_eq!(confirm(&stuck, &begun(1), None), Ok(()));
    // Its replacement in a running rollout, after the spec went back.
    assert_eq!(decide(&stuck, Some(&Begun { pod_uid: "old".into(), ..begun(1) }), None), Move::Finish);
}

#[test]
fn a_restarted_voter_that_does_not_sign_pauses_the_rollout() {
    let mut failing = restarted();
    pod(&mut failing, 3).is_failing = true;
    assert!(matches!(decide(&failing, Some(&begun(3)), Some(&facts(&[3]))), Move::Stuck(_)));
    let late = Begun { age: SIGNING_TIME_MAX + Duration::from_secs(1), after_height: Some(90), ..begun(3) };
    assert!(matches!(decide(&restarted(), Some(&late), Some(&facts(&[3]))), Move::Stuck(_)));
    // It goes on when the voter comes to sign after all.
    assert_eq!(decide(&restarted(), Some(&late), Some(&facts(&[]))), Move::Finish);
}

#[test]
fn a_spec_that_went_back_before_the_pod_did_ends_the_restart() {
    assert_eq!(decide(&members([true; 4]), Some(&begun(3)), Some(&facts(&[]))), Move::Finish);
}

#[test]
fn a_pod_that_is_starting_is_left_alone() {
    let mut starting = members([true, false, true, false]);
    pod(&mut starting, 1).is_ready = false;
    assert!(matches!(decide(&starting, None, Some(&facts(&[1]))), Move::Wait(_)));
}

#[test]
fn one_that_has_had_its_time_and_is_not_heard_of_gets_the_new_spec() {
    let mut hung = members([true, false, true, false]);
    pod(&mut hung, 1).is_ready = false;
    pod(&mut hung, 1).is_old = true;
    assert_eq!(decide(&hung, None, Some(&facts(&[1]))), Move::Begin(1));
    assert_eq!(confirm(&hung, &begun(1), Some(&facts(&[1]))), Ok(()));
    assert!(matches!(decide(&hung, None, Some(&facts(&[]))), Move::Wait(_)), "the others see its votes");
    assert!(matches!(decide(&hung, None, None), Move::Wait(_)), "nobody says so");
    assert!(matches!(decide(&hung, None, Some(&facts(&[0, 1]))), Move::Wait(_)), "less than a quorum is seen");
}

#[test]
fn a_pod_that_ended_twice_and_runs_again_is_asked_for_like_any_other() {
    let mut ended = members([true, false, true, true]);
    let again = pod(&mut ended, 1);
    (again.is_failing, again.is_ready, again.is_running) = (true, false, true);
    assert!(matches!(decide(&ended, None, Some(&facts(&[]))), Move::Wait(_)), "it signs");
    assert!(confirm(&ended, &begun(1), Some(&facts(&[0]))).is_err(), "another one is silent");
    assert!(confirm(&ended, &begun(1), None).is_err(), "nobody says that it does not");
    assert_eq!(decide(&ended, None, Some(&facts(&[1]))), Move::Begin(1));
    pod(&mut ended, 1).is_running = false;
    assert_eq!(confirm(&ended, &begun(1), None), Ok(()));
}

#[test]
fn an_intent_that_may_not_be_carried_out_makes_room() {
    let late = Begun { age: INTENT_AGE_MAX + Duration::from_secs(1), ..begun(3) };
    let mut others = members([false; 4]);
    assert_eq!(decide(&others, Some(&late), Some(&facts(&[]))), Move::Evict(3));
    assert_eq!(decide(&others, Some(&begun(3)), Some(&facts(&[1]))), Move::Evict(3), "it may be seen right away");
    assert!(matches!(decide(&others, Some(&late), Some(&facts(&[1]))), Move::Release(_)));
    assert!(matches!(decide(&others, Some(&late), None), Move::Release(_)));
    let ends = pod(&mut others, 1);
    (ends.is_failing, ends.is_ready, ends.is_running) = (true, false, false);
    assert_eq!(decide(&others, None, Some(&facts(&[1]))), Move::Begin(1), "the one that the new spec mends");
}

#[test]
fn while_a_voter_has_no_known_identity_nobody_is_restarted() {
    let mut nameless = members([false; 4]);
    (nameless[1].identity, nameless[1].pod) = (None, None);
    let mut said = facts(&[]);
    said.is_nameless = true;
    assert!(matches!(decide(&nameless, None, Some(&said)), Move::Wait(_)));
    assert!(confirm(&nameless, &begun(3), Some(&said)).is_err());
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
