//! One of the nodes is killed under load and comes back: how long the chain paused, how long the node took to catch up, and
//! whether anything that was acknowledged is missing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};

use super::{
    BenchError,
    comeback::Comeback,
    corpus::Wallets,
    judge::Finality,
    load::Answered,
    network::Network,
    trial::{DRAIN_MAX, Running, Setting, TrialRequest, milliseconds},
};

/// A trial in which one node is killed when the measured time begins.
#[derive(Clone, Copy, Debug)]
pub struct LossRequest {
    /// The load; its measured time should leave some seconds after the return.
    pub load: TrialRequest,
    /// How long the killed node stays away, seconds.
    pub away_s: u32,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Loss {
    /// Transactions that were due a second.
    pub offered_tps: u32,
    /// Load before the kill (SIGKILL), seconds.
    pub killed_after_s: u32,
    /// How long the process was away.
    pub away_s: u32,
    /// Load after the kill, seconds.
    pub run_s: u32,
    /// Transactions that left.
    pub offered: usize,
    /// Those of them that are in final blocks.
    pub finalised: usize,
    /// Those of them that were acknowledged as durable.
    pub acknowledged: usize,
    /// Acknowledged ones that are in no final block. Must be 0.
    pub acknowledged_lost: usize,
    /// Transactions that another node was given because the killed one did not acknowledge them.
    pub resent: usize,
    /// Transactions that another node was given although the killed one had acknowledged them: they come after one that it
    /// had not.
    pub resent_acknowledged: usize,
    /// Places in blocks of transactions that were executed before: the killed node had sent them to the others, too.
    pub repeated: usize,
    /// Blocks with at least one of them.
    pub blocks_with_repeats: usize,
    /// Places in blocks of transactions whose turn it was not.
    pub deferred: usize,
    /// Transactions that were refused when they came for the first time.
    pub refused: usize,
    /// The longest time between two blocks after the kill.
    pub longest_gap_ms: u64,
    /// From the start of the process until it showed the newest block of all; none if it never did.
    pub catch_up_ms: Option<u64>,
    /// The steps of its return.
    #[serde(flatten)]
    pub comeback: Comeback,
    /// Every block that is final was shown by all nodes with the same header, and so with the same state root.
    pub equal: bool,
    /// Blocks whose certified receipts do not follow from the order of their transactions. Must be 0.
    pub blocks_with_failures: usize,
}

impl LossRequest {
    /// Makes the trial with a network of its own.
    pub async fn run(&self, setting: &Setting) -> Result<Loss, BenchError> {
        let wallets = setting.wallets();
        let mut network = Network::open(setting.source(), &wallets).await?;
        let measured = self.measure(setting, &mut network, wallets).await;
        network.close().await?;
        measured
    }

    async fn measure(
        &self,
        setting: &Setting,
        network: &mut Network,
        wallets: Arc<Wallets>,
    ) -> Result<Loss, BenchError> {
        let victim = network.clients.len().saturating_sub(1);
        let corpus = self.load.corpus(setting, network, &wallets)?;
        let running = Running::start(network, &corpus, wallets, self.load.rate, Some(victim));
        let (killed, end) = self.load.window(&running.schedule);
        tokio::time::sleep_until(killed).await;
        network.kill(victim).await?;
        eprintln!("bench: node {victim} is killed, it comes back in {} s", self.away_s);
        tokio::time::sleep_until(killed + Duration::from_secs(self.away_s.into())).await;
        network.start_again(victim)?;
        let started = Instant::now();
        let seen = Arc::new(Mutex::new(Comeback::default()));
        let others = network.clients.len().saturating_sub(1);
        let watching = network.clients.get(victim).cloned();
        let watching = watching.map(|client| tokio::spawn(Comeback::watch(Arc::clone(&seen), client, others, started)));
        tokio::time::sleep_until(end).await;
        let (finality, answered) = running.end(end + DRAIN_MAX).await?;
        if let Some(watching) = watching {
            watching.abort();
        }
        let comeback = *seen.lock().await;
        Ok(Loss { comeback, ..self.loss(&finality, &answered, (killed, started, victim)) })
    }

    fn loss(
        &self,
        finality: &Finality,
        answered: &[Answered],
        (killed, started, victim): (Instant, Instant, usize),
    ) -> Loss {
        let caught_up = finality.caught_up(victim, started);
        let acknowledged: BTreeSet<usize> =
            answered.iter().flat_map(|answered| &answered.acknowledged).map(|(index, _)| *index).collect();
        let is_lost = |index: &&usize| finality.at.get(**index).is_none_or(Option::is_none);
        Loss {
            offered_tps: self.load.rate,
            killed_after_s: self.load.warm_up_s,
            away_s: self.away_s,
            run_s: self.load.run_s,
            offered: finality.at.len(),
            finalised: finality.count,
            acknowledged: acknowledged.len(),
            acknowledged_lost: acknowledged.iter().filter(is_lost).count(),
            resent: answered.iter().map(|answered| answered.resent).sum(),
            resent_acknowledged: answered.iter().map(|answered| answered.resent_acknowledged).sum(),
            repeated: finality.repeated,
            blocks_with_repeats: finality.blocks_with_repeats,
            deferred: finality.deferred,
            refused: answered.iter().map(|answered| answered.refused).sum(),
            longest_gap_ms: milliseconds(finality.longest_gap(killed)),
            catch_up_ms: caught_up.map(|at| milliseconds(at.saturating_duration_since(started))),
            comeback: Comeback::default(),
            equal: finality.behind == 0,
            blocks_with_failures: finality.blocks_with_failures,
        }
    }
}
