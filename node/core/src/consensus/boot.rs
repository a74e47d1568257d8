//! What the engine needs to know to start: the chain, its last block and state, the signing log.

use std::sync::Arc;

use super::input::PendingRotation;
use crate::{
    crypto::KeyPair,
    types::{Genesis, Header, Height, Identity, PendingSets, Results},
};

/// Everything that the shell has read from its disk before the engine starts.
#[derive(Debug)]
pub struct Boot {
    /// The accepted genesis.
    pub genesis: Arc<Genesis>,
    /// The identity of this node, a voter or not.
    pub identity: Identity,
    /// The identity's key, which signs rotations. Without it the node never asks for one.
    pub identity_key: Option<KeyPair>,
    /// The header of the last block in the block log; nothing before block 1.
    pub tip: Option<Header>,
    /// What is executed. It may be behind the tip: the engine then asks for the rest with [`super::Effect::Execute`].
    pub executed: ExecutedState,
    /// The signing log.
    pub log: SigningLog,
}

/// The state of the last executed height.
#[derive(Clone, Debug)]
pub struct ExecutedState {
    /// The height; 0 is genesis.
    pub height: Height,
    /// The voters of the next three heights.
    pub sets: PendingSets,
    /// The results of this height.
    pub results: Results,
    /// The results of the height before; at height 0 [`Results::NONE`].
    pub previous_results: Results,
    /// The rotation of this identity that is executed and does not count yet.
    pub pending_rotation: Option<PendingRotation>,
}

/// The signing log as it was found.
#[derive(Clone, Debug)]
pub enum SigningLog {
    /// There is none, and this volume never had a session key that could have signed.
    Fresh,
    /// Its entries in order. An incomplete last entry, which was never flushed, is left out.
    Whole(Vec<Vec<u8>>),
    /// It cannot be read to its end, or is missing though it should be there. Then no key of this volume is clearable;
    /// one made from now on is.
    Broken(String),
}
