//! The volume as a whole: who else may be using it, who this process is, and how much space is left.

mod lock;
mod owner;
mod space;

pub use lock::{LockError, VolumeLock};
pub use owner::{OwnerError, OwnerFacts};
pub use space::{Fill, RESERVE_BYTES, Space};

#[cfg(test)]
mod tests;
