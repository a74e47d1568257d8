//! Nodes of the chain that other members run. They are asked over the P2P port, the only one that members open to each
//! other; what they say counts like the word of an own voter, by their power.

use althing_crds::peers::ExternalPeer;
use node_api::node_core::types::{ChainId, Identity};

use super::observe::Observed;
use crate::chain::agreement::Report;
use crate::chain::nodes::{Node, Target};
use crate::context::Context;
use crate::error::Error;
use crate::kinds::Owner;
use crate::validator::now_s;

/// One node of another member.
pub struct Outside {
    /// Its identity, which its certificate proves.
    pub identity: Identity,
    /// The way to it.
    pub connection: Node,
    /// What it reports about the chain.
    pub report: Option<Report>,
}

/// Asks all that the spec names, at the same time.
pub async fn ask(context: &Context, owner: &Owner, observed: &Observed) -> Result<Vec<Outside>, Error> {
    let Some(external) = &observed.group.spec.external else { return Ok(Vec::new()) };
    let (Some(authority), Ok(members)) = (&observed.authority, &observed.members) else { return Ok(Vec::new()) };
    let mut known = Vec::new();
    for peer in &external.peers {
        if let Some(target) = target(owner, observed, peer) {
            let connection = context.shared.dialers.outside(&target, authority, members, now_s())?;
            known.push((target.identity, connection));
        }
    }
    let asked = known.into_iter().map(|(identity, connection)| async move {
        let report = connection.report(&identity).await;
        if let Err(error) = &report {
            tracing::debug!(%identity, %error, "a node of another member does not say what it sees");
        }
        Outside { identity, report: report.ok(), connection }
    });
    Ok(futures::future::join_all(asked).await)
}

fn target(owner: &Owner, observed: &Observed, peer: &ExternalPeer) -> Option<Target> {
    Some(Target {
        namespace: owner.namespace.clone(),
        node: format!("{}/{}", owner.name, peer.identity),
        chain_id: ChainId::new(observed.chain_id.clone()).ok()?,
        identity: peer.identity.parse().ok()?,
        address: peer.address.clone(),
    })
}
