//! Receipts: what became of a transaction in a block.

use thiserror::Error;

use super::{Hash, Height, TransactionId};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// Why a transaction that was included had no effect.
#[derive(Clone, Copy, Debug, Eq, Error, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum FailureReason {
    /// It was made for another chain or another life of this chain.
    #[error("made for another incarnation")]
    WrongIncarnation = 1,
    /// The sender's nonce has passed: this transaction, or another with its nonce, was included before.
    #[error("the nonce was used before")]
    NonceUsed = 2,
    /// The sender has less than the amount.
    #[error("the balance is too small")]
    BalanceTooSmall = 3,
    /// The receiver's balance would not fit.
    #[error("the receiver's balance would overflow")]
    BalanceOverflow = 4,
    /// The identity is not a voter.
    #[error("the identity is not a voter")]
    NotAVoter = 5,
    /// The epoch is not one more than the current one, or was used before.
    #[error("the epoch is not the next one")]
    WrongEpoch = 6,
    /// The session key was in a voter entry before.
    #[error("the session key was used before")]
    SessionKeyUsed = 7,
    /// The identity has a rotation that does not count yet.
    #[error("another rotation of this identity is pending")]
    RotationPending = 8,
    /// Rotations that only identities signed would cover more than `f` power.
    #[error("too much power is in rotations without co-signature")]
    TooMuchPowerPending = 9,
    /// The co-signature or objection is not by the current session key.
    #[error("not signed by the current session key")]
    NotCurrentSessionKey = 10,
    /// The transaction would be valid for more than 100 blocks.
    #[error("valid for too many blocks")]
    ValidityTooLong = 11,
    /// There is no such pending rotation that could become void.
    #[error("no such pending rotation")]
    NothingToKeep = 12,
    /// The only voter of a chain cannot rotate without its current key.
    #[error("a single voter rotates only with its current key")]
    SingleVoter = 13,
    /// The signatures are not those that the payload asks for.
    #[error("not signed by the right keys")]
    WrongSigners = 14,
    /// The identity has a voter entry already.
    #[error("the identity is a voter already")]
    AlreadyAVoter = 15,
    /// Too much power would change hands in one block.
    #[error("a third of the power or more would change hands in this block")]
    ChangeTooLarge = 16,
    /// Governance leaves at least four voters, or all where there are fewer.
    #[error("the chain would have too few voters")]
    TooFewVoters = 17,
    /// A voter set has a maximum.
    #[error("the chain would have more than 256 voters")]
    TooManyVoters = 18,
    /// A voter has at least 1, and all powers together fit.
    #[error("the power is zero or too large")]
    PowerOutOfBounds = 19,
    /// Other parameters do not count yet.
    #[error("another change of parameters is pending")]
    ParametersPending = 20,
    /// It is so already.
    #[error("nothing would change")]
    NothingChanges = 21,
}

impl FailureReason {
    const ALL: [Self; 21] = [
        Self::WrongIncarnation,
        Self::NonceUsed,
        Self::BalanceTooSmall,
        Self::BalanceOverflow,
        Self::NotAVoter,
        Self::WrongEpoch,
        Self::SessionKeyUsed,
        Self::RotationPending,
        Self::TooMuchPowerPending,
        Self::NotCurrentSessionKey,
        Self::ValidityTooLong,
        Self::NothingToKeep,
        Self::SingleVoter,
        Self::WrongSigners,
        Self::AlreadyAVoter,
        Self::ChangeTooLarge,
        Self::TooFewVoters,
        Self::TooManyVoters,
        Self::PowerOutOfBounds,
        Self::ParametersPending,
        Self::NothingChanges,
    ];
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReceiptStatus {
    /// It had its effect.
    Executed,
    /// It had no effect; the nonce is taken where the reason is the balance.
    Failed(FailureReason),
    /// It was included after its `valid_until` height.
    Expired,
    /// Its nonce is ahead of the sender's: not final, it may be included again.
    Deferred,
}

impl ReceiptStatus {
    /// Whether this is the last word about the transaction. The first final receipt of an id stands.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Executed | Self::Failed(_) | Self::Expired => true,
            Self::Deferred => false,
        }
    }
}

/// The receipt of one transaction in one block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The transaction.
    pub transaction: TransactionId,
    /// The block.
    pub height: Height,
    /// The position among the block's transactions, from 0.
    pub index: u32,
    /// What became of it.
    pub status: ReceiptStatus,
}

impl Receipt {
    /// The leaf of the receipts tree.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/receipt/1", &self.encode())
    }
}

impl Encode for ReceiptStatus {
    fn encode_to(&self, writer: &mut Writer) {
        match self {
            Self::Executed => writer.u8(1),
            Self::Failed(reason) => {
                writer.u8(2);
                writer.u8(*reason as u8);
            }
            Self::Expired => writer.u8(3),
            Self::Deferred => writer.u8(4),
        }
    }
}

impl Decode for ReceiptStatus {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("receipt status")? {
            1 => Ok(Self::Executed),
            2 => {
                let found = reader.u8("failure reason")?;
                let reason = FailureReason::ALL.into_iter().find(|reason| *reason as u8 == found);
                reason.map(Self::Failed).ok_or(DecodeError::UnknownTag { field: "failure reason", found })
            }
            3 => Ok(Self::Expired),
            4 => Ok(Self::Deferred),
            found => Err(DecodeError::UnknownTag { field: "receipt status", found }),
        }
    }
}

impl Encode for Receipt {
    fn encode_to(&self, writer: &mut Writer) {
        self.transaction.encode_to(writer);
        self.height.encode_to(writer);
        writer.u32(self.index);
        self.status.encode_to(writer);
    }
}

impl Decode for Receipt {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            transaction: TransactionId::decode_from(reader)?,
            height: Height::decode_from(reader)?,
            index: reader.u32("receipt index")?,
            status: ReceiptStatus::decode_from(reader)?,
        })
    }
}
