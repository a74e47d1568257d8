//! What a light client is shown of one height.

use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    types::{CommitCertificate, Header, VoterSet},
};

const LIGHT_BLOCK_VERSION: u8 = 1;

/// A final header with its proof and the voters that it names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LightBlock {
    /// The header.
    pub header: Header,
    /// Precommits of a quorum of `voters`.
    pub certificate: CommitCertificate,
    /// The voters of its height.
    pub voters: VoterSet,
    /// The voters of the next height.
    pub next_voters: VoterSet,
}

impl Encode for LightBlock {
    fn encode_to(&self, writer: &mut Writer) {
        writer.u8(LIGHT_BLOCK_VERSION);
        self.header.encode_to(writer);
        self.certificate.encode_to(writer);
        self.voters.encode_to(writer);
        self.next_voters.encode_to(writer);
    }
}

impl Decode for LightBlock {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("LightBlock", LIGHT_BLOCK_VERSION)?;
        Ok(Self {
            header: Header::decode_from(reader)?,
            certificate: CommitCertificate::decode_from(reader)?,
            voters: VoterSet::decode_from(reader)?,
            next_voters: VoterSet::decode_from(reader)?,
        })
    }
}
