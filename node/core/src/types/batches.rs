//! What nodes say about batches that travel before the block that names them.

use std::sync::Arc;

use super::{BLOCK_BATCHES_MAX, Batch, Block, Epoch, Hash, Header, Identity, Proposal, ProposedBlock, Signature};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The most acknowledgements that one message carries.
pub const ACKNOWLEDGEMENTS_PER_MESSAGE_MAX: usize = 256;
/// The most batches that one message asks for.
pub const BATCHES_PER_REQUEST_MAX: usize = 32;

/// A voter says that it has stored a batch durably, and verified every signature in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchAcknowledgement {
    /// The digest of the batch.
    pub batch: Hash,
    /// The voter.
    pub voter: Identity,
    /// The number of the session key that signed.
    pub epoch: Epoch,
    /// Over all of this.
    pub signature: Signature,
}

/// A proposal with the header that it names, and those batches of it that others may not have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProposedHeader {
    /// The signed proposal.
    pub proposal: Proposal,
    /// The header with the proposed hash.
    pub header: Header,
    /// Some of the batches that the header names, in any order.
    pub batches: Vec<Arc<Batch>>,
}

impl ProposedHeader {
    /// A proposal that carries those batches of its block that `travels` says.
    pub fn new(proposal: Proposal, block: &Block, travels: impl Fn(&Hash) -> bool) -> Self {
        let batches = block.batches().iter().filter(|batch| travels(&batch.digest())).cloned().collect();
        Self { proposal, header: block.header().clone(), batches }
    }
}

impl From<ProposedBlock> for ProposedHeader {
    fn from(proposed: ProposedBlock) -> Self {
        Self::new(proposed.proposal, &proposed.block, |_| true)
    }
}

impl Encode for BatchAcknowledgement {
    fn encode_to(&self, writer: &mut Writer) {
        self.batch.encode_to(writer);
        self.voter.encode_to(writer);
        self.epoch.encode_to(writer);
        self.signature.encode_to(writer);
    }
}

impl Decode for BatchAcknowledgement {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            batch: Hash::decode_from(reader)?,
            voter: Identity::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            signature: Signature::decode_from(reader)?,
        })
    }
}

impl Encode for ProposedHeader {
    fn encode_to(&self, writer: &mut Writer) {
        self.proposal.encode_to(writer);
        self.header.encode_to(writer);
        writer.list(&self.batches);
    }
}

impl Decode for ProposedHeader {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let proposed = Self {
            proposal: Proposal::decode_from(reader)?,
            header: Header::decode_from(reader)?,
            batches: reader.list("proposed batches", BLOCK_BATCHES_MAX)?,
        };
        if proposed.proposal.proposal.value != proposed.header.hash() {
            return Err(DecodeError::invalid("ProposedHeader", "the header is not the one proposed"));
        }
        if proposed.batches.iter().any(|batch| !proposed.header.batches.contains(&batch.digest())) {
            return Err(DecodeError::invalid("ProposedHeader", "a batch is not named by the header"));
        }
        Ok(proposed)
    }
}
