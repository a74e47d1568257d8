//! The nodes behind the gateway: who they are, which of them is asked, and what happens when one fails.
//!
//! | module | holds |
//! |---|---|
//! | `names` | the addresses of the configured names |
//! | `node` | one backend and its connection |
//! | `pool` | the backends of a tier, and the choice among them |
//! | `probe` | what keeps them: looks for names, connects, probes |
//! | `attempt`, `raw` | one call, at another backend again where that is allowed; its messages as bytes |

mod attempt;
mod names;
mod node;
mod pool;
mod probe;
mod raw;

pub use attempt::{Backends, CallContext};
pub use names::Names;
pub use pool::{BackendView, Dialing, Pool};
pub use raw::RawCodec;
