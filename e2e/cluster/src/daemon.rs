//! Daemons inside nodes: started so that they outlive this tool, found again by it, and started anew on request.

use serde::{Deserialize, Serialize};

use crate::cgroups::{self, Part};
use crate::checkout::{Checkout, Node};
use crate::command::run;
use crate::error::{Doing, Error, Result};
use crate::interrupt::{Wait, wait_for};
use crate::sandbox;

/// A program that runs in a node until the node ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Daemon {
    /// Its name, unique in its node.
    pub name: String,
    /// The program and its arguments, with paths as the node sees them.
    pub command: Vec<String>,
    /// Environment besides `PATH` and `HOME`, as `NAME=value`.
    pub environment: Vec<String>,
}

/// Writes its own number, joins the node's cgroups and becomes the daemon.
///
/// The number is written before the output goes into the log: the caller waits until then.
const START: &str = r#"echo $$ >"$PID"
exec </dev/null >>"$LOG" 2>&1
cd /
for file in $CGROUPS; do echo 0 >"$file"; done
exec "$@""#;

impl Daemon {
    /// A daemon whose program is one of ours.
    pub fn new(name: &str, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut command = vec![format!("/run/althing/bin/{name}")];
        command.extend(arguments.into_iter().map(Into::into));
        Self { name: name.into(), command, environment: Vec::new() }
    }

    /// Starts it in a node, unless it runs there.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn start(&self, checkout: &Checkout, node: Node) -> Result<()> {
        if is_alive(checkout, node, &self.name) {
            return Ok(());
        }
        let record = checkout.node(node).join("daemons").join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::Json { action: format!("record {}", self.name), source })?;
        std::fs::write(&record, text).doing("write", &record)?;

        let joins = cgroups::make(checkout, Part::Node(node))?;
        let joins: Vec<String> = joins.iter().map(|file| file.display().to_string()).collect();
        let mut start = sandbox::inside(checkout, node)?;
        start.args(&self.environment);
        start.arg(format!("CGROUPS={}", joins.join(" ")));
        start.arg(format!("PID=/run/althing/node/pids/{}", self.name));
        start.arg(format!("LOG=/run/althing/log/{}-{node}.log", self.name));
        start.args(["setsid", "--fork", "sh", "-c", START, &self.name]).args(&self.command);
        run(&mut start).map(drop)
    }
}

/// Names of the daemons that were started in a node, with whether each runs now.
pub fn list(checkout: &Checkout, node: Node) -> Vec<(String, bool)> {
    let folder = checkout.node(node).join("daemons");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(String::from))
        .collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), is_alive(checkout, node, &name))).collect()
}

/// Kills a daemon (`kill -9`) and starts it again with the same command line.
///
/// # Errors
/// When the node has no such daemon.
pub fn restart(checkout: &Checkout, node: Node, name: &str) -> Result<()> {
    let record = checkout.node(node).join("daemons").join(format!("{name}.json"));
    let Ok(text) = std::fs::read_to_string(&record) else {
        let known: Vec<String> = list(checkout, node).into_iter().map(|(name, _)| name).collect();
        return Err(Error::Refused(format!("{node} has no daemon {name}; it has: {}", known.join(" "))));
    };
    let daemon: Daemon = serde_json::from_str(&text)
        .map_err(|source| Error::Json { action: format!("read {}", record.display()), source })?;
    if let Some(id) = process(checkout, node, name) {
        run(sandbox::inside(checkout, node)?.args(["kill", "-9", &id.to_string()]))?;
        let what = format!("the end of {name}");
        let wait = Wait { what: &what, seconds_max: 10, every_ms: 10, hint: "it may be stuck in the kernel" };
        wait_for(wait, || Ok((!exists(checkout, node, id)).then_some(())))?;
    }
    daemon.start(checkout, node)
}

/// Whether the process table of the node still has this number. A killed process has no command line any more while
/// its sockets are still open, so only its absence says that its ports are free.
fn exists(checkout: &Checkout, node: Node, id: i32) -> bool {
    sandbox::first_process(checkout, node)
        .is_some_and(|first| std::path::Path::new(&format!("/proc/{}/root/proc/{id}", first.as_raw_nonzero())).exists())
}

fn is_alive(checkout: &Checkout, node: Node, name: &str) -> bool {
    process(checkout, node, name).is_some()
}

/// The daemon's number in the node, when that process is the daemon. Looks through the first process's own view of
/// the file system, where `/proc` is the node's.
fn process(checkout: &Checkout, node: Node, name: &str) -> Option<i32> {
    let first = sandbox::first_process(checkout, node)?.as_raw_nonzero();
    let id: i32 = std::fs::read_to_string(checkout.node(node).join("pids").join(name)).ok()?.trim().parse().ok()?;
    let line = std::fs::read(format!("/proc/{first}/root/proc/{id}/cmdline")).ok()?;
    let program = line.split(|byte| *byte == 0).next()?;
    let own = String::from_utf8_lossy(program);
    // Between fork and exec it is still the shell that will become the daemon.
    (own.ends_with(&format!("/{name}")) || own == "sh").then_some(id)
}
