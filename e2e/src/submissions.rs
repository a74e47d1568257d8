//! Transfers through a gateway: each sender has one in flight, and sends one that failed again until it is final.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use althing_node::devnet::accounts;
use anyhow::{Result, ensure};
use node_api::client::Client;
use node_core::codec::Encode;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::entrance::{Answer, Entrance};
use crate::load::Sender;
use crate::network::eventually;

/// Waits for the block that holds it.
const SUBMIT: &str = "/api/v1/transactions?wait=final";
/// Pause between two transfers of one sender, and before one is sent again.
const PACE: Duration = Duration::from_millis(100);
/// How long one transfer may take with all its repetitions.
const FINAL_MAX: Duration = Duration::from_secs(60);

/// What became of one sender's transfers.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Transfers that are final and were executed.
    pub executed: u64,
    /// Answers that were none, one line for each.
    pub failed: Vec<String>,
    /// Transfers that never became final.
    pub lost: u64,
}

/// Senders in the background until they are stopped.
pub struct Submissions {
    direct: Client,
    stop: CancellationToken,
    senders: JoinSet<()>,
    sent: Vec<(u32, Arc<Mutex<Sent>>)>,
    balance: u64,
}

impl Submissions {
    /// Starts a sender for each of these development accounts. `direct` is the node that says what an account has.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn start(entrance: &Entrance, direct: &Client, numbers: std::ops::Range<u32>) -> Result<Self> {
        let stop = CancellationToken::new();
        let (mut senders, mut sent) = (JoinSet::new(), Vec::new());
        let balance = direct.account(&accounts::account(0)).await?.balance;
        for number in numbers {
            let sender = Sender::new(direct, accounts::key(number)).await?;
            let book = Arc::<Mutex<Sent>>::default();
            sent.push((number, book.clone()));
            let (stop, entrance, direct) = (stop.clone(), entrance.clone(), direct.clone());
            senders.spawn(async move {
                if let Err(error) = send(&stop, &entrance, &direct, sender, &book).await {
                    lock(&book).failed.push(format!("{error:#}"));
                }
            });
        }
        Ok(Self { direct: direct.clone(), stop, senders, sent, balance })
    }

    /// How many are executed so far.
    pub fn executed(&self) -> u64 {
        self.sent.iter().map(|(_, sent)| lock(sent).executed).sum()
    }

    /// Stops when what is in flight is final, and checks that the chain has executed what was sent: each transfer once.
    ///
    /// # Errors
    /// When one is lost, or executed twice.
    pub async fn stop(mut self) -> Result<Vec<Sent>> {
        self.stop.cancel();
        while self.senders.join_next().await.is_some() {}
        let all: Vec<Sent> = self.sent.iter().map(|(_, sent)| lock(sent).clone()).collect();
        ensure!(all.iter().all(|sent| sent.lost == 0), "transfers were lost: {all:?}");
        let expected = self.balance + all.iter().map(|sent| sent.executed).sum::<u64>();
        // A node executes a block a moment after it is final.
        eventually("each transfer is executed once", 20, || async {
            let balance = self.direct.account(&accounts::account(0)).await?.balance;
            ensure!(balance == expected, "{balance} units came, {expected} were sent");
            for (number, sent) in &self.sent {
                let nonce = self.direct.account(&accounts::account(*number)).await?.nonce;
                let executed = lock(sent).executed;
                ensure!(nonce == executed, "account {number} sent {executed} transfers and has nonce {nonce}");
            }
            Ok(())
        })
        .await?;
        Ok(all)
    }
}

fn lock(sent: &Mutex<Sent>) -> std::sync::MutexGuard<'_, Sent> {
    sent.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn send(
    stop: &CancellationToken,
    entrance: &Entrance,
    direct: &Client,
    mut sender: Sender,
    book: &Mutex<Sent>,
) -> Result<()> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        pace.tick().await;
        let bytes = sender.next(direct).await?.encode();
        let end = Instant::now() + FINAL_MAX;
        loop {
            let problem = match entrance.post(SUBMIT, bytes.clone()).await {
                Ok(answer) if is_executed(&answer) => {
                    lock(book).executed += 1;
                    break;
                }
                Ok(answer) => format!("{}: {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            };
            lock(book).failed.push(problem);
            if Instant::now() >= end {
                lock(book).lost += 1;
                return Ok(());
            }
            pace.tick().await;
        }
    }
    Ok(())
}

fn is_executed(answer: &Answer) -> bool {
    let outcome = answer.body.pointer("/final/receipt/outcome").and_then(Value::as_str);
    answer.status == 200 && outcome == Some("OUTCOME_EXECUTED")
}
