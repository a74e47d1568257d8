//! The states of a BlockchainNetwork.

use althing_crds::conditions::{self, ConditionStatus, ConditionType, Statement};
use althing_crds::{ConsensusGroup, Reason};
use serde_json::Value;

use super::{State, now};
use crate::certificates::new_authority;
use crate::issuer::{Issuance, Said};
use crate::network::observe::{AuthorityRead, Observed};
use crate::network::rolling::Rolling;
use crate::network::status::{Progress, next};
use crate::network::tests::{observed, workload};
use crate::refusal::Refusal;
use crate::rollover::{Authority, Behind, Outside, Stage, Step};

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

/// The authority is at this stage of its replacement, and this is done about it.
fn rolls(seen: &mut Observed, stage: fn(String) -> Stage, step: Step) -> Progress {
    let authority = Authority::settled(new_authority("demo", 1_767_225_600).expect("an authority"));
    let (hash, stage) = ("11".repeat(32), stage("22".repeat(32)));
    seen.authority = AuthorityRead::Present(Authority { hash, stage, ..authority });
    let late = Behind { who: "demo-main-2".to_string(), why: "no running pod" };
    let behind = if step == Step::Wait { vec![late] } else { Vec::new() };
    let members = vec!["the other members of group main".to_string()];
    let outside = Outside { verify: members, present: vec!["those whom you know of".to_string()] };
    seen.rolling = Some(Rolling { step, behind, outside, is_fixed: true });
    Progress::Unchanged
}

const ISSUER: &str = "  certificates: {issuerRef: {name: company}}";

/// Certificates of an issuer are not all there.
fn issuance(seen: &mut Observed, said: Said) -> Progress {
    seen.issuance = Some(Issuance { said, again: std::time::Duration::from_secs(1) });
    Progress::Unchanged
}

fn trusting(hash: String) -> Stage {
    Stage::Trusting { next: new_authority("demo", 1_767_225_600).expect("an authority").into(), hash }
}

fn signing(hash: String) -> Stage {
    Stage::Signing { hash }
}

/// All states of a network.
pub(super) fn states() -> Vec<State> {
    let table: [(&'static str, &str, Change); 22] = [
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
        ("authority-is-fixed", "", |seen| rolls(seen, |_| Stage::Settled, Step::Begin)),
        ("authority-comes", "", |seen| rolls(seen, trusting, Step::Wait)),
        ("authority-awaits-confirmation", "", |seen| rolls(seen, trusting, Step::AskBeforeSigning)),
        ("authority-signs", "", |seen| rolls(seen, signing, Step::Wait)),
        ("authority-awaits-withdrawal", "", |seen| rolls(seen, signing, Step::AskBeforeWithdrawal)),
        ("issuer-is-awaited", ISSUER, |seen| {
            let why =
                "CertificateRequest demo-client-main waits for Issuer.cert-manager.io company: it is not approved yet";
            issuance(seen, Said::Awaited(why.to_string()))
        }),
        ("issuer-refused", ISSUER, |seen| {
            let why = "CertificateRequest demo-client-main was denied: no such names";
            issuance(seen, Said::Refused(Refusal::new(Reason::IssuerRefused, why)))
        }),
        ("step-failed", "", |_| {
            let why = "failed to apply ConsensusGroup shop/demo-main: the webhook of policies does not answer";
            Progress::Failed(why.to_string())
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
