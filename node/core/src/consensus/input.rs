//! What the shell tells the engine: everything that happens, one thing at a time.

use super::timers::TimerId;
use crate::{
    crypto::VerifiedTransaction,
    session::ClearedKey,
    types::{Epoch, Height, Identity, PeerMessage, Results, RotateSession, VoterSet},
};

/// One thing that happened. The engine answers with effects and never waits.
#[derive(Clone, Debug)]
pub enum Input {
    /// The process is up. Comes once, before anything else.
    Start,
    /// A message from a peer whose identity the connection proved. Not [`PeerMessage::Transactions`]: the shell checks
    /// the signatures of those in batches and feeds [`Input::Submitted`].
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
    /// The answer to [`super::Effect::Execute`].
    Executed(Box<Execution>),
    /// It is proved that this process may use a session key of its volume, and the volume's list of keys names it as the
    /// owner, durably. The engine signs with the key from then on.
    Cleared {
        /// The key.
        key: ClearedKey,
        /// Sign nothing at this height or below: on a live chain the highest certificate that peers showed, plus two.
        nothing_up_to: Height,
    },
    /// The answer to [`super::Effect::MakeKey`]: the key is in the volume's list, durably, with this process as its owner.
    Made {
        /// The key.
        key: ClearedKey,
        /// The epoch for which it was made.
        epoch: Epoch,
    },
}

/// Where transactions come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A client of this node: peers are told.
    Client,
    /// A peer.
    Peer(Identity),
}

/// What the execution of one block decided.
#[derive(Clone, Debug)]
pub struct Execution {
    /// The height executed.
    pub height: Height,
    /// What header `height + 2` must name.
    pub results: Results,
    /// The voters of `height + 3`.
    pub voters: VoterSet,
    /// The rotation of this node's own identity that waits for its objection time to pass, after this block.
    pub pending_rotation: Option<PendingRotation>,
}

/// A rotation that was executed and does not count yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PendingRotation {
    /// What was asked for.
    pub rotation: RotateSession,
    /// The height that executed it.
    pub executed: Height,
}
