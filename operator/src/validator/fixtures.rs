//! A healthy node for tests; each test changes what it is about.

use althing_crds::{ConsensusGroup, ValidatorNode, names};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use node_api::proto;

use super::desired::template_hash;
use super::observe::{Answer, ChainKnown, ClaimSeen, IdentityRead, Observed};
use crate::chain::agreement::{Facts, VoterFact};
use crate::parts::{Installation, NodeContext};

/// The identity of the node.
pub const IDENTITY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
/// The genesis of its chain.
pub const GENESIS: &str = "abababababababababababababababababababababababababababababababab";

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).expect("the fixture parses")
}

/// A node as the API server answers it.
pub fn node(name: &str) -> ValidatorNode {
    yaml(&format!(
        "
apiVersion: althing.dev/v1alpha1
kind: ValidatorNode
metadata: {{name: {name}, namespace: demo, uid: u-{name}, generation: 3, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec: {{network: demo, group: demo-main, chainId: demo-main, node: {{storage: {{size: 1Gi}}}}}}
status: {{observedGeneration: 3, identity: {IDENTITY}, claimUid: c-1}}
"
    ))
}

/// Its group.
pub fn group() -> ConsensusGroup {
    yaml(&format!(
        "
apiVersion: althing.dev/v1alpha1
kind: ConsensusGroup
metadata: {{name: demo-main, namespace: demo, uid: g-1, generation: 1, creationTimestamp: '2026-01-01T00:00:00Z'}}
spec: {{network: demo, replicas: 4}}
status: {{observedGeneration: 1, genesisHash: {GENESIS}}}
"
    ))
}

/// A pod that is ready.
pub fn pod(name: &str) -> Pod {
    yaml(&format!(
        "
metadata: {{name: {name}-0, namespace: demo, uid: p-1, labels: {{althing.dev/voter: 'true'}}}}
spec: {{nodeName: machine-{name}, containers: [{{name: node, image: 'a:1'}}]}}
status: {{phase: Running, podIP: 10.0.0.1, conditions: [{{type: Ready, status: 'True'}}]}}
"
    ))
}

/// What a node says that follows its chain and signs.
pub fn says() -> proto::GetStatusResponse {
    proto::GetStatusResponse {
        version: "0.1.0".to_string(),
        genesis_hash: hex::decode(GENESIS).expect("hexadecimal"),
        state: proto::NodeState::Running.into(),
        height: 100,
        synced: true,
        signing_enabled: true,
        session: Some(proto::Session { state: proto::SessionState::Cleared.into(), ..proto::Session::default() }),
        ..proto::GetStatusResponse::default()
    }
}

/// What f+1 voters say of a chain in which this node signs.
pub fn facts(identities: &[&str]) -> Facts {
    let voter = VoterFact { power: 1, is_signing: true, session: Some(("5e55".to_string(), 1)) };
    let total = u64::try_from(identities.len()).expect("few");
    Facts {
        height: 100,
        block_age: std::time::Duration::from_secs(1),
        is_standing: false,
        voters: identities.iter().map(|identity| ((*identity).to_string(), voter.clone())).collect(),
        total_power: total,
        signing_power: total,
        margin: u32::try_from(crate::budget::faults(total)).expect("few"),
        last_precommits: identities.iter().map(|identity| ((*identity).to_string(), 100)).collect(),
        pending: None,
        is_late: false,
        is_nameless: false,
    }
}

/// The operator that made the node.
pub fn installation() -> Installation {
    Installation { operator_namespace: "s".to_string(), node_image: "a:1".to_string() }
}

/// The same pod, made from what the spec of this node says now.
pub fn current(node: &ValidatorNode, mut pod: Pod) -> Pod {
    let parts = NodeContext::new(node, Vec::new(), &installation()).expect("a whole node");
    let hash = template_hash(&parts).expect("it is built");
    pod.annotations_mut().insert(names::ANNOTATION_CONFIG_HASH.to_string(), hash);
    pod
}

/// Everything is as it shall be.
pub fn observed() -> Observed {
    let node = node("demo-main-0");
    Observed {
        group: Some(group()),
        recorded_authority: None,
        others: Vec::new(),
        identity: IdentityRead::Present(IDENTITY.to_string()),
        claim: Some(ClaimSeen {
            uid: "c-1".to_string(),
            is_ours: true,
            is_deleting: false,
            requested: Some("1Gi".to_string()),
            capacity: Some("1Gi".to_string()),
            class: Some("standard".to_string()),
            fixed_by: None,
        }),
        tls: None,
        authority: None,
        source: crate::rollover::Source::Own,
        issuer: None,
        issuance: None,
        members: Ok(String::new()),
        external_address: None,
        pod: Some(current(&node, pod("demo-main-0"))),
        connection: None,
        answer: Answer::Says(Box::new(says())),
        asked: None,
        missing: Vec::new(),
        chain: ChainKnown::Known(Box::new(facts(&[IDENTITY]))),
        is_in_kept_genesis: false,
        children_hash: None,
        node,
    }
}
