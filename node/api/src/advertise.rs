//! The part of `node.yaml` about how other nodes learn of this one.

use std::collections::BTreeSet;

use node_core::types::PEER_ADDRESSES_MAX;
use serde::{Deserialize, Serialize};

use crate::config::{NodeConfig, PeerAddress};

/// How others learn of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct P2p {
    /// Where peers reach this node, at most 8: what it signs in its peer record. If left out, the address of the entry of
    /// `peers` with this node's own identity, or else `listen.p2p` if that is one address and not all of a machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<PeerAddress>,
}

impl P2p {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        let count = self.advertise.len();
        let different: BTreeSet<&PeerAddress> = self.advertise.iter().collect();
        if count > PEER_ADDRESSES_MAX {
            Some(format!("{count} addresses, at most {PEER_ADDRESSES_MAX}"))
        } else if different.len() < count {
            Some("an address is named twice".to_owned())
        } else {
            None
        }
    }
}

impl NodeConfig {
    /// Where this node says that it is reached; empty if it does not know.
    pub fn advertised(&self, own: &node_core::types::Identity) -> Vec<node_core::types::PeerAddress> {
        let listed = self.peers.iter().find(|peer| peer.identity == *own).map(|peer| peer.address.to_string());
        let listen = self.listen.p2p;
        let single = (!listen.ip().is_unspecified() && listen.port() != 0).then(|| listen.to_string());
        let texts = match self.p2p.advertise.as_slice() {
            [] => listed.or(single).into_iter().collect(),
            named => named.iter().map(ToString::to_string).collect::<Vec<_>>(),
        };
        texts.iter().filter_map(|text| node_core::types::PeerAddress::new(text).ok()).collect()
    }
}
