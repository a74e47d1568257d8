//! What the operator is told at start: flags and environment variables.

use std::time::Duration;

use clap::Parser;

use crate::faults::Plan;

/// Version and source commit, as `--version` prints them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ALTHING_BUILT_COMMIT"), ")");

/// Runs validator networks on Kubernetes.
#[derive(Clone, Debug, Parser)]
#[command(name = "althing-operator", version = VERSION)]
pub struct Config {
    /// Namespaces to work in, separated by commas; empty means the whole cluster.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',', default_value = "")]
    pub watch_namespaces: Vec<String>,
    /// What is logged: a level, or directives like `info,kube=warn`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Namespace of this pod, where the leader lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "althing-system")]
    pub namespace: String,
    /// Name of this pod: the holder of the leader lease.
    #[arg(long, env = "POD_NAME", default_value = "althing-operator")]
    pub pod_name: String,
    /// Name of the leader lease.
    #[arg(long, env = "LEASE_NAME", default_value = "althing-operator")]
    pub lease_name: String,
    /// How long the leader lease holds after its last change, in seconds: for tests on machines that hang.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 10, hide = true, value_parser = clap::value_parser!(u64).range(10..=600))]
    pub lease_seconds: u64,
    /// Image of a node whose spec names none.
    #[arg(long, env = "NODE_IMAGE", default_value = concat!("docker.io/althing/node:", env!("CARGO_PKG_VERSION")))]
    pub node_image: String,
    /// Address of `/livez`, `/readyz` and `/metrics`.
    #[arg(long, env = "HTTP_ADDRESS", default_value = "0.0.0.0:8080")]
    pub http_address: std::net::SocketAddr,
    /// How many objects of one kind are reconciled at the same time.
    #[arg(long, env = "CONCURRENCY", default_value_t = 32)]
    pub concurrency: u16,
    /// Pauses between two looks at an object, in percent of what they are: for tests.
    #[arg(long, env = "PAUSES_PERCENT", default_value_t = 100, hide = true, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pauses_percent: u32,
    /// What shall go wrong between this process and the API server, as JSON: for tests.
    #[arg(long, env = "FAULTS", hide = true)]
    pub faults: Option<Plan>,
}

impl Config {
    /// A pause as this process makes it.
    pub fn pause(&self, pause: Duration) -> Duration {
        pause.saturating_mul(self.pauses_percent) / 100
    }

    /// The scopes to watch: one for each namespace, or one for the whole cluster (`None`).
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut named: Vec<String> =
            self.watch_namespaces.iter().map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect();
        named.sort();
        named.dedup();
        if named.is_empty() { vec![None] } else { named.into_iter().map(Some).collect() }
    }
}

/// Longest time that one reconcile may take.
pub const RECONCILE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before the next look at an object that is on its way while only watches can bring news of it.
pub const AWAITED: Duration = Duration::from_secs(5);
/// Pause before the look that says what became of children that were just written.
pub const APPLIED: Duration = Duration::from_millis(300);
/// Pause before the next look at an object that is on its way and whose processes have to be asked.
pub const UNSETTLED: Duration = Duration::from_secs(1);
/// Pause before the next look at an object where nothing is expected to change.
pub const SETTLED: Duration = Duration::from_secs(10);
/// Longest pause after repeated failures of one object.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest time that one call to a node may take.
pub const NODE_CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How old a report of a node may be before it counts for nothing.
pub const REPORT_AGE_MAX: Duration = Duration::from_secs(30);
/// How often height and block age in a status are refreshed while nothing else changes.
pub const STATUS_REFRESH: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(flags: &[&str]) -> Vec<Option<String>> {
        let arguments = std::iter::once("althing-operator").chain(flags.iter().copied());
        Config::try_parse_from(arguments).expect("parses").scopes()
    }

    #[test]
    fn no_namespace_means_the_whole_cluster() {
        assert_eq!(scopes(&["--watch-namespaces="]), [None]);
    }

    #[test]
    fn each_namespace_is_watched_once() {
        assert_eq!(scopes(&["--watch-namespaces=b, a,b"]), [Some("a".to_string()), Some("b".to_string())]);
    }
}
