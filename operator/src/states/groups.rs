//! The states of a ConsensusGroup.

use althing_crds::conditions::{self, ConditionStatus, ConditionType, Statement};
use althing_crds::{Reason, ValidatorNode};
use node_api::proto::{Session, SessionState};
use serde_json::Value;

use super::{State, now};
use crate::chain::agreement::Facts;
use crate::group::fixtures::observed;
use crate::group::observe::{GenesisRead, Observed};
use crate::group::status::{Progress, next};
use crate::refusal::Refusal;

type Change = fn(&mut Observed) -> Progress;

fn object(change: Change) -> Value {
    let mut seen = observed();
    let progress = change(&mut seen);
    let mut group = seen.group.clone();
    group.status = Some(next(&seen, &progress, &now()));
    serde_json::to_value(&group).expect("JSON")
}

fn facts(seen: &mut Observed) -> &mut Facts {
    seen.facts.as_mut().expect("there")
}

/// So many voters are not seen to sign.
fn silence(seen: &mut Observed, voters: usize) {
    let silent: Vec<String> =
        seen.voters.iter().take(voters).filter_map(|voter| voter.identity()).map(str::to_string).collect();
    seen.facts = seen.facts.take().map(|facts| facts.without(&silent.into_iter().collect()));
}

/// There is no genesis yet.
fn unstarted(seen: &mut Observed) {
    seen.group.status = None;
    (seen.facts, seen.genesis) = (None, GenesisRead::Missing);
}

fn node_says(seen: &mut Observed, kind: ConditionType, reason: Reason, message: &str) {
    let node: &mut ValidatorNode = seen.voters[2].node.as_mut().expect("there");
    let statement = Statement::new(kind, ConditionStatus::True, reason, message);
    node.status.as_mut().expect("there").conditions = conditions::merge(&[], &[statement], 1, &now());
}

fn refused(reason: Reason, message: &str) -> Progress {
    Progress::Refused(Refusal::new(reason, message))
}

/// All states of a group.
pub(super) fn states() -> Vec<State> {
    let table: [(&'static str, Change); 27] = [
        ("ready", |_| Progress::Unchanged),
        ("children-written", |seen| {
            unstarted(seen);
            Progress::Applied
        }),
        ("ceremony", |seen| {
            unstarted(seen);
            Progress::Ceremony("3 of 4 voters have reported".to_string())
        }),
        ("ceremony-needs-a-person", |seen| {
            unstarted(seen);
            node_says(seen, ConditionType::Stalled, Reason::IdentityLost, "gone");
            Progress::Ceremony("3 of 4 voters have reported".to_string())
        }),
        ("awaits-chain-id", |seen| {
            unstarted(seen);
            Progress::Waiting("waiting for ConsensusGroup demo-old to go".to_string())
        }),
        ("first-block", |seen| {
            (facts(seen).height, facts(seen).signing_power, facts(seen).margin) = (0, 0, 0);
            facts(seen).voters.values_mut().for_each(|voter| voter.is_signing = false);
            Progress::Applied
        }),
        ("voters-start", |seen| {
            seen.group.status = Some(next(seen, &Progress::Applied, &now()));
            silence(seen, 1);
            Progress::Unchanged
        }),
        ("restarting", |_| Progress::Restarting("waiting for demo-main-3 to sign again".to_string())),
        ("rollout-paused", |_| refused(Reason::RolloutPaused, "demo-main-3 does not sign")),
        ("voters-change", |_| Progress::Changing("voter 4 joins the chain".to_string())),
        ("awaits-governance", |_| Progress::AwaitingGovernance("sign the document".to_string())),
        ("one-voter-lost", |seen| {
            silence(seen, 1);
            Progress::Unchanged
        }),
        ("quorum-lost", |seen| {
            silence(seen, 2);
            Progress::Unchanged
        }),
        ("blocks-stopped", |seen| {
            facts(seen).block_age = std::time::Duration::from_secs(700);
            facts(seen).is_standing = true;
            Progress::Unchanged
        }),
        ("chain-unknown", |seen| {
            seen.facts = None;
            Progress::Unchanged
        }),
        ("co-located", |seen| {
            let spec = seen.voters[1].pod.as_mut().and_then(|pod| pod.spec.as_mut()).expect("there");
            spec.node_name = Some("machine-demo-main-0".to_string());
            Progress::Unchanged
        }),
        ("single-voter", |seen| {
            let identity = seen.voters[0].identity().expect("there").to_string();
            seen.facts = Some(crate::validator::fixtures::facts(&[&identity]));
            (seen.numbers, seen.group.spec.replicas) = (vec![0], 1);
            seen.voters.truncate(1);
            Progress::Unchanged
        }),
        ("signers-waiting", |seen| {
            // One of them has asked the chain for another key meanwhile.
            for (voter, state) in seen.voters.iter_mut().zip([SessionState::WaitingForProof, SessionState::Rotating]) {
                let session = Session { state: state.into(), ..Session::default() };
                voter.said.as_mut().expect("it answers").session = Some(session);
            }
            silence(seen, 2);
            Progress::Unchanged
        }),
        ("one-signer-waits", |seen| {
            let session = Session { state: SessionState::WaitingForProof.into(), ..Session::default() };
            seen.voters[0].said.as_mut().expect("it answers").session = Some(session);
            silence(seen, 1);
            Progress::Unchanged
        }),
        ("child-stalled", |seen| {
            node_says(seen, ConditionType::Stalled, Reason::VolumeLost, "gone");
            Progress::Unchanged
        }),
        ("drain-blocked", |seen| {
            node_says(seen, ConditionType::Stalled, Reason::DrainBlocked, "its machine was drained");
            silence(seen, 1);
            Progress::Unchanged
        }),
        ("volume-grows", |seen| {
            node_says(seen, ConditionType::Reconciling, Reason::VolumeGrowing, "1Gi of 2Gi");
            Progress::Unchanged
        }),
        ("genesis-lost", |_| refused(Reason::GenesisLost, "ConfigMap demo-main-genesis is gone")),
        ("step-failed-without-a-quorum", |seen| {
            silence(seen, 2);
            let why = "failed to apply Service demo/demo-main-rpc: the webhook of policies does not answer";
            Progress::Failed(why.to_string())
        }),
        ("paused", |_| Progress::Paused),
        ("paused-before-a-change", |seen| {
            seen.group.spec.node.image = Some("a:2".to_string());
            Progress::Paused
        }),
        ("paused-without-a-quorum", |seen| {
            silence(seen, 2);
            Progress::Paused
        }),
    ];
    table.into_iter().map(|(name, change)| (name, object(change))).collect()
}
