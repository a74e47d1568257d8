//! Load on a chain: signed transfers between development accounts, each one waited for until it is final.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use althing_node::devnet::accounts;
use anyhow::{Context, Result, bail};
use node_api::client::Client;
use node_api::fields;
use node_api::proto::{self, submit_response::Answer};
use node_api::transactions::{TransferTerms, transfer};
use node_core::crypto::KeyPair;
use node_core::types::{AccountId, Amount, Height, Incarnation, Nonce, Transaction};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::dial::Access;
use crate::network::{Network, eventually};

/// How many blocks a transfer may wait.
const VALID_FOR: u64 = 200;
/// Most senders of one load; test chains have twice as many accounts.
const SENDERS_MAX: usize = 10;

/// A transfer that was answered `Final`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finalised {
    /// The transaction.
    pub id: String,
    /// The block that holds it.
    pub height: u64,
    /// Whether it was applied; otherwise it failed, finally.
    pub applied: bool,
}

/// One account with its next nonce.
pub struct Sender {
    key: KeyPair,
    nonce: u64,
    incarnation: Incarnation,
}

impl Sender {
    /// The account of this key as the chain knows it.
    ///
    /// # Errors
    /// When the node does not answer or has not executed genesis yet.
    pub async fn new(client: &Client, key: KeyPair) -> Result<Self> {
        let status = client.status().await?;
        let incarnation = Incarnation::from(fields::hash("incarnation", &status.incarnation)?);
        let account = client.account(&AccountId::new(key.public())).await?;
        Ok(Self { key, nonce: account.nonce, incarnation })
    }

    /// The next transfer of one unit, to development account 0.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn next(&mut self, client: &Client) -> Result<Transaction> {
        let height = client.status().await?.height;
        let terms = TransferTerms {
            incarnation: self.incarnation,
            nonce: Nonce::new(self.nonce),
            valid_until: Height::new(height + VALID_FOR),
            to: accounts::account(0),
            amount: Amount::new(1),
        };
        self.nonce += 1;
        Ok(transfer(&self.key, &terms))
    }
}

/// The account that `examples/devnet.yaml` funds; its key is published beside it.
///
/// # Errors
/// When the key file cannot be read.
pub fn demo_account(root: &Path) -> Result<KeyPair> {
    Ok(node_api::keys::read_key_file(&root.join("examples/devnet-account.pem"))?)
}

/// Submits a transaction and waits until it is final.
///
/// # Errors
/// When it expires or the node does not answer.
pub async fn submit(client: &Client, transaction: &Transaction) -> Result<Finalised> {
    let client = client.with_deadline(Duration::from_secs(60));
    let answer = client.submit(transaction, proto::Wait::Final).await?;
    let id = fields::transaction_id("transaction_id", &answer.transaction_id)?.to_string();
    match answer.answer.context("an answer is set")? {
        Answer::Final(found) => {
            let outcome = found.receipt.map(|receipt| receipt.outcome());
            Ok(Finalised { id, height: found.height, applied: outcome == Some(proto::Outcome::Executed) })
        }
        Answer::Accepted(_) | Answer::Durable(_) => bail!("{id} was answered before it was final"),
        Answer::Expired(expired) => bail!("{id} expired at height {}", expired.valid_until),
    }
}

/// Transfers that go on in the background until they are stopped.
pub struct Load {
    stop: CancellationToken,
    senders: JoinSet<()>,
    finalised: Arc<Mutex<Vec<Finalised>>>,
}

impl Load {
    /// Starts one sender for each voter, also for those that come later. A sender whose node does not answer asks the next
    /// node, at the address that its pod has then, for the same transaction: a resubmitted one is never executed twice.
    pub fn start(network: &Network, access: &Access, first_account: u32) -> Self {
        let stop = CancellationToken::new();
        let finalised = Arc::new(Mutex::new(vec![]));
        let first = Route { network: network.clone(), access: access.clone(), at: 0 };
        let mut senders = JoinSet::new();
        senders.spawn(keep_senders(stop.clone(), first, first_account, finalised.clone()));
        Self { stop, senders, finalised }
    }

    /// How many are final so far.
    pub async fn count(&self) -> usize {
        self.finalised.lock().await.len()
    }

    /// Waits until so many more are final.
    ///
    /// # Errors
    /// When they are not within the time.
    pub async fn wait_more(&self, more: usize, seconds: u64) -> Result<()> {
        let target = self.count().await + more;
        eventually(&format!("{more} more transactions are final"), seconds, || async {
            let count = self.count().await;
            if count >= target { Ok(()) } else { bail!("{count} of {target}") }
        })
        .await
    }

    /// Stops, and returns everything that was answered `Final`.
    pub async fn stop(mut self) -> Vec<Finalised> {
        self.stop.cancel();
        while self.senders.join_next().await.is_some() {}
        self.finalised.lock().await.clone()
    }
}

/// Where a sender sends to: whoever of the present voters stands at this place.
#[derive(Clone)]
struct Route {
    network: Network,
    access: Access,
    at: usize,
}

impl Route {
    async fn client(&self) -> Result<Client> {
        let voters = self.network.voters().await?;
        let voter = voters.get(self.at % voters.len().max(1)).context("there are voters")?;
        self.access.client(&self.network, voter)
    }
}

/// One sender for each voter that was ever seen.
async fn keep_senders(
    stop: CancellationToken,
    first: Route,
    first_account: u32,
    finalised: Arc<Mutex<Vec<Finalised>>>,
) {
    let mut senders = JoinSet::new();
    let mut known = BTreeSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { _ = pace.tick() => {}, () = stop.cancelled() => break }
        let Ok(voters) = first.network.voters().await else { continue };
        for (at, voter) in voters.into_iter().enumerate() {
            if known.len() < SENDERS_MAX && known.insert(voter.node) {
                let number = first_account + u32::try_from(senders.len()).unwrap_or(0);
                let (stop, finalised) = (stop.clone(), finalised.clone());
                let route = Route { at, ..first.clone() };
                senders.spawn(async move { send_until(stop, route, number, &finalised).await });
            }
        }
    }
    while senders.join_next().await.is_some() {}
}

async fn send_until(stop: CancellationToken, mut route: Route, number: u32, finalised: &Mutex<Vec<Finalised>>) {
    let mut client: Option<Client> = None;
    let mut pending: Option<Transaction> = None;
    let mut sender: Option<Sender> = None;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        tokio::select! { _ = pace.tick() => {}, () = stop.cancelled() => break }
        let step = async {
            if client.is_none() {
                client = Some(route.client().await?);
            }
            let client = client.as_ref().context("a client is set")?;
            send_one(client, number, &mut sender, &mut pending).await
        };
        let outcome = tokio::select! { outcome = step => outcome, () = stop.cancelled() => break };
        match outcome {
            Ok(done) => finalised.lock().await.push(done),
            Err(error) if pending_is_lost(&error) => {
                pending = None;
                sender = None;
            }
            Err(_) => {
                route.at += 1;
                client = None;
            }
        }
    }
}

async fn send_one(
    client: &Client,
    number: u32,
    sender: &mut Option<Sender>,
    pending: &mut Option<Transaction>,
) -> Result<Finalised> {
    if sender.is_none() {
        *sender = Some(Sender::new(client, accounts::key(number)).await?);
    }
    let sender = sender.as_mut().context("a sender is set")?;
    if pending.is_none() {
        *pending = Some(sender.next(client).await?);
    }
    let transaction = pending.as_ref().context("a transaction is set")?;
    let done = submit(client, transaction).await?;
    *pending = None;
    Ok(done)
}

/// Whether the chain will never take this transaction, so that the sender starts anew from the chain's nonce.
fn pending_is_lost(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("expired") || text.contains("refused")
}
