//! `BlockchainNetwork`: one trust domain with its chains, the only kind that a person has to write.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::certificates::Certificates;
use crate::chain::Chain;
use crate::conditions::Condition;
use crate::gateway::Gateway;
use crate::observers::Observers;
use crate::peers::{External, PeerAccess};
use crate::scaling::TierStatus;
use crate::template::NodeTemplate;

/// What a network shall be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "althing.dev",
    version = "v1alpha1",
    kind = "BlockchainNetwork",
    plural = "blockchainnetworks",
    shortname = "bcn",
    category = "althing",
    namespaced,
    status = "BlockchainNetworkStatus",
    derive = "PartialEq",
    doc = "A network of validators: one certificate authority, common defaults, and one or more chains.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be lower-case letters, digits and '-', and begin with a letter: Services are named after it"),
    validation = Rule::new("self.spec.groups.all(group, size(self.metadata.name) + size(group.name) <= 41)")
        .message("metadata.name and the name of a group may have 41 characters together: pods are named after both"),
    validation = Rule::new("(!has(self.spec.gateway) || (has(self.spec.gateway.group) ? self.spec.groups.exists(group, group.name == self.spec.gateway.group) : size(self.spec.groups) == 1)) && (!has(self.spec.observers) || (has(self.spec.observers.group) ? self.spec.groups.exists(group, group.name == self.spec.observers.group) : size(self.spec.groups) == 1))")
        .message("gateway.group and observers.group must name one of spec.groups, and may be left out only where there is one"),
    validation = Rule::new("self.spec.groups.all(group, (group.name != 'gateway' || !has(self.spec.gateway)) && (group.name != 'observers' || !has(self.spec.observers)))")
        .message("a group cannot be called gateway or observers beside the tier of that name: both would have the same children"),
    validation = Rule::new("has(self.spec.certificates) == has(oldSelf.spec.certificates)")
        .message("certificates cannot be set later or removed: nodes would not trust the certificates of each other"),
    validation = Rule::new("!has(self.spec.certificates) || self.spec.groups.all(group, !has(group.external))")
        .message("certificates and groups with external exclude each other: the operator asks nodes of other members as a node of its own authority"),
    printcolumn(name = "Available", type_ = "string", json_path = r#".status.conditions[?(@.type=="Available")].status"#, description = "Every chain has a quorum that signs and makes blocks"),
    printcolumn(name = "Signing", type_ = "string", json_path = ".status.signing", description = "Voters that sign, of all voters"),
    printcolumn(name = "Margin", type_ = "integer", json_path = ".status.margin", description = "How many more voters may fail before a quorum is lost"),
    printcolumn(name = "Height", type_ = "integer", json_path = ".status.height", description = "Height of the last block; the lowest of all chains"),
    printcolumn(name = "Block-Age", type_ = "string", json_path = ".status.blockAge", description = "Age of the last block; the oldest of all chains"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Version that the nodes run"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct BlockchainNetworkSpec {
    /// The chains of this network. Each one gets its own voters.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub groups: Vec<NetworkGroup>,
    /// Defaults for the nodes of all groups.
    #[serde(default)]
    pub node: NodeTemplate,
    /// Who may talk to the nodes.
    #[serde(default)]
    pub network_policy: NetworkAccess,
    /// Who issues the certificates of nodes, gateways, clients and the operator. Unset: an authority of the operator's own,
    /// Secret `<network>-ca`. It cannot be set later or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
    /// Nodes without a vote that answer reads. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observers: Option<Observers>,
    /// The public entrance for clients, the Service `<network>-gateway`. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

/// One chain of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicas) || has(self.external) || self.replicas == 1 || self.replicas >= 4")
        .message("replicas must be 1 (development) or at least 4: 2 or 3 voters stop as soon as one fails"),
    validation = Rule::new("has(self.external) == has(oldSelf.external)")
        .message("external cannot be set later or removed: a chain begins here or elsewhere"),
    validation = Rule::new("!has(self.external) || (has(self.chain.id) && !has(self.chain.genesisHash) && !has(self.chain.accounts) && !has(self.chain.governance))")
        .message("external needs chain.id, and excludes chain.genesisHash, accounts and governance: those are in the genesis of the chain"),
    validation = Rule::new("!has(self.identitySecrets) || (has(self.replicas) && size(self.identitySecrets) == self.replicas)")
        .message("identitySecrets needs replicas, and one Secret for each of them"),
    validation = Rule::new("has(self.identitySecrets) == has(oldSelf.identitySecrets) && (!has(self.identitySecrets) || self.identitySecrets == oldSelf.identitySecrets)")
        .message("identitySecrets cannot be changed, set later or removed"),
    validation = Rule::new("!has(self.retired) || !has(self.identitySecrets)")
        .message("retired needs identities that the operator makes: with identitySecrets nobody can take the place of a voter")
)]
pub struct NetworkGroup {
    /// Name of the group within the network. The ConsensusGroup is called `<network>-<name>`. Another name is another
    /// group with nodes and a chain of its own: the former one is removed, its identities and volumes are kept under its
    /// former name.
    #[schemars(length(min = 1, max = 20), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How many voters: 1 for development, or 4 and more. Set here, this number holds and a scale of the ConsensusGroup
    /// is undone. Unset: 4 at first, then `kubectl scale cgrp/<name>` decides. With `external`, how many voters of the chain
    /// this group shall run: any number, and 0 to leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99))]
    pub replicas: Option<i32>,
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
}

/// Who may talk to the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAccess {
    /// `Managed`: everything is denied but the paths that nodes, operator and clients need.
    #[serde(default)]
    pub mode: NetworkPolicyMode,
    /// Addresses outside of the cluster's pods that may reach the nodes' gRPC port, as CIDR. Pods of the namespace that
    /// carry the label `althing.dev/client: "true"` always may. Either way a client certificate decides what they can do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 43)))]
    #[x_kube(validation = Rule::new("self.all(range, isCIDR(range))")
        .message("networkPolicy.clientCidrs must be address ranges such as 10.0.0.0/8"))]
    pub client_cidrs: Vec<String>,
}

/// Whether the operator makes NetworkPolicies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkPolicyMode {
    /// Everything is denied but the paths that nodes, operator and clients need.
    #[default]
    Managed,
    /// No policies are made: somebody else does it.
    Unmanaged,
}

/// What the network is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockchainNetworkStatus {
    /// Generation of the spec that this status speaks about; -1 until the operator has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled, Available, QuorumAtRisk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// Voters that sign, of all voters, for example `4/4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub signing: Option<String>,
    /// How many more voters may fail before a chain loses its quorum; the lowest of all chains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<i32>,
    /// Height of the last block; the lowest of all chains. Refreshed at most once a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// Age of the last block as a range, for example `<10s`; the oldest of all chains.
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
    /// SHA-256 of the certificate of the certificate authority that signs; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub certificate_authority_hash: Option<String>,
    /// The same of the authority that comes next. It is there while everybody is told to trust it, and signs nothing yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub next_certificate_authority_hash: Option<String>,
    /// The same of the authority that signed before. It is there while it is still trusted, and signs nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub former_certificate_authority_hash: Option<String>,
    /// When the certificate authority ends, and with it every certificate that it has issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub certificate_authority_expires: Option<String>,
    /// When the operator's own certificate ends, where an issuer of cert-manager has issued it. Then the operator cannot ask
    /// the nodes any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub operator_certificate_expires: Option<String>,
    /// Hash of the children as they were last applied, of what was wanted and what was there: while it is the same,
    /// nothing is applied again, also after a restart of the operator; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub children_hash: Option<String>,
    /// The observers. They say nothing about the chain: a chain without them is Available all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observers: Option<TierStatus>,
    /// The gateway. It says nothing about the chain: a chain without it is Available all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<TierStatus>,
}
