//! The children that a node shall have.

use althing_crds::network::NetworkPolicyMode;
use althing_crds::validator::Role;
use althing_crds::{ConsensusGroup, ValidatorNode, names};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use node_api::node_core::types::{ChainId, Identity};
use node_api::pki::Subject;
use node_api::roles::{NodeRole, SpiffeId};
use sha2::{Digest, Sha256};

use super::observe::Observed;
use crate::certificates;
use crate::error::Error;
use crate::issuer::Desk;
use crate::kinds::Child;
use crate::parts::{
    Installation, NodeContext, PeerPlace, configmaps, networkpolicies, secrets, serviceaccount, services, statefulset,
};

/// What to do about children.
#[derive(Debug)]
pub enum Desired {
    /// Something that they need is not there yet.
    Waiting(String),
    /// All of them, in the order in which they are applied.
    Children(Vec<Child>),
}

/// The children of a node whose identity and claim are recorded.
pub fn desired(observed: &Observed, installation: &Installation) -> Result<Desired, Error> {
    let (peers, missing) = peers(observed);
    // A pod that runs already goes on with the peers that it knows.
    if !missing.is_empty() && observed.pod.is_none() {
        // Their names would be another status with each one that comes.
        return Ok(Desired::Waiting("waiting for the identities of the other voters".to_string()));
    }
    if observed.authority.is_none() {
        let name = observed.source.secret(&observed.node.spec.network);
        return Ok(Desired::Waiting(format!("waiting for the certificate authority (Secret {name})")));
    }
    if let Some(why) = lacks_members(observed) {
        return Ok(Desired::Waiting(why));
    }
    let mut node = node_context(observed, peers, installation)?;
    node.outside = outside(observed, &node.peers);
    let mut children = Vec::new();
    match node.access.mode {
        NetworkPolicyMode::Managed => children.push(Child::of(&networkpolicies::node(&node))?),
        NetworkPolicyMode::Unmanaged => {}
    }
    children.push(Child::of(&serviceaccount::service_account(&node))?);
    children.push(Child::of(&configmaps::node_config(&node).map_err(refused(&node))?)?);
    children.push(Child::of(&services::p2p(&node))?);
    if let Some(expose) = &node.p2p.expose {
        children.push(Child::of(&services::p2p_external(&node, expose))?);
    }
    children.push(Child::of(&services::node_rpc(&node))?);
    children.push(Child::of(&statefulset::statefulset(&node, &template_hash(&node)?))?);
    Ok(Desired::Children(children))
}

/// Hash of all that a pod takes up only when it is made again: its configuration and its whole template.
pub fn template_hash(node: &NodeContext) -> Result<String, Error> {
    let config_hash = configmaps::config_hash(node).map_err(refused(node))?;
    let set = Child::of(&statefulset::statefulset(node, &config_hash))?;
    let template = set.body.pointer("/spec/template").map(ToString::to_string).unwrap_or_default();
    Ok(hex::encode(Sha256::digest(template)))
}

/// The pod runs what the spec of its node says now.
pub fn is_up_to_date(node: &ValidatorNode, pod: &Pod, installation: &Installation) -> bool {
    let Ok(context) = NodeContext::new(node, Vec::new(), installation) else { return false };
    let Ok(hash) = template_hash(&context) else { return false };
    pod.annotations().get(names::ANNOTATION_CONFIG_HASH) == Some(&hash)
}

fn refused(node: &NodeContext) -> impl FnOnce(node_api::config::ConfigError) -> Error {
    let what = format!("configuration of {}", node.name);
    move |error| Error::Build { what, message: error.to_string() }
}

/// The node as builders see it.
pub fn node_context(
    observed: &Observed,
    peers: Vec<PeerPlace>,
    installation: &Installation,
) -> Result<NodeContext, Error> {
    NodeContext::new(&observed.node, peers, installation)
        .map_err(|error| Error::Build { what: observed.node.name_any(), message: error.to_string() })
}

/// The voters of a chain that is about to start; a node of a running one starts with those that are there.
fn voters_of_genesis(group: Option<&ConsensusGroup>) -> Vec<String> {
    let starts = |group: &&ConsensusGroup| {
        group.spec.external.is_none() && group.status.as_ref().is_none_or(|status| status.genesis_hash.is_none())
    };
    let Some(group) = group.filter(starts) else { return Vec::new() };
    (0..u32::try_from(group.spec.replicas).unwrap_or(0)).map(|number| names::node(&group.name_any(), number)).collect()
}

/// Some voter of a chain that is about to start has no identity yet: until then nothing is made for the pod of another one.
pub fn awaits_others(group: Option<&ConsensusGroup>, nodes: &[ValidatorNode]) -> bool {
    let has_identity = |name: &String| {
        nodes.iter().any(|node| {
            node.name_any() == *name && node.status.as_ref().is_some_and(|status| status.identity.is_some())
        })
    };
    voters_of_genesis(group).iter().any(|name| !has_identity(name))
}

/// The voters of the group that have an identity, and the names of those that have none yet.
fn peers(observed: &Observed) -> (Vec<PeerPlace>, Vec<String>) {
    let namespace = observed.node.namespace().unwrap_or_default();
    let group = &observed.node.spec.group;
    let mut missing = voters_of_genesis(observed.group.as_ref());
    let mut places = Vec::new();
    for node in observed.others.iter().chain([&observed.node]) {
        if node.spec.group != *group || node.spec.role != Role::Validator {
            continue;
        }
        let name = node.name_any();
        if let Some(identity) = node.status.as_ref().and_then(|status| status.identity.clone()) {
            missing.retain(|other| *other != name);
            places.push(PeerPlace { identity, address: names::p2p_address(&name, &namespace) });
        }
    }
    places.sort();
    (places, missing)
}

/// Where nodes of other members are, those that are not of this group.
fn outside(observed: &Observed, own: &[PeerPlace]) -> Vec<PeerPlace> {
    let external = observed.group.as_ref().and_then(|group| group.spec.external.as_ref());
    let named = external.map(|external| external.peers.as_slice()).unwrap_or_default();
    let places = named.iter().filter(|peer| own.iter().all(|place| place.identity != peer.identity));
    places.map(|peer| PeerPlace { identity: peer.identity.clone(), address: peer.address.clone() }).collect()
}

/// Why the pod could not be given the authorities of other members that its spec names.
fn lacks_members(observed: &Observed) -> Option<String> {
    let kept = observed.tls.as_ref().and_then(|secret| certificates::text(secret, names::FILE_MEMBERS));
    match &observed.members {
        Err(unusable) if kept.is_none() => {
            Some(format!("waiting for trustedAuthorities: ConfigMap {}: {}", unusable.config_map, unusable.why))
        }
        Ok(_) | Err(_) => None,
    }
}

/// The authorities of other members that the node has with its certificate.
pub fn members_kept(observed: &Observed) -> String {
    observed.tls.as_ref().and_then(|secret| certificates::text(secret, names::FILE_MEMBERS)).unwrap_or_default()
}

/// The node's certificate, if it has to be issued now and an issuer has not yet to answer.
pub fn certificate(
    observed: &Observed,
    installation: &Installation,
    desk: &mut Desk<'_>,
) -> Result<Option<Secret>, Error> {
    let id = spiffe_id(observed)?;
    let kept = members_kept(observed);
    // Authorities that cannot be read now go on being trusted as they were.
    let members = observed.members.as_ref().unwrap_or(&kept);
    let is_current = |secret: &Secret| certificates::is_current(secret, &id, desk.authority(), desk.now_s());
    if *members == kept && observed.tls.as_ref().is_some_and(is_current) {
        return Ok(None);
    }
    let name = names::tls_secret(&observed.node.name_any());
    let Some(pem) = desk.issue(&name, Subject::Id(id), certificates::NODE_S)? else { return Ok(None) };
    Ok(Some(secrets::node_tls(&node_context(observed, Vec::new(), installation)?, &pem, members)))
}

/// A process could start with the certificate that is there.
pub fn has_certificate(observed: &Observed, now_s: u64) -> Result<bool, Error> {
    let id = spiffe_id(observed)?;
    Ok(observed.tls.as_ref().is_some_and(|secret| certificates::is_usable(secret, &id, now_s)))
}

fn spiffe_id(observed: &Observed) -> Result<SpiffeId, Error> {
    let failed = |message: String| Error::Build { what: format!("id of {}", observed.node.name_any()), message };
    let chain_id = ChainId::new(observed.node.spec.chain_id.clone()).map_err(|error| failed(error.to_string()))?;
    let identity: Identity = observed
        .recorded_identity()
        .unwrap_or_default()
        .parse()
        .map_err(|_| failed("the recorded identity is no key".to_string()))?;
    let role = match observed.node.spec.role {
        Role::Validator => NodeRole::Validator,
        Role::Observer => NodeRole::Observer,
    };
    Ok(SpiffeId::node(&chain_id, role, &identity))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{installation, node};
    use super::*;

    /// What pods of a node with the smallest spec are known by.
    const PINNED: &str = "5a2b2ec38a656fc7dd11ef35801ee80d0fedae73ea66ed30228807ed085a62e9";

    #[test]
    fn the_template_of_an_unchanged_spec_is_what_it_was() {
        let parts = NodeContext::new(&node("demo-main-0"), Vec::new(), &installation()).expect("a whole node");
        let hash = template_hash(&parts).expect("it is built");
        assert_eq!(
            hash, PINNED,
            "THE TEMPLATE OF NODE PODS HAS CHANGED: an upgrade to this operator restarts every voter of every chain, one \
             after the other, although nobody changed a spec. If that is wanted, say so in CHANGELOG.md and pin the new \
             hash; else leave what pods are made from as it was for specs that do not use what is new"
        );
    }

    #[test]
    fn a_node_of_its_own_keeps_the_image_with_which_it_was_made() {
        let mut node = node("archive-0");
        let first = NodeContext::new(&node, Vec::new(), &installation()).expect("a whole node");
        let newer = Installation { node_image: "a:2".to_string(), ..installation() };
        node.status.as_mut().expect("there").default_image = crate::parts::default_image_of(&node, &installation());
        let kept = NodeContext::new(&node, Vec::new(), &newer).expect("a whole node");
        assert_eq!(template_hash(&kept).expect("built"), template_hash(&first).expect("built"));
        node.spec.node.image = Some("a:3".to_string());
        let named = NodeContext::new(&node, Vec::new(), &newer).expect("a whole node");
        assert_eq!(named.settings.image, "a:3");
    }
}
