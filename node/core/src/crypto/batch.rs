//! Verification of many signatures at once: a third to a half of what they cost one by one.
//!
//! The batch equation is the one of ZIP-215 with the cofactor: 8 (sum z_i R_i + sum z_i k_i A_i - (sum z_i s_i) B) = 0. It is
//! written out here, and not taken from `ed25519-zebra`, for the sake of [`KeyPoints`] alone.

use curve25519_dalek::{
    constants::ED25519_BASEPOINT_POINT,
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
    traits::{IsIdentity, VartimeMultiscalarMul},
};
use sha2::{Digest, Sha256, Sha512};

use crate::types::Signature;

/// One signature that should verify.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignatureCheck {
    /// The public key.
    pub key: [u8; 32],
    /// The bytes that were signed.
    pub bytes: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// A public key as a point of the curve.
#[derive(Clone, Copy, Debug)]
pub struct PublicPoint(EdwardsPoint);

impl PublicPoint {
    /// The point of a key; nothing if there is none.
    #[must_use]
    pub fn of(key: &[u8; 32]) -> Option<Self> {
        CompressedEdwardsY(*key).decompress().map(Self)
    }
}

/// Finds the points of public keys. To compute one takes a quarter of a verification, so whoever sees the same signers
/// again remembers them.
pub trait KeyPoints {
    /// What [`PublicPoint::of`] gives.
    fn find(&mut self, key: &[u8; 32]) -> Option<PublicPoint>;
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemory;

impl KeyPoints for NoMemory {
    fn find(&mut self, key: &[u8; 32]) -> Option<PublicPoint> {
        PublicPoint::of(key)
    }
}

/// How many signatures go into one batch. From 95 on another algorithm makes them cheap; beyond this size there is
/// nothing to gain, and a bad one costs its whole batch again.
const BATCH_SIZE: usize = 512;

/// Whether all of these verify.
#[must_use]
pub fn verify_all(checks: &[SignatureCheck]) -> bool {
    checks.chunks(BATCH_SIZE).all(|checks| batch_verifies(&mut NoMemory, checks))
}

/// Whether each of these verifies, in their order. A batch with a bad signature is halved until the bad ones stand
/// alone, so that one bad transaction does not cost its neighbours a single verification each.
#[must_use]
pub fn verify_each(keys: &mut dyn KeyPoints, checks: &[SignatureCheck]) -> Vec<bool> {
    let mut valid = Vec::with_capacity(checks.len());
    for chunk in checks.chunks(BATCH_SIZE) {
        find_valid(keys, chunk, &mut valid);
    }
    valid
}

fn find_valid(keys: &mut dyn KeyPoints, checks: &[SignatureCheck], valid: &mut Vec<bool>) {
    if batch_verifies(keys, checks) {
        valid.extend(checks.iter().map(|_| true));
    } else if checks.len() == 1 {
        valid.push(false);
    } else {
        let (left, right) = checks.split_at(checks.len() / 2);
        find_valid(keys, left, valid);
        find_valid(keys, right, valid);
    }
}

fn batch_verifies(keys: &mut dyn KeyPoints, checks: &[SignatureCheck]) -> bool {
    match checks {
        [SignatureCheck { key, bytes, signature }] => super::verify(key, bytes, signature).is_ok(),
        checks => equation_holds(keys, checks).unwrap_or(false),
    }
}

/// Nothing if a key or a signature is malformed.
fn equation_holds(keys: &mut dyn KeyPoints, checks: &[SignatureCheck]) -> Option<bool> {
    let mut weights = Weights::of(checks);
    let mut base = Scalar::ZERO;
    let mut scalars = Vec::with_capacity(2 * checks.len() + 1);
    let mut points = Vec::with_capacity(2 * checks.len() + 1);
    for SignatureCheck { key, bytes, signature } in checks {
        let (commitment, response) = signature.as_bytes().split_first_chunk::<32>()?;
        let response = Option::<Scalar>::from(Scalar::from_canonical_bytes(response.try_into().ok()?))?;
        let digest = Sha512::new().chain_update(commitment).chain_update(key).chain_update(bytes).finalize();
        let challenge = Scalar::from_bytes_mod_order_wide(&digest.into());
        let weight = weights.next();
        base -= weight * response;
        scalars.push(weight);
        points.push(CompressedEdwardsY(*commitment).decompress()?);
        scalars.push(weight * challenge);
        points.push(keys.find(key)?.0);
    }
    scalars.push(base);
    points.push(ED25519_BASEPOINT_POINT);
    Some(EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity())
}

/// The weights of the batch equation, 128 bits each, derived from everything in the batch: whoever picks signatures that
/// cancel each other out would have to know the hash of his choice before making it. Keeps the core free of randomness.
struct Weights {
    seed: [u8; 32],
    counter: u64,
    /// The second half of the last block.
    half: Option<[u8; 16]>,
}

impl Weights {
    fn of(checks: &[SignatureCheck]) -> Self {
        let mut seed = Sha256::new_with_prefix(b"althing/batch-verification/1\0");
        for SignatureCheck { key, bytes, signature } in checks {
            seed.update(key);
            seed.update(signature.as_bytes());
            seed.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            seed.update(bytes);
        }
        Self { seed: seed.finalize().into(), counter: 0, half: None }
    }

    fn next(&mut self) -> Scalar {
        let bytes = self.half.take().unwrap_or_else(|| {
            let block: [u8; 32] =
                Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize().into();
            self.counter += 1;
            let (first, second) = block.split_at(16);
            self.half = second.try_into().ok();
            first.try_into().expect("half of 32 bytes")
        });
        Scalar::from(u128::from_le_bytes(bytes))
    }
}
