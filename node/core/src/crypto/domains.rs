//! What is signed: a domain tag, then every field that another meaning could be read into.

use crate::{
    codec::{Encode, Writer},
    types::{
        CeremonyNonce, ChainId, Epoch, Hash, Height, Identity, Incarnation, SessionKey, TransactionBody,
        UnsignedProposal, UnsignedVote, VoteKind,
    },
};

const PROPOSAL: &str = "althing/proposal/1";
const PREVOTE: &str = "althing/prevote/1";
const PRECOMMIT: &str = "althing/precommit/1";
const GENESIS_POSSESSION: &str = "althing/genesis-possession/1";
const ROTATION_POSSESSION: &str = "althing/rotation-possession/1";
const BATCH_ACKNOWLEDGEMENT: &str = "althing/batch-acknowledgement/1";
const PEER_RECORD: &str = "althing/peer-record/1";
const TRANSACTION: &str = "althing/transaction/1";
const ROTATE_SESSION: &str = "althing/rotate-session/1";
const KEEP_SESSION: &str = "althing/keep-session/1";
const VOTER_POSSESSION: &str = "althing/voter-possession/1";
const RECOVERY_POSSESSION: &str = "althing/recovery-possession/1";
const RECOVERY_APPROVAL: &str = "althing/recovery-approval/1";
const RECOVERY_ACCEPTANCE: &str = "althing/recovery-acceptance/1";
const GENESIS_ACCEPTANCE: &str = "althing/genesis-acceptance/1";

/// The only maker of bytes that get signed. One function for each domain, used to sign, to verify, and in certificates.
///
/// Layout: the tag with its `u32` length, then the fields in the order of the arguments.
#[derive(Debug)]
pub struct SigningBytes;

impl SigningBytes {
    /// A proposal, by the session key. Includes `pol_round`, or anyone could alter it and frame the proposer.
    #[must_use]
    pub fn proposal(incarnation: &Incarnation, epoch: Epoch, proposal: &UnsignedProposal) -> Vec<u8> {
        let UnsignedProposal { height, round, pol_round, value, proposer } = proposal;
        let mut writer = start(PROPOSAL);
        incarnation.encode_to(&mut writer);
        proposer.encode_to(&mut writer);
        epoch.encode_to(&mut writer);
        height.encode_to(&mut writer);
        round.encode_to(&mut writer);
        writer.option(pol_round.as_ref());
        value.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// A prevote or precommit, by the session key.
    #[must_use]
    pub fn vote(incarnation: &Incarnation, epoch: Epoch, vote: &UnsignedVote) -> Vec<u8> {
        let UnsignedVote { kind, height, round, value, voter } = vote;
        let mut writer = start(match kind {
            VoteKind::Prevote => PREVOTE,
            VoteKind::Precommit => PRECOMMIT,
        });
        incarnation.encode_to(&mut writer);
        voter.encode_to(&mut writer);
        epoch.encode_to(&mut writer);
        height.encode_to(&mut writer);
        round.encode_to(&mut writer);
        writer.option(value.as_ref());
        writer.into_bytes()
    }

    /// By a session key in a genesis ceremony: its maker holds it.
    #[must_use]
    pub fn genesis_possession(
        chain_id: &ChainId,
        ceremony: &CeremonyNonce,
        identity: &Identity,
        session_key: &SessionKey,
    ) -> Vec<u8> {
        let mut writer = start(GENESIS_POSSESSION);
        chain_id.encode_to(&mut writer);
        ceremony.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        session_key.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By a new session key in a rotation: its maker holds it.
    #[must_use]
    pub fn rotation_possession(rotation: &RotationTerms) -> Vec<u8> {
        rotation.bytes(ROTATION_POSSESSION)
    }

    /// By the session key of a voter that is to be voted in: its maker holds it.
    #[must_use]
    pub fn voter_possession(
        incarnation: &Incarnation,
        identity: &Identity,
        epoch: Epoch,
        session_key: &SessionKey,
    ) -> Vec<u8> {
        let mut writer = start(VOTER_POSSESSION);
        incarnation.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        epoch.encode_to(&mut writer);
        session_key.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By the fresh session key of a voter in a recovery: its maker holds it. `parent` is the incarnation that ends.
    #[must_use]
    pub fn recovery_possession(
        parent: &Incarnation,
        number: u32,
        identity: &Identity,
        epoch: Epoch,
        session_key: &SessionKey,
    ) -> Vec<u8> {
        let mut writer = start(RECOVERY_POSSESSION);
        parent.encode_to(&mut writer);
        writer.u32(number);
        identity.encode_to(&mut writer);
        epoch.encode_to(&mut writer);
        session_key.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By a governance key: the chain may go on with this manifest.
    #[must_use]
    pub fn recovery_approval(manifest: &Hash) -> Vec<u8> {
        let mut writer = start(RECOVERY_APPROVAL);
        manifest.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By an identity key: this node goes on with this manifest and with no other of its number, and signs nothing more
    /// for the incarnation that ends.
    #[must_use]
    pub fn recovery_acceptance(manifest: &Hash, identity: &Identity) -> Vec<u8> {
        let mut writer = start(RECOVERY_ACCEPTANCE);
        manifest.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By the current session key: agrees with a rotation.
    #[must_use]
    pub fn rotate_session(rotation: &RotationTerms) -> Vec<u8> {
        rotation.bytes(ROTATE_SESSION)
    }

    /// By the current session key: objects to a rotation.
    #[must_use]
    pub fn keep_session(rotation: &RotationTerms) -> Vec<u8> {
        rotation.bytes(KEEP_SESSION)
    }

    /// By an identity's or account's or governance key: a transaction.
    #[must_use]
    pub fn transaction(body: &TransactionBody) -> Vec<u8> {
        let mut writer = start(TRANSACTION);
        body.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By a session key: this voter holds its key and has durably accepted this genesis.
    #[must_use]
    pub fn genesis_acceptance(genesis: &Hash, identity: &Identity, session_key: &SessionKey) -> Vec<u8> {
        let mut writer = start(GENESIS_ACCEPTANCE);
        genesis.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        session_key.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By a session key: this voter has stored a batch durably.
    #[must_use]
    pub fn batch_acknowledgement(
        incarnation: &Incarnation,
        identity: &Identity,
        epoch: Epoch,
        batch: &Hash,
    ) -> Vec<u8> {
        let mut writer = start(BATCH_ACKNOWLEDGEMENT);
        incarnation.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        epoch.encode_to(&mut writer);
        batch.encode_to(&mut writer);
        writer.into_bytes()
    }

    /// By an identity key: where it can be reached. `record` is the hash of the encoded record.
    #[must_use]
    pub fn peer_record(incarnation: &Incarnation, identity: &Identity, record: &Hash) -> Vec<u8> {
        let mut writer = start(PEER_RECORD);
        incarnation.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        record.encode_to(&mut writer);
        writer.into_bytes()
    }
}

/// What a rotation is about; in the three signatures about it the domain tag tells which of them it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RotationTerms {
    /// The chain.
    pub incarnation: Incarnation,
    /// The voter.
    pub identity: Identity,
    /// The epoch of the new key.
    pub epoch: Epoch,
    /// The new key.
    pub new_key: SessionKey,
    /// The last height at which the transaction that carries the signature may be executed.
    pub valid_until: Height,
}

impl RotationTerms {
    fn bytes(&self, tag: &str) -> Vec<u8> {
        let Self { incarnation, identity, epoch, new_key, valid_until } = self;
        let mut writer = start(tag);
        incarnation.encode_to(&mut writer);
        identity.encode_to(&mut writer);
        epoch.encode_to(&mut writer);
        new_key.encode_to(&mut writer);
        valid_until.encode_to(&mut writer);
        writer.into_bytes()
    }
}

fn start(tag: &str) -> Writer {
    let mut writer = Writer::with_room(256);
    writer.bytes(tag.as_bytes());
    writer
}
