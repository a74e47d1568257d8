//! The errors of the cluster tool; each says what failed and, where one knows, what to do.

use std::path::Path;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the operating system failed.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was tried, with the path.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that was started failed.
    #[error("`{command}` failed ({status}){}", detail(.output))]
    Command {
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// What it printed, its end only.
        output: String,
    },
    /// Something did not become true in time.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// The machine cannot run the cluster as it is.
    #[error("{problem}; {advice}")]
    Preflight {
        /// What is missing.
        problem: String,
        /// What to do about it.
        advice: String,
    },
    /// The command makes no sense in this state.
    #[error("{0}")]
    Refused(String),
    /// A key or certificate could not be made.
    #[error("failed to make {name}: {source}")]
    Certificate {
        /// Which one.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// A document could not be written or understood.
    #[error("failed to {action}: {source}")]
    Json {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: serde_json::Error,
    },
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was being done when a call of the system failed.
pub trait Doing<T> {
    /// Adds the action (`read`, `create`, ...) and the path it was about.
    ///
    /// # Errors
    /// The same error, with its context.
    fn doing(self, action: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, action: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { action: format!("{action} {}", path.as_ref().display()), source })
    }
}

fn detail(output: &str) -> String {
    let output = output.trim_end();
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}
