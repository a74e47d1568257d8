//! The parts of `node.yaml` about how much a node keeps, and when it takes a state instead of all blocks.

use std::path::PathBuf;

use node_core::types::Hash;
use serde::{Deserialize, Serialize};

use crate::roles::NodeRole;

/// Fewest blocks that a node may keep: what late votes, running transactions and peers that are a little behind need.
pub const KEEP_BLOCKS_MIN: u64 = 128;
/// A node that is fewer blocks behind than this always fetches the blocks.
pub const AFTER_BLOCKS_MIN: u64 = 32;

/// What stays on the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// How many of the newest blocks are kept at least, from [`KEEP_BLOCKS_MIN`] on; all if left out. What the proofs of
    /// light clients need is kept in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_blocks: Option<u64>,
    /// Whether the events of blocks are kept and served, for as long as the blocks. If left out, an observer does and a
    /// validator does not: keeping them costs a validator one more write to the disk in each block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<bool>,
}

/// When the node takes the state of a late height from its peers instead of executing all blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateSync {
    /// When it is more than so many blocks behind voters of more than `f` power, from [`AFTER_BLOCKS_MIN`] on. If left out,
    /// only when its peers do not keep the blocks any more that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_blocks: Option<u64>,
    /// A late block of the chain that is trusted like the genesis. A chain that has another one there is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// A late block of the chain, as `althing-node checkpoint` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// Its height.
    pub height: u64,
    /// Its hash, from a source that you trust: 64 hex digits.
    #[serde(with = "hash_text")]
    pub hash: Hash,
    /// The file with its header, certificate and voters.
    pub file: PathBuf,
}

impl Storage {
    /// Whether a node of this role keeps events.
    #[must_use]
    pub fn keeps_events(&self, role: NodeRole) -> bool {
        self.events.unwrap_or(match role {
            NodeRole::Observer => true,
            NodeRole::Validator => false,
        })
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        self.keep_blocks.filter(|blocks| *blocks < KEEP_BLOCKS_MIN).map(|blocks| format!("{blocks} blocks"))
    }
}

impl StateSync {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it.
    pub(crate) fn problem(&self) -> Option<String> {
        self.after_blocks.filter(|blocks| *blocks < AFTER_BLOCKS_MIN).map(|blocks| format!("{blocks} blocks"))
    }
}

mod hash_text {
    //! A hash as 64 lower-case hex digits.

    use node_core::types::Hash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom("not a hash: write the 64 hex digits of the block"))
    }
}
