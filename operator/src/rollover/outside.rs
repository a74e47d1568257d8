//! Who outside of what the operator runs has to be told of another authority: nobody can see what those have taken up.

use althing_crds::network::NetworkPolicyMode;
use althing_crds::{BlockchainNetwork, names};
use kube::ResourceExt;

/// In words for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Who checks certificates of this network: they must trust the next authority before it signs.
    pub verify: Vec<String>,
    /// Who presents certificates of this network: they must have new ones before the former authority goes.
    pub present: Vec<String>,
}

/// As the spec tells, and whom a person asks to be asked for by setting the annotation. Pods of the namespace mount the client
/// certificate, which the operator issues anew.
pub fn outside(network: &BlockchainNetwork) -> Outside {
    let spec = &network.spec;
    let mut outside = Outside::default();
    for group in &spec.groups {
        if group.external.is_some() || !group.p2p.is_unset() {
            outside.verify.push(format!("the other members of group {}", group.name));
        }
    }
    let are_unknown = match spec.network_policy.mode {
        NetworkPolicyMode::Managed => !spec.network_policy.client_cidrs.is_empty(),
        NetworkPolicyMode::Unmanaged => true,
    };
    if are_unknown {
        let clients = "clients with copies of the client certificate".to_string();
        outside.verify.push(clients.clone());
        outside.present.push(clients);
    }
    if spec.gateway.as_ref().is_some_and(|gateway| gateway.tls.secret_name.is_none()) {
        outside.verify.push("clients of the gateway".to_string());
    }
    if network.annotations().contains_key(names::ANNOTATION_CONFIRM) {
        let known = "those whom you know of".to_string();
        outside.verify.push(known.clone());
        outside.present.push(known);
    }
    outside
}
