//! Helpers of the demo and the tests: the environment, networks in it, load, the invariant watcher, and a stand-in for
//! everything below the API server with trials of the operator against it.

pub mod arrivals;
pub mod attendance;
pub mod dial;
pub mod entrance;
pub mod environment;
pub mod invariants;
pub mod leaves;
pub mod load;
pub mod measured;
pub mod metrics_document;
pub mod network;
pub mod process;
pub mod regulars;
mod roll;
pub mod stand_in;
pub mod submissions;
pub mod tier;
pub mod trial;
pub mod volumes;
pub mod watch;
