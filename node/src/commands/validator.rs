//! `althing-node validator`: runs a voter.

use std::path::{Path, PathBuf};

use clap::Args;
use node_api::{
    config::{NodeConfig, NodeRole},
    genesis,
};
use node_core::types::Genesis;
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{CommandError, logging};
use crate::shell::{
    launch::{self, LaunchError},
    main_loop::MainLoopError,
    perform::PerformError,
};

/// Options of the roles that run.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/althing/node.yaml")]
    config: PathBuf,
    /// The genesis document (JSON) of a chain that runs already, for a node that joins it: an observer, or a validator
    /// that governance votes in later (`althing-node tx governance add`). The validators of a new chain get theirs in the
    /// ceremony.
    #[arg(long)]
    genesis: Option<PathBuf>,
    /// Stop when standard input ends, so that this process never outlives the one that started it.
    #[arg(long)]
    stop_with_stdin: bool,
}

/// Runs a voter until it is told to stop.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    run_as(arguments, NodeRole::Validator).await
}

/// Runs a node whose configuration must name `role`.
pub async fn run_as(arguments: Arguments, role: NodeRole) -> Result<(), CommandError> {
    let Arguments { config: path, genesis, stop_with_stdin } = arguments;
    let config = NodeConfig::load(&path)
        .map_err(|error| CommandError::configuration(format!("failed to load {}", path.display()), error))?;
    let logging = logging::start(config.log_level)?;
    tokio::spawn(logging.follow(path.clone(), |path| Ok(NodeConfig::load(path)?.log_level)));
    if config.role != role {
        let problem = format!("{} is the configuration of a node of role {:?}", path.display(), config.role);
        return Err(CommandError::Configuration { step: problem, source: None });
    }
    let genesis = genesis.map(|path| read_genesis(&path)).transpose()?;
    let stop = CancellationToken::new();
    tokio::spawn(wait_for_stop(stop.clone(), stop_with_stdin));
    launch::run(config, genesis, stop).await.map_err(into_command_error)
}

fn read_genesis(path: &Path) -> Result<Genesis, CommandError> {
    let step = format!("failed to use the genesis {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| CommandError::configuration(step.clone(), error))?;
    genesis::from_json(&text).map_err(|error| CommandError::configuration(step, error))
}

/// SIGTERM and SIGINT ask for a clean stop: the session keys are released, so that the next process needs no proof.
pub(super) async fn wait_for_stop(stop: CancellationToken, stop_with_stdin: bool) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("failed to listen for signals: only SIGKILL ends this process");
        return;
    };
    let why = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        () = stdin_end(), if stop_with_stdin => "the end of standard input",
    };
    tracing::info!(why, "stopping");
    stop.cancel();
}

async fn stdin_end() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 64];
    // Whatever is written there means nothing; an error is an end.
    while matches!(stdin.read(&mut buffer).await, Ok(count) if count > 0) {}
}

fn into_command_error(error: LaunchError) -> CommandError {
    let step = "the node ended";
    match error {
        LaunchError::Identity(_)
        | LaunchError::Tls { .. }
        | LaunchError::OtherCertificate { .. }
        | LaunchError::Checkpoint(_)
        | LaunchError::Genesis(_) => CommandError::configuration(step, error),
        LaunchError::Lock(_) | LaunchError::Storage(_) | LaunchError::Sessions(_) | LaunchError::Startup(_) => {
            CommandError::volume(step, error)
        }
        LaunchError::MainLoop(
            MainLoopError::Startup(_)
            | MainLoopError::Sessions(_)
            | MainLoopError::Volume(_)
            | MainLoopError::Perform(PerformError::Storage(_) | PerformError::Sessions(_)),
        ) => CommandError::volume(step, error),
        LaunchError::Owner(_)
        | LaunchError::Thread(_)
        | LaunchError::Listen { .. }
        | LaunchError::Metrics(_)
        | LaunchError::MainLoop(_)
        | LaunchError::Serve(_)
        | LaunchError::Http(_)
        | LaunchError::Panic(_) => CommandError::internal(step, error),
    }
}
