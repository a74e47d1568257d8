//! Makes a network in code and prints the manifest that a person would write.

use althing_crds::network::{BlockchainNetworkSpec, NetworkAccess, NetworkGroup};
use althing_crds::peers::PeerAccess;
use althing_crds::{BlockchainNetwork, NodeTemplate, chain::Chain, names};

fn main() -> Result<(), serde_yaml::Error> {
    let group = NetworkGroup {
        name: "main".to_string(),
        replicas: Some(4),
        chain: Chain::default(),
        identity_secrets: vec![],
        retired: vec![],
        external: None,
        p2p: PeerAccess::default(),
        node: NodeTemplate { image: Some("docker.io/althing/node:0.1.0".to_string()), ..NodeTemplate::default() },
    };
    let spec = BlockchainNetworkSpec {
        groups: vec![group],
        node: NodeTemplate::default(),
        network_policy: NetworkAccess::default(),
        certificates: None,
        observers: None,
        gateway: None,
    };
    print!("{}", serde_yaml::to_string(&BlockchainNetwork::new("demo", spec))?);
    println!("# its first node is {}", names::node(&names::group("demo", "main"), 0));
    Ok(())
}
