//! Transactions: a body that is signed, and its signatures.

use thiserror::Error;

use super::{
    AccountId, Amount, Epoch, GovernanceChange, Height, Identity, Incarnation, Nonce, SessionKey, Signature,
    TransactionId,
};
use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    crypto::SigningBytes,
};

const TRANSACTION_VERSION: u8 = 1;
const TAG_TRANSFER: u8 = 1;
const TAG_ROTATE_SESSION: u8 = 2;
const TAG_KEEP_SESSION: u8 = 3;
const TAG_GOVERNANCE: u8 = 4;

/// The most signatures of one transaction.
pub const TRANSACTION_SIGNATURES_MAX: usize = 32;

/// A transaction, batch or block whose parts do not belong together.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum TransactionError {
    /// Signatures are not in strictly ascending order of their keys, or there are too many.
    #[error("signatures must be at most 32, in ascending order of their keys, one for each key")]
    SignaturesOutOfOrder,
    /// More transactions than a batch may hold.
    #[error("a batch of {found} transactions exceeds the maximum of 10000")]
    BatchTooLong {
        /// How many there are.
        found: usize,
    },
    /// A header with other batches than it names.
    #[error("header {height} does not name exactly these batches")]
    BatchesNotNamed {
        /// The height of the header.
        height: Height,
    },
}

/// Moves an amount from the sender to another account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transfer {
    /// Who gets it. An account that does not exist yet is made.
    pub to: AccountId,
    /// How much.
    pub amount: Amount,
}

/// Replaces the session key of a voter. Has no account nonce: the epoch is the guard.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RotateSession {
    /// The voter.
    pub identity: Identity,
    /// The epoch of the new key: one more than the current one.
    pub epoch: Epoch,
    /// The new session key.
    pub new_key: SessionKey,
    /// The new key's signature: its maker holds it.
    pub possession: Signature,
    /// The current session key's signature. With it the new key counts from `H + 3`, without from `H + 3 + W`.
    pub co_signature: Option<Signature>,
}

/// The current session key's objection to a rotation that only the identity signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeepSession {
    /// The voter.
    pub identity: Identity,
    /// The epoch of the pending rotation that becomes void.
    pub voided_epoch: Epoch,
    /// The key of the pending rotation that becomes void.
    pub voided_key: SessionKey,
    /// The current session key's signature.
    pub signature: Signature,
}

/// What a transaction does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload {
    /// See [`Transfer`].
    Transfer(Transfer),
    /// See [`RotateSession`].
    RotateSession(RotateSession),
    /// See [`KeepSession`].
    KeepSession(KeepSession),
    /// See [`GovernanceChange`]. The sender is [`AccountId::governance`].
    Governance(GovernanceChange),
}

impl Payload {
    /// Whether this is a matter of signing sessions, which has its own mempool lane and no account nonce.
    #[must_use]
    pub fn is_session(&self) -> bool {
        match self {
            Self::Transfer(_) | Self::Governance(_) => false,
            Self::RotateSession(_) | Self::KeepSession(_) => true,
        }
    }
}

/// The part of a transaction that is signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransactionBody {
    /// The chain it is for.
    pub incarnation: Incarnation,
    /// The account that pays and whose nonce it takes; for session payloads the voter's identity, for governance
    /// [`AccountId::governance`].
    pub sender: AccountId,
    /// The sender's number of transactions before this one; 0 for session payloads.
    pub nonce: Nonce,
    /// The last height at which it may be executed.
    pub valid_until: Height,
    /// What it does.
    pub payload: Payload,
}

/// One key's signature over the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransactionSignature {
    /// The ed25519 public key.
    pub key: [u8; 32],
    /// Its signature.
    pub signature: Signature,
}

/// A transaction with signatures in ascending order of their keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transaction {
    body: TransactionBody,
    signatures: Vec<TransactionSignature>,
    id: TransactionId,
}

impl Transaction {
    /// Puts a body and its signatures together. Does not verify them.
    pub fn new(body: TransactionBody, signatures: Vec<TransactionSignature>) -> Result<Self, TransactionError> {
        let ascending = signatures.iter().zip(signatures.iter().skip(1)).all(|(first, second)| first.key < second.key);
        if signatures.len() > TRANSACTION_SIGNATURES_MAX || !ascending {
            return Err(TransactionError::SignaturesOutOfOrder);
        }
        let id = body.id();
        Ok(Self { body, signatures, id })
    }

    /// The part that is signed.
    #[must_use]
    pub fn body(&self) -> &TransactionBody {
        &self.body
    }

    /// The signatures.
    #[must_use]
    pub fn signatures(&self) -> &[TransactionSignature] {
        &self.signatures
    }

    /// The hash of the body's signing bytes. Computed once.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        self.id
    }
}

impl TransactionBody {
    /// The hash of the signing bytes.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        super::Hash::tagged("althing/transaction-id/1", &SigningBytes::transaction(self)).into()
    }
}

impl Encode for Payload {
    fn encode_to(&self, writer: &mut Writer) {
        match self {
            Self::Transfer(Transfer { to, amount }) => {
                writer.u8(TAG_TRANSFER);
                to.encode_to(writer);
                amount.encode_to(writer);
            }
            Self::RotateSession(RotateSession { identity, epoch, new_key, possession, co_signature }) => {
                writer.u8(TAG_ROTATE_SESSION);
                identity.encode_to(writer);
                epoch.encode_to(writer);
                new_key.encode_to(writer);
                possession.encode_to(writer);
                writer.option(co_signature.as_ref());
            }
            Self::KeepSession(KeepSession { identity, voided_epoch, voided_key, signature }) => {
                writer.u8(TAG_KEEP_SESSION);
                identity.encode_to(writer);
                voided_epoch.encode_to(writer);
                voided_key.encode_to(writer);
                signature.encode_to(writer);
            }
            Self::Governance(change) => {
                writer.u8(TAG_GOVERNANCE);
                change.encode_to(writer);
            }
        }
    }
}

impl Decode for Payload {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("payload tag")? {
            TAG_TRANSFER => Ok(Self::Transfer(Transfer {
                to: AccountId::decode_from(reader)?,
                amount: Amount::decode_from(reader)?,
            })),
            TAG_ROTATE_SESSION => Ok(Self::RotateSession(RotateSession {
                identity: Identity::decode_from(reader)?,
                epoch: Epoch::decode_from(reader)?,
                new_key: SessionKey::decode_from(reader)?,
                possession: Signature::decode_from(reader)?,
                co_signature: reader.option("co-signature")?,
            })),
            TAG_KEEP_SESSION => Ok(Self::KeepSession(KeepSession {
                identity: Identity::decode_from(reader)?,
                voided_epoch: Epoch::decode_from(reader)?,
                voided_key: SessionKey::decode_from(reader)?,
                signature: Signature::decode_from(reader)?,
            })),
            TAG_GOVERNANCE => Ok(Self::Governance(GovernanceChange::decode_from(reader)?)),
            found => Err(DecodeError::UnknownTag { field: "payload tag", found }),
        }
    }
}

impl Encode for TransactionBody {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(TRANSACTION_VERSION);
        self.incarnation.encode_to(writer);
        self.sender.encode_to(writer);
        self.nonce.encode_to(writer);
        self.valid_until.encode_to(writer);
        self.payload.encode_to(writer);
    }
}

impl Decode for TransactionBody {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("Transaction", TRANSACTION_VERSION)?;
        Ok(Self {
            incarnation: Incarnation::decode_from(reader)?,
            sender: AccountId::decode_from(reader)?,
            nonce: Nonce::decode_from(reader)?,
            valid_until: Height::decode_from(reader)?,
            payload: Payload::decode_from(reader)?,
        })
    }
}

impl Encode for TransactionSignature {
    fn encode_to(&self, writer: &mut Writer) {
        writer.raw(&self.key);
        self.signature.encode_to(writer);
    }
}

impl Decode for TransactionSignature {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { key: reader.array("signature key")?, signature: Signature::decode_from(reader)? })
    }
}

impl Encode for Transaction {
    fn encode_to(&self, writer: &mut Writer) {
        self.body.encode_to(writer);
        writer.list(&self.signatures);
    }
}

impl Decode for Transaction {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let body = TransactionBody::decode_from(reader)?;
        let signatures = reader.list("transaction signatures", TRANSACTION_SIGNATURES_MAX)?;
        Self::new(body, signatures).map_err(|error| DecodeError::invalid("Transaction", error))
    }
}
