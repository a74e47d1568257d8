//! Helpers of the demo and the cluster cases: the environment, networks in it, load, and the invariant watcher.

pub mod dial;
pub mod environment;
pub mod invariants;
pub mod load;
pub mod network;
pub mod process;
pub mod volumes;
pub mod watch;
