//! Agreement on blocks: Tendermint, driven from outside, with a signing log and one session key for each height.
//!
//! [`Engine::step`] takes what happened and returns what to do. Around the protocol itself (the crate
//! `arc-malachitebft-core-consensus`) it keeps four rules that the protocol leaves to its user:
//!
//! - *Disk before wire*: every message of this node is in the signing log, flushed, before it is sent.
//! - *One key a height*: it signs at `h` only with the key that the voter set of `h` names, if this process is cleared
//!   for it; consensus starts at `h` only after `h - 3` was executed, and votes for a block only after `h - 2` was.
//! - *Nothing unverified is kept*: votes are verified against the voters of their height before the protocol sees them.
//! - *No second word*: after a restart, or when the key is cleared late, the protocol is rebuilt from the log.

mod answers;
mod blocks;
mod boot;
mod build;
mod certificates;
mod chain;
mod commit;
mod context;
mod core;
mod effect;
mod engine;
mod faults;
mod gate;
mod input;
mod log;
mod on_batch;
mod on_blocks;
mod on_message;
mod on_timer;
mod outbox;
mod proposer;
mod protocol;
mod rotation;
#[cfg(test)]
mod tests;
mod timers;
mod validate;

pub use boot::{Boot, SigningLog};
pub use effect::{Alarm, DropReason, Effect, Equivocation, HaltReason};
pub use engine::{Engine, EngineStatus, SessionState};
pub use faults::Faults;
pub use input::{Input, Origin};
pub use log::{LogEntry, LoggedValue};
pub use proposer::proposer_at;
pub use timers::{TimeoutKind, TimerId};
pub use validate::InvalidBlock;
