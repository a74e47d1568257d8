//! One event: where it stands, what it belongs to, what it says.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::types::{
    Governance, Hash, Height, Identity, Incarnation, Power, ReceiptStatus, Results, Round, TimeMs, TransactionBody,
    TransactionId, VoterEntry,
};

/// The place of an event in the chain, written `height:index`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct EventId {
    /// The height of its block, from 1.
    pub height: Height,
    /// Its position among the events of that height, from 0.
    pub index: u32,
}

/// A text that names no event.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is not an event id: write height:index, as in 12:0, or a height alone")]
pub struct EventIdError {
    /// The text, cut to 100 characters.
    pub text: String,
}

/// What an event is about; a follower may ask for some groups only.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EventGroup {
    /// What the voters have checked.
    Validation,
    /// That they agree.
    Consensus,
    /// Blocks.
    Block,
    /// Transactions.
    Transaction,
    /// Voters, parameters, keys of governance, recoveries.
    Network,
}

/// The trace that an event belongs to, as in a W3C `traceparent`; never all zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceId([u8; 16]);

/// One event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Where it stands.
    pub id: EventId,
    /// The time of the block.
    pub time: TimeMs,
    /// The transaction that it is about, or that caused it.
    pub transaction: Option<TransactionId>,
    /// That of the transaction, or else of the block.
    pub trace: TraceId,
    /// What it says.
    pub payload: EventPayload,
}

/// What an event says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventPayload {
    /// A proposer made the block.
    BlockCreated {
        /// The hash of its header.
        block: Hash,
        /// The hash of the header before.
        parent: Hash,
        /// Who made it.
        proposer: Identity,
        /// The round in which it was first proposed.
        round: Round,
        /// How many transactions it has.
        transactions: u32,
    },
    /// The chain goes on with fresh session keys from this height.
    ChainRecovered {
        /// The number of the recovery.
        number: u32,
        /// What signatures are bound to from now on.
        incarnation: Incarnation,
    },
    /// The block holds a transaction.
    TransactionSubmitted {
        /// What was signed.
        body: TransactionBody,
    },
    /// The voters found right what the header says.
    BlockValidated {
        /// The hash of the header.
        block: Hash,
        /// Names the voters of this height and the next.
        voters_hash: Hash,
        /// Names the parameters in force.
        parameters_hash: Hash,
        /// The results of two heights before.
        results: Results,
    },
    /// Voters of more than two thirds of the power have committed to the block.
    ConsensusReached {
        /// The hash of the header.
        block: Hash,
        /// How many voters this height has.
        voters: u32,
        /// Their power.
        total_power: Power,
        /// The power that decides.
        quorum: Power,
    },
    /// What became of a transaction of the block.
    TransactionExecuted {
        /// Its position in the block, from 0.
        position: u32,
        /// What became of it.
        status: ReceiptStatus,
    },
    /// A voter comes.
    ValidatorRegistered {
        /// The voter.
        voter: VoterEntry,
        /// The first height at which it votes.
        counts_from: Height,
    },
    /// A voter goes.
    ValidatorRemoved {
        /// The voter as it was.
        voter: VoterEntry,
        /// The first height at which it does not vote.
        counts_from: Height,
    },
    /// A voter has another session key.
    ValidatorRotated {
        /// The voter as it was.
        before: VoterEntry,
        /// The voter as it will be.
        after: VoterEntry,
        /// The first height at which the new key signs.
        counts_from: Height,
    },
    /// A voter has another weight.
    ValidatorPowerChanged {
        /// The voter as it was.
        before: VoterEntry,
        /// The voter as it will be.
        after: VoterEntry,
        /// The first height at which the new weight counts.
        counts_from: Height,
    },
    /// A parameter of the chain has another value.
    ParameterChanged {
        /// Its name.
        name: &'static str,
        /// Its value so far.
        before: u64,
        /// Its value to be.
        after: u64,
        /// The first height at which it counts.
        counts_from: Height,
    },
    /// Other keys govern the chain, from the next transaction on.
    GovernanceKeysChanged {
        /// The new keys.
        governance: Governance,
    },
    /// The block is executed, and will never be another one.
    BlockFinalised {
        /// The hash of the header.
        block: Hash,
        /// The Merkle root of its receipts, to which header `h + 2` commits.
        receipts_root: Hash,
        /// Transactions that had their effect.
        executed: u32,
        /// Transactions that had none: failed, expired or deferred.
        without_effect: u32,
    },
}

impl EventPayload {
    /// The group of the event.
    #[must_use]
    pub fn group(&self) -> EventGroup {
        match self {
            Self::BlockValidated { .. } => EventGroup::Validation,
            Self::ConsensusReached { .. } => EventGroup::Consensus,
            Self::BlockCreated { .. } | Self::BlockFinalised { .. } => EventGroup::Block,
            Self::TransactionSubmitted { .. } | Self::TransactionExecuted { .. } => EventGroup::Transaction,
            Self::ChainRecovered { .. }
            | Self::ValidatorRegistered { .. }
            | Self::ValidatorRemoved { .. }
            | Self::ValidatorRotated { .. }
            | Self::ValidatorPowerChanged { .. }
            | Self::ParameterChanged { .. }
            | Self::GovernanceKeysChanged { .. } => EventGroup::Network,
        }
    }
}

impl TraceId {
    /// The trace of a transaction. Transactions carry no trace of their own, so their id gives it to all nodes alike.
    #[must_use]
    pub fn of_transaction(id: &TransactionId) -> Self {
        Self::of_bytes(id.as_bytes())
    }

    /// The trace of a block.
    #[must_use]
    pub fn of_block(hash: &Hash) -> Self {
        Self::of_bytes(hash.as_bytes())
    }

    fn of_bytes(bytes: &[u8; 32]) -> Self {
        match bytes.first_chunk() {
            Some(first) if *first != [0; 16] => Self(*first),
            // All zero is not valid in a `traceparent`.
            _ => Self([1; 16]),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.height, self.index)
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let error = || EventIdError { text: text.chars().take(100).collect() };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (height, index) = text.split_once(':').unwrap_or((text, "0"));
        if !digits(height) || !digits(index) {
            return Err(error());
        }
        let height = Height::new(height.parse().map_err(|_| error())?);
        Ok(Self { height, index: index.parse().map_err(|_| error())? })
    }
}
