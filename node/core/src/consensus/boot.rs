//! What the engine needs to know to start: the chain, its last block and state, the signing log.

use std::sync::Arc;

use crate::{
    crypto::{KeyPair, VerifiedBatch},
    ledger::{Recoveries, Snapshot},
    types::{CommitCertificate, Epoch, Genesis, Header, Identity, SessionKey},
};

/// Everything that the shell has read from its disk before the engine starts.
#[derive(Debug)]
pub struct Boot {
    /// The accepted genesis.
    pub genesis: Arc<Genesis>,
    /// The recoveries of the chain that this node has accepted and that are complete.
    pub recoveries: Recoveries,
    /// The identity of this node, a voter or not.
    pub identity: Identity,
    /// The identity's key, which signs rotations. Without it the node never asks for one.
    pub identity_key: Option<KeyPair>,
    /// The last block in the block log, its header with its certificate; nothing before block 1.
    pub tip: Option<(Header, CommitCertificate)>,
    /// What is executed. It may be behind the tip: the engine then asks for the rest with [`super::Effect::Execute`].
    pub executed: Snapshot,
    /// Keys of this volume that a voter set named, cleared for this process or not.
    pub effective_keys: Vec<SessionKey>,
    /// Keys of this volume that no voter set has named yet, with the epochs for which they were made.
    pub proposed_keys: Vec<(SessionKey, Epoch)>,
    /// The signing log.
    pub log: SigningLog,
    /// The batches that are stored, in the order in which they were.
    pub batches: Vec<VerifiedBatch>,
    /// The headers of the last blocks: all that are not executed, and those whose batches may still be stored.
    pub recent: Vec<Header>,
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
