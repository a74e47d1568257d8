//! The nodes behind the gateway: who they are, which of them is asked, and what happens when one fails.

mod attempt;
mod pool;
mod probe;
mod raw;

pub use attempt::{Backends, CallContext};
pub use pool::{BackendView, Dialing, Pool};
pub use raw::RawCodec;
