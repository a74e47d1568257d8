//! The states of a BlockchainNetwork.

use althing_crds::conditions::{self, ConditionStatus, ConditionType, Statement};
use althing_crds::{ConsensusGroup, Reason};
use serde_json::Value;

use super::{State, now};
use crate::network::observe::Observed;
use crate::network::status::{Progress, next};
use crate::network::tests::{observed, workload};
use crate::refusal::Refusal;

type Change = fn(&mut Observed) -> Progress;

fn object(tiers: &str, change: Change) -> Value {
    let mut seen = observed(tiers);
    let progress = change(&mut seen);
    let mut network = seen.network.clone();
    network.status = Some(next(&seen, &progress, &now()));
    serde_json::to_value(&network).expect("JSON")
}

fn group(seen: &mut Observed) -> &mut ConsensusGroup {
    seen.groups[0].as_mut().expect("there")
}

fn group_says(seen: &mut Observed, kind: ConditionType, status: ConditionStatus, reason: Reason) {
    let said = group(seen).status.as_mut().expect("there");
    said.conditions = conditions::merge(&said.conditions, &[Statement::new(kind, status, reason, "why")], 1, &now());
}

/// All states of a network.
pub(super) fn states() -> Vec<State> {
    let table: [(&'static str, &str, Change); 14] = [
        ("ready", "", |_| Progress::Unchanged),
        ("new", "", |seen| {
            seen.groups = vec![None];
            Progress::Applied
        }),
        ("without-groups", "", |seen| {
            (seen.groups, seen.network.spec.groups) = (Vec::new(), Vec::new());
            Progress::Unchanged
        }),
        ("group-about-to-change", "", |seen| {
            group(seen).metadata.generation = Some(2);
            Progress::Unchanged
        }),
        ("group-changes", "", |seen| {
            group_says(seen, ConditionType::Reconciling, ConditionStatus::True, Reason::RestartingNodes);
            Progress::Unchanged
        }),
        ("group-stalled", "", |seen| {
            group_says(seen, ConditionType::Stalled, ConditionStatus::True, Reason::RolloutPaused);
            Progress::Unchanged
        }),
        ("quorum-lost", "", |seen| {
            group_says(seen, ConditionType::Available, ConditionStatus::False, Reason::QuorumLost);
            group_says(seen, ConditionType::QuorumAtRisk, ConditionStatus::True, Reason::NoMarginLeft);
            Progress::Unchanged
        }),
        ("blocks-stopped", "", |seen| {
            group_says(seen, ConditionType::Available, ConditionStatus::False, Reason::BlocksStopped);
            group_says(seen, ConditionType::QuorumAtRisk, ConditionStatus::Unknown, Reason::BlocksStopped);
            Progress::Unchanged
        }),
        ("chain-unknown", "", |seen| {
            group_says(seen, ConditionType::Available, ConditionStatus::Unknown, Reason::ChainUnknown);
            Progress::Unchanged
        }),
        ("gateway-starts", "  gateway: {replicas: 2}", |seen| {
            seen.tiers.gateway = workload(2, 1);
            Progress::Unchanged
        }),
        ("authority-lost", "", |_| {
            Progress::Refused(Refusal::new(Reason::CertificateAuthorityLost, "Secret demo-ca is gone"))
        }),
        ("paused", "", |_| Progress::Paused),
        ("paused-before-a-change", "", |seen| {
            seen.network.spec.node.image = Some("a:2".to_string());
            Progress::Paused
        }),
        ("paused-while-a-group-changes", "", |seen| {
            group_says(seen, ConditionType::Reconciling, ConditionStatus::True, Reason::RestartingNodes);
            Progress::Paused
        }),
    ];
    table.into_iter().map(|(name, tiers, change)| (name, object(tiers, change))).collect()
}
