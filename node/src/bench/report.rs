//! The report of a measurement: conditions, trials, and what makes them incomparable.

use serde::Serialize;

use super::{loss::Loss, trial::Trial};
use crate::commands::{COMMIT, VERSION};

/// Everything that is written to the file.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of the program.
    pub version: &'static str,
    /// The commit of its sources.
    pub commit: &'static str,
    /// How it was built.
    pub build: Build,
    /// What it ran on.
    pub machine: Machine,
    /// How the nodes were run.
    pub conditions: Conditions,
    /// The highest rate that was sustained.
    pub max_sustained: Option<Trial>,
    /// At 10,000 transactions a second.
    pub at_10000: Option<Trial>,
    /// With one of the nodes killed at 10,000 transactions a second.
    pub at_kill: Option<Loss>,
    /// All other trials, in order.
    pub trials: Vec<Trial>,
    /// Conditions of a fair comparison that do not hold; none is as it should be.
    pub not_comparable: Vec<String>,
}

/// How the program was built.
#[derive(Clone, Debug, Serialize)]
pub struct Build {
    /// The cargo profile: `release` or `debug`, or what inherits from them.
    pub profile: &'static str,
    /// Its optimisation level.
    pub opt_level: &'static str,
    /// Flags of the compiler.
    pub rustflags: String,
}

/// What it ran on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The model of the processor.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
}

/// How the nodes were run.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// Nodes that were measured.
    pub nodes: usize,
    /// Accounts that took turns.
    pub accounts: usize,
    /// Every node verifies every signature; there is no way to switch it off.
    pub verify_signatures: bool,
    /// Clients and peers speak mTLS; there is no way to switch it off.
    pub mtls: bool,
    /// Logs and state are durable before anything that relies on them; there is no way to switch it off.
    pub fsync: bool,
}

impl Build {
    /// Of this program.
    pub fn current() -> Self {
        Self {
            profile: env!("ALTHING_PROFILE"),
            opt_level: env!("ALTHING_OPT_LEVEL"),
            rustflags: env!("ALTHING_RUSTFLAGS").replace('\u{1f}', " "),
        }
    }
}

impl Machine {
    /// The machine that this runs on.
    pub fn current() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
        Self {
            processor: model.unwrap_or("unknown").to_owned(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Report {
    /// A report without trials.
    pub fn new(nodes: usize, accounts: usize) -> Self {
        Self {
            version: VERSION,
            commit: COMMIT,
            build: Build::current(),
            machine: Machine::current(),
            conditions: Conditions { nodes, accounts, verify_signatures: true, mtls: true, fsync: true },
            max_sustained: None,
            at_10000: None,
            at_kill: None,
            trials: Vec::new(),
            not_comparable: Vec::new(),
        }
    }

    /// Says what does not hold, once all trials are there.
    #[must_use]
    pub fn judged(mut self) -> Self {
        let mut reasons = Vec::new();
        if self.build.profile != "release" {
            reasons.push(format!("the build profile is {}, not release", self.build.profile));
        }
        for (name, trial) in [("max_sustained", &self.max_sustained), ("at_10000", &self.at_10000)] {
            let Some(trial) = trial else { continue };
            if !trial.sustained {
                reasons.push(format!("{name}: the rate was not sustained"));
            }
            reasons.extend(trial.not_comparable.iter().map(|reason| format!("{name}: {reason}")));
        }
        if let Some(loss) = &self.at_kill {
            if loss.acknowledged_lost > 0 {
                reasons.push(format!("at_kill: {} acknowledged transactions are lost", loss.acknowledged_lost));
            }
            if !loss.equal {
                reasons.push("at_kill: the killed node does not show all blocks of the others".to_owned());
            }
        }
        self.not_comparable = reasons;
        self
    }
}
