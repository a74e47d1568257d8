//! What there is of a network's observers and gateway, and what of it cannot be a pure function: keys that are drawn, a
//! number that changes hands.

use althing_crds::BlockchainNetwork;
use althing_crds::names;
use althing_crds::network::NetworkGroup;
use althing_crds::observers::OBSERVERS_MAX;
use althing_crds::validator::Role as NodeKind;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt};
use node_api::gateway::api_keys::NewKey;
use node_api::keys;
use node_api::node_core::types::{ChainId, Identity};
use node_api::pki::Subject;
use node_api::roles::{NodeRole, Role, SpiffeId};

use super::observe::Observed;
use super::{desired_tiers, taken};
use crate::apply::Made;
use crate::certificates;
use crate::context::Context;
use crate::error::Error;
use crate::issuer::Desk;
use crate::kinds::{Child, Kind, Owner, Standing, standing};
use crate::parts::{PeerPlace, TierContext, gateway, observers};
use crate::refusal::Refusal;
use crate::rollover::Signer;

/// Name and role of the key that the operator makes.
const API_KEY: (&str, &str) = ("operator", "writer");

/// What was read.
#[derive(Clone, Default)]
pub struct Tiers {
    /// The gateway's Deployment.
    pub gateway: Option<Workload>,
    /// The observers' StatefulSet.
    pub observers: Option<Workload>,
    /// The tiers' Secrets that the operator makes, those that there are.
    pub secrets: Vec<Secret>,
    /// Where the voters of the observers' chain are.
    pub peers: Vec<PeerPlace>,
}

/// A Deployment or StatefulSet as a tier needs it.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Its metadata, with who holds what.
    pub metadata: ObjectMeta,
    /// Pods that it shall have.
    pub replicas: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods of its newest form.
    pub updated: i32,
    /// The generation that those numbers speak about.
    pub observed_generation: i64,
}

impl Tiers {
    /// One of the Secrets.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some(name))
    }
}

/// The group whose chain a tier serves: the named one, or the only one.
pub fn group_of<'a>(network: &'a BlockchainNetwork, named: Option<&String>) -> Option<&'a NetworkGroup> {
    let groups = &network.spec.groups;
    match named {
        Some(name) => groups.iter().find(|group| group.name == *name),
        None => groups.first(),
    }
}

/// Reads what there is.
pub async fn read(context: &Context, owner: &Owner, network: &BlockchainNetwork) -> Result<Tiers, Error> {
    let (client, namespace) = (&context.shared.client, &owner.namespace);
    let mut tiers = Tiers::default();
    let mut wanted = Vec::new();
    if let Some(spec) = &network.spec.gateway {
        let name = names::gateway(&owner.name);
        let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let found = api.get_opt(&name).await.map_err(Error::read(format!("Deployment {namespace}/{name}")))?;
        tiers.gateway = found.filter(|found| standing(&found.metadata, owner) == Standing::Ours).map(of_deployment);
        wanted.push(names::gateway_tls_secret(&owner.name));
        if spec.tls.secret_name.is_none() {
            wanted.push(names::gateway_edge_secret(&owner.name));
        }
        if spec.authentication.api_keys_secret.is_none() {
            wanted.push(names::gateway_api_keys_secret(&owner.name));
        }
    }
    if let Some(spec) = &network.spec.observers {
        let name = names::observers(&owner.name);
        let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
        let found = api.get_opt(&name).await.map_err(Error::read(format!("StatefulSet {namespace}/{name}")))?;
        tiers.observers = found.filter(|found| standing(&found.metadata, owner) == Standing::Ours).map(of_statefulset);
        wanted.push(name);
        if let Some(group) = group_of(network, spec.group.as_ref()) {
            tiers.peers = peers(context, namespace, &names::group(&owner.name, &group.name));
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in wanted {
        let found = secrets.get_opt(&name).await.map_err(Error::read(format!("Secret {namespace}/{name}")))?;
        tiers.secrets.extend(found);
    }
    Ok(tiers)
}

fn of_deployment(found: Deployment) -> Workload {
    let status = found.status.unwrap_or_default();
    Workload {
        metadata: found.metadata,
        replicas: found.spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
    }
}

fn of_statefulset(found: StatefulSet) -> Workload {
    let status = found.status.unwrap_or_default();
    Workload {
        metadata: found.metadata,
        replicas: found.spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
    }
}

fn peers(context: &Context, namespace: &str, group: &str) -> Vec<PeerPlace> {
    let place = |node: &althing_crds::ValidatorNode| {
        let identity = node.status.as_ref()?.identity.clone()?;
        Some(PeerPlace { identity, address: names::p2p_address(&node.name_any(), namespace) })
    };
    let nodes = context.nodes_of(namespace, group);
    let mut places: Vec<PeerPlace> =
        nodes.iter().filter(|node| node.spec.role == NodeKind::Validator).filter_map(place).collect();
    places.sort();
    places
}

/// Secrets that have to be written now, and the identities that observers have after that.
#[derive(Default)]
pub struct Credentials {
    /// Certificates and identities that are not there, not good or late in their lives.
    pub secrets: Vec<Secret>,
    /// Public keys of the observers, by number.
    pub observers: Vec<String>,
}

/// What of the tiers' certificates and identities has to be made now, apart from what an issuer has yet to answer.
pub fn credentials(
    observed: &Observed,
    tiers: &desired_tiers::Contexts,
    desk: &mut Desk<'_>,
) -> Result<Credentials, Error> {
    let mut made = Credentials::default();
    if let (Some(tier), Some(spec)) = (&tiers.gateway, &observed.network.spec.gateway) {
        let chain = chain_id(tier)?;
        let id = SpiffeId::new(&chain, Role::Gateway, &tier.name).map_err(|error| failed(tier, &error))?;
        let name = names::gateway_tls_secret(&tier.network.name);
        let present = observed.tiers.secret(&name);
        if !present.is_some_and(|secret| certificates::is_current(secret, &id, desk.authority(), desk.now_s())) {
            let pem = desk.issue(&name, Subject::Id(id), certificates::NODE_S)?;
            made.secrets.extend(pem.map(|pem| gateway::tls(tier, &pem)));
        }
        if spec.tls.secret_name.is_none() {
            let hosts = gateway::host_names(tier, spec);
            let name = names::gateway_edge_secret(&tier.network.name);
            let present = observed.tiers.secret(&name);
            let (authority, now_s) = (desk.authority(), desk.now_s());
            if !present.is_some_and(|secret| certificates::is_entrance_current(secret, &hosts, authority, now_s)) {
                let pem = desk.issue(&name, Subject::Hosts(hosts), certificates::NODE_S)?;
                made.secrets.extend(pem.map(|pem| gateway::edge(tier, &pem)));
            }
        }
    }
    if let Some(tier) = &tiers.observers {
        observers_credentials(observed, tier, desk, &mut made)?;
    }
    Ok(made)
}

/// Identities are kept while they are there; one certificate that is not current renews all. An issuer is asked when they are
/// kept, so that it names none that nobody has.
fn observers_credentials(
    observed: &Observed,
    tier: &TierContext,
    desk: &mut Desk<'_>,
    made: &mut Credentials,
) -> Result<(), Error> {
    let chain = chain_id(tier)?;
    let present = observed.tiers.secret(&tier.name);
    let (mut all, mut are_current, mut are_kept) = (Vec::new(), true, true);
    for number in 0..OBSERVERS_MAX {
        let [identity_key, ..] = observers::keys(number);
        let kept = present.and_then(|secret| certificates::text(secret, &identity_key));
        let kept = kept.and_then(|pem| keys::from_pem(&pem).ok());
        are_kept &= kept.is_some();
        let key = match kept {
            Some(key) => key,
            None => keys::generate().map_err(|error| failed(tier, &error))?,
        };
        let id = SpiffeId::node(&chain, NodeRole::Observer, &Identity::new(key.public()));
        let view = present.map(|secret| view(secret, number));
        are_current &= view.is_some_and(|view| certificates::is_current(&view, &id, desk.authority(), desk.now_s()));
        made.observers.push(hex::encode(key.public()));
        all.push((key, id));
    }
    if are_current {
        return Ok(());
    }
    let is_asked = matches!(desk.authority().issuer, Signer::Named(_));
    let mut issued = Vec::new();
    for (number, (key, id)) in all.into_iter().enumerate() {
        let identity = keys::to_pem(&key).to_string();
        let pem = if is_asked && !are_kept {
            None
        } else {
            desk.issue(&format!("{}-{number}", tier.name), Subject::Id(id), certificates::NODE_S)?
        };
        issued.push((identity, pem));
    }
    // Identities alone are kept at once, certificates when all are there: the former ones are good until then.
    if !are_kept || issued.iter().all(|(_, pem)| pem.is_some()) {
        made.secrets.push(observers::identities(tier, &issued));
    }
    Ok(())
}

/// The identity that the observer of this number has.
pub fn observer_identity(secret: &Secret, number: u16) -> Option<Identity> {
    let [identity_key, ..] = observers::keys(number);
    let key = keys::from_pem(&certificates::text(secret, &identity_key)?).ok()?;
    Some(Identity::new(key.public()))
}

/// The certificate of one observer as if it were the only one in the Secret.
fn view(secret: &Secret, number: u16) -> Secret {
    let data = secret.data.clone().unwrap_or_default();
    let [_, certificate, key] = observers::keys(number);
    let pairs = [("tls.crt", certificate), ("tls.key", key), ("ca.crt", observers::KEY_AUTHORITIES.to_string())];
    let picked: Vec<(String, ByteString)> =
        pairs.into_iter().filter_map(|(as_key, key)| Some((as_key.to_string(), data.get(&key)?.clone()))).collect();
    Secret { data: Some(picked.into_iter().collect()), ..Secret::default() }
}

fn chain_id(tier: &TierContext) -> Result<ChainId, Error> {
    ChainId::new(tier.chain_id.clone()).map_err(|error| failed(tier, &error))
}

fn failed(tier: &TierContext, error: &dyn std::fmt::Display) -> Error {
    Error::Build { what: format!("credentials of {}", tier.name), message: error.to_string() }
}

/// Makes the API key of a gateway to which none is given. It is made once: a person who wants another one deletes the
/// Secret.
pub async fn ensure_api_key(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    tier: Option<&TierContext>,
) -> Result<Option<Refusal>, Error> {
    let (Some(tier), Some(spec)) = (tier, &observed.network.spec.gateway) else { return Ok(None) };
    if spec.authentication.api_keys_secret.is_some() {
        return Ok(None);
    }
    let name = names::gateway_api_keys_secret(&owner.name);
    if let Some(present) = observed.tiers.secret(&name) {
        let is_ours = standing(&present.metadata, owner) == Standing::Ours;
        return Ok((!is_ours).then(|| taken(&format!("Secret {}/{name}", owner.namespace))));
    }
    let (id, role) = API_KEY;
    let new = NewKey::generate(id, vec![role.to_string()])
        .ok_or_else(|| failed(tier, &format!("{id:?} is no id of a key")))?;
    let hashes = new.file().map_err(|error| failed(tier, &error))?;
    let secret = gateway::api_keys(tier, &new.key, &hashes);
    match context.shared.writer.make_once::<Secret>(owner, &secret).await? {
        Made::Now(_) | Made::Before(_) => Ok(None),
        Made::Taken => Ok(Some(taken(&Child::of(&secret)?.what(&owner.namespace)))),
    }
}

/// Before the operator leaves a number out of what it applies, somebody else must hold it.
pub async fn hand_over(
    context: &Context,
    owner: &Owner,
    observed: &Observed,
    tiers: &desired_tiers::Contexts,
) -> Result<(), Error> {
    let workloads = [
        (Kind::Deployment, &tiers.gateway, &observed.tiers.gateway),
        (Kind::StatefulSet, &tiers.observers, &observed.tiers.observers),
    ];
    for (kind, tier, workload) in workloads {
        let (Some(tier), Some(workload)) = (tier, workload) else { continue };
        if tier.autoscaling.is_some() && holds_replicas(&workload.metadata) {
            context.shared.writer.hand_over_replicas(owner, kind, &tier.name, workload.replicas).await?;
        }
    }
    Ok(())
}

/// Whether what the operator applied last named the number of replicas.
pub(super) fn holds_replicas(metadata: &ObjectMeta) -> bool {
    metadata.managed_fields.iter().flatten().any(|entry| {
        let fields = entry.fields_v1.as_ref();
        entry.manager.as_deref() == Some(names::MANAGER_NETWORK)
            && fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    })
}
