//! What the shell tells the engine: everything that happens, one thing at a time.

use super::timers::TimerId;
use crate::{
    crypto::{VerifiedBatch, VerifiedTransaction},
    ledger::Outcome,
    session::ClearedKey,
    types::{Epoch, Hash, Identity, PeerMessage, Results},
};

/// One thing that happened. The engine answers with effects and never waits.
#[derive(Clone, Debug)]
pub enum Input {
    /// The process is up. Comes once, before anything else.
    Start,
    /// A message from a peer whose identity the connection proved. Not [`PeerMessage::Transactions`] and
    /// [`PeerMessage::Batch`]: the shell checks the signatures in those and feeds [`Input::Submitted`] and [`Input::Batch`].
    Message {
        /// The peer.
        from: Identity,
        /// The message.
        message: PeerMessage,
    },
    /// A peer is connected now.
    Connected(Identity),
    /// A peer is not connected any more.
    Disconnected(Identity),
    /// A timer rang.
    Timer(TimerId),
    /// Transactions whose signatures were checked.
    Submitted {
        /// Where they come from.
        origin: Origin,
        /// The transactions, in the order of their sender.
        transactions: Vec<VerifiedTransaction>,
    },
    /// A batch of a peer in which every transaction was checked.
    Batch {
        /// The peer.
        from: Identity,
        /// The batch.
        batch: VerifiedBatch,
    },
    /// The answer to [`super::Effect::StoreBatch`]: batches with these digests are durable.
    BatchesStored(Vec<Hash>),
    /// The answer to [`super::Effect::Execute`]: what [`crate::ledger::apply_block`] returned.
    Executed {
        /// What the block did.
        outcome: Box<Outcome>,
        /// What header `height + 2` must name.
        results: Results,
    },
    /// It is proved that this process may use a session key of its volume, and the volume's list of keys names it as the
    /// owner, durably. The engine signs with the key from then on.
    Cleared(ClearedKey),
    /// The answer to [`super::Effect::MakeKey`]: the key is in the volume's list, durably, with this process as its owner.
    Made {
        /// The key.
        key: ClearedKey,
        /// The epoch for which it was made.
        epoch: Epoch,
    },
    /// This node has accepted a recovery, durably: in this process it signs and commits nothing more. The next one starts with the
    /// recovery in [`super::Boot`], once it is complete, and with a signing log of its own.
    Superseded,
}

/// Where transactions come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A client of this node: peers are told.
    Client,
    /// A peer.
    Peer(Identity),
}
