//! Transactions that wait for a block: bounded, in nonce order, deterministic.

pub use crate::crypto::VerifiedTransaction;
