//! The validator's core: every rule of the chain as pure functions of their inputs, without clock, disk, network or randomness.
//!
//! The shell around this crate feeds inputs and performs the effects that come back. Nothing in here waits, sleeps,
//! opens a file, asks for the time, draws a random number or depends on the iteration order of a hash map: the same
//! inputs give the same bytes on every machine, which is what lets nodes agree and lets a simulator replay a seed.
//!
//! - [`types`]: identifiers, blocks, transactions, votes, voter sets, the genesis document.
//! - [`codec`]: the fixed layout of everything that is hashed, signed or stored.
//! - [`crypto`]: signing bytes with their domain tags, and ed25519 (ZIP-215) one by one and in batches.
//! - [`session`]: which session key this process may use, and what it already signed.
//! - [`ledger`]: execution of blocks on a state store.
//! - [`events`]: what each block says to read models.
//! - [`mempool`]: transactions that wait for a block.
//! - [`consensus`]: agreement on blocks.
//! - [`light`]: following final headers without blocks.
//! - [`sync`]: how a node that is behind catches up.
#![deny(missing_docs)]

pub mod codec;
pub mod consensus;
pub mod crypto;
pub mod events;
pub mod ledger;
pub mod light;
pub mod mempool;
pub mod session;
pub mod sync;
pub mod types;

#[cfg(test)]
mod fixtures;
