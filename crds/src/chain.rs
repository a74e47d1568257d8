//! What makes a chain this chain and no other: fixed when it starts.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What makes a chain this chain: everything here goes into its genesis and cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.id) == has(oldSelf.id) && (!has(self.id) || self.id == oldSelf.id)")
        .message("chain.id cannot be changed, set later or removed: it is part of everything the chain signs"),
    validation = Rule::new("self.protocol == oldSelf.protocol").message("chain.protocol cannot be changed"),
    validation = Rule::new("has(self.genesisHash) == has(oldSelf.genesisHash) && (!has(self.genesisHash) || self.genesisHash == oldSelf.genesisHash)")
        .message("chain.genesisHash cannot be changed, set later or removed"),
    validation = Rule::new("has(self.accounts) == has(oldSelf.accounts) && (!has(self.accounts) || self.accounts == oldSelf.accounts)")
        .message("chain.accounts cannot be changed: balances of a genesis are fixed"),
    validation = Rule::new("self.parameters == oldSelf.parameters")
        .message("chain.parameters cannot be changed: they are part of the genesis"),
    validation = Rule::new("has(self.governance) == has(oldSelf.governance) && (!has(self.governance) || self.governance == oldSelf.governance)")
        .message("chain.governance cannot be changed here: it is part of the genesis")
)]
pub struct Chain {
    /// Name of the chain, part of everything it signs; `<network>-<group>` if unset. It cannot be changed or set later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub id: Option<String>,
    /// How the voters agree.
    #[serde(default)]
    pub protocol: Protocol,
    /// Hash of the only genesis that this chain may start with or continue from, 64 hexadecimal digits. Set it to
    /// resume a chain whose volumes were kept; leave it unset for a new chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub genesis_hash: Option<String>,
    /// Accounts that hold a balance from the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub accounts: Vec<GenesisAccount>,
    /// Pace and size of blocks.
    #[serde(default)]
    pub parameters: Parameters,
    /// Who may change the chain's voters and parameters. Unset: the operator makes one key and keeps it in the Secret
    /// `<group>-governance`, which suits development.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governance: Option<Governance>,
}

impl Chain {
    /// The chain's id; for a group that sets none, this name of the group.
    pub fn id_or_name(&self, group: &str) -> String {
        self.id.clone().unwrap_or_else(|| group.to_string())
    }
}

/// How the voters of a chain agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// Tendermint: final after one block, safe with up to a third of the power faulty.
    #[default]
    #[serde(rename = "BFT")]
    Bft,
}

/// An account with a balance from the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GenesisAccount {
    /// Public key of the account (ed25519), 64 hexadecimal digits. `althing-node keygen` prints it.
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub key: String,
    /// Balance in the chain's smallest unit.
    #[schemars(range(min = 1))]
    pub amount: i64,
}

/// Pace and size of blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Parameters {
    /// Milliseconds between two blocks while there is nothing to include.
    #[schemars(range(min = 10, max = 60_000))]
    pub block_interval_ms: i32,
    /// Milliseconds that voters wait for a proposal in the first round.
    #[schemars(range(min = 100, max = 60_000))]
    pub propose_timeout_ms: i32,
    /// Milliseconds that voters wait for more prevotes after two thirds were seen.
    #[schemars(range(min = 100, max = 60_000))]
    pub prevote_timeout_ms: i32,
    /// Milliseconds that voters wait for more precommits after two thirds were seen.
    #[schemars(range(min = 100, max = 60_000))]
    pub precommit_timeout_ms: i32,
    /// Most transactions in one block.
    #[schemars(range(min = 1, max = 50_000))]
    pub transactions_per_block_max: i32,
    /// Most bytes in one block.
    #[schemars(range(min = 16_384, max = 16_777_216))]
    pub block_bytes_max: i32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            block_interval_ms: 1_000,
            propose_timeout_ms: 1_000,
            prevote_timeout_ms: 500,
            precommit_timeout_ms: 500,
            transactions_per_block_max: 10_000,
            block_bytes_max: 4_194_304,
        }
    }
}

/// Who may change the chain's voters and parameters. Unset: the operator makes one key and keeps it in the Secret
/// `<group>-governance`, which suits development.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.threshold <= size(self.keys)")
    .message("governance.threshold is larger than the number of keys"))]
pub struct Governance {
    /// How many keys must sign a change.
    #[schemars(range(min = 1, max = 32))]
    pub threshold: i32,
    /// Public keys (ed25519), 64 hexadecimal digits each.
    #[schemars(length(min = 1, max = 32), inner(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub keys: Vec<String>,
}
