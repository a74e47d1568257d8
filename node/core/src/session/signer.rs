//! The signer: signs with the cleared key that the voter set names, and only what the record allows.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{NotCleared, Owner, RecordEntry, RecordError, SigningRecord, Slot, TripwireResult, clearance::passed};
use crate::{
    crypto::{KeyPair, RotationTerms, SigningBytes},
    types::{
        BatchAcknowledgement, CeremonyNonce, ChainId, Epoch, Hash, Height, Identity, Incarnation, Proposal, SessionKey,
        Signature, Step, UnsignedProposal, UnsignedVote, Vote, VoterEntry, VoterSet,
    },
};

/// A session key that this process may use: it made the key, or took it over by the rules.
#[derive(Clone, Debug)]
pub struct ClearedKey {
    pub(super) pair: KeyPair,
    pub(super) nothing_up_to: Height,
}

impl ClearedKey {
    /// The public key.
    #[must_use]
    pub fn session_key(&self) -> SessionKey {
        SessionKey::new(self.pair.public())
    }

    /// It signs nothing at this height or below: peers have seen the chain that far.
    #[must_use]
    pub fn nothing_up_to(&self) -> Height {
        self.nothing_up_to
    }

    /// The same key after another question: where the chain stands still, those who wait for each other at the heights
    /// above it would wait for ever.
    pub fn asked_again(&self, tripwire: &TripwireResult) -> Result<Self, NotCleared> {
        let nothing_up_to = passed(tripwire)?.min(self.nothing_up_to);
        Ok(Self { pair: self.pair.clone(), nothing_up_to })
    }

    /// Signs something that is not about a height: possession, agreement with or objection to a rotation, acceptance of
    /// a genesis, acknowledgement of a batch.
    #[must_use]
    pub fn sign(&self, statement: &SessionStatement) -> Signature {
        self.pair.sign(&statement.bytes)
    }
}

/// A session key whose former owner has ended, owned by this process and not cleared: it proves possession and accepts a
/// genesis, and cannot be given to a [`Signer`].
#[derive(Clone, Debug)]
pub struct HeldKey {
    pub(super) pair: KeyPair,
    pub(super) owner: Owner,
}

impl HeldKey {
    /// The public key.
    #[must_use]
    pub fn session_key(&self) -> SessionKey {
        SessionKey::new(self.pair.public())
    }

    /// See [`ClearedKey::sign`].
    #[must_use]
    pub fn sign(&self, statement: &SessionStatement) -> Signature {
        self.pair.sign(&statement.bytes)
    }
}

/// What a session key signs beside proposals and votes. Has no constructor that takes bytes, so that nobody can have a
/// vote signed behind the record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionStatement {
    bytes: Vec<u8>,
}

impl SessionStatement {
    /// The key is in the hands of its maker, for a voter that is to be voted in.
    #[must_use]
    pub fn voter_possession(incarnation: &Incarnation, identity: &Identity, epoch: Epoch, key: &SessionKey) -> Self {
        Self { bytes: SigningBytes::voter_possession(incarnation, identity, epoch, key) }
    }

    /// The key is in the hands of its maker, for a recovery.
    #[must_use]
    pub fn recovery_possession(
        parent: &Incarnation,
        number: u32,
        identity: &Identity,
        epoch: Epoch,
        key: &SessionKey,
    ) -> Self {
        Self { bytes: SigningBytes::recovery_possession(parent, number, identity, epoch, key) }
    }

    /// The key is in the hands of its maker, for a genesis ceremony.
    #[must_use]
    pub fn genesis_possession(
        chain_id: &ChainId,
        ceremony: &CeremonyNonce,
        identity: &Identity,
        key: &SessionKey,
    ) -> Self {
        Self { bytes: SigningBytes::genesis_possession(chain_id, ceremony, identity, key) }
    }

    /// This genesis is durably accepted.
    #[must_use]
    pub fn genesis_acceptance(genesis: &Hash, identity: &Identity, key: &SessionKey) -> Self {
        Self { bytes: SigningBytes::genesis_acceptance(genesis, identity, key) }
    }

    /// The new key is in the hands of its maker.
    #[must_use]
    pub fn rotation_possession(terms: &RotationTerms) -> Self {
        Self { bytes: SigningBytes::rotation_possession(terms) }
    }

    /// The current key agrees with a rotation.
    #[must_use]
    pub fn rotate_session(terms: &RotationTerms) -> Self {
        Self { bytes: SigningBytes::rotate_session(terms) }
    }

    /// A batch is durable here, and verified.
    #[must_use]
    pub fn batch_acknowledgement(incarnation: &Incarnation, identity: &Identity, epoch: Epoch, batch: &Hash) -> Self {
        Self { bytes: SigningBytes::batch_acknowledgement(incarnation, identity, epoch, batch) }
    }

    /// The current key objects to a rotation.
    #[must_use]
    pub fn keep_session(terms: &RotationTerms) -> Self {
        Self { bytes: SigningBytes::keep_session(terms) }
    }
}

/// Why nothing was signed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SignRefusal {
    /// The identity does not vote at this height.
    #[error("{identity} is not a voter of this height")]
    NotAVoter {
        /// The identity.
        identity: Identity,
    },
    /// The session key of this height is not cleared for this process.
    #[error("session key {session_key} of this height is not cleared")]
    NotCleared {
        /// The key that the voter set names.
        session_key: SessionKey,
    },
    /// The chain had reached this height when the key was taken over.
    #[error("the session key signs nothing up to height {nothing_up_to}")]
    TooEarly {
        /// The last height at which it signs nothing.
        nothing_up_to: Height,
    },
    /// The statement is of another voter.
    #[error("asked to sign for {found}, not for {identity}")]
    OtherVoter {
        /// The identity of this node.
        identity: Identity,
        /// The identity in the statement.
        found: Identity,
    },
    /// The record refuses.
    #[error("the signing record refuses: {0}")]
    Record(#[from] RecordError),
    /// Signing was stopped for the rest of this process.
    #[error("signing is stopped")]
    Stopped,
}

/// A signed statement, and the entry that must be durable before the statement leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signed<T> {
    /// What may leave once the entry is durable.
    pub statement: T,
    /// For the log.
    pub entry: RecordEntry,
}

/// Signs for one identity on one chain.
#[derive(Debug)]
pub struct Signer {
    incarnation: Incarnation,
    identity: Identity,
    keys: BTreeMap<SessionKey, ClearedKey>,
    record: SigningRecord,
    stopped: bool,
}

impl Signer {
    /// A signer without keys, with the record of its volume.
    #[must_use]
    pub fn new(incarnation: Incarnation, identity: Identity, record: SigningRecord) -> Self {
        Self { incarnation, identity, keys: BTreeMap::new(), record, stopped: false }
    }

    /// The cleared key, for statements that are not about a height.
    #[must_use]
    pub fn key(&self, session_key: &SessionKey) -> Option<&ClearedKey> {
        self.keys.get(session_key)
    }

    /// Takes a key into use.
    pub fn add_key(&mut self, key: ClearedKey) {
        self.keys.insert(key.session_key(), key);
    }

    /// Stops using a key: it is retired.
    pub fn remove_key(&mut self, session_key: &SessionKey) {
        self.keys.remove(session_key);
    }

    /// Signs nothing more in this process: somebody else uses the key, or the disk failed.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The identity that it signs for.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The incarnation that it signs for.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What was signed.
    #[must_use]
    pub fn record(&self) -> &SigningRecord {
        &self.record
    }

    /// Whether this key is cleared.
    #[must_use]
    pub fn is_cleared(&self, session_key: &SessionKey) -> bool {
        self.keys.contains_key(session_key)
    }

    /// Whether it can sign at a height with these voters: consensus runs the height with `enabled` set to this.
    #[must_use]
    pub fn can_sign(&self, height: Height, voters: &VoterSet) -> bool {
        self.key_of(height, voters).is_ok()
    }

    /// Signs a vote.
    pub fn sign_vote(&mut self, voters: &VoterSet, vote: UnsignedVote) -> Result<Signed<Vote>, SignRefusal> {
        self.check_voter(vote.voter)?;
        let (epoch, pair) = self.key_of(vote.height, voters)?;
        let bytes = SigningBytes::vote(&self.incarnation, epoch, &vote);
        let entry = RecordEntry::new(Slot { height: vote.height, round: vote.round, step: vote.kind.step() }, &bytes);
        self.record.check(&entry)?;
        let signature = pair.sign(&bytes);
        self.record.add(entry)?;
        Ok(Signed { statement: Vote { vote, epoch, signature }, entry })
    }

    /// Signs a proposal.
    pub fn sign_proposal(
        &mut self,
        voters: &VoterSet,
        proposal: UnsignedProposal,
    ) -> Result<Signed<Proposal>, SignRefusal> {
        self.check_voter(proposal.proposer)?;
        let (epoch, pair) = self.key_of(proposal.height, voters)?;
        let bytes = SigningBytes::proposal(&self.incarnation, epoch, &proposal);
        let slot = Slot { height: proposal.height, round: proposal.round, step: Step::Propose };
        let entry = RecordEntry::new(slot, &bytes);
        self.record.check(&entry)?;
        let signature = pair.sign(&bytes);
        self.record.add(entry)?;
        Ok(Signed { statement: Proposal { proposal, epoch, signature }, entry })
    }

    /// Acknowledges a batch that is durable, as a voter of these.
    pub fn acknowledge_batch(&self, voters: &VoterSet, batch: Hash) -> Result<BatchAcknowledgement, SignRefusal> {
        if self.stopped {
            return Err(SignRefusal::Stopped);
        }
        let (identity, voter) = (self.identity, self.identity);
        let VoterEntry { session_key, epoch, .. } =
            *voters.get(&identity).ok_or(SignRefusal::NotAVoter { identity })?;
        let key = self.keys.get(&session_key).ok_or(SignRefusal::NotCleared { session_key })?;
        let statement = SessionStatement::batch_acknowledgement(&self.incarnation, &identity, epoch, &batch);
        Ok(BatchAcknowledgement { batch, voter, epoch, signature: key.sign(&statement) })
    }

    fn check_voter(&self, found: Identity) -> Result<(), SignRefusal> {
        if found == self.identity { Ok(()) } else { Err(SignRefusal::OtherVoter { identity: self.identity, found }) }
    }

    fn key_of(&self, height: Height, voters: &VoterSet) -> Result<(Epoch, &KeyPair), SignRefusal> {
        if self.stopped {
            return Err(SignRefusal::Stopped);
        }
        let identity = self.identity;
        let VoterEntry { session_key, epoch, .. } = voters.get(&identity).ok_or(SignRefusal::NotAVoter { identity })?;
        let key = self.keys.get(session_key).ok_or(SignRefusal::NotCleared { session_key: *session_key })?;
        let nothing_up_to = key.nothing_up_to;
        if height <= nothing_up_to {
            return Err(SignRefusal::TooEarly { nothing_up_to });
        }
        Ok((*epoch, &key.pair))
    }
}
