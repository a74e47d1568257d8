//! Helpers of the demo and the cluster cases: the environment, networks in it, load, and the invariant watcher.

pub mod environment;
pub mod invariants;
pub mod process;
