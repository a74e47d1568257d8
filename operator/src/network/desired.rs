//! The children that a network shall have.

use althing_crds::network::{NetworkGroup, NetworkPolicyMode};
use althing_crds::{ConsensusGroup, ConsensusGroupSpec, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use node_api::node_core::types::ChainId;
use node_api::pki::Subject;
use node_api::roles::{Role, SpiffeId};

use super::observe::Observed;
use crate::certificates;
use crate::error::Error;
use crate::issuer::Desk;
use crate::kinds::Child;
use crate::parts::{NetworkContext, networkpolicies, secrets};
use crate::rollover::{Authority, Behind};

/// Name that a client certificate carries.
const CLIENT: &str = "client";

/// Closed door and groups.
pub fn children(observed: &Observed) -> Result<Vec<Child>, Error> {
    let network = network_context(observed)?;
    let mut children = Vec::new();
    match observed.network.spec.network_policy.mode {
        NetworkPolicyMode::Managed => children.push(Child::of(&networkpolicies::default_deny(&network))?),
        NetworkPolicyMode::Unmanaged => {}
    }
    for group in &observed.network.spec.groups {
        children.push(self::group(observed, &network, group)?);
    }
    Ok(children)
}

/// The network as builders see it.
pub fn network_context(observed: &Observed) -> Result<NetworkContext, Error> {
    NetworkContext::new(&observed.network)
        .map_err(|error| Error::Build { what: observed.network.name_any(), message: error.to_string() })
}

fn group(observed: &Observed, network: &NetworkContext, group: &NetworkGroup) -> Result<Child, Error> {
    let spec = &observed.network.spec;
    let name = names::group(&network.name, &group.name);
    let mut metadata = network.metadata(&name);
    if let Some(labels) = metadata.labels.as_mut() {
        labels.insert(names::LABEL_GROUP.to_string(), name.clone());
    }
    let mut object = ConsensusGroup::new(
        &name,
        ConsensusGroupSpec {
            network: network.name.clone(),
            replicas: group.replicas.unwrap_or(althing_crds::group::REPLICAS_DEFAULT),
            chain: group.chain.clone(),
            identity_secrets: group.identity_secrets.clone(),
            retired: group.retired.clone(),
            external: group.external.clone(),
            p2p: group.p2p.clone(),
            node: group.node.over(&spec.node),
            network_policy: spec.network_policy.clone(),
        },
    );
    object.metadata = metadata;
    let mut child = Child::of(&object)?;
    // A number that nobody set here belongs to whoever scales the group.
    if group.replicas.is_none()
        && let Some(fields) = child.body.get_mut("spec").and_then(serde_json::Value::as_object_mut)
    {
        fields.remove("replicas");
    }
    Ok(child)
}

/// Whether this group has the spec that is wanted of it; a number that nobody set here may be any.
pub fn is_of(child: &Child, group: &ConsensusGroup) -> bool {
    let mut wanted = child.body.clone();
    let fields = wanted.get_mut("spec").and_then(serde_json::Value::as_object_mut);
    if let Some(fields) = fields.filter(|fields| !fields.contains_key("replicas")) {
        fields.insert("replicas".to_string(), group.spec.replicas.into());
    }
    serde_json::from_value::<ConsensusGroup>(wanted).is_ok_and(|wanted| wanted.spec == group.spec)
}

/// The client certificate, if it has to be issued now and an issuer has not yet to answer. `tls.crt` and `tls.key` are for the
/// first chain; a further chain has entries of its own.
pub fn client(observed: &Observed, desk: &mut Desk<'_>) -> Result<Option<Secret>, Error> {
    let network = network_context(observed)?;
    let ids = ids(observed, &network, Role::Client, CLIENT)?;
    if is_client_current(observed, &ids, desk.authority(), desk.now_s()) {
        return Ok(None);
    }
    let (mut secret, mut issued) = (None, Vec::new());
    let name = names::client_secret(&network.name);
    for (group, id) in ids {
        let pem = desk.issue(&format!("{name}-{group}"), Subject::Id(id), certificates::CLIENT_S)?;
        issued.push(pem.map(|pem| (group, pem)));
    }
    // All or nothing: the former Secret is good for as long as one is missing.
    let Some(issued) = issued.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    for (group, pem) in issued {
        match secret.as_mut() {
            None => secret = Some(secrets::client(&network, &pem)),
            Some(Secret { data: Some(data), .. }) => {
                let (certificate, key) = entries(&group);
                data.insert(certificate, ByteString(pem.certificate.into_bytes()));
                data.insert(key, ByteString(pem.key.into_bytes()));
            }
            Some(_) => {}
        }
    }
    Ok(secret)
}

/// The entries of a further chain: `<group>.crt` and `<group>.key`. Those that the first chain and the authorities have are not
/// taken by a group of that name; no name of a group has a dot.
fn entries(group: &str) -> (String, String) {
    match group {
        "ca" | "tls" => (format!("{group}.group.crt"), format!("{group}.group.key")),
        _ => (format!("{group}.crt"), format!("{group}.key")),
    }
}

/// The client certificate while it is not what the stage of the authority means: the next step would cut off who mounts it.
pub fn client_behind(observed: &Observed, authority: &Authority, now_s: u64) -> Result<Option<Behind>, Error> {
    let network = network_context(observed)?;
    let ids = ids(observed, &network, Role::Client, CLIENT)?;
    let is_behind = !ids.is_empty() && !is_client_current(observed, &ids, authority, now_s);
    let who = format!("Secret {}", names::client_secret(&network.name));
    Ok(is_behind.then_some(Behind { who, why: "is not issued anew yet" }))
}

fn is_client_current(observed: &Observed, ids: &[(String, SpiffeId)], authority: &Authority, now_s: u64) -> bool {
    let is_current = |present: &Secret| {
        ids.iter()
            .enumerate()
            .all(|(number, (group, id))| certificates::is_current(&view(present, number, group), id, authority, now_s))
    };
    observed.client.as_ref().is_some_and(is_current)
}

/// One id for each chain, by group.
pub fn ids(
    observed: &Observed,
    network: &NetworkContext,
    role: Role,
    name: &str,
) -> Result<Vec<(String, SpiffeId)>, Error> {
    let failed = |message: String| Error::Build { what: format!("{role} certificate of {}", network.name), message };
    let id = |group: &NetworkGroup| {
        let chain = group.chain.id_or_name(&names::group(&network.name, &group.name));
        let chain = ChainId::new(chain).map_err(|error| failed(error.to_string()))?;
        let id = SpiffeId::new(&chain, role, name).map_err(|error| failed(error.to_string()))?;
        Ok((group.name.clone(), id))
    };
    observed.network.spec.groups.iter().map(id).collect()
}

/// The certificate of one chain as if it were the only one in the Secret.
fn view(secret: &Secret, number: usize, group: &str) -> Secret {
    if number == 0 {
        return secret.clone();
    }
    let data = secret.data.clone().unwrap_or_default();
    let (certificate, key) = entries(group);
    let pairs = [("tls.crt", certificate), ("tls.key", key), ("ca.crt", "ca.crt".to_string())];
    let picked = pairs.into_iter().filter_map(|(as_key, key)| Some((as_key.to_string(), data.get(&key)?.clone())));
    Secret { data: Some(picked.collect()), ..Secret::default() }
}
