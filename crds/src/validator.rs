//! `ValidatorNode`: one node of a chain with its own identity, volume and version.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::network::NetworkAccess;
use crate::peers::PeerAccess;
use crate::template::{DefaultImage, NodeTemplate};

/// What one node shall be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "althing.dev",
    version = "v1alpha1",
    kind = "ValidatorNode",
    plural = "validatornodes",
    shortname = "vnode",
    category = "althing",
    namespaced,
    status = "ValidatorNodeStatus",
    derive = "PartialEq",
    doc = "One node of a chain with its own identity, volume and version. Normally made from a ConsensusGroup.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 45")
        .message("metadata.name must be lower-case letters, digits and '-', begin with a letter and have at most 45 characters: the pod is named after it"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "The node does what its role says"),
    printcolumn(name = "Signing", type_ = "string", json_path = r#".status.conditions[?(@.type=="Signing")].status"#, description = "The other voters see its votes"),
    printcolumn(name = "Synced", type_ = "string", json_path = r#".status.conditions[?(@.type=="Synced")].status"#, description = "It has the chain's last blocks"),
    printcolumn(name = "Power", type_ = "integer", json_path = ".status.power", description = "Its voting power"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Version that it runs"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.network == oldSelf.network").message("network cannot be changed"),
    validation = Rule::new("self.group == oldSelf.group").message("group cannot be changed"),
    validation = Rule::new("self.chainId == oldSelf.chainId").message("chainId cannot be changed"),
    validation = Rule::new("self.role == oldSelf.role").message("role cannot be changed: make another node"),
    validation = Rule::new("has(self.identitySecret) == has(oldSelf.identitySecret) && (!has(self.identitySecret) || self.identitySecret == oldSelf.identitySecret)")
        .message("identitySecret cannot be changed, set later or removed")
)]
pub struct ValidatorNodeSpec {
    /// Name of the BlockchainNetwork in the same namespace. It cannot be changed.
    #[schemars(length(min = 1, max = 39))]
    pub network: String,
    /// Name of the ConsensusGroup in the same namespace; its nodes are the peers. It cannot be changed.
    #[schemars(length(min = 1, max = 42))]
    pub group: String,
    /// Name of the chain. It cannot be changed.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub chain_id: String,
    /// Whether the node votes or only follows. It cannot be changed.
    #[serde(default)]
    pub role: Role,
    /// Secret with an identity that you bring yourself (key `identity.pem`, PKCS#8). Unset: the operator makes
    /// `<name>-identity`. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub identity_secret: Option<String>,
    /// How the node meets those of other members.
    #[serde(default, skip_serializing_if = "PeerAccess::is_unset")]
    pub p2p: PeerAccess,
    /// How the pod and the volume are made.
    #[serde(default)]
    pub node: NodeTemplate,
    /// Who may talk to the nodes.
    #[serde(default)]
    pub network_policy: NetworkAccess,
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Votes.
    #[default]
    Validator,
    /// Follows the chain and answers questions.
    Observer,
}

impl Role {
    /// The name in the node's configuration, on its command line and in its certificate.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Observer => "observer",
        }
    }
}

/// What one node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValidatorNodeStatus {
    /// Generation of the spec that this status speaks about; -1 until the operator has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Synced, Signing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// Public key of the node's identity; hexadecimal. Made once: another one later stalls the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub identity: Option<String>,
    /// UID of the node's volume claim. Made once: another one later stalls the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub claim_uid: Option<String>,
    /// Hash of the genesis that the node runs; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub genesis_hash: Option<String>,
    /// Public key that signs the node's votes now; hexadecimal. It is made on the volume and changes by rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub session_key: Option<String>,
    /// Number of that key: it grows with every rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Voting power on the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<i64>,
    /// Where nodes outside of the cluster reach it, as `host:port`, with `p2p.expose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 259))]
    pub p2p_address: Option<String>,
    /// Version that the node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// How full the node's volume is, as a range: `<50%`, `<75%`, `<90%` or `>=90%`. With less than 64 MiB free the node
    /// signs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub volume_used: Option<String>,
    /// When the node's certificate ends. It is renewed at two thirds of its life, without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub certificate_expires: Option<String>,
    /// The image of the node while the spec names none: the operator's when it was made. Absent while it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_image: Option<DefaultImage>,
    /// Hash of the children as they were last applied, of what was wanted and what was there: while it is the same,
    /// nothing is applied again, also after a restart of the operator; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub children_hash: Option<String>,
}
