//! Signing bytes with their domain tags, and ed25519 by the rules of ZIP-215, one by one and in batches.
//!
//! ZIP-215 is the one rule under which single and batch verification always agree, which consensus needs.

mod batch;
mod domains;
mod keys;
mod verify;

pub use batch::{KeyPoints, NoMemory, PublicPoint, SignatureCheck, verify_all, verify_each};
pub use domains::{RotationTerms, SigningBytes};
pub use keys::{KeyError, KeyPair, verify};
pub use verify::{
    Findings, InvalidSignature, VerifiedBatch, VerifiedTransaction, verify_acknowledgement, verify_batch,
    verify_certificate, verify_genesis, verify_peer_record, verify_proposal, verify_together, verify_transaction,
    verify_transactions, verify_vote,
};

#[cfg(test)]
mod tests;
