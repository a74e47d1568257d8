//! The rules of the peer network without network, clock or disk: whose records count, and who is sent away for how long.

mod book;
mod own_record;
mod rate;
mod scores;

pub use book::{Book, DialPlace, Refusal, Taken};
pub use own_record::OwnRecord;
pub use rate::{MessageRate, Wait};
pub use scores::{Offence, Scores};

use std::collections::BTreeMap;

use node_core::types::{Identity, Incarnation, Power};

/// What the chain says about peers, as of its newest executed block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Roster {
    /// What records are bound to.
    pub incarnation: Incarnation,
    /// Voters of the next heights, also those that only vote in some blocks, with their largest power.
    pub voters: BTreeMap<Identity, Power>,
    /// How much of that power may fail.
    pub fault_budget: Power,
}
