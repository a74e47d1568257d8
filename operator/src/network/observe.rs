//! Everything that a reconcile of a network needs to know, read in one place.

use std::time::Instant;

use althing_crds::{BlockchainNetwork, ConditionType, ConsensusGroup, names};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::rolling::Rolling;
use super::tiers::{self, Tiers};
use crate::bundles::{self, Unusable};
use crate::context::Context;
use crate::error::Error;
use crate::issuer::Issuance;
use crate::kinds::{Owner, Standing, standing};
use crate::parts::Installation;
use crate::references::{self, Missing};
use crate::rollover::{Authority, Source};

/// What was read.
pub struct Observed {
    /// The network itself.
    pub network: BlockchainNetwork,
    /// Its groups, in the order of the spec.
    pub groups: Vec<Option<ConsensusGroup>>,
    /// Other groups of the namespace.
    pub others: Vec<ConsensusGroup>,
    /// Its authority.
    pub authority: AuthorityRead,
    /// What is said of the replacement of the authority, once it was looked at.
    pub rolling: Option<Rolling>,
    /// The authorities that are trusted beside it.
    pub bundle: Result<String, Unusable>,
    /// Why certificates are not what they shall be, once an issuer was asked for them.
    pub issuance: Option<Issuance>,
    /// Its client certificate.
    pub client: Option<Secret>,
    /// What there is of its observers and gateway.
    pub tiers: Tiers,
    /// What builders need to know of this process.
    pub installation: Installation,
    /// What the spec names and is not there, by group; looked up for a new spec only.
    pub missing: Vec<Missing>,
    /// Hash of the children as they were last applied.
    pub children_hash: Option<String>,
}

/// The authority's Secret.
#[derive(Clone)]
pub enum AuthorityRead {
    /// There is none.
    Missing,
    /// It belongs to somebody else.
    Foreign,
    /// It holds no authority.
    Invalid(String),
    /// It holds this one.
    Present(Authority),
}

/// The network as it is now: an authority is made on a live read only, never on the cache.
pub async fn current(context: &Context, network: BlockchainNetwork) -> Result<BlockchainNetwork, Error> {
    if network.status.as_ref().is_some_and(|status| status.certificate_authority_hash.is_some()) {
        return Ok(network);
    }
    let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
    let api: Api<BlockchainNetwork> = Api::namespaced(context.shared.client.clone(), &namespace);
    let what = format!("BlockchainNetwork {namespace}/{name}");
    api.get_opt(&name).await.map_err(Error::read(&what))?.ok_or(Error::Conflict { what })
}

/// Reads everything.
pub async fn observe(context: &Context, network: BlockchainNetwork) -> Result<Observed, Error> {
    let owner = super::owner(&network)?;
    let client = names::client_secret(&owner.name);
    let named = network.spec.certificates.as_ref().map(|certificates| certificates.trusted_authorities.as_slice());
    let (authority, client, bundle) = tokio::try_join!(
        authority(context, &network, &owner),
        context.certificate(&owner, &client),
        bundles::read(context, &owner.namespace, named.unwrap_or_default()),
    )?;
    let names: Vec<String> = network.spec.groups.iter().map(|group| names::group(&owner.name, &group.name)).collect();
    let groups = names.iter().map(|name| context.group(&owner.namespace, name)).collect();
    // Of all groups of the namespace only those matter that have the id of one of these chains.
    let ids: Vec<String> =
        network.spec.groups.iter().zip(&names).map(|(group, name)| group.chain.id_or_name(name)).collect();
    let others = context.groups_where(&owner.namespace, |group| {
        let name = group.name_any();
        !names.contains(&name) && ids.contains(&group.spec.chain.id_or_name(&name))
    });
    let missing = missing(context, &owner, &network).await?;
    let tiers = tiers::read(context, &owner, &network).await?;
    let installation = context.installation();
    let children_hash = network.status.as_ref().and_then(|status| status.children_hash.clone());
    Ok(Observed {
        network,
        groups,
        others,
        authority,
        rolling: None,
        bundle,
        issuance: None,
        client,
        tiers,
        installation,
        missing,
        children_hash,
    })
}

/// The authority: live until it is written down, later now and then.
async fn authority(context: &Context, network: &BlockchainNetwork, owner: &Owner) -> Result<AuthorityRead, Error> {
    let source = Source::of(network);
    let name = source.secret(&owner.name);
    let memory = &context.shared.memories.authorities;
    let is_recorded = network.status.as_ref().is_some_and(|status| status.certificate_authority_hash.is_some());
    if is_recorded && let Some(known) = memory.get(&owner.uid, &name) {
        return Ok(known);
    }
    let at = Instant::now();
    let secrets: Api<Secret> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let what = format!("Secret {}/{name}", owner.namespace);
    let Some(secret) = secrets.get_opt(&name).await.map_err(Error::read(what))? else {
        return Ok(AuthorityRead::Missing);
    };
    if standing(&secret.metadata, owner) != Standing::Ours {
        return Ok(AuthorityRead::Foreign);
    }
    let read = authority_of(source, &owner.name, &secret);
    if let AuthorityRead::Present(authority) = &read {
        memory.put(&owner.uid, &name, at, read.clone());
        context.shared.authorities.learn(&owner.namespace, &owner.name, authority);
    }
    Ok(read)
}

/// The authority that this Secret holds.
pub fn authority_of(source: Source, network: &str, secret: &Secret) -> AuthorityRead {
    match source.read(network, secret) {
        Ok(authority) => AuthorityRead::Present(authority),
        Err(error) => AuthorityRead::Invalid(error.to_string()),
    }
}

/// What the templates of groups and tiers name and is not there.
async fn missing(context: &Context, owner: &Owner, network: &BlockchainNetwork) -> Result<Vec<Missing>, Error> {
    let status = network.status.as_ref();
    let is_seen = status.and_then(|status| status.observed_generation) == network.metadata.generation;
    let is_stalled =
        status.is_some_and(|status| althing_crds::conditions::holds(&status.conditions, ConditionType::Stalled));
    if is_seen && !is_stalled {
        return Ok(Vec::new());
    }
    let spec = &network.spec;
    let mut missing = Vec::new();
    for group in &spec.groups {
        let template = group.node.over(&spec.node);
        missing.extend(references::read(context, &owner.namespace, &template, &group.identity_secrets).await?);
    }
    if let Some(observers) = &spec.observers {
        let template = observers.node.over(&spec.node);
        missing.extend(references::read(context, &owner.namespace, &template, &[]).await?);
    }
    if let Some(gateway) = &spec.gateway {
        missing.extend(references::read_gateway(context, &owner.namespace, gateway).await?);
    }
    let mut named = Vec::new();
    for found in missing {
        if !named.contains(&found) {
            named.push(found);
        }
    }
    Ok(named)
}
