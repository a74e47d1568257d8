//! The timers that the engine sets, each named by what it is for.

use crate::types::{Height, Round};

/// Names a timer. One that rings after its height or round has passed is ignored.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TimerId {
    /// A timeout of the protocol.
    Consensus {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// Which timeout.
        kind: TimeoutKind,
    },
    /// An idle chain makes its next block now.
    NextHeight(Height),
    /// Tell peers how far this node is, and look after sync and the session key.
    Tick,
    /// A peer did not answer a request for blocks.
    SyncRequest {
        /// The number of the request.
        request: u64,
    },
}

/// The timeouts of a round.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TimeoutKind {
    /// No proposal came.
    Propose,
    /// No quorum for one value among the prevotes.
    Prevote,
    /// No quorum for one value among the precommits.
    Precommit,
    /// Nothing moves: say everything again.
    Rebroadcast,
}
