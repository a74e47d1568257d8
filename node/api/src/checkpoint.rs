//! A checkpoint: a late header that the caller trusts as much as the genesis, since it has compared its hash with others.
//!
//! Keys of voters of long ago may leak once nobody guards them any more, and a quorum of them could sign another history
//! from genesis on. Whoever was away for long, or is new, cannot tell the two apart by signatures; a hash that comes from
//! people, or from several nodes at once, can.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use node_core::{
    codec::{Decode as _, DecodeError},
    light::{LightBlock, LightClient, LightError},
    types::{Genesis, Hash, Header, Height},
};
use thiserror::Error;

use crate::keeping::Checkpoint;

/// Largest file that is read: a header with the largest certificate and two of the largest sets of voters fit.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a checkpoint cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("failed to read the checkpoint {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any checkpoint.
    #[error("the checkpoint {} is larger than {FILE_BYTES_MAX} bytes: is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is no light block.
    #[error("the checkpoint {} is not what `althing-node checkpoint` writes", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The file is of another header than the one that is trusted.
    #[error("the checkpoint {} is of block {found} at height {height}; expected: {expected}", path.display())]
    OtherHeader {
        /// The file.
        path: PathBuf,
        /// Its height.
        height: Height,
        /// Its hash.
        found: Hash,
        /// The height and hash that are trusted.
        expected: String,
    },
}

/// A header whose hash is the one that the caller trusts. Its certificate is checked when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedHeader {
    block: LightBlock,
    hash: Hash,
}

impl Checkpoint {
    /// Reads the file, which must be of this height and hash.
    ///
    /// # Errors
    /// When it is not there, no light block, or of another header.
    pub fn load(&self) -> Result<TrustedHeader, CheckpointError> {
        let Self { height, hash, file } = self;
        let trusted = TrustedHeader::read(file, *hash)?;
        if trusted.height().get() == *height {
            return Ok(trusted);
        }
        let expected = format!("of height {height}");
        Err(CheckpointError::OtherHeader { path: file.clone(), height: trusted.height(), found: *hash, expected })
    }
}

impl TrustedHeader {
    /// Reads a file, which must be of the header with this hash.
    ///
    /// # Errors
    /// When it is not there, no light block, or of another header.
    pub fn read(file: &Path, hash: Hash) -> Result<Self, CheckpointError> {
        let block = read(file)?;
        let (height, found) = (block.header.height, block.header.hash());
        if found == hash {
            return Ok(Self { block, hash });
        }
        let expected = hash.to_string();
        Err(CheckpointError::OtherHeader { path: file.to_owned(), height, found, expected })
    }

    /// Its height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.block.header.height
    }

    /// A light client that begins here, on a chain without recoveries.
    ///
    /// # Errors
    /// When no quorum of the voters that it names has signed it for this chain.
    pub fn client(&self, genesis: &Genesis) -> Result<LightClient, LightError> {
        LightClient::from_checkpoint(genesis, genesis.incarnation(), self.block.clone(), self.hash)
    }

    /// Whether a chain with this header is another one.
    #[must_use]
    pub fn contradicts(&self, header: &Header) -> bool {
        header.height == self.height() && header.hash() != self.hash
    }
}

fn read(path: &Path) -> Result<LightBlock, CheckpointError> {
    let failed = |source| CheckpointError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(CheckpointError::TooLarge { path: path.to_owned() });
    }
    let bytes = fs::read(path).map_err(failed)?;
    LightBlock::decode(&bytes).map_err(|source| CheckpointError::Form { path: path.to_owned(), source })
}
