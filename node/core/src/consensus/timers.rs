//! The timers that the engine sets, each named by what it is for.

use arc_malachitebft_core_types as malachite;

use super::context;
use crate::types::{Height, Parameters, Round};

/// How much of the propose timeout is waited for a proposer of round 0 that says nothing: one part of so many.
const SILENT_PROPOSER_PART: u64 = 4;

/// What is known of the proposer of round 0 when a height starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FirstProposer {
    /// It may well propose.
    Expected,
    /// The others voted at the last heights, it did not.
    Silent,
}

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
    /// A chain with something to include makes its next block now.
    NextContent(Height),
    /// The transactions that came become a batch now.
    SealBatch,
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

impl TimeoutKind {
    /// As the protocol names it.
    pub(super) fn for_core(self, round: Round) -> malachite::Timeout {
        let round = context::round_into(round);
        match self {
            Self::Propose => malachite::Timeout::propose(round),
            Self::Prevote => malachite::Timeout::prevote(round),
            Self::Precommit => malachite::Timeout::precommit(round),
            Self::Rebroadcast => malachite::Timeout::rebroadcast(round),
        }
    }

    /// From the protocol's name; the time after a decision, in which it could wait for more precommits, is not used.
    pub(super) fn from_core(kind: malachite::TimeoutKind) -> Option<Self> {
        match kind {
            malachite::TimeoutKind::Propose => Some(Self::Propose),
            malachite::TimeoutKind::Prevote => Some(Self::Prevote),
            malachite::TimeoutKind::Precommit => Some(Self::Precommit),
            malachite::TimeoutKind::Rebroadcast => Some(Self::Rebroadcast),
            malachite::TimeoutKind::FinalizeHeight(_) => None,
        }
    }

    /// How long to wait in this round, milliseconds.
    ///
    /// Where the first proposer is silent a part of the wait is enough: at worst a block that would have come late is
    /// proposed again a round later, and from round 1 on every wait is whole, so that all voters meet in one of them.
    pub(super) fn wait_ms(self, parameters: &Parameters, round: Round, first: FirstProposer) -> u64 {
        match self {
            Self::Propose if round == Round::ZERO && first == FirstProposer::Silent => {
                (parameters.propose_timeout.base_ms / SILENT_PROPOSER_PART).max(1)
            }
            Self::Propose => parameters.propose_timeout.in_round_ms(round),
            Self::Prevote => parameters.prevote_timeout.in_round_ms(round),
            Self::Precommit => parameters.precommit_timeout.in_round_ms(round),
            // Often enough that a lost vote costs about as much as a lost round, whatever the round.
            Self::Rebroadcast => {
                parameters.prevote_timeout.base_ms.saturating_add(parameters.precommit_timeout.base_ms)
            }
        }
    }
}
