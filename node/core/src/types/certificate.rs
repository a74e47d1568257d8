//! Commit certificates: a quorum's precommits for one header, the proof that a block is final.

use thiserror::Error;

use super::{
    Epoch, Hash, Height, Identity, Power, Round, Signature, UnsignedVote, VOTERS_MAX, Vote, VoteKind, VoterSet,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const CERTIFICATE_VERSION: u8 = 1;

/// Why signatures are not a certificate.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CommitCertificateError {
    /// No signatures, too many, or not in strictly ascending order of identity.
    #[error("certificate of height {height}: signatures must be 1 to 256 in ascending order of identity")]
    OutOfOrder {
        /// The height of the certificate.
        height: Height,
    },
    /// Signed by somebody who does not vote at this height.
    #[error("certificate of height {height}: {identity} is not a voter")]
    NotAVoter {
        /// The height of the certificate.
        height: Height,
        /// Who signed.
        identity: Identity,
    },
    /// A signature with another session key than that of this height.
    #[error("certificate of height {height}: {identity} signed with a key of another epoch")]
    WrongEpoch {
        /// The height of the certificate.
        height: Height,
        /// Who signed.
        identity: Identity,
    },
    /// Less power than a quorum.
    #[error("certificate of height {height}: power {found} is below the quorum of {quorum}")]
    BelowQuorum {
        /// The height of the certificate.
        height: Height,
        /// The power that signed.
        found: Power,
        /// The power that is needed.
        quorum: Power,
    },
    /// At least one signature is wrong.
    #[error("certificate of height {height}: a signature does not verify")]
    BadSignature {
        /// The height of the certificate.
        height: Height,
    },
}

/// One voter's precommit, without what all have in common.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CommitSignature {
    /// The voter.
    pub voter: Identity,
    /// The number of the session key that signed.
    pub epoch: Epoch,
    /// Over the precommit.
    pub signature: Signature,
}

/// Precommits of one height, round and header, in ascending order of identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommitCertificate {
    height: Height,
    round: Round,
    value: Hash,
    signatures: Vec<CommitSignature>,
}

impl CommitCertificate {
    /// A certificate from signatures in any order. Does not verify them: see [`CommitCertificate::check_power`] and
    /// [`crate::crypto::verify_certificate`].
    pub fn new(
        height: Height,
        round: Round,
        value: Hash,
        mut signatures: Vec<CommitSignature>,
    ) -> Result<Self, CommitCertificateError> {
        signatures.sort_by_key(|signature| signature.voter);
        let ascending =
            signatures.iter().zip(signatures.iter().skip(1)).all(|(first, second)| first.voter < second.voter);
        if signatures.is_empty() || signatures.len() > VOTERS_MAX || !ascending {
            return Err(CommitCertificateError::OutOfOrder { height });
        }
        Ok(Self { height, round, value, signatures })
    }

    /// The height decided.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// The round decided in.
    #[must_use]
    pub fn round(&self) -> Round {
        self.round
    }

    /// The hash of the header decided.
    #[must_use]
    pub fn value(&self) -> Hash {
        self.value
    }

    /// The signatures in ascending order of identity.
    #[must_use]
    pub fn signatures(&self) -> &[CommitSignature] {
        &self.signatures
    }

    /// The precommits that this certificate is made of.
    pub fn votes(&self) -> impl Iterator<Item = Vote> + '_ {
        self.signatures.iter().map(|CommitSignature { voter, epoch, signature }| Vote {
            vote: UnsignedVote {
                kind: VoteKind::Precommit,
                height: self.height,
                round: self.round,
                value: Some(self.value),
                voter: *voter,
            },
            epoch: *epoch,
            signature: *signature,
        })
    }

    /// Every signer is a voter of this set with its key of this height, and together they are a quorum.
    pub fn check_power(&self, voters: &VoterSet) -> Result<(), CommitCertificateError> {
        let height = self.height;
        let mut power = Power::ZERO;
        for CommitSignature { voter, epoch, signature: _ } in &self.signatures {
            let identity = *voter;
            let entry = voters.get(voter).ok_or(CommitCertificateError::NotAVoter { height, identity })?;
            if entry.epoch != *epoch {
                return Err(CommitCertificateError::WrongEpoch { height, identity });
            }
            power = power.saturating_add(entry.power.get());
        }
        if power < voters.quorum() {
            return Err(CommitCertificateError::BelowQuorum { height, found: power, quorum: voters.quorum() });
        }
        Ok(())
    }
}

impl Encode for CommitSignature {
    fn encode_to(&self, writer: &mut Writer) {
        self.voter.encode_to(writer);
        self.epoch.encode_to(writer);
        self.signature.encode_to(writer);
    }
}

impl Decode for CommitSignature {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            voter: Identity::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            signature: Signature::decode_from(reader)?,
        })
    }
}

impl Encode for CommitCertificate {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(CERTIFICATE_VERSION);
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        self.value.encode_to(writer);
        writer.list(&self.signatures);
    }
}

impl Decode for CommitCertificate {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("CommitCertificate", CERTIFICATE_VERSION)?;
        let height = Height::decode_from(reader)?;
        let round = Round::decode_from(reader)?;
        let value = Hash::decode_from(reader)?;
        let signatures: Vec<CommitSignature> = reader.list("commit signatures", VOTERS_MAX)?;
        let certificate = Self::new(height, round, value, signatures.clone())
            .map_err(|error| DecodeError::invalid("CommitCertificate", error))?;
        if certificate.signatures != signatures {
            return Err(DecodeError::invalid("CommitCertificate", "signatures are not in ascending order of identity"));
        }
        Ok(certificate)
    }
}
