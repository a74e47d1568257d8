//! Texts and certificates that people, operators and other programs hand to a node.

use std::str;

use node_api::{
    cometbft, config::NodeConfig, gateway::GatewayConfig, genesis, governance, keys, pki::LeafFacts, recovery,
    roles::SpiffeId, trace::TraceParent,
};
use rustls_pki_types::CertificateDer;

use super::Target;

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target { name: "genesis-document", frozen: "", run: |input| text(input, genesis_document) },
    Target { name: "recovery-document", frozen: "recovery", run: |input| text(input, recovery_document) },
    Target { name: "transaction-document", frozen: "transaction", run: |input| text(input, transaction_document) },
    Target { name: "voter-report", frozen: "", run: |input| text(input, voter_report) },
    Target { name: "node-yaml", frozen: "", run: |input| text(input, node_yaml) },
    Target { name: "gateway-yaml", frozen: "", run: |input| text(input, gateway_yaml) },
    Target { name: "key-pem", frozen: "", run: |input| text(input, key_pem) },
    Target { name: "comet-key", frozen: "", run: |input| text(input, comet_key) },
    Target { name: "certificate-der", frozen: "", run: certificate_der },
    Target { name: "name", frozen: "", run: |input| text(input, name) },
];

fn text(input: &[u8], run: fn(&str)) {
    if let Ok(text) = str::from_utf8(input) {
        run(text);
    }
}

fn genesis_document(text: &str) {
    let Ok(found) = genesis::from_json(text) else { return };
    let again = genesis::from_json(&genesis::to_json(&found));
    assert!(again.is_ok_and(|again| again == found), "a genesis is written as another one");
}

fn recovery_document(text: &str) {
    let Ok(found) = recovery::RecoveryDocument::read(text) else { return };
    let again = recovery::RecoveryDocument::read(&recovery::RecoveryDocument::new(&found).to_json());
    assert!(again.is_ok_and(|again| again == found), "a recovery is written as another one");
}

fn transaction_document(text: &str) {
    let Ok(found) = governance::TransactionDocument::read(text) else { return };
    let document = governance::TransactionDocument::new(&found).expect("it was read from one");
    let again = governance::TransactionDocument::read(&document.to_json());
    assert!(again.is_ok_and(|again| again == found), "a transaction is written as another one");
}

fn voter_report(text: &str) {
    let Ok(report) = governance::VoterReport::from_json(text) else { return };
    let again = governance::VoterReport::from_json(&report.to_json());
    assert!(again.is_ok_and(|again| again == report), "a report is written as another one");
    let _ = report.voter(node_core::types::Power::new(1));
}

fn node_yaml(text: &str) {
    let Ok(config) = NodeConfig::from_yaml(text) else { return };
    let again = config.to_yaml().and_then(|text| NodeConfig::from_yaml(&text));
    assert_eq!(again.ok(), Some(config), "a configuration is written as another one");
}

fn gateway_yaml(text: &str) {
    let Ok(config) = GatewayConfig::from_yaml(text) else { return };
    let again = config.to_yaml().and_then(|text| GatewayConfig::from_yaml(&text));
    assert_eq!(again.ok(), Some(config), "a configuration is written as another one");
}

fn key_pem(text: &str) {
    let Ok(key) = keys::from_pem(text) else { return };
    assert!(keys::from_pem(&keys::to_pem(&key)).is_ok_and(|again| again == key), "a key is written as another one");
}

fn comet_key(text: &str) {
    let Ok(key) = cometbft::from_json(text) else { return };
    let again = cometbft::from_json(&cometbft::to_json(&key));
    assert!(again.is_ok_and(|again| again == key), "a key is written as another one");
}

/// What a peer shows in its handshake, before anybody has verified it.
fn certificate_der(input: &[u8]) {
    if let Ok(facts) = LeafFacts::from_der(&CertificateDer::from(input)) {
        assert_eq!(facts.id.to_string().parse(), Ok(facts.id));
    }
}

fn name(text: &str) {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(trace) = text.parse::<TraceParent>() {
        assert_eq!(trace.to_string().parse::<TraceParent>().expect("is one").trace_id(), trace.trace_id());
    }
}
