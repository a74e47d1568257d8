//! The light client: from a checkpoint that it trusts it follows final headers by their certificates alone, without blocks.
//!
//! It goes from one trusted height to a later one in two ways. The next height needs nothing but the voters that the
//! trusted header names. A jump over heights needs, beside the certificate by a quorum of the later voters, signatures by
//! more than `f` power of the *trusted* next voters, of whom at least one is therefore honest; an entry counts only if it
//! has the same identity and the same session key in both sets, because another key may be another person. (The skipping
//! rule of the Tendermint light client specification, with session keys.)
//!
//! A jump trusts that no more than `f` power of the trusted voters gives its keys away later: voters erase retired keys,
//! and the caller bounds the age of the checkpoint it still trusts. The state root of header `h` is that after block
//! `h - 2`; proofs of accounts lead to it.

mod block;
mod client;
#[cfg(test)]
mod tests;

pub use block::LightBlock;
pub use client::{LightClient, LightError};
