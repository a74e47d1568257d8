//! One trial: one rate for some time, and what came of it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use node_core::{mempool::TRANSFER_VALIDITY_BLOCKS_MAX, types::Height};
use serde::Serialize;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    BenchError,
    corpus::{Corpus, CorpusRequest, Wallets},
    follow::Follower,
    judge::Finality,
    load::{self, Answered, Route, Schedule, Share},
    machine::{Reading, Spent},
    network::{Network, Source},
    percentiles::Percentiles,
};

/// Between the last preparation and the first transaction.
const LEAD: Duration = Duration::from_millis(500);
/// How long transactions may take to become final after the last one has left.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(30);
/// A transaction of the window that is final this long after it still counts for a sustained rate.
const GRACE: Duration = Duration::from_secs(2);
/// How often a line says how it goes.
const PROGRESS: Duration = Duration::from_secs(5);
/// Blocks after which a transaction of the corpus expires.
const VALID_BLOCKS: u64 = TRANSFER_VALIDITY_BLOCKS_MAX;

/// What every trial of a measurement has in common.
#[derive(Debug)]
pub struct Setting {
    source: Source,
    accounts: usize,
    /// Of a local network: the same in every trial, since the chain is a new one.
    wallets: Option<Arc<Wallets>>,
    corpora: PathBuf,
    trials: AtomicU64,
}

impl Setting {
    /// A network with so many accounts; corpora of chains that go on are kept in `corpora`.
    pub fn new(source: Source, accounts: usize, corpora: PathBuf) -> Self {
        let wallets = match &source {
            Source::Local { .. } => Some(Arc::new(Wallets::development(accounts))),
            Source::Endpoints { .. } => None,
        };
        Self { source, accounts, wallets, corpora, trials: AtomicU64::new(0) }
    }

    /// Where the nodes come from.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// Accounts whose nonces are 0.
    pub(super) fn wallets(&self) -> Arc<Wallets> {
        let trial = self.trials.fetch_add(1, Ordering::Relaxed);
        match (&self.wallets, &self.source) {
            (None, Source::Endpoints { seed, .. }) => {
                Arc::new(Wallets::from_seed(self.accounts, seed.wrapping_add(trial)))
            }
            (Some(wallets), _) => Arc::clone(wallets),
            (None, Source::Local { .. }) => Arc::new(Wallets::development(self.accounts)),
        }
    }

    /// A corpus for a chain that ends with its trial goes with it.
    fn corpora(&self) -> PathBuf {
        match &self.source {
            Source::Local { directory } => directory.join("corpus"),
            Source::Endpoints { .. } => self.corpora.clone(),
        }
    }
}

/// One trial to be made.
#[derive(Clone, Copy, Debug)]
pub struct TrialRequest {
    /// Transactions a second.
    pub rate: u32,
    /// Load before the measured time, seconds.
    pub warm_up_s: u32,
    /// Measured time, seconds.
    pub run_s: u32,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Transactions that were due a second.
    pub offered_tps: u32,
    /// Measured time.
    pub run_s: u32,
    /// Transactions that left, warm-up included.
    pub offered: usize,
    /// Those of them that became final, whenever.
    pub finalised: usize,
    /// Transactions that became final in that time, a second.
    pub finalised_tps: f64,
    /// Everything that was offered became final in time, nothing was refused, nothing failed.
    pub sustained: bool,
    /// Acknowledgement as durable of transactions that were due in that time.
    pub ack_p50_ms: Option<f64>,
    /// The same.
    pub ack_p95_ms: Option<f64>,
    /// The same.
    pub ack_p99_ms: Option<f64>,
    /// Finality of transactions that were due in that time.
    pub finality_p50_ms: Option<f64>,
    /// The same.
    pub finality_p95_ms: Option<f64>,
    /// The same.
    pub finality_p99_ms: Option<f64>,
    /// Processor time of all nodes for 1,000 final transactions.
    pub cpu_s_per_1000_tx: f64,
    /// Processor time of the generator for 1,000 final transactions.
    pub generator_cpu_s_per_1000_tx: f64,
    /// The largest resident size of a node.
    pub rss_max_mib: f64,
    /// Growth of the data of one node for each final transaction.
    pub bytes_per_tx_on_disk: f64,
    /// Cores that something else used.
    pub other_cpu_cores: f64,
    /// Final blocks a second.
    pub blocks_per_s: f64,
    /// The longest time without a block.
    pub longest_gap_ms: u64,
    /// Transactions that were due in the measured time and did not become final in time.
    pub late: usize,
    /// Transactions that were refused, warm-up included.
    pub refused: usize,
    /// Why the first of them was.
    pub refusal: Option<String>,
    /// Transactions that were in a block once more, and failed there.
    pub repeated: usize,
    /// Transactions that were in a block before their turn.
    pub deferred: usize,
    /// Blocks whose certified receipts do not follow from the order of their transactions.
    pub blocks_with_failures: usize,
    /// Bytes of one transaction.
    pub transaction_bytes: usize,
    /// Conditions of a fair comparison that do not hold.
    pub not_comparable: Vec<String>,
}

impl TrialRequest {
    fn transactions(&self) -> usize {
        self.rate as usize * (self.warm_up_s as usize + self.run_s as usize)
    }

    /// Makes the trial with a network of its own, or with the endpoints.
    pub async fn run(&self, setting: &Setting) -> Result<Trial, BenchError> {
        let wallets = setting.wallets();
        let network = Network::open(&setting.source, &wallets).await?;
        let measured = self.measure(setting, &network, wallets).await;
        network.close().await?;
        measured
    }

    async fn measure(&self, setting: &Setting, network: &Network, wallets: Arc<Wallets>) -> Result<Trial, BenchError> {
        let corpus = self.corpus(setting, network, &wallets)?;
        let running = Running::start(network, &corpus, wallets, self.rate, None);
        let schedule = running.schedule;
        let window = self.window(&schedule);
        tokio::time::sleep_until(window.0).await;
        let before = read(network)?;
        tokio::time::sleep_until(window.1).await;
        let after = read(network)?;
        let (finality, answered) = running.end(window.1 + DRAIN_MAX).await?;
        let rss_max_mib = network.watched.rss_max_mib().map_err(proc_error)?;
        let found = Found { window, schedule, finality, answered, spent: before.until(&after), rss_max_mib };
        Ok(self.trial(&found, &corpus, network))
    }

    /// The transactions of the trial.
    pub(super) fn corpus(
        &self,
        setting: &Setting,
        network: &Network,
        wallets: &Wallets,
    ) -> Result<Arc<Corpus>, BenchError> {
        let local = matches!(setting.source, Source::Local { .. });
        let request = CorpusRequest {
            incarnation: network.incarnation,
            accounts: wallets.count(),
            nodes: network.clients.len(),
            transactions: self.transactions(),
            valid_until: Height::new(VALID_BLOCKS),
            amount: u64::from(local),
        };
        Ok(Arc::new(Corpus::open(&setting.corpora(), request, wallets)?))
    }

    /// The measured time.
    pub(super) fn window(&self, schedule: &Schedule) -> (Instant, Instant) {
        let from = schedule.start + Duration::from_secs(self.warm_up_s.into());
        (from, from + Duration::from_secs(self.run_s.into()))
    }

    fn trial(&self, found: &Found, corpus: &Corpus, network: &Network) -> Trial {
        let Found { finality, spent, .. } = found;
        let seconds = f64::from(self.run_s.max(1));
        let finalised = finality.at.iter().flatten().filter(|at| found.in_window(**at)).count();
        let (mut latencies, late) = found.latencies();
        let latency = Percentiles::of(&mut latencies);
        let acknowledged = Percentiles::of(&mut found.acknowledgements());
        let refused = found.answered.iter().map(|answered| answered.refused).sum();
        let nodes = network.clients.len().max(1);
        let per_tx = |value: f64| value / float(finalised.max(1));
        let sustained = late == 0
            && refused == 0
            && finality.blocks_with_failures == 0
            && float(finalised) >= 0.99 * seconds * f64::from(self.rate);
        let mut trial = Trial {
            offered_tps: self.rate,
            run_s: self.run_s,
            offered: corpus.len(),
            finalised: finality.count,
            finalised_tps: rounded(float(finalised) / seconds, 10.0),
            sustained,
            ack_p50_ms: acknowledged.map(|acknowledged| acknowledged.p50_ms),
            ack_p95_ms: acknowledged.map(|acknowledged| acknowledged.p95_ms),
            ack_p99_ms: acknowledged.map(|acknowledged| acknowledged.p99_ms),
            finality_p50_ms: latency.map(|latency| latency.p50_ms),
            finality_p95_ms: latency.map(|latency| latency.p95_ms),
            finality_p99_ms: latency.map(|latency| latency.p99_ms),
            cpu_s_per_1000_tx: rounded(per_tx(spent.nodes_s) * 1_000.0, 10_000.0),
            generator_cpu_s_per_1000_tx: rounded(per_tx(spent.own_s) * 1_000.0, 10_000.0),
            rss_max_mib: rounded(found.rss_max_mib, 10.0),
            bytes_per_tx_on_disk: rounded(
                per_tx(float(usize::try_from(spent.disk_bytes).unwrap_or_default()) / float(nodes)),
                1.0,
            ),
            other_cpu_cores: rounded(spent.other_cores, 100.0),
            blocks_per_s: rounded(
                float(finality.blocks_checked) / float((self.warm_up_s + self.run_s).max(1) as usize),
                10.0,
            ),
            longest_gap_ms: milliseconds(finality.longest_gap(found.schedule.start)),
            late,
            refused,
            refusal: found.answered.iter().find_map(|answered| answered.refusal.clone()),
            repeated: finality.repeated,
            deferred: finality.deferred,
            blocks_with_failures: finality.blocks_with_failures,
            transaction_bytes: corpus.transaction_bytes(),
            not_comparable: Vec::new(),
        };
        trial.not_comparable = reasons(&trial, network);
        trial
    }
}

/// Load that is on its way, and the follower that judges what becomes of it.
pub(super) struct Running {
    /// When each transaction leaves.
    pub(super) schedule: Schedule,
    stop: watch::Sender<Option<Instant>>,
    following: JoinHandle<Result<Finality, BenchError>>,
    senders: JoinSet<Result<Answered, BenchError>>,
    reporter: JoinHandle<()>,
}

impl Running {
    /// Begins. The share of a node that may be absent goes to the next one while it is.
    pub(super) fn start(
        network: &Network,
        corpus: &Arc<Corpus>,
        wallets: Arc<Wallets>,
        rate: u32,
        absent: Option<usize>,
    ) -> Self {
        let follower = Follower {
            clients: network.clients.clone(),
            incarnation: network.incarnation,
            voters: network.voters.clone(),
            first: network.height.next(),
            corpus: Arc::clone(corpus),
            wallets,
            absent: absent.zip(network.genesis.clone()),
        };
        let (stop, stopped) = watch::channel(None);
        let (progress, count) = watch::channel(0);
        let following = tokio::spawn(follower.run(stopped, progress));
        let schedule = Schedule { start: Instant::now() + LEAD, rate };
        let nodes = network.clients.len();
        let mut senders = JoinSet::new();
        for (node, client) in network.clients.iter().enumerate() {
            let fallback = network.clients.get((node + 1) % nodes).filter(|_| absent == Some(node)).cloned();
            let route = Route { node: client.clone(), fallback };
            senders.spawn(load::send(route, Arc::clone(corpus), schedule, Share::new(node, nodes)));
        }
        let reporter = tokio::spawn(report_progress(rate, count));
        Self { schedule, stop, following, senders, reporter }
    }

    /// Waits for what is not final yet, at most until `deadline`.
    pub(super) async fn end(mut self, deadline: Instant) -> Result<(Finality, Vec<Answered>), BenchError> {
        self.stop.send_replace(Some(deadline));
        let mut answered = Vec::new();
        while let Some(ended) = self.senders.join_next().await {
            answered.push(ended.map_err(interrupted)??);
        }
        let finality = self.following.await.map_err(interrupted)??;
        self.reporter.abort();
        Ok((finality, answered))
    }
}

/// Why a trial may not stand beside others.
fn reasons(trial: &Trial, network: &Network) -> Vec<String> {
    let mut reasons = Vec::new();
    if trial.refused > 0 {
        reasons.push(format!("{} transactions were refused", trial.refused));
    }
    if trial.blocks_with_failures > 0 {
        reasons.push(format!(
            "the receipts of {} blocks do not follow from their transactions",
            trial.blocks_with_failures
        ));
    }
    if trial.repeated + trial.deferred > 0 {
        reasons.push(format!("{} transactions failed in a block", trial.repeated + trial.deferred));
    }
    if network.watched.nodes.is_empty() {
        reasons
            .push("the nodes run elsewhere: nothing is known of their build, processors, memory and disks".to_owned());
        reasons.push("the transfers move nothing".to_owned());
    } else if trial.other_cpu_cores > 0.1 {
        reasons.push(format!("something else used {} cores", trial.other_cpu_cores));
    }
    reasons
}

/// Everything that was observed.
struct Found {
    window: (Instant, Instant),
    schedule: Schedule,
    finality: Finality,
    answered: Vec<Answered>,
    spent: Spent,
    rss_max_mib: f64,
}

impl Found {
    fn in_window(&self, at: Instant) -> bool {
        self.window.0 <= at && at < self.window.1
    }

    fn due_in_window(&self, index: usize) -> bool {
        self.in_window(self.schedule.due(index))
    }

    /// Of what was due in the window: the latencies of what became final, and how many did not in time.
    fn latencies(&self) -> (Vec<u64>, usize) {
        let mut latencies = Vec::new();
        let mut late = 0;
        for (index, at) in self.finality.at.iter().enumerate().filter(|(index, _)| self.due_in_window(*index)) {
            late += usize::from(at.is_none_or(|at| at > self.window.1 + GRACE));
            latencies.extend(at.map(|at| self.latency_us(index, at)));
        }
        (latencies, late)
    }

    fn acknowledgements(&self) -> Vec<u64> {
        let all = self.answered.iter().flat_map(|answered| &answered.acknowledged);
        all.filter(|(index, _)| self.due_in_window(*index)).map(|(index, at)| self.latency_us(*index, *at)).collect()
    }

    fn latency_us(&self, index: usize, at: Instant) -> u64 {
        let latency = at.saturating_duration_since(self.schedule.due(index));
        u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
    }
}

async fn report_progress(rate: u32, count: watch::Receiver<usize>) {
    let mut ticks = tokio::time::interval(PROGRESS);
    let mut before = *count.borrow();
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = *count.borrow();
        eprintln!("bench: at {rate} tx/s: {now} final, {} tx/s lately", (now - before) as u64 / PROGRESS.as_secs());
        before = now;
    }
}

fn read(network: &Network) -> Result<Reading, BenchError> {
    network.watched.read().map_err(proc_error)
}

fn proc_error(source: std::io::Error) -> BenchError {
    BenchError::File { action: "read", path: PathBuf::from("/proc"), source }
}

fn interrupted(error: tokio::task::JoinError) -> BenchError {
    BenchError::Stream { node: 0, what: "work", reason: error.to_string() }
}

/// Whole milliseconds of a duration.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "no count here has more than 52 bits")]
fn float(count: usize) -> f64 {
    count as f64
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
