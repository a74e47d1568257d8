//! `althing-node gateway`: runs a gateway.

use std::path::PathBuf;

use clap::Args;
use node_api::gateway::GatewayConfig;
use tokio_util::sync::CancellationToken;

use super::{CommandError, logging, validator::wait_for_stop};
use crate::gateway::{
    auth::AuthError,
    launch::{self, LaunchError},
    state::GatewayError,
};

/// Options of the gateway.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, default_value = "/etc/althing/node.yaml")]
    config: PathBuf,
    /// Stop when standard input ends, so that this process never outlives the one that started it.
    #[arg(long)]
    stop_with_stdin: bool,
}

/// Runs a gateway until it is told to stop.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let Arguments { config: path, stop_with_stdin } = arguments;
    let config = GatewayConfig::load(&path)
        .map_err(|error| CommandError::configuration(format!("failed to load {}", path.display()), error))?;
    let logging = logging::start(config.log_level)?;
    tokio::spawn(logging.follow(path.clone(), |path| Ok(GatewayConfig::load(path)?.log_level)));
    let stop = CancellationToken::new();
    tokio::spawn(wait_for_stop(stop.clone(), stop_with_stdin));
    launch::run(config, stop).await.map_err(into_command_error)
}

fn into_command_error(error: LaunchError) -> CommandError {
    let step = "the gateway ended";
    match error {
        LaunchError::Tls { .. }
        | LaunchError::OtherCertificate { .. }
        | LaunchError::Gateway(GatewayError::Auth(AuthError::ApiKeys(_) | AuthError::Issuer(_))) => {
            CommandError::configuration(step, error)
        }
        LaunchError::Gateway(GatewayError::Metrics(_) | GatewayError::Json(_))
        | LaunchError::Reflection(_)
        | LaunchError::Listen { .. }
        | LaunchError::Http(_) => CommandError::internal(step, error),
    }
}
