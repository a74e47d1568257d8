//! Proofs of single entries, and of their absence, checked without a store: a pure function for light clients.

use commonware_codec::{Copying, Decode as _};
use commonware_cryptography::{Sha256, sha256::Digest};
use commonware_storage::{
    merkle::MAX_PROOF_DIGESTS_PER_ELEMENT,
    qmdb::{
        any::value::VariableEncoding,
        current::ordered::proof::constant::{ExclusionProof, KeyValueProof},
    },
};
use node_core::{ledger::StateKey, types::Hash};
use thiserror::Error;

use super::database::{CHUNK_BYTES, Family, Key, value_config};

/// The first byte of a proof that an entry has a value.
pub const PRESENT: u8 = 1;
/// The first byte of a proof that there is no entry.
pub const ABSENT: u8 = 2;

/// Why a proof proves nothing.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ProofError {
    /// It is not a proof of this store.
    #[error("the proof cannot be read: {reason}")]
    Unreadable {
        /// What does not fit.
        reason: String,
    },
    /// It proves something else.
    #[error("the proof does not lead from this entry to the state root")]
    Wrong,
}

/// Checks that under this state root the entry has exactly this value, or that there is none.
pub fn verify_state_proof(
    key: &StateKey,
    value: Option<&[u8]>,
    proof: &[u8],
    state_root: &Hash,
) -> Result<(), ProofError> {
    let (kind, body) = proof.split_first().ok_or_else(|| unreadable("it is empty"))?;
    let key = Key::new(*key.as_bytes());
    let root = Digest::from(*state_root.as_bytes());
    let proven = match (*kind, value) {
        (PRESENT, Some(value)) => {
            let config = (MAX_PROOF_DIGESTS_PER_ELEMENT, ());
            let proof = KeyValueProof::<Family, Key, Digest, CHUNK_BYTES>::decode_cfg(Copying(body), &config)
                .map_err(unreadable)?;
            proof.verify::<Sha256, VariableEncoding<Vec<u8>>>(key, value.to_vec(), &root)
        }
        (ABSENT, None) => {
            let config = (MAX_PROOF_DIGESTS_PER_ELEMENT, ((), value_config()), value_config());
            let proof = ExclusionProof::<Family, Key, VariableEncoding<Vec<u8>>, Digest, CHUNK_BYTES>::decode_cfg(
                Copying(body),
                &config,
            )
            .map_err(unreadable)?;
            proof.verify::<Sha256>(&key, &root)
        }
        (PRESENT | ABSENT, _) => false,
        (found, _) => return Err(unreadable(format!("kind {found} is not known"))),
    };
    if proven { Ok(()) } else { Err(ProofError::Wrong) }
}

/// A proof with its kind before it.
pub fn tagged(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + body.len());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

fn unreadable(reason: impl ToString) -> ProofError {
    ProofError::Unreadable { reason: reason.to_string() }
}
