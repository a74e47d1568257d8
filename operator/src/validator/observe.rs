//! Everything that a reconcile of a node needs to know, read in one place.

use std::time::Instant;

use althing_crds::certificates::IssuerRef;
use althing_crds::names;
use althing_crds::{ConsensusGroup, ValidatorNode, ValidatorNodeStatus};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use kube::{Api, ResourceExt};
use node_api::node_core::types::{ChainId, Identity};
use node_api::{genesis, keys, proto};

use super::{desired, validate};
use crate::authorities::Of;
use crate::bundles::{self, Unusable};
use crate::certificates;
use crate::chain::agreement::Facts;
use crate::chain::nodes::{Dialers, Node, Target};
use crate::config::REPORT_AGE_MAX;
use crate::context::Context;
use crate::error::Error;
use crate::issuer::Issuance;
use crate::kinds::{Owner, Standing, standing};
use crate::parts::services;
use crate::references::{self, Missing};
use crate::rollover::{Authority, Source};

/// What was read.
pub struct Observed {
    /// The node itself.
    pub node: ValidatorNode,
    /// Its group.
    pub group: Option<ConsensusGroup>,
    /// Hash of the certificate authority that the network has recorded.
    pub recorded_authority: Option<String>,
    /// Other nodes of the namespace: of the same group, or with the same identity.
    pub others: Vec<ValidatorNode>,
    /// Its identity.
    pub identity: IdentityRead,
    /// Its claim.
    pub claim: Option<ClaimSeen>,
    /// Its certificate.
    pub tls: Option<Secret>,
    /// The network's authority.
    pub authority: Option<Authority>,
    /// Where that comes from.
    pub source: Source,
    /// The issuer that signs in place of the operator.
    pub issuer: Option<IssuerRef>,
    /// Why the certificate is not what it shall be, once it was asked for.
    pub issuance: Option<Issuance>,
    /// The authorities of other members.
    pub members: Result<String, Unusable>,
    /// Where nodes outside of the cluster reach it, if the spec asks for that and it is known.
    pub external_address: Option<String>,
    /// Its pod.
    pub pod: Option<Pod>,
    /// Its node, if there is a pod to call.
    pub connection: Option<Node>,
    /// What it answers.
    pub answer: Answer,
    /// What it asks.
    pub asked: Option<proto::StartRequest>,
    /// What the spec names and is not there; looked up for a new spec only.
    pub missing: Vec<Missing>,
    /// What is known of the chain.
    pub chain: ChainKnown,
    /// A kept genesis names its identity.
    pub is_in_kept_genesis: bool,
    /// Hash of the children as they were last applied.
    pub children_hash: Option<String>,
}

/// What is known of the chain.
#[derive(Clone, Debug, PartialEq)]
pub enum ChainKnown {
    /// This process has not asked the voters yet.
    NotAsked,
    /// Too few voters answered lately.
    Unknown,
    /// f+1 voters say this.
    Known(Box<Facts>),
}

/// The identity Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityRead {
    /// There is none.
    Missing,
    /// It belongs to somebody else.
    Foreign,
    /// It holds no key that a node could use.
    Invalid(String),
    /// It holds the key with this public key, hexadecimal.
    Present(String),
}

/// The claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSeen {
    /// UID.
    pub uid: String,
    /// It is kept for this node.
    pub is_ours: bool,
    /// It is being deleted.
    pub is_deleting: bool,
    /// Size that it asks for.
    pub requested: Option<String>,
    /// Size that its volume has, once it has one.
    pub capacity: Option<String>,
    /// Its StorageClass.
    pub class: Option<String>,
    /// Its StorageClass when that does not let volumes grow; looked up when this one shall.
    pub fixed_by: Option<String>,
}

/// What the node's process says.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// There is no pod with an address.
    NoPod,
    /// It does not answer.
    Silent(String),
    /// It says this.
    Says(Box<proto::GetStatusResponse>),
}

impl Observed {
    /// The recorded identity.
    pub fn recorded_identity(&self) -> Option<&str> {
        self.node.status.as_ref().and_then(|status| status.identity.as_deref())
    }

    /// The recorded claim.
    pub fn recorded_claim(&self) -> Option<&str> {
        self.node.status.as_ref().and_then(|status| status.claim_uid.as_deref())
    }

    /// Power on the chain, if it is known.
    pub fn power(&self) -> Option<u64> {
        let identity = self.recorded_identity()?;
        match &self.chain {
            ChainKnown::Known(facts) => Some(facts.voters.get(identity).map_or(0, |voter| voter.power)),
            ChainKnown::Unknown | ChainKnown::NotAsked => None,
        }
    }
}

/// The node as it is now: what is made once is decided on a live read, never on the cache.
pub async fn current(context: &Context, node: ValidatorNode) -> Result<ValidatorNode, Error> {
    let status = node.status.as_ref();
    if status.is_some_and(is_recorded) {
        return Ok(node);
    }
    let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
    let api: Api<ValidatorNode> = Api::namespaced(context.shared.client.clone(), &namespace);
    let what = format!("ValidatorNode {namespace}/{name}");
    api.get_opt(&name).await.map_err(Error::read(&what))?.ok_or(Error::Conflict { what })
}

/// Identity and claim are written down: from then on they can only be lost, and a loss may be noticed a little later.
fn is_recorded(status: &ValidatorNodeStatus) -> bool {
    status.identity.is_some() && status.claim_uid.is_some()
}

/// Reads everything.
pub async fn observe(context: &Context, node: ValidatorNode) -> Result<Observed, Error> {
    let client = &context.shared.client;
    let (namespace, name) = (node.namespace().unwrap_or_default(), node.name_any());
    let owner = super::owner(&node)?;
    let network = context.network(&namespace, &node.spec.network);
    let has_network = network.is_some();
    let source = network.as_ref().map_or(Source::Own, Source::of);
    let issuer = network.as_ref().and_then(|network| network.spec.certificates.as_ref());
    let issuer = issuer.map(|certificates| certificates.issuer_ref.clone());
    let recorded_authority =
        network.and_then(|network| network.status).and_then(|status| status.certificate_authority_hash);
    let awaits_authority = has_network && recorded_authority.is_none();
    let certificate = names::tls_secret(&owner.name);
    let group = context.group(&namespace, &node.spec.group);
    let pod = context.pod(&namespace, &names::pod(&name)).map(|pod| (*pod).clone());
    let is_early = !node.status.as_ref().is_some_and(is_recorded)
        || (pod.is_none() && desired::awaits_others(group.as_ref(), &context.nodes_of(&namespace, &node.spec.group)));
    let (identity, tls, authority, claim, members, external_address) = tokio::try_join!(
        identity(context, &node, &owner),
        async {
            // None is issued before that.
            if is_early { Ok(None) } else { context.certificate(&owner, &certificate).await }
        },
        async {
            // The network writes it down as soon as it has made it.
            if awaits_authority {
                return Ok(None);
            }
            let of = Of { namespace: &namespace, network: &node.spec.network, source };
            let recorded = recorded_authority.as_deref();
            context.shared.authorities.get(client, of, recorded).await
        },
        claim(context, &node, &owner),
        bundles::read(context, &namespace, &node.spec.p2p.trusted_authorities),
        external_address(context, &node, &owner),
    )?;
    let claim = match claim {
        Some(claim) => Some(with_class(context, &node, claim).await?),
        None => None,
    };
    let is_seen = node.status.as_ref().and_then(|status| status.observed_generation) == node.metadata.generation;
    let is_stalled = node.status.as_ref().is_some_and(|status| {
        althing_crds::conditions::holds(&status.conditions, althing_crds::ConditionType::Stalled)
    });
    let missing = if is_seen && !is_stalled {
        Vec::new()
    } else {
        references::read(context, &namespace, &node.spec.node, &[]).await?
    };
    let is_new = claim.is_none() && node.status.as_ref().and_then(|status| status.claim_uid.as_ref()).is_none();
    let is_in_kept_genesis = match (&identity, is_new) {
        (IdentityRead::Present(key), true) => is_in_kept_genesis(context, &namespace, &node.spec.group, key).await?,
        _ => false,
    };
    let chain = match context.shared.book.get(&namespace, &node.spec.group) {
        None => ChainKnown::NotAsked,
        Some(entry) => {
            entry.fresh(REPORT_AGE_MAX).map_or(ChainKnown::Unknown, |facts| ChainKnown::Known(Box::new(facts.clone())))
        }
    };
    // Of a thousand nodes only those of the same group and those that claim the same identity matter.
    let own_identity = match &identity {
        IdentityRead::Present(key) => Some(key.as_str()),
        IdentityRead::Missing | IdentityRead::Foreign | IdentityRead::Invalid(_) => None,
    };
    let others = context.nodes_where(&namespace, |other| {
        let recorded = other.status.as_ref().and_then(|status| status.identity.as_deref());
        let is_rival = recorded.is_some() && recorded == own_identity;
        other.name_any() != name && (other.spec.group == node.spec.group || is_rival)
    });
    let mut observed = Observed {
        others,
        children_hash: node.status.as_ref().and_then(|status| status.children_hash.clone()),
        answer: Answer::NoPod,
        asked: None,
        connection: None,
        node,
        group,
        recorded_authority,
        identity,
        claim,
        tls,
        authority,
        source,
        issuer,
        issuance: None,
        members,
        external_address,
        pod,
        missing,
        chain,
        is_in_kept_genesis,
    };
    ask(&context.shared.dialers, &mut observed).await;
    Ok(observed)
}

/// The Secret of the node's identity.
pub fn identity_name(node: &ValidatorNode, owner: &Owner) -> String {
    node.spec.identity_secret.clone().unwrap_or_else(|| names::identity_secret(&owner.name))
}

/// The identity: live until it is written down, later now and then.
async fn identity(context: &Context, node: &ValidatorNode, owner: &Owner) -> Result<IdentityRead, Error> {
    let name = identity_name(node, owner);
    let memory = &context.shared.memories.identities;
    if node.status.as_ref().is_some_and(is_recorded)
        && let Some(known) = memory.get(&owner.uid, &name)
    {
        return Ok(known);
    }
    let at = Instant::now();
    let secrets: Api<Secret> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let what = format!("Secret {}/{name}", owner.namespace);
    let Some(secret) = secrets.get_opt(&name).await.map_err(Error::read(what))? else {
        return Ok(IdentityRead::Missing);
    };
    let is_brought = node.spec.identity_secret.is_some();
    if !is_brought && standing(&secret.metadata, owner) != Standing::Ours {
        return Ok(IdentityRead::Foreign);
    }
    let Some(pem) = certificates::text(&secret, names::FILE_IDENTITY) else {
        return Ok(IdentityRead::Invalid(format!("Secret {name} has no key {}", names::FILE_IDENTITY)));
    };
    Ok(match keys::from_pem(&pem) {
        Ok(key) => {
            let present = IdentityRead::Present(hex::encode(key.public()));
            memory.put(&owner.uid, &name, at, present.clone());
            present
        }
        Err(error) => IdentityRead::Invalid(format!("Secret {name}: {error}")),
    })
}

/// Where nodes outside of the cluster reach it: as its Service says, else as was known before.
async fn external_address(context: &Context, node: &ValidatorNode, owner: &Owner) -> Result<Option<String>, Error> {
    if node.spec.p2p.expose.is_none() {
        return Ok(None);
    }
    let name = names::p2p_external_service(&owner.name);
    let api: Api<Service> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let found = api.get_opt(&name).await.map_err(Error::read(format!("Service {}/{name}", owner.namespace)))?;
    let found = found.filter(|service| standing(&service.metadata, owner) == Standing::Ours);
    let before = node.status.as_ref().and_then(|status| status.p2p_address.clone());
    Ok(found.as_ref().and_then(services::external_address).or(before))
}

/// The claim: live until it is written down, because whether it is there decides about things that are made once.
/// Later the watch is believed where it knows one; that it is gone is found out live.
async fn claim(context: &Context, node: &ValidatorNode, owner: &Owner) -> Result<Option<ClaimSeen>, Error> {
    let name = names::claim(&owner.name);
    let cached = context.claim(&owner.namespace, &name).filter(|_| node.status.as_ref().is_some_and(is_recorded));
    if let Some(claim) = cached {
        return Ok(Some(seen(&claim, owner)));
    }
    let what = format!("PersistentVolumeClaim {}/{name}", owner.namespace);
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let found = api.get_opt(&name).await.map_err(Error::read(what))?;
    Ok(found.map(|claim| seen(&claim, owner)))
}

fn seen(claim: &PersistentVolumeClaim, owner: &Owner) -> ClaimSeen {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let capacity = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
    ClaimSeen {
        uid: claim.uid().unwrap_or_default(),
        is_ours: standing(&claim.metadata, owner) == Standing::Ours,
        is_deleting: claim.metadata.deletion_timestamp.is_some(),
        requested: requests.and_then(|requests| requests.get("storage").map(|quantity| quantity.0.clone())),
        capacity: capacity.and_then(|capacity| capacity.get("storage").map(|quantity| quantity.0.clone())),
        fixed_by: None,
        class: claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()),
    }
}

/// Asks the StorageClass of a claim that shall grow whether it may. A class that is gone says nothing.
async fn with_class(context: &Context, node: &ValidatorNode, claim: ClaimSeen) -> Result<ClaimSeen, Error> {
    let shall_grow = validate::size(node, &claim) == Ok(validate::Volume::Grow);
    let Some(name) = claim.class.clone().filter(|_| shall_grow) else { return Ok(claim) };
    let fixes = references::fixes_size(context, &name).await?;
    Ok(ClaimSeen { fixed_by: fixes.then_some(name), ..claim })
}

/// Whether a genesis that was kept names this identity as a voter: then a volume of it must exist.
async fn is_in_kept_genesis(context: &Context, namespace: &str, group: &str, identity: &str) -> Result<bool, Error> {
    let name = names::genesis_config_map(group);
    let api: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), namespace);
    let found = api.get_opt(&name).await.map_err(Error::read(format!("ConfigMap {namespace}/{name}")))?;
    let text = found.and_then(|map| map.data).and_then(|data| data.get(names::FILE_GENESIS).cloned());
    let Some(Ok(genesis)) = text.map(|text| genesis::from_json(&text)) else { return Ok(false) };
    let Ok(identity) = identity.parse::<Identity>() else { return Ok(false) };
    Ok(genesis.voter_set().get(&identity).is_some())
}

/// Calls the node's process, if there is one.
async fn ask(dialers: &Dialers, observed: &mut Observed) {
    let (Some(target), Some(authority)) = (target(observed), &observed.authority) else { return };
    // Of a new chain the operator may have no certificate yet: nobody is called then, and all else goes on.
    let node = match dialers.node(&target, authority, super::now_s()) {
        Ok(node) => node,
        Err(error) => {
            observed.answer = Answer::Silent(error.to_string());
            return;
        }
    };
    // Also a node that signs is asked: it may have made its key before it was told its claim.
    let (said, asked) = tokio::join!(node.status(), node.start_request());
    observed.asked = asked.ok().filter(|_| said.is_ok());
    observed.answer = match said {
        Ok(said) => Answer::Says(Box::new(said)),
        Err(error) => Answer::Silent(error.to_string()),
    };
    observed.connection = Some(node);
}

/// Where to call the node: only a running pod of a recorded identity.
pub fn target(observed: &Observed) -> Option<Target> {
    let status = observed.pod.as_ref()?.status.as_ref()?;
    let address = status.pod_ip.as_ref().filter(|_| status.phase.as_deref() == Some("Running"))?;
    Some(Target {
        namespace: observed.node.namespace()?,
        node: observed.node.name_any(),
        chain_id: ChainId::new(observed.node.spec.chain_id.clone()).ok()?,
        identity: observed.recorded_identity()?.parse().ok()?,
        address: address_of(address),
    })
}

/// `ip:port` of a pod's gRPC; an IPv6 address gets its brackets.
pub fn address_of(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:{}", names::PORT_GRPC) } else { format!("{ip}:{}", names::PORT_GRPC) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::issuer::tests::Signer;
    use crate::metrics::Metrics;
    use crate::validator::fixtures;

    #[tokio::test]
    async fn a_node_that_the_operator_has_no_certificate_to_call_with_is_silent_and_no_failure() {
        let dialers = Dialers::new(Arc::new(Metrics::new().expect("metrics")));
        let company = Signer::new("a");
        let mut seen = fixtures::observed();
        seen.node.spec.chain_id = "demo-side".to_string();
        seen.authority = Some(company.authority(&company.1, &[]));
        ask(&dialers, &mut seen).await;
        assert!(matches!(&seen.answer, Answer::Silent(why) if why.contains("no certificate for this chain yet")));
        assert!(seen.connection.is_none() && seen.asked.is_none());
    }
}
