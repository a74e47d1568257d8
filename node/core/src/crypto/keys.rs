//! One ed25519 key pair, and the verification of one signature.

use std::fmt;

use ed25519_zebra::{SigningKey, VerificationKey, VerificationKeyBytes};
use thiserror::Error;

use crate::types::Signature;

/// Why a key or a signature was refused.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    /// The bytes are not a point of the curve.
    #[error("the public key is not a point of the curve")]
    MalformedKey,
    /// The signature is not by this key over these bytes.
    #[error("the signature does not verify")]
    BadSignature,
}

/// A secret ed25519 key. Never printed, erased from memory when dropped.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// From 32 random bytes, which the caller draws.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from(seed))
    }

    /// The 32 bytes it was made from, for the disk of their owner only.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        VerificationKeyBytes::from(&self.0).into()
    }

    /// Signs bytes that [`super::SigningBytes`] made. Deterministic: the same bytes give the same signature.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::new(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair(public ")?;
        self.public().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

impl PartialEq for KeyPair {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for KeyPair {}

/// Verifies one signature by ZIP-215. Costs about twice as much as in a batch.
pub fn verify(key: &[u8; 32], bytes: &[u8], signature: &Signature) -> Result<(), KeyError> {
    let key = VerificationKey::try_from(*key).map_err(|_| KeyError::MalformedKey)?;
    let signature = ed25519_zebra::Signature::from_bytes(signature.as_bytes());
    key.verify(&signature, bytes).map_err(|_| KeyError::BadSignature)
}
