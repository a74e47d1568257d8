//! Starts, kills and stops the node processes of a development network.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::process::{Child, ChildStdin, Command};

/// A node that does not stop in this time after it was asked to is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// One node process; it never outlives the process that started it.
///
/// The child watches its standard input and stops when that ends, so it also stops when its parent is killed.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
}

impl NodeProcess {
    /// Starts `binary` with these arguments; its log is appended to `log`.
    pub fn start(binary: &Path, arguments: &[OsString], log: &Path) -> io::Result<Self> {
        let sink = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new(binary)
            .args(arguments)
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(sink.try_clone()?))
            .stderr(Stdio::from(sink))
            .kill_on_drop(true)
            .spawn()?;
        let lifeline = child.stdin.take();
        Ok(Self { child, lifeline, log: log.to_owned() })
    }

    /// The process id while the process runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where the process logs to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends the process as a power cut would (SIGKILL) and waits until it is gone.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks the process to stop, waits for it, and kills it when it takes too long.
    pub async fn stop(mut self) -> io::Result<ExitStatus> {
        drop(self.lifeline.take());
        match tokio::time::timeout(STOP_TIME_MAX, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await
            }
        }
    }
}
