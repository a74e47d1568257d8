//! What proves a state: the way from genesis to its header, its block, and the headers that name its results and voters.
//!
//! The results of block `h` stand in header `h + 2`, and the voters of `h + 1` to `h + 3` in the headers `h + 1` and `h + 2`.
//! So a state of height `h` is proved by the light blocks of `h`, `h + 1` and `h + 2`, and by as many before as the rules of
//! the light client need to get there.

use thiserror::Error;

use crate::{
    codec::{Decode, DecodeError, Encode, Reader, Writer},
    ledger::Snapshot,
    light::{LightBlock, LightClient, LightError},
    types::{CertifiedBlock, ChainId, Hash, Height, PendingSets, Results, StateRoots},
};

const MANIFEST_VERSION: u8 = 1;
/// The most light blocks on the way to a state.
pub const PATH_LENGTH_MAX: usize = 4_096;
/// The light blocks that the state itself needs: of its height and of the two after it.
const PROOF_LENGTH: usize = 3;

/// Why a manifest, or a state, is not believed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ManifestError {
    /// It is of another chain.
    #[error("it is of chain {found}, not of {expected}")]
    OtherChain {
        /// The chain that it names.
        found: ChainId,
        /// The chain of the genesis.
        expected: ChainId,
    },
    /// It is of a chain of the same name with another genesis.
    #[error("it is of a chain with genesis {found}, not {expected}")]
    OtherGenesis {
        /// The genesis that it names.
        found: Hash,
        /// The genesis that is trusted.
        expected: Hash,
    },
    /// The rules of the light client do not lead there.
    #[error("the way to height {height} is not proved")]
    Path {
        /// The height of the light block that is not believed.
        height: Height,
        /// Why.
        #[source]
        source: LightError,
    },
    /// It does not end with the three headers of its state.
    #[error("the way does not end with the headers of the state's height and of the two after it")]
    Incomplete,
    /// Its block is not the one that the chain decided.
    #[error("the block is not the certified one of height {height}")]
    OtherBlock {
        /// The height of the block.
        height: Height,
    },
    /// The state is of another height or block.
    #[error("the state is of height {found}, block {block}; the manifest is of height {expected}")]
    OtherHeight {
        /// The height of the state.
        found: Height,
        /// The block of the state.
        block: Hash,
        /// The height of the manifest.
        expected: Height,
    },
    /// The state is not above what is trusted already.
    #[error("the state of height {height} is not above the trusted height {trusted}")]
    NotLater {
        /// The height of the state.
        height: Height,
        /// The trusted height.
        trusted: Height,
    },
    /// The state is not the one that the chain decided.
    #[error("the state of height {height} has other results than header {} certifies", height.saturating_add(2))]
    OtherResults {
        /// The height of the state.
        height: Height,
    },
    /// The state names other voters for the next heights.
    #[error("the state of height {height} names other voters for the next three heights than the chain certifies")]
    OtherVoters {
        /// The height of the state.
        height: Height,
    },
    /// The state was made in another life of the chain.
    #[error("the state of height {height} is not of the incarnation that the genesis starts")]
    OtherIncarnation {
        /// The height of the state.
        height: Height,
    },
}

/// What proves one state, unchecked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateManifest {
    /// The name of the chain.
    pub chain_id: ChainId,
    /// The hash of its genesis.
    pub genesis: Hash,
    /// The way from what is trusted to the state, in ascending order of height; at the end the heights `h`, `h + 1`, `h + 2`.
    pub path: Vec<LightBlock>,
    /// Block `h`, after which the state is.
    pub block: CertifiedBlock,
}

/// A manifest that the rules of the light client lead to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedManifest {
    manifest: StateManifest,
    results: Results,
    sets: PendingSets,
}

impl StateManifest {
    /// The height of the state.
    #[must_use]
    pub fn height(&self) -> Height {
        self.block.block.header().height
    }

    /// Follows the way from what `trusted` trusts. Light blocks at or below its height are skipped; the state itself must be
    /// above it, since what proves it may not be among them.
    pub fn verify(
        self,
        chain_id: &ChainId,
        genesis: Hash,
        mut trusted: LightClient,
    ) -> Result<VerifiedManifest, ManifestError> {
        if self.chain_id != *chain_id {
            return Err(ManifestError::OtherChain { found: self.chain_id, expected: chain_id.clone() });
        }
        if self.genesis != genesis {
            return Err(ManifestError::OtherGenesis { found: self.genesis, expected: genesis });
        }
        let height = self.height();
        if height <= trusted.height() {
            return Err(ManifestError::NotLater { height, trusted: trusted.height() });
        }
        for block in
            self.path.iter().filter(|block| block.header.height > trusted.height()).cloned().collect::<Vec<_>>()
        {
            let height = block.header.height;
            trusted.advance(block).map_err(|source| ManifestError::Path { height, source })?;
        }
        let proof = self.path.len().checked_sub(PROOF_LENGTH).and_then(|from| self.path.get(from..));
        let Some([this, next, last]) = proof else { return Err(ManifestError::Incomplete) };
        let heights = [this, next, last].map(|block| block.header.height);
        if heights != [height, height.saturating_add(1), height.saturating_add(2)]
            || trusted.height() != last.header.height
        {
            return Err(ManifestError::Incomplete);
        }
        if self.block.block.header() != &this.header || self.block.certificate != this.certificate {
            return Err(ManifestError::OtherBlock { height });
        }
        let sets =
            PendingSets { first: next.voters.clone(), second: last.voters.clone(), third: last.next_voters.clone() };
        let results = last.header.results;
        Ok(VerifiedManifest { manifest: self, results, sets })
    }
}

impl VerifiedManifest {
    /// What was verified.
    #[must_use]
    pub fn manifest(&self) -> &StateManifest {
        &self.manifest
    }

    /// The height of the state.
    #[must_use]
    pub fn height(&self) -> Height {
        self.manifest.height()
    }

    /// What the state must come to.
    #[must_use]
    pub fn roots(&self) -> &StateRoots {
        &self.results.roots
    }

    /// Whether a state is the one that is proved: its roots, its block, and all three pending voter sets.
    pub fn check(&self, state: &Snapshot) -> Result<(), ManifestError> {
        let (height, progress) = (self.height(), &state.progress);
        if progress.height != height || progress.block != self.manifest.block.block.hash() {
            let (found, block) = (progress.height, progress.block);
            return Err(ManifestError::OtherHeight { found, block, expected: height });
        }
        if state.results != self.results {
            return Err(ManifestError::OtherResults { height });
        }
        if state.sets != self.sets {
            return Err(ManifestError::OtherVoters { height });
        }
        if state.chain.incarnation != self.manifest.genesis.into() || state.chain.chain_id != self.manifest.chain_id {
            return Err(ManifestError::OtherIncarnation { height });
        }
        Ok(())
    }
}

/// The few of many light blocks, in ascending order of height, that lead from what is trusted to the last three of them.
///
/// From each trusted height the farthest that is believed is taken, with half the distance after each refusal.
pub fn shortest_path(trusted: &LightClient, blocks: &[LightBlock]) -> Result<Vec<LightBlock>, ManifestError> {
    let mut trusted = trusted.clone();
    let mut path = Vec::new();
    let end = blocks.len().saturating_sub(PROOF_LENGTH - 1);
    let mut start = blocks.partition_point(|block| block.header.height <= trusted.height());
    while start < end {
        let mut reach = end - start;
        loop {
            let Some(block) = blocks.get(start + reach - 1) else { return Err(ManifestError::Incomplete) };
            match trusted.advance(block.clone()) {
                Ok(()) => break,
                Err(_) if reach > 1 => reach /= 2,
                Err(source) => return Err(ManifestError::Path { height: block.header.height, source }),
            }
        }
        start += reach;
        path.extend(blocks.get(start - 1).cloned());
    }
    path.extend(blocks.get(end..).unwrap_or_default().iter().cloned());
    Ok(path)
}

impl Encode for StateManifest {
    fn encode_to(&self, writer: &mut Writer) {
        let Self { chain_id, genesis, path, block } = self;
        writer.u8(MANIFEST_VERSION);
        chain_id.encode_to(writer);
        genesis.encode_to(writer);
        writer.list(path);
        block.encode_to(writer);
    }
}

impl Decode for StateManifest {
    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.version("StateManifest", MANIFEST_VERSION)?;
        Ok(Self {
            chain_id: ChainId::decode_from(reader)?,
            genesis: Hash::decode_from(reader)?,
            path: reader.list("light path", PATH_LENGTH_MAX)?,
            block: CertifiedBlock::decode_from(reader)?,
        })
    }
}
