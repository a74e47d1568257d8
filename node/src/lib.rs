//! The Althing node: the shell around the consensus core of `node-core`, and the program that runs it.
//!
//! - [`commands`]: the subcommands of `althing-node` and its exit codes.
//! - [`shell`]: the main loop; it owns the engine and performs its effects strictly in order.
//! - [`adapters`]: disk, network and HTTP.
//! - [`services`]: the gRPC services that `node-api` describes.
//! - [`devnet`]: a development network of real processes on one machine.
//! - [`bench`]: measures a network under load.
//! - `fuzzed`: fuzz targets of every decoder, in tests and for cargo-fuzz alone.
//! - [`gateway`]: the public entrance before the nodes.
//! - [`metrics`]: everything that `/metrics` shows.
//! - [`snapshots`]: states in files.
//! - [`recent`]: a bounded map that keeps what is used.

pub mod adapters;
pub mod bench;
pub mod causes;
pub mod commands;
pub mod devnet;
#[cfg(any(test, fuzzing))]
pub mod fuzzed;
pub mod gateway;
pub mod metrics;
pub mod recent;
pub mod services;
pub mod shell;
pub mod snapshots;
