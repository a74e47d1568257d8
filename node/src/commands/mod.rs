//! The subcommands: one file each, named like the word on the command line.
//!
//! A command is a `clap` argument struct and an async `run` that returns [`CommandError`]; the exit codes are
//! listed there.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

pub mod api_key;
pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod connection;
pub mod devnet;
pub mod events;
mod exit;
pub mod gateway;
pub mod genesis;
mod input;
pub mod keygen;
pub mod logging;
pub mod observer;
pub mod output;
pub mod recover;
pub mod snapshot;
pub mod status;
pub mod tx;
pub mod validator;

pub use exit::CommandError;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The git commit of the sources, or `unknown`.
pub const COMMIT: &str = env!("ALTHING_COMMIT");
const VERSION_WITH_COMMIT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ALTHING_COMMIT"), ")");

/// How long what is still under way when a command is done may take.
const LEFTOVER_TIME_MAX: Duration = Duration::from_secs(2);

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a failure without a code of its own
  2  the command line was not understood
  3  a configuration file, certificate or key was refused
  4  the volume is locked by another process, broken, or could not be written
  5  no answer from the node that was asked, or not in time
  6  the node refused the request
  7  the snapshot is damaged, of another chain, or proves nothing";

/// A node of a BFT validator network.
#[derive(Debug, Parser)]
#[command(name = "althing-node", version = VERSION_WITH_COMMIT, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a voter: takes part in consensus and serves the node API.
    Validator(validator::Arguments),
    /// Run an observer: follows the chain and serves the node API, never votes.
    Observer(observer::Arguments),
    /// Run a gateway: the public entrance before the nodes.
    Gateway(gateway::Arguments),
    /// Run a development network of several validators on this machine.
    Devnet(devnet::Arguments),
    /// Make an ed25519 key (PKCS#8 PEM) for an account or an identity.
    Keygen(keygen::Arguments),
    /// Make an API key for callers of a gateway.
    ApiKey(api_key::Arguments),
    /// Send transactions, or ask what became of one.
    Tx(tx::Arguments),
    /// Ask a node for its status.
    Status(status::Arguments),
    /// Let a chain go on after more voters than may fail have lost their session keys.
    Recover(recover::Arguments),
    /// Take, check or restore a snapshot of the state.
    Snapshot(snapshot::Arguments),
    /// Write a late header of a chain to a file, for nodes that shall trust it like the genesis.
    Checkpoint(checkpoint::Arguments),
    /// Print the events of a chain, or compare those of a volume with its blocks.
    Events(events::Arguments),
    /// Look at a genesis.
    Genesis(genesis::Arguments),
    /// Work with configuration files.
    Config(config::Arguments),
    /// Measure a network under load.
    Bench(bench::Arguments),
}

/// Parses the command line and runs the command; the only place that makes a runtime and an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CommandError::internal("failed to start the runtime", error)),
    };
    let result = runtime.block_on(run(cli.command));
    // A thread that waits for standard input never ends by itself, and must not keep a process that is done.
    runtime.shutdown_timeout(LEFTOVER_TIME_MAX);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Validator(arguments) => validator::run(arguments).await,
        Command::Observer(arguments) => observer::run(arguments).await,
        Command::Gateway(arguments) => gateway::run(arguments).await,
        Command::Devnet(arguments) => devnet::run(arguments).await,
        Command::Keygen(arguments) => keygen::run(arguments).await,
        Command::ApiKey(arguments) => api_key::run(arguments),
        Command::Tx(arguments) => tx::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Recover(arguments) => recover::run(arguments).await,
        Command::Snapshot(arguments) => snapshot::run(arguments).await,
        Command::Checkpoint(arguments) => checkpoint::run(arguments).await,
        Command::Events(arguments) => events::run(arguments).await,
        Command::Genesis(arguments) => genesis::run(arguments).await,
        Command::Config(arguments) => config::run(arguments).await,
        Command::Bench(arguments) => bench::run(arguments).await,
    }
}

fn fail(error: &CommandError) -> ExitCode {
    eprintln!("althing-node: {}", error.report());
    error.code()
}
