//! What is said of a node in each of its states.

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::validator::fixtures::{IDENTITY, facts, installation, observed, says};

type Change = fn(&mut Observed);

fn now() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

/// `Ready=True/NodesReady Reconciling=False/UpToDate ...`
fn said(observed: &Observed, progress: &Progress) -> String {
    let status = next(observed, progress, &installation(), &now());
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
    let status = next(&observed(), &Progress::Unchanged, &installation(), &now());
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
    seen.node.status = Some(next(&seen, &Progress::Unchanged, &installation(), &now()));
    let before = seen.node.status.clone();
    seen.chain = ChainKnown::NotAsked;
    assert_eq!(Some(next(&seen, &Progress::Unchanged, &installation(), &now())), before);
}

#[test]
fn at_rest_the_status_is_the_same() {
    let mut seen = observed();
    seen.node.status = Some(next(&seen, &Progress::Unchanged, &installation(), &now()));
    let later = Time(Timestamp::from_second(3_600).expect("a time"));
    let mut says = says();
    says.height = 101;
    seen.answer = Answer::Says(Box::new(says));
    assert_eq!(Some(next(&seen, &Progress::Unchanged, &installation(), &later)), seen.node.status);
}

#[test]
fn a_pause_that_keeps_the_pod_on_a_former_spec_is_no_rest() {
    let mut seen = observed();
    assert!(said(&seen, &Progress::Paused).contains("Reconciling=False/Paused"));
    seen.node.spec.node.image = Some("a:2".to_string());
    let status = next(&seen, &Progress::Paused, &installation(), &now());
    let reconciling = conditions::find(&status.conditions, ConditionType::Reconciling).expect("there");
    assert_eq!((reconciling.status, reconciling.reason.as_str()), (ConditionStatus::True, "Paused"));
    assert!(reconciling.message.contains("generation 3 is not carried out"), "{}", reconciling.message);
}

/// Its pod has found no machine for a minute, after it ran, while nothing is restarted.
fn drained() -> Observed {
    let mut seen = observed();
    let pod = seen.pod.as_mut().and_then(|pod| pod.status.as_mut()).expect("there");
    let unplaced = "{type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/4 nodes, lastTransitionTime: '1969-12-31T23:59:00Z'}";
    pod.conditions = Some(vec![serde_yaml::from_str(unplaced).expect("parses")]);
    seen.node.status.as_mut().expect("there").genesis_hash = Some(crate::validator::fixtures::GENESIS.to_string());
    seen.answer = Answer::NoPod;
    seen
}

#[test]
fn a_voter_that_finds_no_machine_after_a_drain_says_so_until_it_does() {
    let stalls = |change: Change| {
        let mut seen = drained();
        change(&mut seen);
        let status = next(&seen, &Progress::Unchanged, &installation(), &now());
        conditions::find(&status.conditions, ConditionType::Stalled).map(|stalled| stalled.reason.clone())
    };
    assert_eq!(stalls(|_| {}).as_deref(), Some("DrainBlocked"));
    let another_is_restarted: Change = |seen| {
        let group = seen.group.as_mut().and_then(|group| group.status.as_mut()).expect("there");
        let disruption = "{node: demo-main-1, podUid: p, reason: SpecChanged, since: '2026-01-01T00:00:00Z'}";
        group.disruption = Some(serde_yaml::from_str(disruption).expect("parses"));
    };
    assert_eq!(stalls(another_is_restarted).as_deref(), Some("DrainBlocked"), "that is no reason for this one to wait");
    assert!(
        said(&drained(), &Progress::Unchanged).contains("Reconciling=False/StartingNodes Stalled=True/DrainBlocked"),
        "kstatus takes what reconciles for something in progress"
    );
    let others: [(&str, Change); 6] = [
        ("it found one", |seen| seen.pod = observed().pod),
        ("it never ran: its first volume is being made", |seen| {
            seen.node.status.as_mut().expect("there").genesis_hash = None;
        }),
        ("the spec asks for another pod", |seen| seen.node.spec.node.image = Some("a:2".to_string())),
        ("its group restarts a voter, and says itself what is wrong", |seen| {
            let group = seen.group.as_mut().and_then(|group| group.status.as_mut()).expect("there");
            let disruption = "{node: demo-main-0, podUid: p, reason: SpecChanged, since: '2026-01-01T00:00:00Z'}";
            group.disruption = Some(serde_yaml::from_str(disruption).expect("parses"));
        }),
        ("only for a moment", |seen| {
            let pod = seen.pod.as_mut().and_then(|pod| pod.status.as_mut()).expect("there");
            let condition = pod.conditions.as_mut().and_then(|all| all.first_mut()).expect("there");
            condition.last_transition_time = Some(now());
        }),
        ("it is no voter", |seen| seen.node.spec.role = Role::Observer),
    ];
    for (name, change) in others {
        assert_eq!(stalls(change).as_deref(), Some("NotStalled"), "{name}");
    }
}

#[test]
fn a_volume_that_is_smaller_than_asked_for_is_not_up_to_date() {
    let mut seen = observed();
    seen.claim.as_mut().expect("there").requested = Some("2Gi".to_string());
    let said = said(&seen, &Progress::Unchanged);
    assert!(said.starts_with("Ready=True/NodesReady Reconciling=True/VolumeGrowing"), "{said}");
    assert!(!is_settled(&next(&seen, &Progress::Unchanged, &installation(), &now())));
}
