//! `althing-node bench`: measures a network under an open-loop load of signed transactions.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, output::print_text};
use crate::bench::{
    BenchError,
    loss::LossRequest,
    network::{Source, VALIDATORS},
    report::{Condition, Report},
    search::Search,
    trial::{Setting, TrialRequest},
};

/// The rate at which latencies are reported.
const REFERENCE_RATE: u32 = 10_000;

/// Options of a measurement.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Measure these nodes (host:port, separated by commas) instead of four local processes. The transfers then come from
    /// accounts that need not exist, and move nothing.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// Directory with the certificate of a client of these nodes.
    #[arg(long, env = "ALTHING_TLS", default_value = "/etc/althing/tls", value_name = "DIRECTORY")]
    tls: PathBuf,
    /// Accounts that take turns.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(4..=500_000))]
    accounts: u32,
    /// Seconds of load before the measured time.
    #[arg(long, default_value_t = 10)]
    warm_up: u32,
    /// Seconds of measured time.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    run: u32,
    /// Measure at these rates only (transactions a second, separated by commas), without a search.
    #[arg(long, value_delimiter = ',', value_name = "RATE")]
    rates: Vec<u32>,
    /// Only the trial in which one of the nodes is killed (SIGKILL) after the warm-up, at this rate, and comes back. It is
    /// part of every measurement without --rates and --endpoints.
    #[arg(long, num_args = 0..=1, default_missing_value = "10000", conflicts_with_all = ["endpoints", "rates"])]
    #[arg(value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    kill: Option<u32>,
    /// Seconds that the killed node stays away.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    away: u32,
    /// The search begins with this rate as its lower end.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    search_low: u32,
    /// The highest rate that is tried.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    search_high: u32,
    /// Short trials of the search, at most.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=20))]
    search_trials: u32,
    /// With --endpoints: chooses the accounts. A seed serves once on a chain, for as many trials as were made.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// With --endpoints: where signed transactions are kept.
    #[arg(long, default_value = "target/bench/corpus")]
    corpus: PathBuf,
    /// Where the local processes keep their data. On the disk that is to be measured; emptied before every trial.
    #[arg(long, default_value = "target/bench/network")]
    data: PathBuf,
    /// The report.
    #[arg(long, default_value = "target/bench/node.json")]
    out: PathBuf,
}

/// Measures, writes the report and prints it.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    let failed = |error: BenchError| CommandError::internal("the measurement failed", error);
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map_err(|error| CommandError::internal(format!("failed to resolve {}", path.display()), error))
    };
    let nodes = if arguments.endpoints.is_empty() { VALIDATORS.into() } else { arguments.endpoints.len() };
    let source = if arguments.endpoints.is_empty() {
        Source::Local { directory: absolute(&arguments.data)? }
    } else {
        Source::Endpoints { endpoints: arguments.endpoints.clone(), tls: arguments.tls.clone(), seed: arguments.seed }
    };
    let accounts = arguments.accounts as usize / nodes * nodes;
    let setting = Setting::new(source, accounts, absolute(&arguments.corpus)?);
    let known = if arguments.endpoints.is_empty() { Condition::Holds } else { Condition::Unknown };
    let mut report = Report::new(nodes, accounts, known);
    let full = |rate| TrialRequest { rate, warm_up_s: arguments.warm_up, run_s: arguments.run };
    for rate in &arguments.rates {
        let trial = full(*rate).run(&setting).await.map_err(failed)?;
        if *rate == REFERENCE_RATE {
            report.at_10000 = Some(trial);
        } else {
            report.trials.push(trial);
        }
    }
    if arguments.endpoints.is_empty() && arguments.rates.is_empty() {
        let request = LossRequest { load: full(arguments.kill.unwrap_or(REFERENCE_RATE)), away_s: arguments.away };
        report.at_kill = Some(request.run(&setting).await.map_err(failed)?);
    }
    if arguments.rates.is_empty() && arguments.kill.is_none() {
        report.at_10000 = Some(full(REFERENCE_RATE).run(&setting).await.map_err(failed)?);
        let search = Search {
            low: arguments.search_low,
            high: arguments.search_high.max(arguments.search_low),
            trials_max: arguments.search_trials,
            short_warm_up_s: arguments.warm_up.div_ceil(2),
            short_run_s: arguments.run.div_ceil(6),
            warm_up_s: arguments.warm_up,
            run_s: arguments.run,
        };
        report.max_sustained = Some(search.run(&setting, &mut report.trials).await.map_err(failed)?);
    }
    let report = report.judged();
    let text = serde_json::to_string_pretty(&report)
        .map_err(|error| CommandError::internal("failed to write the report", error))?;
    let out = absolute(&arguments.out)?;
    let written = out.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&out, &text));
    written.map_err(|error| CommandError::internal(format!("failed to write {}", out.display()), error))?;
    print_text(&format!("{text}\n"))
}
