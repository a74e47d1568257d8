//! Recovery: how a chain goes on when more voters than may fail have lost their session keys for good.
//!
//! A manifest names the last block, its state, and a fresh session key for every voter. Its hash is the next incarnation,
//! so everything that is signed from then on is bound to it, and nothing that was signed before counts any more.

use thiserror::Error;

use super::{
    ChainId, Epoch, GENESIS_KEYS_MAX, GovernanceKey, Hash, Height, Identity, Incarnation, PendingSets, SessionKey,
    Signature, VOTERS_MAX, VoterEntry, VoterSet, VoterSetError,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

const RECOVERY_VERSION: u8 = 1;

/// Why voters or signatures do not make a recovery.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RecoveryError {
    /// Not in strictly ascending order, none, or too many.
    #[error("the voters of a recovery are 1 to 768 in ascending order of identity, each once")]
    Voters,
    /// Not in strictly ascending order, or too many.
    #[error("the {0} of a recovery are in ascending order of their keys, one for each key")]
    Signatures(&'static str),
}

/// The most voters of a manifest: those of three heights may all be others.
pub const RECOVERY_VOTERS_MAX: usize = 3 * VOTERS_MAX;

/// A voter with the key that it goes on with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RecoveredVoter {
    /// The voter.
    pub identity: Identity,
    /// The number of the key: more than the identity ever had.
    pub epoch: Epoch,
    /// The fresh key.
    pub session_key: SessionKey,
    /// The session key's signature: its maker holds it and made it for this recovery.
    pub possession: Signature,
}

/// From where, and with which keys, the chain goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecoveryManifest {
    /// The name of the chain.
    pub chain_id: ChainId,
    /// Its genesis.
    pub genesis: Hash,
    /// 1 for the first recovery of the chain. A node accepts one of each number.
    pub number: u32,
    /// The incarnation that ends.
    pub parent: Incarnation,
    /// The last height that stands.
    pub height: Height,
    /// The hash of its header.
    pub block: Hash,
    /// The root of the state after it.
    pub state_root: Hash,
    /// Every voter of the three heights after it, in ascending order.
    pub voters: Vec<RecoveredVoter>,
}

/// A key with its signature over a manifest.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ManifestSignature {
    /// The ed25519 public key.
    pub key: [u8; 32],
    /// Its signature.
    pub signature: Signature,
}

/// A manifest with the signatures that it has so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recovery {
    manifest: RecoveryManifest,
    approvals: Vec<ManifestSignature>,
    acceptances: Vec<ManifestSignature>,
}

impl RecoveryManifest {
    /// The hash: the next [`Incarnation`] of the chain.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::tagged("althing/recovery/1", &self.encode())
    }

    /// The incarnation that begins.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.hash().into()
    }

    /// The first height of the new incarnation.
    #[must_use]
    pub fn first_height(&self) -> Height {
        self.height.next()
    }

    /// The voter of an identity.
    #[must_use]
    pub fn voter(&self, identity: &Identity) -> Option<&RecoveredVoter> {
        let found = self.voters.binary_search_by_key(identity, |voter| voter.identity).ok();
        found.and_then(|index| self.voters.get(index))
    }

    /// The sets of the three heights after the last one, with the fresh keys. Nothing if they name a voter that the
    /// manifest does not.
    pub fn recovered(&self, sets: &PendingSets) -> Result<Option<PendingSets>, VoterSetError> {
        let (first, second) = (self.renewed(&sets.first)?, self.renewed(&sets.second)?);
        let third = self.renewed(&sets.third)?;
        Ok(first.zip(second).zip(third).map(|((first, second), third)| PendingSets { first, second, third }))
    }

    /// One set with the fresh keys.
    pub fn renewed(&self, set: &VoterSet) -> Result<Option<VoterSet>, VoterSetError> {
        let entry = |entry: &VoterEntry| {
            let RecoveredVoter { epoch, session_key, .. } = *self.voter(&entry.identity)?;
            Some(VoterEntry { epoch, session_key, ..*entry })
        };
        set.entries().iter().map(entry).collect::<Option<Vec<_>>>().map(VoterSet::new).transpose()
    }

    fn is_well_formed(&self) -> bool {
        let ascending = self.voters.iter().zip(self.voters.iter().skip(1));
        let ascending = ascending.clone().all(|(first, second)| first.identity < second.identity);
        ascending && !self.voters.is_empty() && self.voters.len() <= RECOVERY_VOTERS_MAX
    }
}

impl Recovery {
    /// Puts a manifest and signatures together, in any order. Does not verify them.
    pub fn new(
        manifest: RecoveryManifest,
        mut approvals: Vec<ManifestSignature>,
        mut acceptances: Vec<ManifestSignature>,
    ) -> Result<Self, RecoveryError> {
        approvals.sort_by_key(|signature| signature.key);
        acceptances.sort_by_key(|signature| signature.key);
        if !manifest.is_well_formed() {
            return Err(RecoveryError::Voters);
        }
        if !strictly_ascending(&approvals) || approvals.len() > GENESIS_KEYS_MAX {
            return Err(RecoveryError::Signatures("approvals"));
        }
        if !strictly_ascending(&acceptances) || acceptances.len() > RECOVERY_VOTERS_MAX {
            return Err(RecoveryError::Signatures("acceptances"));
        }
        Ok(Self { manifest, approvals, acceptances })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &RecoveryManifest {
        &self.manifest
    }

    /// The signatures of governance keys.
    #[must_use]
    pub fn approvals(&self) -> &[ManifestSignature] {
        &self.approvals
    }

    /// The signatures of identities.
    #[must_use]
    pub fn acceptances(&self) -> &[ManifestSignature] {
        &self.acceptances
    }

    /// The governance keys that have signed, as keys.
    pub fn approvers(&self) -> impl Iterator<Item = GovernanceKey> {
        self.approvals.iter().map(|signature| GovernanceKey::new(signature.key))
    }
}

fn strictly_ascending(signatures: &[ManifestSignature]) -> bool {
    signatures.iter().zip(signatures.iter().skip(1)).all(|(first, second)| first.key < second.key)
}

impl Encode for RecoveredVoter {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { identity, epoch, session_key, possession } = self;
        identity.encode_to(writer);
        epoch.encode_to(writer);
        session_key.encode_to(writer);
        possession.encode_to(writer);
    }
}

impl Decode for RecoveredVoter {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            identity: Identity::decode_from(reader)?,
            epoch: Epoch::decode_from(reader)?,
            session_key: SessionKey::decode_from(reader)?,
            possession: Signature::decode_from(reader)?,
        })
    }
}

impl Encode for RecoveryManifest {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { chain_id, genesis, number, parent, height, block, state_root, voters } = self;
        writer.u8(RECOVERY_VERSION);
        chain_id.encode_to(writer);
        genesis.encode_to(writer);
        writer.u32(*number);
        parent.encode_to(writer);
        height.encode_to(writer);
        block.encode_to(writer);
        state_root.encode_to(writer);
        writer.list(voters);
    }
}

impl Decode for RecoveryManifest {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("RecoveryManifest", RECOVERY_VERSION)?;
        let manifest = Self {
            chain_id: ChainId::decode_from(reader)?,
            genesis: Hash::decode_from(reader)?,
            number: reader.u32("recovery number")?,
            parent: Incarnation::decode_from(reader)?,
            height: Height::decode_from(reader)?,
            block: Hash::decode_from(reader)?,
            state_root: Hash::decode_from(reader)?,
            voters: reader.list("recovered voters", RECOVERY_VOTERS_MAX)?,
        };
        if !manifest.is_well_formed() {
            return Err(DecodeError::invalid("RecoveryManifest", RecoveryError::Voters));
        }
        Ok(manifest)
    }
}

impl Encode for ManifestSignature {
    fn encode_to(&self, writer: &mut Writer) {
        writer.raw(&self.key);
        self.signature.encode_to(writer);
    }
}

impl Decode for ManifestSignature {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { key: reader.array("signature key")?, signature: Signature::decode_from(reader)? })
    }
}

impl Encode for Recovery {
    fn encode_to(&self, writer: &mut Writer) {
        self.manifest.encode_to(writer);
        writer.list(&self.approvals);
        writer.list(&self.acceptances);
    }
}

impl Decode for Recovery {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let manifest = RecoveryManifest::decode_from(reader)?;
        let approvals: Vec<ManifestSignature> = reader.list("approvals", GENESIS_KEYS_MAX)?;
        let acceptances: Vec<ManifestSignature> = reader.list("acceptances", RECOVERY_VOTERS_MAX)?;
        if !strictly_ascending(&approvals) || !strictly_ascending(&acceptances) {
            let error = RecoveryError::Signatures("signatures");
            return Err(DecodeError::invalid("Recovery", error));
        }
        Ok(Self { manifest, approvals, acceptances })
    }
}
