//! The subcommands: one file each, named like the word on the command line.
//!
//! A command is a `clap` argument struct and an async `run` that returns [`CommandError`]; the exit codes are
//! listed there.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod devnet;
mod exit;
pub mod logging;
pub mod observer;
pub mod validator;

pub use exit::CommandError;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The git commit of the sources, or `unknown`.
pub const COMMIT: &str = env!("ALTHING_COMMIT");
const VERSION_WITH_COMMIT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ALTHING_COMMIT"), ")");

/// A node of a BFT validator network.
#[derive(Debug, Parser)]
#[command(name = "althing-node", version = VERSION_WITH_COMMIT, arg_required_else_help = true)]
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
    /// Run a development network of several validators on this machine.
    Devnet(devnet::Arguments),
}

/// Parses the command line and runs the command; the only place that makes a runtime and an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&CommandError::internal("failed to start the runtime", error)),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Validator(arguments) => validator::run(arguments).await,
        Command::Observer(arguments) => observer::run(arguments).await,
        Command::Devnet(arguments) => devnet::run(arguments).await,
    }
}

fn fail(error: &CommandError) -> ExitCode {
    eprintln!("althing-node: {}", error.report());
    error.code()
}
