//! Events: what each decided block means, in the order in which it happens, for read models and other followers.
//!
//! [`events_of`] is a pure function of a block, the state before it and its execution, so every node gives the same
//! events. Nothing of one node is in them: the time is that of the block, and of the commit certificate only that there is
//! one is said, because two nodes may hold different signatures, and even another round, for the same block.
//!
//! **At which height an event stands.** Every event of height `h` is known once block `h` is executed, and stands there:
//!
//! - [`EventPayload::BlockCreated`], [`EventPayload::TransactionSubmitted`], [`EventPayload::ConsensusReached`] and
//!   [`EventPayload::BlockFinalised`] are about block `h`;
//! - [`EventPayload::TransactionExecuted`] is the receipt of block `h`. The header that commits to it is that of `h + 2`;
//! - [`EventPayload::BlockValidated`] is about header `h`, and so says that the results of `h - 2` are certified;
//! - changes of voters, power and parameters stand where their execution decides them, and carry the height from which
//!   they count: `h + 3`. A rotation that only the identity signed is decided, and stands, ten heights after its
//!   transaction, when nobody can object any more;
//! - a recovery, with the keys that come with it, stands at the first height after it and counts from there.
//!
//! A transaction that was deferred may be in a later block again: then it is submitted again.

mod derive;
mod event;

pub use derive::{Decided, events_of};
pub use event::{Event, EventGroup, EventId, EventIdError, EventPayload, TraceId};

#[cfg(test)]
mod tests;
