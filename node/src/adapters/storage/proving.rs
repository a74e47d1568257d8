//! Makes the manifest of a state from what a node keeps: blocks, and the changes of voters.

use std::sync::Arc;

use node_api::light::PROOF_DELAY;
use node_core::{
    light::{LightBlock, LightClient, LightError},
    sync::{ManifestError, StateManifest, VerifiedManifest, shortest_path},
    types::{Genesis, Height},
};
use thiserror::Error;

use super::{BlockReader, Milestones, StorageError};

/// Why a state cannot be proved here.
#[derive(Debug, Error)]
pub enum ProvingError {
    /// The volume failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The chain is too short.
    #[error("the chain is at height {executed}; a state is proved by the headers of the two heights after it")]
    TooShort {
        /// The last executed height.
        executed: Height,
    },
    /// A block is not kept.
    #[error("block {height} is not kept here")]
    NoBlock {
        /// The height.
        height: Height,
    },
    /// The genesis is none.
    #[error("the genesis is not valid")]
    Genesis(#[from] LightError),
    /// What is kept here does not prove the state.
    #[error(
        "the changes of voters that are kept here do not lead to height {height}; if the chain went on with a recovery, no \
         proof leads over it; else remove the folders light and state of this node, both are made again from its blocks"
    )]
    NotProved {
        /// The height of the state.
        height: Height,
        /// Why.
        #[source]
        source: ManifestError,
    },
}

/// What proofs are made from.
#[derive(Clone, Debug)]
pub struct Prover {
    /// The chain.
    pub genesis: Arc<Genesis>,
    /// Its blocks.
    pub blocks: BlockReader,
    /// Its changes of voters.
    pub milestones: Milestones,
}

impl Prover {
    /// The newest height whose state can be proved when this one is executed.
    pub fn newest(executed: Height) -> Result<Height, ProvingError> {
        let height = executed.checked_sub(PROOF_DELAY).filter(|height| *height > Height::ZERO);
        height.ok_or(ProvingError::TooShort { executed })
    }

    /// Proves the state of a height. The two heights after it must be executed here.
    pub fn prove(&self, height: Height) -> Result<VerifiedManifest, ProvingError> {
        let mut blocks = self.milestones.below(height);
        for distance in 0..=PROOF_DELAY {
            blocks.push(self.light_block(height.saturating_add(distance))?);
        }
        let trusted = LightClient::new(&self.genesis)?;
        let not_proved = |source| ProvingError::NotProved { height, source };
        let path = shortest_path(&trusted, &blocks).map_err(not_proved)?;
        let block = self.blocks.read(height)?.ok_or(ProvingError::NoBlock { height })?;
        let (chain_id, genesis) = (self.genesis.chain_id.clone(), self.genesis.hash());
        let manifest = StateManifest { chain_id: chain_id.clone(), genesis, path, block };
        manifest.verify(&chain_id, genesis, trusted).map_err(not_proved)
    }

    /// What leads a light client from a trusted height to a later one, which must be executed here: the changes of voters
    /// between them, then the height itself; the first so many.
    pub fn way(&self, trusted: Height, to: Height, most: usize) -> Result<Vec<LightBlock>, ProvingError> {
        let mut way = self.milestones.between(trusted, to, most);
        if way.len() < most {
            way.push(self.light_block(to)?);
        }
        Ok(way)
    }

    fn light_block(&self, height: Height) -> Result<LightBlock, ProvingError> {
        let block = self.blocks.read(height)?.ok_or(ProvingError::NoBlock { height })?;
        Ok(LightBlock {
            header: block.block.header().clone(),
            certificate: block.certificate,
            voters: self.milestones.voters_of(&self.genesis, height),
            next_voters: self.milestones.voters_of(&self.genesis, height.next()),
        })
    }
}
