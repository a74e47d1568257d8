//! JSON logs on standard error, filtered by the configured level or by `RUST_LOG`.

use std::{path::PathBuf, time::Duration};

use node_api::config::{ConfigError, LogLevel};
use tokio::time::{MissedTickBehavior, interval};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use super::CommandError;

/// The protocol library tells every vote and every step at level `info`.
const QUIET: &str = ",arc_malachitebft_core_consensus=warn";
/// How often the configuration is read again for its level.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Changes the level of a process that runs.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The level that counts; none when `RUST_LOG` wins.
    level: Option<LogLevel>,
}

/// Starts logging at `level`. `RUST_LOG` wins over it, also over later changes.
pub fn start(level: LogLevel) -> Result<Logging, CommandError> {
    let of_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = match &of_environment {
        Some(text) => EnvFilter::try_new(text),
        None => filter(level),
    }
    .map_err(|error| CommandError::configuration("failed to read the log level", error))?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| CommandError::internal("failed to start logging", error))?;
    Ok(Logging { filter: handle, level: of_environment.is_none().then_some(level) })
}

impl Logging {
    /// Follows the level in a configuration file while the process runs; everything else in it counts from the next start
    /// on. A file that cannot be read changes nothing.
    pub async fn follow(mut self, path: PathBuf, read: impl Fn(&std::path::Path) -> Result<LogLevel, ConfigError>) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.level.is_some() {
            looks.tick().await;
            match read(&path) {
                Ok(level) => self.change(level),
                Err(error) => tracing::debug!(%error, "the configuration cannot be read again"),
            }
        }
    }

    fn change(&mut self, level: LogLevel) {
        if self.level == Some(level) {
            return;
        }
        let Ok(filter) = filter(level) else { return };
        if self.filter.reload(filter).is_ok() {
            // At a level that every filter but `error` lets through.
            tracing::warn!(level = level.as_str(), "the log level has changed");
            self.level = Some(level);
        }
    }
}

fn filter(level: LogLevel) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(format!("{}{QUIET}", level.as_str()))
}
