//! JSON logs on standard error, filtered by the configured level or by `RUST_LOG`.

use tracing_subscriber::EnvFilter;

use super::CommandError;

/// The protocol library tells every vote and every step at level `info`.
const QUIET: &str = ",arc_malachitebft_core_consensus=warn";

/// Starts logging at `level` (`error`, `warn`, `info`, `debug`, `trace`, or a filter like `info,althing_node=debug`).
///
/// `RUST_LOG` wins over `level`, so that a running installation can be made talkative without a new configuration.
pub fn start(level: &str) -> Result<(), CommandError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text),
        _ => EnvFilter::try_new(format!("{level}{QUIET}")),
    }
    .map_err(|error| CommandError::configuration("failed to read the log level", error))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| CommandError::internal("failed to start logging", error))
}
