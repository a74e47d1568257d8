//! The states of a ValidatorNode.

use althing_crds::Reason;
use althing_crds::validator::Role;
use k8s_openapi::api::core::v1::Pod;
use node_api::proto::{GetStatusResponse, NodeState, Session, SessionState};
use serde_json::Value;

use super::{State, now};
use crate::chain::agreement::Facts;
use crate::issuer::{Issuance, Said};
use crate::refusal::Refusal;
use crate::validator::fixtures::{self, GENESIS, IDENTITY, installation, observed};
use crate::validator::observe::{Answer, ChainKnown, Observed};
use crate::validator::status::{Progress, next};

type Change = fn(&mut Observed) -> Progress;

fn object(change: Change) -> Value {
    let mut seen = observed();
    let progress = change(&mut seen);
    let mut node = seen.node.clone();
    node.status = Some(next(&seen, &progress, &installation(), &now()));
    serde_json::to_value(&node).expect("JSON")
}

/// The certificate is not what it shall be.
fn issuance(seen: &mut Observed, said: Said) {
    seen.issuance = Some(Issuance { said, again: std::time::Duration::from_secs(1) });
}

fn pod(seen: &mut Observed) -> &mut Pod {
    seen.pod.as_mut().expect("there")
}

/// The one container of the pod says this of itself.
fn container(seen: &mut Observed, said: &str) {
    let said = format!("{{name: node, image: 'a:1', imageID: a, ready: false, {said}}}");
    let status = pod(seen).status.as_mut().expect("there");
    status.container_statuses = Some(vec![serde_yaml::from_str(&said).expect("parses")]);
    status.conditions = None;
    seen.answer = Answer::NoPod;
}

fn says(seen: &mut Observed, change: fn(&mut GetStatusResponse)) {
    let mut said = fixtures::says();
    change(&mut said);
    seen.answer = Answer::Says(Box::new(said));
}

fn session(state: SessionState) -> Option<Session> {
    Some(Session { state: state.into(), ..Session::default() })
}

fn chain(seen: &mut Observed, change: fn(&mut Facts)) {
    let mut facts = fixtures::facts(&[IDENTITY]);
    change(&mut facts);
    seen.chain = ChainKnown::Known(Box::new(facts));
}

fn silent(facts: &mut Facts) {
    facts.voters.get_mut(IDENTITY).expect("there").is_signing = false;
}

/// Its pod has found no machine for a minute.
fn unplaced(seen: &mut Observed) {
    let said = "{type: PodScheduled, status: 'False', reason: Unschedulable, message: '0/4 nodes are available', lastTransitionTime: '2026-01-01T00:59:00Z'}";
    pod(seen).status.as_mut().expect("there").conditions = Some(vec![serde_yaml::from_str(said).expect("parses")]);
    seen.answer = Answer::NoPod;
}

fn refused(reason: Reason, message: &str) -> Progress {
    Progress::Refused(Refusal::new(reason, message))
}

/// All states of a node.
pub(super) fn states() -> Vec<State> {
    let table: [(&'static str, Change); 29] = [
        ("ready", |_| Progress::Unchanged),
        ("waits-for-the-others", |seen| {
            seen.pod = None;
            seen.answer = Answer::NoPod;
            seen.chain = ChainKnown::NotAsked;
            seen.group.as_mut().expect("there").status = None;
            Progress::Waiting("waiting for the identities of the other voters".to_string())
        }),
        ("children-written", |seen| {
            seen.pod = None;
            seen.answer = Answer::NoPod;
            Progress::Applied
        }),
        ("waits-for-genesis", |seen| {
            says(seen, |said| (said.state, said.genesis_hash) = (NodeState::WaitingForGenesis.into(), Vec::new()));
            seen.chain = ChainKnown::Unknown;
            seen.group.as_mut().and_then(|group| group.status.as_mut()).expect("there").genesis_hash = None;
            Progress::Unchanged
        }),
        ("pod-starts", |seen| {
            container(seen, "restartCount: 0, state: {waiting: {reason: ContainerCreating}}");
            Progress::Unchanged
        }),
        ("image-cannot-be-pulled", |seen| {
            container(seen, "restartCount: 0, state: {waiting: {reason: ImagePullBackOff}}");
            Progress::Unchanged
        }),
        ("process-ended-once", |seen| {
            container(seen, "restartCount: 1, lastState: {terminated: {exitCode: 3}}, state: {running: {}}");
            Progress::Unchanged
        }),
        ("process-ends-again", |seen| {
            container(seen, "restartCount: 2, lastState: {terminated: {exitCode: 3}}, state: {running: {}}");
            Progress::Unchanged
        }),
        ("drain-blocked", |seen| {
            unplaced(seen);
            seen.node.status.as_mut().expect("there").genesis_hash = Some(GENESIS.to_string());
            Progress::Unchanged
        }),
        ("first-volume-is-made", |seen| {
            unplaced(seen);
            Progress::Unchanged
        }),
        ("does-not-answer", |seen| {
            seen.answer = Answer::Silent("connection refused".to_string());
            Progress::Unchanged
        }),
        ("chain-unknown", |seen| {
            seen.chain = ChainKnown::Unknown;
            Progress::Unchanged
        }),
        ("catches-up", |seen| {
            chain(seen, |facts| facts.height = 200);
            Progress::Unchanged
        }),
        ("votes-missing", |seen| {
            chain(seen, silent);
            Progress::Unchanged
        }),
        ("waits-for-grant", |seen| {
            chain(seen, silent);
            says(seen, |said| said.session = session(SessionState::WaitingForProof));
            Progress::Unchanged
        }),
        ("not-a-voter", |seen| {
            chain(seen, |facts| facts.voters.clear());
            Progress::Unchanged
        }),
        ("observer", |seen| {
            chain(seen, |facts| facts.voters.clear());
            seen.node.spec.role = Role::Observer;
            Progress::Unchanged
        }),
        ("identity-contested", |seen| {
            says(seen, |said| said.session = session(SessionState::IdentityContested));
            Progress::Unchanged
        }),
        ("compromised", |seen| {
            says(seen, |said| said.session = session(SessionState::Compromised));
            Progress::Unchanged
        }),
        ("halted", |seen| {
            says(seen, |said| {
                (said.state, said.state_reason) = (NodeState::Halted.into(), "the volume is full".to_string());
            });
            Progress::Unchanged
        }),
        ("another-genesis", |seen| {
            says(seen, |said| said.genesis_hash = vec![1; 32]);
            Progress::Unchanged
        }),
        ("identity-lost", |_| refused(Reason::IdentityLost, "Secret demo-main-0-identity is gone")),
        ("certificate-awaited", |seen| {
            let why =
                "CertificateRequest demo-main-0-tls waits for Issuer.cert-manager.io company: it is not approved yet";
            issuance(seen, Said::Awaited(why.to_string()));
            seen.pod = None;
            seen.answer = Answer::NoPod;
            Progress::Waiting(why.to_string())
        }),
        ("renewal-awaited", |seen| {
            let why =
                "CertificateRequest demo-main-0-tls waits for Issuer.cert-manager.io company: it is not approved yet";
            issuance(seen, Said::Awaited(why.to_string()));
            Progress::Unchanged
        }),
        ("renewal-refused", |seen| {
            let why = "CertificateRequest demo-main-0-tls was answered with what was not asked: it is for another key";
            issuance(seen, Said::Refused(Refusal::new(Reason::IssuedOtherwise, why)));
            Progress::Unchanged
        }),
        ("volume-grows", |seen| {
            seen.claim.as_mut().expect("there").requested = Some("2Gi".to_string());
            Progress::Unchanged
        }),
        ("step-failed", |_| {
            Progress::Failed("failed to apply Service demo/demo-main-0-p2p: no answer in time".to_string())
        }),
        ("paused", |_| Progress::Paused),
        ("paused-before-a-change", |seen| {
            seen.node.spec.node.image = Some("a:2".to_string());
            Progress::Paused
        }),
    ];
    table.into_iter().map(|(name, change)| (name, object(change))).collect()
}
