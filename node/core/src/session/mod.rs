//! Signing sessions: which session key this process may use, and what it has signed already.
//!
//! The rules are those of "Keys on a volume" and "Writing and signing" of the design: a key that this process made, or
//! took over on proof that its former owner has ended, is *cleared*; only a cleared key signs, and only above or equal
//! to what the record on the same volume holds. Everything here is pure: bytes for the disk come out and go in.

mod clearance;
mod keylist;
mod question;
mod record;
mod signer;
mod tripwire;

pub use clearance::{
    Never, NotCleared, OwnerEnded, OwnerStatement, SigningLog, StartGrant, Succession, Surroundings, TakeOver,
    VolumeKind, VolumeLock, Waiting, decide, decide_owner,
};
pub use keylist::{KeyEntry, KeyList, KeyListError, KeyState, NewKey, Owner};
pub use question::{Known, NewestVote, Question};
pub use record::{RecordEntry, RecordError, Sighting, SigningRecord, Slot};
pub use signer::{ClearedKey, HeldKey, SessionStatement, SignRefusal, Signed, Signer};
pub use tripwire::{Tripwire, TripwireAnswer, TripwireQuestion, TripwireResult};

#[cfg(test)]
mod tests;
