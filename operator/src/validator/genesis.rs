//! Gives an observer the genesis of its chain; voters get theirs in the ceremony of their group.

use althing_crds::names;
use althing_crds::validator::Role;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use node_api::genesis;
use node_api::proto::NodeState;

use super::observe::{Answer, Observed};
use crate::context::Context;
use crate::error::Error;

/// Sends the recorded genesis to an observer that has none or has not started it.
pub async fn give(context: &Context, observed: &Observed) -> Result<(), Error> {
    let (Answer::Says(said), Some(connection)) = (&observed.answer, &observed.connection) else { return Ok(()) };
    let waits = matches!(said.state(), NodeState::WaitingForGenesis | NodeState::GenesisAccepted);
    let group = observed.group.as_ref().and_then(|group| group.status.as_ref());
    let recorded = group.and_then(|status| status.genesis_hash.as_deref());
    let (Some(recorded), Role::Observer, true) = (recorded, observed.node.spec.role, waits) else { return Ok(()) };
    let namespace = observed.node.namespace().unwrap_or_default();
    let name = names::genesis_config_map(&observed.node.spec.group);
    let api: Api<ConfigMap> = Api::namespaced(context.shared.client.clone(), &namespace);
    let kept = api.get_opt(&name).await.map_err(Error::read(format!("ConfigMap {namespace}/{name}")))?;
    let text = kept.and_then(|map| map.data).and_then(|data| data.get(names::FILE_GENESIS).cloned());
    let Some(Ok(genesis)) = text.map(|text| genesis::from_json(&text)) else { return Ok(()) };
    let hash = genesis.hash();
    if hash.to_string() != recorded {
        return Ok(());
    }
    if said.state() == NodeState::WaitingForGenesis {
        let accepted = connection.counted("AcceptGenesis", connection.client.accept_genesis(&genesis).await);
        if let Err(error) = accepted {
            tracing::info!(node = %observed.node.name_any(), %error, "genesis not accepted, trying again");
            return Ok(());
        }
    }
    if let Err(error) = connection.counted("StartChain", connection.client.start_chain(&hash).await) {
        tracing::info!(node = %observed.node.name_any(), %error, "chain not started, trying again");
    }
    Ok(())
}
