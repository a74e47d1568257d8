//! SHA-256, with a tag before everything that is hashed, and the Merkle root of a list.

use std::fmt;

use sha2::{Digest, Sha256};

use super::identifiers::bytes_newtype;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

bytes_newtype! {
    /// A SHA-256 hash.
    Hash, 32
}

impl Hash {
    /// 32 zero bytes: the parent of the first block, the root of nothing.
    pub const ZERO: Self = Self([0; 32]);

    /// The hash of a tag and bytes. The tag keeps bytes of one kind from passing for another kind.
    #[must_use]
    pub fn tagged(tag: &'static str, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(tag);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// A SHA-256 that starts with a tag.
#[derive(Clone, Debug)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Starts with the tag and a zero byte, so that no tag is the beginning of another.
    #[must_use]
    pub fn new(tag: &'static str) -> Self {
        let mut state = Sha256::new();
        state.update(tag.as_bytes());
        state.update([0]);
        Self(state)
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of the tag and all bytes added.
    #[must_use]
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().into())
    }
}

/// The Merkle root of a list of leaf hashes (RFC 6962 shape: the left tree is the largest full one; leaf and node
/// hashes have different tags; the count is bound by the caller's leaves). The root of no leaves is [`Hash::ZERO`].
#[must_use]
pub fn merkle_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::ZERO,
        [leaf] => Hash::tagged("althing/merkle-leaf/1", leaf.as_bytes()),
        _ => {
            let (left, right) = leaves.split_at(left_leaves(leaves.len()));
            let mut hasher = Hasher::new("althing/merkle-node/1");
            hasher.update(merkle_root(left).as_bytes());
            hasher.update(merkle_root(right).as_bytes());
            hasher.finish()
        }
    }
}

/// The largest power of two below `count`, for a count of at least 2.
fn left_leaves(count: usize) -> usize {
    let mut size = 1;
    while size < count.saturating_sub(size) {
        size *= 2;
    }
    size
}
