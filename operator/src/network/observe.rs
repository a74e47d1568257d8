//! Everything that a reconcile of a network needs to know, read in one place.

use althing_crds::{BlockchainNetwork, ConditionType, ConsensusGroup, names};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::tiers::{self, Tiers};
use crate::authorities::Authority;
use crate::certificates;
use crate::context::Context;
use crate::error::Error;
use crate::kinds::{Owner, Standing, standing};
use crate::parts::Installation;
use crate::references::{self, Missing};

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
    /// Its client certificate.
    pub client: Option<Secret>,
    /// What there is of its observers and gateway.
    pub tiers: Tiers,
    /// What builders need to know of this process.
    pub installation: Installation,
    /// What the spec names and is not there, by group; looked up for a new spec only.
    pub missing: Vec<Missing>,
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
    let secrets: Api<Secret> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let client_name = names::client_secret(&owner.name);
    let what = format!("Secret {}/{client_name}", owner.namespace);
    let (authority, client) = tokio::try_join!(authority(&secrets, &owner), async {
        secrets.get_opt(&client_name).await.map_err(Error::read(what))
    })?;
    let names: Vec<String> = network.spec.groups.iter().map(|group| names::group(&owner.name, &group.name)).collect();
    let groups = names.iter().map(|name| context.group(&owner.namespace, name)).collect();
    let others = context.groups_where(&owner.namespace, |group| !names.contains(&group.name_any()));
    let missing = missing(context, &owner, &network).await?;
    let tiers = tiers::read(context, &owner, &network).await?;
    let installation = context.installation();
    Ok(Observed { network, groups, others, authority, client, tiers, installation, missing })
}

async fn authority(secrets: &Api<Secret>, owner: &Owner) -> Result<AuthorityRead, Error> {
    let name = names::ca_secret(&owner.name);
    let what = format!("Secret {}/{name}", owner.namespace);
    let Some(secret) = secrets.get_opt(&name).await.map_err(Error::read(what))? else {
        return Ok(AuthorityRead::Missing);
    };
    if standing(&secret.metadata, owner) != Standing::Ours {
        return Ok(AuthorityRead::Foreign);
    }
    Ok(authority_of(&owner.name, &secret))
}

/// The authority that this Secret holds.
pub fn authority_of(network: &str, secret: &Secret) -> AuthorityRead {
    match certificates::authority(network, secret) {
        Ok(issuer) => AuthorityRead::Present(Authority {
            issuer: std::sync::Arc::new(issuer),
            hash: certificates::authority_hash(secret).unwrap_or_default(),
        }),
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
    let (client, spec) = (&context.shared.client, &network.spec);
    let mut missing = Vec::new();
    for group in &spec.groups {
        let template = group.node.over(&spec.node);
        missing.extend(references::read(client, &owner.namespace, &template, &group.identity_secrets).await?);
    }
    if let Some(observers) = &spec.observers {
        let template = observers.node.over(&spec.node);
        missing.extend(references::read(client, &owner.namespace, &template, &[]).await?);
    }
    if let Some(gateway) = &spec.gateway {
        missing.extend(references::read_gateway(client, &owner.namespace, gateway).await?);
    }
    Ok(missing)
}
