//! A healthy group for tests; each test changes what it is about.

use althing_crds::{BlockchainNetwork, ConsensusGroup, ValidatorNode, names};
use node_api::node_core::crypto::{KeyPair, SigningBytes};
use node_api::node_core::types::{CeremonyNonce, ChainId, Genesis, Identity, SessionKey};

use super::genesis::{Contribution, Ingredients, assemble};
use super::observe::{GenesisRead, GovernanceRead, Observed, Voter};
use crate::validator::fixtures as nodes;

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).expect("the fixture parses")
}

/// The nonce of the ceremony.
pub fn nonce() -> CeremonyNonce {
    CeremonyNonce::new([9; 32])
}

/// What the n-th voter contributes.
pub fn contribution(number: u8) -> Contribution {
    let (identity, session) = (KeyPair::from_seed([number + 1; 32]), KeyPair::from_seed([number + 101; 32]));
    let chain_id = ChainId::new("demo-main").expect("a chain id");
    let (identity, session_key) = (Identity::new(identity.public()), SessionKey::new(session.public()));
    let bytes = SigningBytes::genesis_possession(&chain_id, &nonce(), &identity, &session_key);
    let epoch = node_api::node_core::types::Epoch::FIRST;
    Contribution { identity, session_key, epoch, possession: session.sign(&bytes) }
}

/// The governance key that the operator made.
pub fn governance_key() -> String {
    hex::encode(KeyPair::from_seed([77; 32]).public())
}

/// The genesis of four voters.
pub fn genesis() -> Genesis {
    let voters: Vec<Contribution> = (0..4).map(contribution).collect();
    let governance_key = governance_key();
    assemble(&Ingredients {
        chain: &group().spec.chain,
        chain_id: "demo-main",
        time_ms: 1_800_000_000_000,
        nonce: nonce(),
        voters: &voters,
        governance_key: Some(&governance_key),
    })
    .expect("a genesis")
}

/// The group as the API server answers it.
pub fn group() -> ConsensusGroup {
    let key = "33baecf4f54a7d35d0bbf2855605e2b1b58c254ba96a936f9e2041d4473664e7";
    yaml(&format!(
        "
apiVersion: althing.dev/v1alpha1
kind: ConsensusGroup
metadata: {{name: demo-main, namespace: demo, uid: g-1, generation: 2, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec: {{network: demo, replicas: 4, chain: {{accounts: [{{key: {key}, amount: 5}}]}}, node: {{image: 'a:1'}}}}
"
    ))
}

fn network() -> BlockchainNetwork {
    yaml(
        "
apiVersion: althing.dev/v1alpha1
kind: BlockchainNetwork
metadata: {name: demo, namespace: demo, uid: n-1, generation: 1}
spec: {groups: [{name: main, replicas: 4}]}
",
    )
}

fn voter(number: u8) -> Voter {
    let name = names::node("demo-main", u32::from(number));
    let mut node: ValidatorNode = nodes::node(&name);
    node.spec.node.clone_from(&group().spec.node);
    if let Some(status) = node.status.as_mut() {
        status.identity = Some(contribution(number).identity.to_string());
    }
    Voter {
        pod: Some(nodes::current(&node, nodes::pod(&name))),
        name,
        node: Some(node),
        connection: None,
        said: Ok(nodes::says()),
        report: None,
    }
}

/// Four voters that sign, one to each machine.
pub fn observed() -> Observed {
    let genesis = genesis();
    let mut group = group();
    let genesis_hash = Some(genesis.hash().to_string());
    group.status = Some(althing_crds::ConsensusGroupStatus { genesis_hash, ..Default::default() });
    let identities: Vec<String> = (0..4).map(|number| contribution(number).identity.to_string()).collect();
    let identities: Vec<&str> = identities.iter().map(String::as_str).collect();
    Observed {
        group,
        chain_id: "demo-main".to_string(),
        network: Some(network()),
        others: Vec::new(),
        children_hash: None,
        authority: None,
        members: Ok(String::new()),
        source: None,
        outside: Vec::new(),
        genesis: GenesisRead::Present(Box::new(genesis)),
        governance: GovernanceRead::Present(governance_key()),
        numbers: (0..4).collect(),
        voters: (0..4).map(voter).collect(),
        missing: Vec::new(),
        facts: Some(nodes::facts(&identities)),
        installation: nodes::installation(),
    }
}
