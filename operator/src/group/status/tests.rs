//! What is said of a group in each of its states.

use althing_crds::names;
use k8s_openapi::jiff::Timestamp;
use node_api::proto::{Session, SessionState};

use super::super::fixtures::observed;
use super::*;
use crate::pause::PAUSED;

type Change = fn(&mut Observed);

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).expect("a time"))
}

fn status(observed: &Observed, progress: &Progress, seconds: i64) -> ConsensusGroupStatus {
    next(observed, progress, &at(seconds))
}

fn said(observed: &Observed) -> String {
    // Whether pods are up to date has its own test.
    let status = status(observed, &Progress::Applied, 0);
    let said = words(&status);
    let is_of_pods = |word: &&String| word.starts_with("Reconciling=") || word.starts_with("Ready=");
    said.iter().filter(|word| !is_of_pods(word)).cloned().collect::<Vec<_>>().join(" ")
}

/// All conditions, one word for each.
fn words(status: &ConsensusGroupStatus) -> Vec<String> {
    let word = |condition: &conditions::Condition| {
        format!("{}={:?}/{}", condition.kind.as_str(), condition.status, condition.reason)
    };
    status.conditions.iter().map(word).collect()
}

#[test]
fn columns_say_what_the_voters_report() {
    let status = status(&observed(), &Progress::Unchanged, 0);
    assert_eq!(
        (
            status.signing.as_deref(),
            status.margin,
            status.height,
            status.block_age.as_deref(),
            status.version.as_deref()
        ),
        (Some("4/4"), Some(1), Some(100), Some("<10s"), Some("0.1.0"))
    );
}

#[test]
fn each_state_of_a_chain_is_said_as_it_is() {
    let cases: [(&str, Change, &str); 8] = [
        ("healthy", |_| {}, "Stalled=False/NotStalled Available=True/QuorumSigning QuorumAtRisk=False/MarginLeft"),
        (
            "too few answers",
            |seen| seen.facts = None,
            "Stalled=False/NotStalled Available=Unknown/ChainUnknown QuorumAtRisk=Unknown/ChainUnknown",
        ),
        (
            "not started",
            |seen| {
                seen.facts = None;
                seen.group.status = None;
            },
            "Stalled=False/NotStalled Available=False/NotStarted QuorumAtRisk=Unknown/ChainUnknown",
        ),
        (
            "no quorum",
            |seen| {
                let facts = seen.facts.as_mut().expect("there");
                facts.signing_power = 2;
                facts.margin = 0;
            },
            "Stalled=False/NotStalled Available=False/QuorumLost QuorumAtRisk=True/NoMarginLeft",
        ),
        (
            "no blocks",
            |seen| seen.facts.as_mut().expect("there").is_standing = true,
            "Stalled=False/NotStalled Available=False/BlocksStopped QuorumAtRisk=Unknown/BlocksStopped",
        ),
        (
            "two voters on one machine",
            |seen| {
                let spec = seen.voters[1].pod.as_mut().and_then(|pod| pod.spec.as_mut()).expect("there");
                spec.node_name = Some("machine-demo-main-0".to_string());
            },
            "Stalled=False/NotStalled Available=True/QuorumSigning QuorumAtRisk=True/CoLocated",
        ),
        (
            "two voters in one zone",
            |seen| {
                for number in [1, 3] {
                    let labels = seen.voters[number].pod.as_mut().and_then(|pod| pod.metadata.labels.as_mut());
                    labels.expect("there").insert(LABEL_ZONE.to_string(), "west".to_string());
                }
            },
            "Stalled=False/NotStalled Available=True/QuorumSigning QuorumAtRisk=True/CoLocated",
        ),
        (
            "a slow chain is not a stopped one",
            |seen| seen.facts.as_mut().expect("there").block_age = Duration::from_secs(40),
            "Stalled=False/NotStalled Available=True/QuorumSigning QuorumAtRisk=False/MarginLeft",
        ),
    ];
    for (name, change, expected) in cases {
        let mut seen = observed();
        change(&mut seen);
        assert_eq!(said(&seen), expected, "{name}");
    }
}

#[test]
fn the_age_at_which_a_chain_stands_follows_its_block_interval() {
    let mut seen = observed();
    assert_eq!(seen.block_age_max(), Duration::from_secs(10), "the default, a block per second");
    seen.group.spec.chain.parameters.block_interval_ms = 5_000;
    assert_eq!(seen.block_age_max(), Duration::from_secs(50));
}

#[test]
fn a_chain_that_stands_has_no_margin_that_anybody_knows() {
    let mut seen = observed();
    let facts = seen.facts.as_mut().expect("there");
    facts.is_standing = true;
    assert_eq!(status(&seen, &Progress::Unchanged, 0).margin, None);
    seen.facts.as_mut().expect("there").margin = 0;
    assert_eq!(status(&seen, &Progress::Unchanged, 0).margin, Some(0), "that much is known");
}

#[test]
fn at_rest_only_the_refresh_is_written() {
    let mut seen = observed();
    let ceremony = seen.group.status.clone();
    seen.group.status = Some(status(&seen, &Progress::Unchanged, 1_000));
    assert_eq!(
        seen.group.status.as_ref().and_then(|status| status.genesis_hash.clone()),
        ceremony.and_then(|status| status.genesis_hash)
    );
    seen.facts.as_mut().expect("there").height = 101;
    assert_eq!(Some(status(&seen, &Progress::Unchanged, 1_059)), seen.group.status);
    assert_eq!(status(&seen, &Progress::Unchanged, 1_060).height, Some(101));
}

#[test]
fn a_stalled_node_stalls_its_group() {
    let mut seen = observed();
    let node = seen.voters[2].node.as_mut().expect("there");
    let stalled = Statement::new(ConditionType::Stalled, ConditionStatus::True, Reason::IdentityLost, "gone");
    node.status.as_mut().expect("there").conditions = conditions::merge(&[], &[stalled], 1, &at(0));
    let status = status(&seen, &Progress::Unchanged, 0);
    let stalled = conditions::find(&status.conditions, ConditionType::Stalled).expect("there");
    assert_eq!(stalled.reason, "ChildStalled");
    assert_eq!(stalled.message, "demo-main-2: IdentityLost: gone");
}

#[test]
fn a_voter_whose_machine_was_drained_stalls_its_group_by_that_name_and_is_no_start() {
    let mut seen = observed();
    seen.group.status = Some(status(&seen, &Progress::Applied, 0));
    let node = seen.voters[2].node.as_mut().expect("there");
    let stalled = Statement::new(ConditionType::Stalled, ConditionStatus::True, Reason::DrainBlocked, "full");
    node.status.as_mut().expect("there").conditions = conditions::merge(&[], &[stalled], 1, &at(0));
    let facts = seen.facts.as_mut().expect("there");
    facts.voters.values_mut().next().expect("a voter").is_signing = false;
    let status = status(&seen, &Progress::Unchanged, 0);
    let stalled = conditions::find(&status.conditions, ConditionType::Stalled).expect("there");
    assert_eq!((stalled.reason.as_str(), stalled.message.as_str()), ("DrainBlocked", "demo-main-2: full"));
    assert_eq!(words(&status)[1], "Reconciling=False/ChildStalled");
}

#[test]
fn a_volume_that_grows_is_a_change_of_the_group_too() {
    let mut seen = observed();
    let node = seen.voters[1].node.as_mut().expect("there");
    let growing = Statement::new(ConditionType::Reconciling, ConditionStatus::True, Reason::VolumeGrowing, "1 of 2");
    node.status.as_mut().expect("there").conditions = conditions::merge(&[], &[growing], 1, &at(0));
    let status = status(&seen, &Progress::Unchanged, 0);
    assert_eq!(words(&status)[..2], ["Ready=False/VolumeGrowing", "Reconciling=True/VolumeGrowing"]);
    assert!(!is_settled(&status));
}

#[test]
fn a_paused_rollout_stalls_a_group_whose_chain_goes_on() {
    let refusal = Refusal::new(Reason::RolloutPaused, "demo-main-3 does not sign");
    let status = status(&observed(), &Progress::Refused(refusal), 0);
    let expected = [
        "Ready=False/RolloutPaused",
        "Reconciling=False/NotStalled",
        "Stalled=True/RolloutPaused",
        "Available=True/QuorumSigning",
        "QuorumAtRisk=False/MarginLeft",
    ];
    assert_eq!(words(&status), expected);
    assert!(!is_settled(&status), "it is looked at often: the voter may come to sign by itself");
}

#[test]
fn a_pause_is_rest_only_while_the_spec_is_carried_out() {
    let cases: [(&str, Change, &str, Option<i32>); 7] = [
        ("carried out", |_| {}, "", Some(4)),
        ("a pod was drained", |seen| seen.voters[3].pod = None, "", Some(3)),
        (
            "another image",
            |seen| seen.group.spec.node.image = Some("a:2".to_string()),
            "these run a former spec: demo-main-0, demo-main-1, demo-main-2, demo-main-3",
            Some(0),
        ),
        (
            "the pause came in the middle of a rollout",
            |seen| {
                let pod = seen.voters[1].pod.as_mut().expect("there");
                pod.metadata.annotations = None;
            },
            "these run a former spec: demo-main-1",
            Some(3),
        ),
        (
            "a restart is asked for",
            |seen| {
                let restart = (names::ANNOTATION_RESTART.to_string(), "now".to_string());
                seen.group.metadata.annotations = Some([restart].into());
            },
            "these run a former spec: demo-main-0, demo-main-1, demo-main-2, demo-main-3",
            Some(0),
        ),
        ("another number", |seen| seen.group.spec.replicas = 7, "4 voters instead of 7", Some(4)),
        (
            "one is retired",
            |seen| seen.group.spec.retired = vec!["demo-main-2".to_string()],
            "a voter has yet to join or leave",
            Some(4),
        ),
    ];
    for (name, change, why, updated) in cases {
        let mut seen = observed();
        change(&mut seen);
        let status = status(&seen, &Progress::Paused, 0);
        let ready = conditions::find(&status.conditions, ConditionType::Ready).expect("there");
        assert_eq!(status.updated_replicas, updated, "{name}");
        let said = words(&status).into_iter().take(2).collect::<Vec<_>>();
        if why.is_empty() {
            assert_eq!(said, ["Ready=True/NodesReady", "Reconciling=False/Paused"], "{name}");
            continue;
        }
        assert_eq!(said, ["Ready=False/Paused", "Reconciling=True/Paused"], "{name}");
        let expected = format!("{PAUSED}; generation 2 is not carried out: {why}");
        assert_eq!(ready.message, expected, "{name}");
    }
}

#[test]
fn a_start_ends_when_all_voters_sign() {
    let reconciling = |status: &ConsensusGroupStatus| {
        let condition = conditions::find(&status.conditions, ConditionType::Reconciling).expect("there");
        (condition.status, condition.reason.clone(), condition.message.clone())
    };
    let mut seen = observed();
    let silence = |seen: &mut Observed, is_signing| {
        let facts = seen.facts.as_mut().expect("there");
        facts.voters.values_mut().next().expect("a voter").is_signing = is_signing;
    };
    silence(&mut seen, false);
    seen.group.status = Some(status(&seen, &Progress::Applied, 0));
    for second in 1..3 {
        let next = status(&seen, &Progress::Unchanged, second);
        let (said, reason, message) = reconciling(&next);
        assert_eq!((said, reason.as_str()), (ConditionStatus::True, "StartingNodes"), "{message}");
        assert!(message.contains("demo-main-"), "{message}");
        assert!(!is_settled(&next), "not ready while a voter has yet to begin");
        seen.group.status = Some(next);
    }
    silence(&mut seen, true);
    seen.group.status = Some(status(&seen, &Progress::Unchanged, 4));
    assert_eq!(reconciling(seen.group.status.as_ref().expect("there")).1, "UpToDate");
    silence(&mut seen, false);
    let lost = reconciling(&status(&seen, &Progress::Unchanged, 5));
    assert_eq!(lost.1, "UpToDate", "a voter lost later is no start");
}

#[test]
fn ages_fall_into_ranges() {
    let table = [(0, "<10s"), (9, "<10s"), (10, "<1m"), (60, "<10m"), (600, "<1h"), (3_600, ">=1h")];
    for (seconds, expected) in table {
        assert_eq!(bucket(Duration::from_secs(seconds)), expected);
    }
}

/// The same chain seen by a group that joins it: no voter of its own, and four elsewhere.
fn joining() -> Observed {
    let mut seen = observed();
    let hash = seen.kept_genesis().expect("kept").hash();
    let external = format!(
        "{{genesis: {{configMap: chain, hash: {hash}}}, trustedAuthorities: [{{configMap: home}}], peers: []}}"
    );
    seen.group.spec.external = Some(serde_yaml::from_str(&external).expect("parses"));
    (seen.numbers, seen.voters) = (Vec::new(), Vec::new());
    seen
}

#[test]
fn a_group_that_joins_a_chain_speaks_of_the_whole_chain() {
    let awaits = Progress::AwaitingGovernance("voter 0 joins the chain".to_string());
    let status = status(&joining(), &awaits, 0);
    let expected = [
        "Ready=False/AwaitingGovernance",
        "Reconciling=True/AwaitingGovernance",
        "Stalled=False/NotStalled",
        "Available=True/QuorumSigning",
        "QuorumAtRisk=False/MarginLeft",
    ];
    assert_eq!(words(&status), expected);
    assert_eq!((status.signing.as_deref(), status.margin, status.replicas), (Some("4/4"), Some(1), Some(0)));
}

fn waits(seen: &mut Observed, voter: usize) {
    let session = Session { state: SessionState::WaitingForProof.into(), ..Session::default() };
    seen.voters[voter].said.as_mut().expect("it answers").session = Some(session);
}

#[test]
fn voters_that_wait_for_proof_are_named_although_the_last_blocks_show_their_votes() {
    let mut seen = observed();
    waits(&mut seen, 0);
    waits(&mut seen, 1);
    assert!(said(&seen).starts_with("Stalled=False/NotStalled"), "the chain goes on");
    seen.facts.as_mut().expect("there").is_standing = true;
    assert!(said(&seen).starts_with("Stalled=True/SignersWaiting"), "{}", said(&seen));
}

#[test]
fn a_newcomer_that_waits_for_a_person_stalls_its_group() {
    let mut seen = observed();
    let members = althing_crds::group::Members { numbers: vec![0, 1, 2], change: None, height: None };
    seen.group.status.as_mut().expect("there").members = Some(members);
    let changing = Progress::Changing("voter 3 joins the chain".to_string());
    assert!(words(&status(&seen, &changing, 0)).contains(&"Reconciling=True/ChangingVoters".to_string()));
    let node = seen.voters[3].node.as_mut().and_then(|node| node.status.as_mut()).expect("there");
    let stalled = Statement::new(ConditionType::Stalled, ConditionStatus::True, Reason::VolumeLost, "m");
    node.conditions = conditions::merge(&[], &[stalled], 1, &at(0));
    let said = words(&status(&seen, &changing, 0));
    let expected = ["Ready=False/ChildStalled", "Reconciling=False/ChildStalled", "Stalled=True/ChildStalled"];
    assert_eq!(said[..3], expected);
}

#[test]
fn one_own_voter_that_waits_for_proof_says_nothing_of_a_chain_that_lives_elsewhere() {
    let mut seen = joining();
    (seen.numbers, seen.voters) = (vec![0], observed().voters.into_iter().take(1).collect());
    waits(&mut seen, 0);
    seen.facts = None;
    assert_eq!(
        said(&seen),
        "Stalled=False/NotStalled Available=Unknown/ChainUnknown QuorumAtRisk=Unknown/ChainUnknown"
    );
}

#[test]
fn a_voter_of_another_member_that_is_silent_is_named_by_its_identity_and_costs_the_margin() {
    let mut seen = joining();
    let facts = seen.facts.as_mut().expect("there");
    let voter = facts.voters.values_mut().next().expect("a voter");
    voter.is_signing = false;
    (facts.signing_power, facts.margin) = (3, 0);
    let risk =
        conditions::find(&status(&seen, &Progress::Unchanged, 0).conditions, ConditionType::QuorumAtRisk).cloned();
    let risk = risk.expect("there");
    assert_eq!(risk.reason, "NoMarginLeft");
    let silent: String =
        seen.facts.as_ref().and_then(|facts| facts.voters.keys().next()).expect("a voter").chars().take(16).collect();
    assert!(risk.message.contains(&silent), "{}", risk.message);
}
