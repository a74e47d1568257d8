//! One operator process of a trial.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use althing_operator::faults::Plan;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::environment::Environment;

/// Name of the lease in the trial's namespace.
pub const LEASE: &str = "trial-operator";

/// How long the lease of a trial holds, in seconds: a trial is not about failover, and a machine that hangs for less must
/// not end its operator.
const LEASE_SECONDS: u64 = 120;

/// How a process is started.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The only namespace in which it works.
    pub namespace: &'a str,
    /// What goes wrong.
    pub plan: Option<&'a Plan>,
    /// Where it writes what it does; it is appended to.
    pub log: &'a Path,
    /// Its pauses in percent.
    pub pauses_percent: u32,
    /// Name of its lease.
    pub lease_name: &'a str,
    /// How long its lease holds, in seconds; as in production when absent.
    pub lease_seconds: Option<u64>,
    /// Where it shows its metrics.
    pub http_address: &'a str,
    /// The image of nodes whose spec names none; its own default when absent.
    pub node_image: Option<&'a str>,
    /// What it logs.
    pub log_level: &'a str,
    /// As whom it comes to the API server; the administrator when absent.
    pub kubeconfig: Option<&'a Path>,
}

impl<'a> Start<'a> {
    /// A process of a trial: short pauses, everything logged.
    pub fn trial(namespace: &'a str, plan: &'a Plan, log: &'a Path, pauses_percent: u32) -> Self {
        Self {
            namespace,
            plan: Some(plan),
            log,
            pauses_percent,
            lease_name: LEASE,
            lease_seconds: Some(LEASE_SECONDS),
            http_address: "127.0.0.1:0",
            node_image: None,
            log_level: "info,althing_operator=debug",
            kubeconfig: None,
        }
    }
}

/// A running process; it is killed when this is dropped.
pub struct Operator {
    child: Child,
    shown: PathBuf,
}

impl Operator {
    /// Starts it.
    ///
    /// # Errors
    /// When the program is missing.
    pub async fn start(environment: &Environment, start: &Start<'_>) -> Result<Self> {
        let Start {
            namespace,
            plan,
            log,
            pauses_percent,
            lease_name,
            lease_seconds,
            http_address,
            node_image,
            log_level,
            kubeconfig,
        } = *start;
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let program = environment.program("althing-operator");
        let mut command = Command::new(&program);
        command
            .args(["--watch-namespaces", namespace, "--namespace", namespace, "--lease-name", lease_name])
            .args(["--pod-name", "trial", "--http-address", http_address])
            .args(["--log-level", log_level])
            .args(["--pauses-percent", &pauses_percent.to_string()])
            .env("KUBECONFIG", kubeconfig.unwrap_or(&environment.kubeconfig))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true);
        if let Some(seconds) = lease_seconds {
            command.args(["--lease-seconds", &seconds.to_string()]);
        }
        if let Some(image) = node_image {
            command.args(["--node-image", image]);
        }
        if let Some(plan) = plan {
            command.args(["--faults", &serde_json::to_string(plan)?]);
        }
        let child = command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
        Ok(Self { child, shown: log.to_path_buf() })
    }

    /// Waits until it ends by itself; its exit code.
    ///
    /// # Errors
    /// When the system does not say.
    pub async fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.child.wait().await?.code())
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the operator had ended with {status}, see {}", self.shown.display());
        }
        self.child.start_kill()?;
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        ended.with_context(|| format!("the operator does not end, see {}", self.shown.display()))??;
        Ok(())
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

/// The writes that the fault layer counted, in order.
pub fn writes(log: &str) -> Vec<String> {
    let what = |entry: &Value| entry.get("what").and_then(Value::as_str).unwrap_or_default().to_string();
    counted(log, "write").values().map(what).collect()
}

/// How many events of watches it counted.
pub fn events(log: &str) -> u64 {
    counted(log, "event").len() as u64
}

/// By number, each as the first process has counted it; what was counted at the same time is not logged in order.
fn counted(log: &str, message: &str) -> BTreeMap<u64, Value> {
    let mut found = BTreeMap::new();
    for line in log.lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
        let is_one = entry.get("message").and_then(Value::as_str) == Some(message);
        if let Some(number) = entry.get("number").and_then(Value::as_u64).filter(|_| is_one) {
            found.entry(number).or_insert(entry);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_at_the_same_time_is_put_in_order() {
        let line = |message: &str, number: u64, what: &str| {
            format!(r#"{{"message":"{message}","number":{number},"what":"{what}"}}"#)
        };
        let lines =
            [line("write", 2, "b"), line("event", 1, ""), line("write", 1, "a"), line("write", 1, "of the next")];
        let log = lines.join("\n");
        assert_eq!(writes(&log), ["a", "b"]);
        assert_eq!(events(&log), 1);
    }
}
