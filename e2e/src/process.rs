//! Runs programs with a deadline, kills what overstays, and keeps the output for the error message.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// What a finished program printed.
#[derive(Debug)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A program call with a deadline.
pub struct Call {
    command: Command,
    shown: String,
    deadline: Duration,
    input: Option<Vec<u8>>,
}

impl Call {
    /// A call of `program` with `arguments` that may take a minute.
    pub fn new(program: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let program = program.as_ref();
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
        let shown = format!("{} {}", program.display(), arguments.join(" "));
        Self { command, shown, deadline: Duration::from_secs(60), input: None }
    }

    /// Sets the deadline in seconds.
    pub fn within(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets the working directory.
    pub fn inside(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Gives the program this standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self.command.stdin(Stdio::piped());
        self
    }

    /// The call as a command, for a program that goes on until it is killed.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end, whatever the exit code.
    ///
    /// # Errors
    /// When it cannot start or does not end within the deadline.
    pub async fn output(mut self) -> Result<Output> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("failed to start {}", self.shown))?;
        if let (Some(input), Some(mut stdin)) = (self.input, child.stdin.take()) {
            stdin.write_all(&input).await.with_context(|| format!("failed to write to {}", self.shown))?;
        }
        let Ok(finished) = tokio::time::timeout(self.deadline, child.wait_with_output()).await else {
            bail!("{} did not end within {} s", self.shown, self.deadline.as_secs());
        };
        let finished = finished?;
        Ok(Output {
            code: finished.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&finished.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&finished.stderr).into_owned(),
        })
    }

    /// Runs it and returns its standard output; a non-zero exit code is an error that shows what it printed.
    ///
    /// # Errors
    /// When it cannot start, overstays or fails.
    pub async fn stdout(self) -> Result<String> {
        let shown = self.shown.clone();
        let output = self.output().await?;
        if output.code != 0 {
            bail!("{shown} failed with {}:\n{}{}", output.code, output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    /// Runs it with its output shown to the person who waits.
    ///
    /// # Errors
    /// When it cannot start, overstays or fails.
    pub async fn shown(mut self) -> Result<()> {
        let mut child = self.command.spawn().with_context(|| format!("failed to start {}", self.shown))?;
        let Ok(status) = tokio::time::timeout(self.deadline, child.wait()).await else {
            bail!("{} did not end within {} s", self.shown, self.deadline.as_secs());
        };
        let status = status?;
        if !status.success() {
            bail!("{} failed with {status}", self.shown);
        }
        Ok(())
    }
}
