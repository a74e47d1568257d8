//! Proposals and votes: what is said, and what is said with its signature.

use super::{Epoch, Hash, Height, Identity, Round, Signature};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The steps of a round in which a voter signs, in their order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Step {
    /// The proposer names a value.
    Propose = 1,
    /// First vote.
    Prevote = 2,
    /// Second vote: a quorum of these decides.
    Precommit = 3,
}

/// The two kinds of vote.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum VoteKind {
    /// First vote.
    Prevote = 1,
    /// Second vote.
    Precommit = 2,
}

impl VoteKind {
    /// The step in which this kind is signed.
    #[must_use]
    pub fn step(self) -> Step {
        match self {
            Self::Prevote => Step::Prevote,
            Self::Precommit => Step::Precommit,
        }
    }
}

/// What a vote says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnsignedVote {
    /// First or second vote.
    pub kind: VoteKind,
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// The header hash voted for; nothing is a vote for nil.
    pub value: Option<Hash>,
    /// The voter.
    pub voter: Identity,
}

/// A vote as it travels. The signature is by the session key of `epoch`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Vote {
    /// What it says.
    pub vote: UnsignedVote,
    /// The number of the session key that signed.
    pub epoch: Epoch,
    /// Over [`crate::crypto::SigningBytes::vote`].
    pub signature: Signature,
}

/// What a proposal says.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnsignedProposal {
    /// The height proposed for.
    pub height: Height,
    /// The round proposed in.
    pub round: Round,
    /// The earlier round in which the value had a quorum of prevotes, if it is proposed again.
    pub pol_round: Option<Round>,
    /// The header hash proposed.
    pub value: Hash,
    /// The proposer of this round; the header may name an earlier one.
    pub proposer: Identity,
}

/// A proposal as it travels. The signature is by the session key of `epoch`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Proposal {
    /// What it says.
    pub proposal: UnsignedProposal,
    /// The number of the session key that signed.
    pub epoch: Epoch,
    /// Over [`crate::crypto::SigningBytes::proposal`].
    pub signature: Signature,
}

impl Encode for Step {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }
}

impl Decode for Step {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("step")? {
            1 => Ok(Self::Propose),
            2 => Ok(Self::Prevote),
            3 => Ok(Self::Precommit),
            found => Err(DecodeError::UnknownTag { field: "step", found }),
        }
    }
}

impl Encode for VoteKind {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(*self as u8);
    }
}

impl Decode for VoteKind {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("vote kind")? {
            1 => Ok(Self::Prevote),
            2 => Ok(Self::Precommit),
            found => Err(DecodeError::UnknownTag { field: "vote kind", found }),
        }
    }
}

impl Encode for UnsignedVote {
    fn encode_to(&self, writer: &mut Writer) {
        self.kind.encode_to(writer);
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        writer.option(self.value.as_ref());
        self.voter.encode_to(writer);
    }
}

impl Decode for UnsignedVote {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: VoteKind::decode_from(reader)?,
            height: Height::decode_from(reader)?,
            round: Round::decode_from(reader)?,
            value: reader.option("vote value")?,
            voter: Identity::decode_from(reader)?,
        })
    }
}

impl Encode for Vote {
    fn encode_to(&self, writer: &mut Writer) {
        self.vote.encode_to(writer);
        self.epoch.encode_to(writer);
        self.signature.encode_to(writer);
    }
}

impl Decode for Vote {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            vote: UnsignedVote::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            signature: Signature::decode_from(reader)?,
        })
    }
}

impl Encode for UnsignedProposal {
    fn encode_to(&self, writer: &mut Writer) {
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        writer.option(self.pol_round.as_ref());
        self.value.encode_to(writer);
        self.proposer.encode_to(writer);
    }
}

impl Decode for UnsignedProposal {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let proposal = Self {
            height: Height::decode_from(reader)?,
            round: Round::decode_from(reader)?,
            pol_round: reader.option("pol round")?,
            value: Hash::decode_from(reader)?,
            proposer: Identity::decode_from(reader)?,
        };
        if proposal.pol_round.is_some_and(|pol_round| pol_round >= proposal.round) {
            return Err(DecodeError::invalid("pol round", "not before the round of the proposal"));
        }
        Ok(proposal)
    }
}

impl Encode for Proposal {
    fn encode_to(&self, writer: &mut Writer) {
        self.proposal.encode_to(writer);
        self.epoch.encode_to(writer);
        self.signature.encode_to(writer);
    }
}

impl Decode for Proposal {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            proposal: UnsignedProposal::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            signature: Signature::decode_from(reader)?,
        })
    }
}
