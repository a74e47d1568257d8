//! The parts of `node.yaml` about how much a node keeps, and when it takes a state instead of all blocks.

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StateSync {
    /// When it is more than so many blocks behind voters of more than `f` power, from [`AFTER_BLOCKS_MIN`] on. If left out,
    /// only when its peers do not keep the blocks any more that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_blocks: Option<u64>,
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
