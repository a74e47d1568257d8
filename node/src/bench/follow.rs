//! Follows the chain on every node at once, and believes only what certificates prove.

use std::{sync::Arc, time::Duration};

use node_api::{
    client::Client,
    light::{FollowError, Follower as LightFollower},
    proto,
};
use node_core::{
    codec::Decode,
    crypto::verify_certificate,
    types::{Block, CommitCertificate, Genesis, Header, Height, Incarnation, VoterSet, voters_hash},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tonic::Streaming;

use super::{
    BenchError,
    corpus::{Corpus, Wallets},
    judge::{Arrival, Body, Finality, Included, Judge},
};

/// Headers that wait for their turn.
const ARRIVALS_MAX: usize = 4_096;
/// Between two attempts to reach a node that may be absent.
const RETRY: Duration = Duration::from_millis(50);
/// How often a node is asked for the proof of a header that it has shown.
const PROOF_TRIES_MAX: u32 = 100;

/// What is needed to judge blocks.
#[derive(Clone, Debug)]
pub struct Follower {
    /// The nodes.
    pub clients: Vec<Client>,
    /// The chain.
    pub incarnation: Incarnation,
    /// Its voters, all the time.
    pub voters: VoterSet,
    /// The first height to look at.
    pub first: Height,
    /// To know transactions again.
    pub corpus: Arc<Corpus>,
    /// To know accounts again.
    pub wallets: Arc<Wallets>,
    /// The number of a node that may go and come back: what the others have shown is final, and it has to show the same
    /// later. It may come back with another session key, which the genesis and its chain of headers prove.
    pub absent: Option<(usize, Arc<Genesis>)>,
}

enum Event {
    Header(Box<Arrival>),
    Body(Body),
}

impl Follower {
    /// Follows until `stop` says how many transactions to wait for at most, and until when. `progress` is the number of
    /// final transactions.
    pub async fn run(
        self,
        mut stop: watch::Receiver<Option<Instant>>,
        progress: watch::Sender<usize>,
    ) -> Result<Finality, BenchError> {
        let (sender, mut events) = mpsc::channel(ARRIVALS_MAX);
        let mut tasks = JoinSet::new();
        for node in 0..self.clients.len() {
            tasks.spawn(self.clone().read_node(node, sender.clone()));
        }
        let mut judge = Judge::new(self.clients.len(), self.first, self.corpus.order());
        if self.absent.is_some() {
            judge.allow_one_absent();
        }
        loop {
            let until = *stop.borrow_and_update();
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Header(arrival)) => {
                        if judge.on_header(&arrival)? {
                            let (follower, sender) = (self.clone(), sender.clone());
                            tasks.spawn(async move { follower.read_body(arrival, sender).await });
                        }
                    }
                    Some(Event::Body(body)) => judge.on_body(body),
                    None => return Ok(judge.finality),
                },
                Some(ended) = tasks.join_next() => {
                    ended.map_err(|error| BenchError::Stream { node: 0, what: "blocks", reason: error.to_string() })??;
                }
                changed = stop.changed() => if changed.is_err() { return Ok(judge.finality) },
                () = sleep_until(until) => return Ok(judge.finality),
            }
            progress.send_replace(judge.finality.count);
            let behind = judge.count_behind();
            if until.is_some() && judge.finality.count >= self.corpus.len() && judge.settled() && behind == 0 {
                return Ok(judge.finality);
            }
        }
    }

    /// The headers of one node. The stream of the one that may be absent is opened again as often as it breaks.
    async fn read_node(self, node: usize, events: mpsc::Sender<Event>) -> Result<(), BenchError> {
        let Some(client) = self.clients.get(node) else { return Ok(()) };
        let mut next = self.first;
        let mut changes = None;
        loop {
            let read = match client.headers(Some(next)).await {
                Ok(headers) => self.read_headers(node, headers, (&mut next, &mut changes), &events).await,
                Err(error) => Err(error.into()),
            };
            match read {
                Err(BenchError::Stream { .. } | BenchError::Client(_)) if self.is_absent(node) => {
                    tokio::time::sleep(RETRY).await;
                }
                read => return read,
            }
        }
    }

    /// Verifies every certificate that a node shows.
    async fn read_headers(
        &self,
        node: usize,
        mut headers: Streaming<proto::Block>,
        (next, changes): (&mut Height, &mut Option<LightFollower>),
        events: &mpsc::Sender<Event>,
    ) -> Result<(), BenchError> {
        let expected_voters = voters_hash(&self.voters, &self.voters);
        loop {
            let stopped = |status: tonic::Status| BenchError::Stream {
                node,
                what: "headers",
                reason: status.message().to_owned(),
            };
            let Some(block) = headers.message().await.map_err(stopped)? else { return Ok(()) };
            let at = Instant::now();
            let contradiction = |problem: String| BenchError::Contradiction { node, height: block.height, problem };
            let header = Header::decode(&block.header).map_err(|error| contradiction(error.to_string()))?;
            let certificate =
                CommitCertificate::decode(&block.certificate).map_err(|error| contradiction(error.to_string()))?;
            let hash = header.hash();
            if certificate.height() != header.height || certificate.value() != hash {
                return Err(contradiction("the certificate is for another header".to_owned()));
            }
            if header.voters_hash == expected_voters {
                let verified = verify_certificate(&self.incarnation, &self.voters, &certificate);
                verified.map_err(|error| contradiction(error.to_string()))?;
            } else {
                self.prove(node, &header, changes).await?;
            }
            *next = header.height.next();
            if events.send(Event::Header(Box::new(Arrival { node, at, header, hash }))).await.is_err() {
                return Ok(());
            }
        }
    }

    /// A header of other voters than at the start: the light client follows the node's changes of voters from genesis.
    async fn prove(&self, node: usize, header: &Header, changes: &mut Option<LightFollower>) -> Result<(), BenchError> {
        let height = header.height;
        let contradiction = |problem: String| BenchError::Contradiction { node, height: height.get(), problem };
        let Some(((_, genesis), client)) = self.absent.as_ref().zip(self.clients.get(node)) else {
            return Err(contradiction("the voters changed during the measurement".to_owned()));
        };
        let light = match changes {
            Some(light) => light,
            None => changes.insert(LightFollower::new(genesis).map_err(|error| contradiction(error.to_string()))?),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match light.follow(client, height).await {
                Ok(()) => break,
                // The block is not executed there yet.
                Err(FollowError::Client(_) | FollowError::TooShort { .. }) if tries < PROOF_TRIES_MAX => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(FollowError::Client(error)) => return Err(error.into()),
                Err(error) => return Err(contradiction(crate::causes::chain(&error))),
            }
        }
        if light.header().is_some_and(|proved| proved == header) {
            return Ok(());
        }
        Err(contradiction("its light block is of another header".to_owned()))
    }

    fn is_absent(&self, node: usize) -> bool {
        self.absent.as_ref().is_some_and(|(absent, _)| *absent == node)
    }

    /// The block of a header, from one of the nodes in turn: its digests prove it, whoever sends it.
    async fn read_body(&self, arrival: Box<Arrival>, events: mpsc::Sender<Event>) -> Result<(), BenchError> {
        let height = arrival.header.height;
        let present: Vec<usize> = (0..self.clients.len()).filter(|node| !self.is_absent(*node)).collect();
        let turn = usize::try_from(height.get()).unwrap_or_default() % present.len().max(1);
        let node = present.get(turn).copied().unwrap_or_default();
        let contradiction = |problem: String| BenchError::Contradiction { node, height: height.get(), problem };
        let Some(client) = self.clients.get(node) else { return Ok(()) };
        // Its stream of headers may be ahead of that of the node asked.
        let block = loop {
            match client.block(Some(height)).await? {
                Some(block) => break block,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let at = Instant::now();
        let block = Block::decode(&block.block).map_err(|error| contradiction(error.to_string()))?;
        if block.hash() != arrival.hash {
            return Err(contradiction("its block is another one than the certified".to_owned()));
        }
        let body = Body { height, at, included: self.contents(&block) };
        // Without a receiver the measurement is over.
        let _ = events.send(Event::Body(body)).await;
        Ok(())
    }

    fn contents(&self, block: &Block) -> Vec<Included> {
        let included = block.transactions().map(|transaction| {
            let body = transaction.body();
            let account = self.wallets.number(&body.sender);
            let index = account.and_then(|account| self.corpus.index(account, body.nonce));
            Included { id: transaction.id(), index }
        });
        included.collect()
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
