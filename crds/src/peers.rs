//! Members of a chain in other namespaces and clusters: whom nodes trust and let in, and what joins a chain that lives
//! elsewhere.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schemas;

fn key_default() -> String {
    "ca.crt".to_string()
}

/// How the nodes of a group meet nodes of the same chain that other members run, in other namespaces or clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerAccess {
    /// Certificate authorities of other members. Whom they name counts as a node of this chain and as nothing else: their
    /// operators and clients are strangers here. The first one restarts the nodes one after the other; later changes
    /// restart nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub trusted_authorities: Vec<TrustedAuthority>,
    /// Namespaces of this cluster whose nodes may reach the P2P port, and may be reached. With `networkPolicy.mode: Managed`
    /// only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_namespaces: Vec<String>,
    /// Addresses outside of the cluster that may reach the P2P port, and may be reached, as CIDR. With
    /// `networkPolicy.mode: Managed` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 43)))]
    #[x_kube(validation = Rule::new("self.all(range, isCIDR(range))")
        .message("p2p.allowedCidrs must be address ranges such as 10.0.0.0/8"))]
    pub allowed_cidrs: Vec<String>,
    /// Gives each node an address outside of the cluster, which it tells the others. When the address is known, or is another
    /// one, the node is restarted once. Unset: nodes tell their address inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expose: Option<Expose>,
}

/// How a node is reached from outside of the cluster: a Service of its own, `<vnode>-p2p-external`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expose {
    /// Type of the Service, `LoadBalancer` if unset.
    #[serde(default, rename = "type")]
    pub kind: ExposeType,
    /// Annotations on the Service, for example of a cloud's load balancer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::annotation_map")]
    pub annotations: BTreeMap<String, String>,
}

/// Type of the Service, `LoadBalancer` if unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExposeType {
    /// An address of the cloud's load balancer.
    #[default]
    LoadBalancer,
}

impl ExposeType {
    /// The name in a Service.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

impl PeerAccess {
    /// The same where nodes also trust the members that run a chain which lives elsewhere.
    #[must_use]
    pub fn with(&self, external: Option<&External>) -> Self {
        let mut access = self.clone();
        for authority in external.map(|external| external.trusted_authorities.as_slice()).unwrap_or_default() {
            if !access.trusted_authorities.contains(authority) {
                access.trusted_authorities.push(authority.clone());
            }
        }
        access
    }

    /// Nobody has said anything.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// Certificate authorities that are trusted, as a bundle of PEM certificates in a ConfigMap of the same namespace. It holds
/// no secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedAuthority {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// Entry of the ConfigMap, `ca.crt` if unset.
    #[serde(default = "key_default")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A chain that lives elsewhere: its genesis, some of its nodes, and who vouches for them. This group makes no genesis; its
/// nodes follow the chain and vote once its governance has voted them in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.genesis == oldSelf.genesis")
    .message("external.genesis cannot be changed: another genesis is another chain"))]
pub struct External {
    /// The genesis of the chain. It cannot be changed.
    pub genesis: ExternalGenesis,
    /// Nodes of the chain that are dialed first, and asked what the chain does: as many that no more than a third of the
    /// power can be missing or lie, for example all voters of the home group. Others are learned from them.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["identity".to_string()]))]
    pub peers: Vec<ExternalPeer>,
    /// Certificate authorities of the members that run these nodes, as in `p2p.trustedAuthorities`.
    #[schemars(length(min = 1, max = 16))]
    pub trusted_authorities: Vec<TrustedAuthority>,
}

/// Where the genesis document is, and which one it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalGenesis {
    /// Name of a ConfigMap of the same namespace with the document under `genesis.json`: a copy of `<group>-genesis` of the
    /// home side.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// Hash of the only genesis that is followed, 64 hexadecimal digits; `status.genesisHash` of the home side. Take it from
    /// somebody whom you trust, by another way than the document.
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub hash: String,
}

/// A node of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalPeer {
    /// Its identity, 64 hexadecimal digits; `status.identity` of its ValidatorNode.
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub identity: String,
    /// Where its P2P port is reached, as `host:port`.
    #[schemars(length(min = 3, max = 259), regex(pattern = r"^[^\s/]+:[0-9]{1,5}$"))]
    pub address: String,
}
