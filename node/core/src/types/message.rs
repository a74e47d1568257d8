//! What nodes say to each other over the peer stream.

use std::sync::Arc;

use super::{
    ACKNOWLEDGEMENTS_PER_MESSAGE_MAX, BATCHES_PER_REQUEST_MAX, Batch, BatchAcknowledgement, Block, CeremonyNonce,
    CommitCertificate, Epoch, Hash, Height, Identity, PEER_RECORDS_PER_MESSAGE_MAX, Proposal, ProposedHeader, Round,
    SessionKey, Signature, SignedPeerRecord, Transaction, VOTERS_MAX, Vote, VoteKind,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The most transactions that one message carries.
pub const TRANSACTIONS_PER_MESSAGE_MAX: usize = 1_000;
/// The most bytes of a state's proof, or of a piece of it, that one answer carries.
pub const STATE_BYTES_MAX: usize = 15 << 20;
/// The most blocks that one answer carries.
pub const BLOCKS_PER_RESPONSE_MAX: usize = 64;

/// A proposal with the block that it names, whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProposedBlock {
    /// The signed proposal.
    pub proposal: Proposal,
    /// The block with the proposed hash.
    pub block: Block,
}

/// One voter's part of a [`RoundCertificate`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RoundSignature {
    /// First or second vote.
    pub kind: VoteKind,
    /// The header hash voted for; nothing is a vote for nil.
    pub value: Option<Hash>,
    /// The voter.
    pub voter: Identity,
    /// The number of the session key that signed.
    pub epoch: Epoch,
    /// Over the vote.
    pub signature: Signature,
}

/// Votes of one round that together let others follow: a quorum of prevotes, or enough votes of a later round.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoundCertificate {
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// The votes, at most two for each voter.
    pub signatures: Vec<RoundSignature>,
}

/// A block with the proof that it is final.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertifiedBlock {
    /// The block.
    pub block: Block,
    /// A quorum's precommits for it.
    pub certificate: CommitCertificate,
}

/// What nodes say to each other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerMessage {
    /// The proposal of a round, with its block.
    Proposal(Box<ProposedBlock>),
    /// A vote.
    Vote(Vote),
    /// Votes that let a node in an earlier round follow.
    RoundCertificate(RoundCertificate),
    /// The last height that the sender has decided.
    Status {
        /// That height.
        height: Height,
    },
    /// Asks for final blocks.
    BlocksRequest {
        /// The first height wanted.
        from: Height,
        /// How many at most.
        count: u32,
    },
    /// Final blocks in ascending order of height, maybe none.
    BlocksResponse {
        /// The blocks.
        blocks: Vec<CertifiedBlock>,
    },
    /// Transactions for the mempool.
    Transactions(Vec<Transaction>),
    /// Asks for the newest vote of a session key that the receiver knows (the tripwire against rolled-back volumes).
    NewestVoteRequest {
        /// Fresh for every question.
        nonce: CeremonyNonce,
        /// The voter asked about.
        voter: Identity,
        /// The key asked about.
        session_key: SessionKey,
    },
    /// The newest vote of a session key that the sender knows.
    NewestVoteResponse {
        /// From the question.
        nonce: CeremonyNonce,
        /// The vote, if any is known.
        vote: Option<Vote>,
        /// The newest certificate that the sender knows: how far the chain is.
        certificate: Option<CommitCertificate>,
    },
    /// The blocks asked for are not kept: the oldest one here is of this height.
    BlocksPruned {
        /// That height.
        first: Height,
    },
    /// Asks for the proof of the newest state that the receiver can prove.
    StateRequest,
    /// An encoded `StateManifest`; empty if there is none.
    StateManifest(Vec<u8>),
    /// Asks for a piece of the operations behind a state.
    StatePieceRequest {
        /// The height of the state.
        height: Height,
        /// The number of the piece, from 0.
        number: u64,
    },
    /// A piece of the operations behind a state.
    StatePiece {
        /// The height of the state.
        height: Height,
        /// The number of the piece.
        number: u64,
        /// As the state store encodes it; empty if it is not kept.
        bytes: Vec<u8>,
    },
    /// Transactions that the sender keeps until they are in a block, for the receiver to keep as well.
    Batch(Arc<Batch>),
    /// The signers have these batches durably.
    BatchAcknowledgements(Vec<BatchAcknowledgement>),
    /// Asks for batches by their digests; each comes as [`PeerMessage::Batch`].
    BatchesRequest(Vec<Hash>),
    /// The proposal of a round with its header; the batches travel on their own.
    ProposedHeader(Box<ProposedHeader>),
    /// Where nodes can be reached. Only for peers that say that they read records: others take the tag for damage.
    PeerRecords(Vec<SignedPeerRecord>),
}

impl Encode for ProposedBlock {
    fn encode_to(&self, writer: &mut Writer) {
        self.proposal.encode_to(writer);
        self.block.encode_to(writer);
    }
}

impl Decode for ProposedBlock {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let proposed = Self { proposal: Proposal::decode_from(reader)?, block: Block::decode_from(reader)? };
        if proposed.proposal.proposal.value != proposed.block.hash() {
            return Err(DecodeError::invalid("ProposedBlock", "the block is not the one proposed"));
        }
        Ok(proposed)
    }
}

impl Encode for RoundSignature {
    fn encode_to(&self, writer: &mut Writer) {
        self.kind.encode_to(writer);
        writer.option(self.value.as_ref());
        self.voter.encode_to(writer);
        self.epoch.encode_to(writer);
        self.signature.encode_to(writer);
    }
}

impl Decode for RoundSignature {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: VoteKind::decode_from(reader)?,
            value: reader.option("round signature value")?,
            voter: Identity::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            signature: Signature::decode_from(reader)?,
        })
    }
}

impl Encode for RoundCertificate {
    fn encode_to(&self, writer: &mut Writer) {
        self.height.encode_to(writer);
        self.round.encode_to(writer);
        writer.list(&self.signatures);
    }
}

impl Decode for RoundCertificate {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            height: Height::decode_from(reader)?,
            round: Round::decode_from(reader)?,
            signatures: reader.list("round signatures", 2 * VOTERS_MAX)?,
        })
    }
}

impl Encode for CertifiedBlock {
    fn encode_to(&self, writer: &mut Writer) {
        self.block.encode_to(writer);
        self.certificate.encode_to(writer);
    }
}

impl Decode for CertifiedBlock {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { block: Block::decode_from(reader)?, certificate: CommitCertificate::decode_from(reader)? })
    }
}

impl Encode for PeerMessage {
    fn room(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.bytes() + 1,
            Self::StateManifest(bytes) | Self::StatePiece { bytes, .. } => bytes.len() + 32,
            Self::ProposedHeader(proposed) => 1_024 + 40 * proposed.header.batches.len(),
            _ => 512,
        }
    }

    fn encode_to(&self, writer: &mut Writer) {
        match self {
            Self::Proposal(proposed) => {
                writer.u8(1);
                proposed.encode_to(writer);
            }
            Self::Vote(vote) => {
                writer.u8(2);
                vote.encode_to(writer);
            }
            Self::RoundCertificate(certificate) => {
                writer.u8(3);
                certificate.encode_to(writer);
            }
            Self::Status { height } => {
                writer.u8(4);
                height.encode_to(writer);
            }
            Self::BlocksRequest { from, count } => {
                writer.u8(5);
                from.encode_to(writer);
                writer.u32(*count);
            }
            Self::BlocksResponse { blocks } => {
                writer.u8(6);
                writer.list(blocks);
            }
            Self::Transactions(transactions) => {
                writer.u8(7);
                writer.list(transactions);
            }
            Self::NewestVoteRequest { nonce, voter, session_key } => {
                writer.u8(8);
                nonce.encode_to(writer);
                voter.encode_to(writer);
                session_key.encode_to(writer);
            }
            Self::NewestVoteResponse { nonce, vote, certificate } => {
                writer.u8(9);
                nonce.encode_to(writer);
                writer.option(vote.as_ref());
                writer.option(certificate.as_ref());
            }
            Self::BlocksPruned { first } => {
                writer.u8(10);
                first.encode_to(writer);
            }
            Self::StateRequest => writer.u8(11),
            Self::StateManifest(bytes) => {
                writer.u8(12);
                writer.bytes(bytes);
            }
            Self::StatePieceRequest { height, number } => {
                writer.u8(13);
                height.encode_to(writer);
                writer.u64(*number);
            }
            Self::StatePiece { height, number, bytes } => {
                writer.u8(14);
                height.encode_to(writer);
                writer.u64(*number);
                writer.bytes(bytes);
            }
            Self::Batch(batch) => {
                writer.u8(20);
                batch.encode_to(writer);
            }
            Self::BatchAcknowledgements(acknowledgements) => {
                writer.u8(21);
                writer.list(acknowledgements);
            }
            Self::BatchesRequest(digests) => {
                writer.u8(22);
                writer.list(digests);
            }
            Self::ProposedHeader(proposed) => {
                writer.u8(23);
                proposed.encode_to(writer);
            }
            Self::PeerRecords(records) => {
                writer.u8(24);
                writer.list(records);
            }
        }
    }
}

impl Decode for PeerMessage {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8("peer message tag")? {
            1 => Ok(Self::Proposal(Box::new(ProposedBlock::decode_from(reader)?))),
            2 => Ok(Self::Vote(Vote::decode_from(reader)?)),
            3 => Ok(Self::RoundCertificate(RoundCertificate::decode_from(reader)?)),
            4 => Ok(Self::Status { height: Height::decode_from(reader)? }),
            5 => Ok(Self::BlocksRequest { from: Height::decode_from(reader)?, count: reader.u32("block count")? }),
            6 => Ok(Self::BlocksResponse { blocks: reader.list("certified blocks", BLOCKS_PER_RESPONSE_MAX)? }),
            7 => Ok(Self::Transactions(reader.list("transactions", TRANSACTIONS_PER_MESSAGE_MAX)?)),
            8 => Ok(Self::NewestVoteRequest {
                nonce: CeremonyNonce::decode_from(reader)?,
                voter: Identity::decode_from(reader)?,
                session_key: SessionKey::decode_from(reader)?,
            }),
            9 => Ok(Self::NewestVoteResponse {
                nonce: CeremonyNonce::decode_from(reader)?,
                vote: reader.option("newest vote")?,
                certificate: reader.option("newest certificate")?,
            }),
            10 => Ok(Self::BlocksPruned { first: Height::decode_from(reader)? }),
            11 => Ok(Self::StateRequest),
            12 => Ok(Self::StateManifest(reader.bytes("state manifest", STATE_BYTES_MAX)?.to_vec())),
            13 => Ok(Self::StatePieceRequest {
                height: Height::decode_from(reader)?,
                number: reader.u64("piece number")?,
            }),
            14 => Ok(Self::StatePiece {
                height: Height::decode_from(reader)?,
                number: reader.u64("piece number")?,
                bytes: reader.bytes("state piece", STATE_BYTES_MAX)?.to_vec(),
            }),
            20 => Ok(Self::Batch(Arc::decode_from(reader)?)),
            21 => Ok(Self::BatchAcknowledgements(reader.list("acknowledgements", ACKNOWLEDGEMENTS_PER_MESSAGE_MAX)?)),
            22 => Ok(Self::BatchesRequest(reader.list("wanted batches", BATCHES_PER_REQUEST_MAX)?)),
            23 => Ok(Self::ProposedHeader(Box::new(ProposedHeader::decode_from(reader)?))),
            24 => Ok(Self::PeerRecords(reader.list("peer records", PEER_RECORDS_PER_MESSAGE_MAX)?)),
            found => Err(DecodeError::UnknownTag { field: "peer message tag", found }),
        }
    }
}
