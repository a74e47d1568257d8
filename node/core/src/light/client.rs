//! The trusted height and the rules for moving it.

use thiserror::Error;

use super::LightBlock;
use crate::{
    crypto::{verify_certificate, verify_genesis},
    types::{
        CommitCertificateError, Genesis, GenesisError, Hash, Header, Height, Incarnation, Power, VoterSet, voters_hash,
    },
};

/// Why a header is not believed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum LightError {
    /// The genesis does not hold together.
    #[error("the genesis is not valid")]
    Genesis(#[from] GenesisError),
    /// It is not later than what is trusted already.
    #[error("height {found} is not after the trusted height {trusted}")]
    NotLater {
        /// The height shown.
        found: Height,
        /// The trusted height.
        trusted: Height,
    },
    /// The header is not the one that is trusted as a checkpoint.
    #[error("the header of height {height} is {found}, the trusted one is {expected}")]
    OtherCheckpoint {
        /// The height shown.
        height: Height,
        /// The hash of the header shown.
        found: Hash,
        /// The hash that is trusted.
        expected: Hash,
    },
    /// It does not follow the trusted header.
    #[error("header {height} has another parent than the trusted header")]
    Parent {
        /// The height shown.
        height: Height,
    },
    /// The voters shown are not those that the header names, or that the header before named.
    #[error("the voters shown for height {height} are not those that the chain names")]
    Voters {
        /// The height shown.
        height: Height,
    },
    /// The certificate is of another header.
    #[error("the certificate is not of header {height}")]
    OtherHeader {
        /// The height shown.
        height: Height,
    },
    /// The certificate proves nothing.
    #[error(transparent)]
    Certificate(#[from] CommitCertificateError),
    /// Too few of the trusted voters signed: ask for a height between.
    #[error(
        "only power {found} of the trusted voters signed header {height}, more than {needed} is needed to jump there"
    )]
    TooFar {
        /// The height shown.
        height: Height,
        /// The power of trusted voters that signed with the key that is trusted.
        found: Power,
        /// `f` of the trusted voters.
        needed: Power,
    },
}

/// What is trusted: everything that the chain decided up to one height.
#[derive(Clone, Debug)]
pub struct LightClient {
    incarnation: Incarnation,
    height: Height,
    hash: Hash,
    /// The voters of `height + 1`.
    next_voters: VoterSet,
    /// None at genesis.
    header: Option<Header>,
}

impl LightClient {
    /// Trusts a genesis, which the caller has from a source that it trusts or knows by its hash.
    pub fn new(genesis: &Genesis) -> Result<Self, LightError> {
        verify_genesis(genesis)?;
        let next_voters = genesis.voter_set().clone();
        let hash = genesis.hash();
        Ok(Self { incarnation: Incarnation::from(hash), height: Height::ZERO, hash, next_voters, header: None })
    }

    /// Trusts a late header, by a hash that the caller has from a source that it trusts. It believes no other history of the
    /// chain, whatever signatures that has. The incarnation is that of the header's height.
    pub fn from_checkpoint(
        genesis: &Genesis,
        incarnation: Incarnation,
        block: LightBlock,
        hash: Hash,
    ) -> Result<Self, LightError> {
        verify_genesis(genesis)?;
        let height = block.header.height;
        let found = check_shown(&block)?;
        if found != hash {
            return Err(LightError::OtherCheckpoint { height, found, expected: hash });
        }
        verify_certificate(&incarnation, &block.voters, &block.certificate)?;
        let LightBlock { header, next_voters, .. } = block;
        Ok(Self { incarnation, height, hash, next_voters, header: Some(header) })
    }

    /// The height that is trusted; 0 is genesis.
    #[must_use]
    pub fn height(&self) -> Height {
        self.height
    }

    /// The hash of the trusted header; of the genesis at height 0.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The trusted header; none at genesis.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The voters of the height after the trusted one.
    #[must_use]
    pub fn next_voters(&self) -> &VoterSet {
        &self.next_voters
    }

    /// Trusts a later height if the rules allow it; else nothing changes. After [`LightError::TooFar`] a height between
    /// the two may be believed, and lead on.
    pub fn advance(&mut self, block: LightBlock) -> Result<(), LightError> {
        let height = block.header.height;
        if height <= self.height {
            return Err(LightError::NotLater { found: height, trusted: self.height });
        }
        let hash = check_shown(&block)?;
        if height == self.height.next() {
            self.check_next(&block)?;
        } else {
            self.check_overlap(&block)?;
        }
        verify_certificate(&self.incarnation, &block.voters, &block.certificate)?;
        let LightBlock { header, next_voters, .. } = block;
        *self = Self { incarnation: self.incarnation, height, hash, next_voters, header: Some(header) };
        Ok(())
    }

    fn check_next(&self, block: &LightBlock) -> Result<(), LightError> {
        let height = block.header.height;
        if block.header.parent != self.hash {
            return Err(LightError::Parent { height });
        }
        if block.voters == self.next_voters { Ok(()) } else { Err(LightError::Voters { height }) }
    }

    /// More than `f` power of the trusted voters signed, each with the session key that is trusted.
    fn check_overlap(&self, block: &LightBlock) -> Result<(), LightError> {
        let LightBlock { header, certificate, voters, next_voters: _ } = block;
        let signed = certificate.votes().filter_map(|vote| {
            let trusted = self.next_voters.get(&vote.vote.voter)?;
            let now = voters.get(&vote.vote.voter)?;
            (trusted.session_key == now.session_key).then_some(trusted.power.get())
        });
        let found = Power::new(signed.sum());
        let needed = self.next_voters.fault_budget();
        if found > needed { Ok(()) } else { Err(LightError::TooFar { height: header.height, found, needed }) }
    }
}

/// The hash of a header that names the voters which are shown with it, and whose certificate is of it.
fn check_shown(block: &LightBlock) -> Result<Hash, LightError> {
    let LightBlock { header, certificate, voters, next_voters } = block;
    let (height, hash) = (header.height, header.hash());
    if header.voters_hash != voters_hash(voters, next_voters) {
        return Err(LightError::Voters { height });
    }
    if certificate.height() != height || certificate.value() != hash {
        return Err(LightError::OtherHeader { height });
    }
    Ok(hash)
}
