//! The report of a measurement: conditions, trials, and what makes them incomparable.

use serde::{Serialize, Serializer};

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
    /// Every node verifies every signature; in this program there is no way to switch it off.
    pub verify_signatures: Condition,
    /// Clients and peers speak mTLS; in this program there is no way to switch it off.
    pub mtls: Condition,
    /// Logs and state are durable before anything that relies on them; in this program there is no way to switch it off.
    pub fsync: Condition,
}

/// Whether a condition holds: `true` in the report, or `"unknown"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The nodes run this very program.
    Holds,
    /// The nodes run elsewhere: what they say of themselves proves nothing.
    Unknown,
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Holds => serializer.serialize_bool(true),
            Self::Unknown => serializer.serialize_str("unknown"),
        }
    }
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
    /// A report without trials on nodes of which this is known.
    pub fn new(nodes: usize, accounts: usize, known: Condition) -> Self {
        Self {
            version: VERSION,
            commit: COMMIT,
            build: Build::current(),
            machine: Machine::current(),
            conditions: Conditions { nodes, accounts, verify_signatures: known, mtls: known, fsync: known },
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
        if self.conditions.verify_signatures == Condition::Unknown {
            reasons.push("whether the nodes verify signatures and write durably is unknown".to_owned());
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
            if loss.refused > 0 {
                reasons.push(format!("at_kill: {} transactions were refused", loss.refused));
            }
            if loss.blocks_with_failures > 0 {
                let count = loss.blocks_with_failures;
                reasons.push(format!("at_kill: the receipts of {count} blocks do not follow from their transactions"));
            }
            if !loss.equal {
                reasons.push("at_kill: the killed node does not show all blocks of the others".to_owned());
            }
        }
        self.not_comparable = reasons;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::{Condition, Report};
    use crate::bench::loss::Loss;

    fn judged(known: Condition, change: impl FnOnce(&mut Loss)) -> Vec<String> {
        let mut loss = Loss { equal: true, ..Loss::default() };
        change(&mut loss);
        let mut report = Report::new(4, 4, known);
        report.build.profile = "release";
        report.at_kill = Some(loss);
        report.judged().not_comparable
    }

    #[test]
    fn what_goes_wrong_after_a_kill_is_said_and_repetitions_are_not_wrong() {
        let of_kill = |change: fn(&mut Loss)| judged(Condition::Holds, change);
        assert!(of_kill(|loss| (loss.repeated, loss.blocks_with_repeats) = (7, 1)).is_empty());
        type Change = fn(&mut Loss);
        let cases: [(Change, &str); 4] = [
            (|loss| loss.acknowledged_lost = 1, "at_kill: 1 acknowledged transactions are lost"),
            (|loss| loss.refused = 2, "at_kill: 2 transactions were refused"),
            (
                |loss| loss.blocks_with_failures = 3,
                "at_kill: the receipts of 3 blocks do not follow from their transactions",
            ),
            (|loss| loss.equal = false, "at_kill: the killed node does not show all blocks of the others"),
        ];
        for (change, reason) in cases {
            assert_eq!(of_kill(change), [reason]);
        }
    }

    #[test]
    fn of_nodes_that_run_elsewhere_the_conditions_are_unknown() {
        let reasons = judged(Condition::Unknown, |_| {});
        assert_eq!(reasons, ["whether the nodes verify signatures and write durably is unknown"]);
        let shown = |known| serde_json::to_value(Report::new(4, 4, known)).expect("it is JSON");
        for name in ["verify_signatures", "mtls", "fsync"] {
            let path = format!("/conditions/{name}");
            assert_eq!(shown(Condition::Unknown).pointer(&path), Some(&"unknown".into()));
            assert_eq!(shown(Condition::Holds).pointer(&path), Some(&true.into()));
        }
    }
}
