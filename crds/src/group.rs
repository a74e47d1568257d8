//! `ConsensusGroup`: one chain and its voters.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::Chain;
use crate::conditions::Condition;
use crate::network::NetworkAccess;
use crate::peers::{External, PeerAccess};
use crate::template::{DefaultImage, NodeTemplate};

/// Voters that a group has when nobody says how many.
pub const REPLICAS_DEFAULT: i32 = 4;

fn replicas_default() -> i32 {
    REPLICAS_DEFAULT
}

/// What a chain and its voters shall be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "althing.dev",
    version = "v1alpha1",
    kind = "ConsensusGroup",
    plural = "consensusgroups",
    shortname = "cgrp",
    category = "althing",
    namespaced,
    status = "ConsensusGroupStatus",
    derive = "PartialEq",
    doc = "One chain and its voters. Normally made from a BlockchainNetwork.",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 42")
        .message("metadata.name must be lower-case letters, digits and '-', begin with a letter and have at most 42 characters: pods are named after it"),
    printcolumn(name = "Available", type_ = "string", json_path = r#".status.conditions[?(@.type=="Available")].status"#, description = "A quorum signs and the last block is young"),
    printcolumn(name = "Signing", type_ = "string", json_path = ".status.signing", description = "Voters that sign, of all voters"),
    printcolumn(name = "Margin", type_ = "integer", json_path = ".status.margin", description = "How many more voters may fail before the quorum is lost"),
    printcolumn(name = "Height", type_ = "integer", json_path = ".status.height", description = "Height of the last block"),
    printcolumn(name = "Block-Age", type_ = "string", json_path = ".status.blockAge", description = "Age of the last block"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas", description = "Voters that shall be"),
    printcolumn(name = "UpToDate", type_ = "integer", json_path = ".status.updatedReplicas", description = "Voters that run what the spec says"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Version that the nodes run"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.network == oldSelf.network").message("network cannot be changed"),
    validation = Rule::new("has(self.external) || self.replicas == 1 || self.replicas >= 4")
        .message("replicas must be 1 (development) or at least 4: 2 or 3 voters stop as soon as one fails"),
    validation = Rule::new("has(self.external) == has(oldSelf.external)")
        .message("external cannot be set later or removed: a chain begins here or elsewhere"),
    validation = Rule::new("!has(self.external) || (has(self.chain.id) && !has(self.chain.genesisHash) && !has(self.chain.accounts) && !has(self.chain.governance))")
        .message("external needs chain.id, and excludes chain.genesisHash, accounts and governance: those are in the genesis of the chain"),
    validation = Rule::new("!has(self.identitySecrets) || size(self.identitySecrets) == self.replicas")
        .message("identitySecrets needs one Secret for each of the replicas"),
    validation = Rule::new("has(self.identitySecrets) == has(oldSelf.identitySecrets) && (!has(self.identitySecrets) || self.identitySecrets == oldSelf.identitySecrets)")
        .message("identitySecrets cannot be changed, set later or removed"),
    validation = Rule::new("!has(self.retired) || !has(self.identitySecrets)")
        .message("retired needs identities that the operator makes: with identitySecrets nobody can take the place of a voter")
)]
pub struct ConsensusGroupSpec {
    /// Name of the BlockchainNetwork in the same namespace whose certificate authority this group uses. It cannot be
    /// changed.
    #[schemars(length(min = 1, max = 39))]
    pub network: String,
    /// How many voters: 1 for development, or 4 and more. With `external`, how many voters of the chain this group shall run:
    /// any number, and 0 to leave.
    #[serde(default = "replicas_default")]
    #[schemars(range(min = 0, max = 99))]
    pub replicas: i32,
    /// What makes this chain: its name, genesis, protocol. It cannot be changed.
    #[serde(default)]
    pub chain: Chain,
    /// Secrets with identities that you bring yourself, the n-th for the n-th voter (key `identity.pem`, PKCS#8). Unset:
    /// the operator makes them. It cannot be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 99), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub identity_secrets: Vec<String>,
    /// ValidatorNodes that shall vote no more, for example `demo-main-2`. While the number of voters is what it shall
    /// be, another voter takes the place of each; where there are too many, these go first. Identity and volume of
    /// whoever left are kept, and its name is not given again while it stands here. A newcomer that cannot start, as when
    /// its machine is lost too, may be named as well: the next one is tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 99), inner(length(min = 1, max = 45)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub retired: Vec<String>,
    /// A chain that lives elsewhere, which this group joins. Unset: the chain begins here. It cannot be set later or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How the nodes meet those of other members.
    #[serde(default, skip_serializing_if = "PeerAccess::is_unset")]
    pub p2p: PeerAccess,
    /// Settings for the nodes of this group.
    #[serde(default)]
    pub node: NodeTemplate,
    /// Who may talk to the nodes.
    #[serde(default)]
    pub network_policy: NetworkAccess,
}

/// What a chain and its voters are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsensusGroupStatus {
    /// Generation of the spec that this status speaks about; -1 until the operator has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Available, QuorumAtRisk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// Voters that exist as ValidatorNodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Voters whose pods run what the spec says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Voters that sign, of all voters, for example `4/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub signing: Option<String>,
    /// Power that signs, as f+1 voters report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_power: Option<i64>,
    /// Power of all voters of the chain, those outside this cluster included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_power: Option<i64>,
    /// How many more voters may fail, heaviest first, before the quorum is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<i32>,
    /// Height of the last block. Refreshed at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// Age of the last block as a range, for example `<10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub block_age: Option<String>,
    /// When height and block age were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub observed_at: Option<String>,
    /// Version that the nodes run, or several separated by commas during an upgrade.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub version: Option<String>,
    /// Name of the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub chain_id: Option<String>,
    /// Hash of the genesis that all voters accepted; hexadecimal. It never changes again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub genesis_hash: Option<String>,
    /// The genesis ceremony, from its first step until the chain has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceremony: Option<Ceremony>,
    /// The one disruption that is going on, written before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// Which voters the chain has once their number was changed, and the change that is going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// The image of the nodes while the spec names none: the operator's when they were made. Absent while it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_image: Option<DefaultImage>,
    /// Hash of the children as they were last applied, of what was wanted and what was there: while it is the same,
    /// nothing is applied again, also after a restart of the operator; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub children_hash: Option<String>,
}

/// The voters of the chain that this group runs, by the numbers of their nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// Numbers of the nodes that are voters, ascending.
    #[schemars(length(max = 99))]
    pub numbers: Vec<i32>,
    /// The one change that is going on, written before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<MemberChange>,
    /// The height that the chain had when this was written: what voters say of earlier ones may be from before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub height: Option<i64>,
}

/// A voter that joins or leaves the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberChange {
    /// Number of its node.
    pub number: i32,
    /// Whether it joins or leaves.
    pub direction: MemberDirection,
    /// Number of the voter whose place a newcomer takes, in one transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<i32>,
    /// When it was decided.
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: String,
    /// The fault budget bears the voters before this change and after it, whoever comes counted as silent; only then is it put
    /// before the chain. Not while people have to sign it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_borne: bool,
    /// The last height at which the transaction that was put before the chain can be executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed_until: Option<i64>,
    /// The transaction that governance must sign, where the operator has no governance key: the document that
    /// `althing-node tx sign` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub transaction: Option<String>,
}

/// Whether a voter joins or leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberDirection {
    /// It is voted in.
    Join,
    /// It is voted out.
    Leave,
}

/// How far the genesis ceremony is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ceremony {
    /// Random value that every voter's proof of possession names; hexadecimal.
    #[schemars(length(max = 64))]
    pub nonce: String,
    /// Time of the genesis in milliseconds since 1970, fixed when the ceremony begins.
    pub time_ms: i64,
    /// Hash of the one genesis that was put before the voters; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub candidate_hash: Option<String>,
}

/// A planned restart of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Name of the ValidatorNode.
    #[schemars(length(max = 45))]
    pub node: String,
    /// UID of the pod that is evicted; the disruption is over when another one signs.
    #[schemars(length(max = 64))]
    pub pod_uid: String,
    /// Why, for example `ConfigurationChanged`.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// When it was decided.
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: String,
    /// Height of the chain when the new pod was first seen; only precommits well above it prove that the new pod signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_height: Option<i64>,
}
