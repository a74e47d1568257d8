//! A chain that lives elsewhere: keeps its genesis where one that begins here would be kept, and never makes one.

use althing_crds::names;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Resource, ResourceExt};
use node_api::genesis;

use super::observe::{GenesisRead, Observed};
use super::{ceremony, desired, taken};
use crate::apply::Made;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::kinds::{Child, Owner};
use crate::parts::configmaps;
use crate::refusal::Refusal;

/// The genesis document that the spec names, read from its ConfigMap.
pub async fn source(context: &Context, namespace: &str, config_map: &str) -> Result<GenesisRead, Error> {
    let api: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), namespace);
    let found = api.get_opt(config_map).await.map_err(Error::read(format!("ConfigMap {namespace}/{config_map}")))?;
    let Some(map) = found else { return Ok(GenesisRead::Missing) };
    Ok(match map.data.as_ref().and_then(|data| data.get(names::FILE_GENESIS)) {
        Some(text) => GenesisRead::of(text),
        None => GenesisRead::Invalid(format!("it has no entry {}", names::FILE_GENESIS)),
    })
}

/// Keeps a copy of the genesis that was found to be the named one, then records its hash for good. From then on the copy
/// counts, and the ConfigMap that the spec names may go.
pub async fn adopt(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Option<Refusal>, Error> {
    let is_recorded = observed.status().is_some_and(|status| status.genesis_hash.is_some());
    if observed.group.spec.external.is_none() || is_recorded {
        return Ok(None);
    }
    if observed.kept_genesis().is_none() {
        let Some(GenesisRead::Present(genesis)) = observed.source.take() else {
            return Err(Error::Conflict { what: format!("genesis of {}", owner.what()) });
        };
        let hash = genesis.hash().to_string();
        let map = configmaps::genesis(&desired::group_context(observed)?, &genesis::to_json(&genesis), &hash);
        match context.shared.writer.make_once::<ConfigMap>(owner, &map).await? {
            Made::Now(_) => observed.genesis = GenesisRead::Present(genesis),
            Made::Before(_) => return Err(Error::Conflict { what: format!("genesis of {}", owner.what()) }),
            Made::Taken => return Ok(Some(taken(&Child::of(&map)?.what(&owner.namespace)))),
        }
        context.shared.memories.no_genesis.forget(&owner.uid, &map.name_any());
    }
    let Some(hash) = observed.kept_genesis().map(|genesis| genesis.hash().to_string()) else { return Ok(None) };
    let note = format!("genesis {hash} of a chain that lives elsewhere");
    ceremony::save(context, observed, |status| status.genesis_hash = Some(hash)).await?;
    context.publish(&observed.group.object_ref(&()), &[Draft::normal("GenesisAdopted", note)]).await;
    Ok(None)
}
