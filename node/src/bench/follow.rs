//! Follows the chain on every node at once, and believes only what certificates prove.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use node_api::{
    client::Client,
    light::{FollowError, Follower as LightFollower},
    proto,
};
use node_core::{
    codec::Decode,
    crypto::verify_certificate,
    types::{
        Block, CommitCertificate, Genesis, Hash, Header, Height, Incarnation, Receipt, ReceiptStatus, VoterSet,
        merkle_root, voters_hash,
    },
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

/// What became final.
#[derive(Debug)]
pub struct Finality {
    /// For each transaction of the corpus, when every node, but for an absent one, had shown it in a final block.
    pub at: Vec<Option<Instant>>,
    /// How many have such a time.
    pub count: usize,
    /// Transactions that were in more than one block.
    pub repeated: usize,
    /// Blocks in which not every transaction was executed.
    pub blocks_with_failures: usize,
    /// Blocks with at least one transaction whose receipts are compared.
    pub blocks_checked: usize,
    /// When the first node showed each block, in this order.
    pub blocks: Vec<Instant>,
    /// What each node has shown, and when.
    pub shown: Vec<Vec<(Instant, Height)>>,
    /// Final blocks that an absent node has not shown.
    pub behind: usize,
}

impl Finality {
    /// The longest time between two blocks in a row of which the second came after `from`.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let pairs = self.blocks.iter().zip(self.blocks.iter().skip(1));
        let gaps = pairs.filter(|(_, next)| **next >= from).map(|(block, next)| next.saturating_duration_since(*block));
        gaps.max().unwrap_or_default()
    }

    /// When a node that came back at `from` first showed a block that was the newest of all.
    pub fn caught_up(&self, node: usize, from: Instant) -> Option<Instant> {
        let others = || self.shown.iter().enumerate().filter(|(other, _)| *other != node).flat_map(|(_, shown)| shown);
        let newest = |at: Instant| others().filter(|(shown, _)| *shown <= at).map(|(_, height)| *height).max();
        let own = self.shown.get(node)?.iter().filter(|(at, _)| *at >= from);
        own.clone().find(|(at, height)| Some(*height) >= newest(*at)).map(|(at, _)| *at)
    }
}

/// One header as one node shows it.
struct Arrival {
    node: usize,
    at: Instant,
    header: Header,
    hash: Hash,
}

/// The transactions of one block.
struct Body {
    height: Height,
    at: Instant,
    indexes: Vec<usize>,
    /// What the receipts root is if everything was executed.
    receipts_root: Hash,
}

enum Event {
    Header(Box<Arrival>),
    Body(Body),
}

#[derive(Default)]
struct Place {
    hash: Option<Hash>,
    shown: usize,
    finished: bool,
    last: Option<Instant>,
    body: Option<Body>,
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
        let mut judge = Judge::new(self.clients.len(), self.corpus.len());
        judge.needed -= usize::from(self.absent.is_some());
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
                    Some(Event::Body(body)) => judge.on_body(body)?,
                    None => return Ok(judge.finality),
                },
                Some(ended) = tasks.join_next() => {
                    ended.map_err(|error| BenchError::Stream { node: 0, what: "blocks", reason: error.to_string() })??;
                }
                changed = stop.changed() => if changed.is_err() { return Ok(judge.finality) },
                () = sleep_until(until) => return Ok(judge.finality),
            }
            progress.send_replace(judge.finality.count);
            let behind = judge.places.values().filter(|place| place.finished).count();
            judge.finality.behind = behind;
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
        let (indexes, receipts_root) = self.contents(&block);
        let body = Body { height, at, indexes, receipts_root };
        // Without a receiver the measurement is over.
        let _ = events.send(Event::Body(body)).await;
        Ok(())
    }

    fn contents(&self, block: &Block) -> (Vec<usize>, Hash) {
        let height = block.header().height;
        let mut indexes = Vec::new();
        let mut receipts = Vec::new();
        for (index, transaction) in (0..).zip(block.transactions()) {
            let body = transaction.body();
            let account = self.wallets.number(&body.sender);
            indexes.extend(account.and_then(|account| self.corpus.index(account, body.nonce)));
            let receipt = Receipt { transaction: transaction.id(), height, index, status: ReceiptStatus::Executed };
            receipts.push(receipt.hash());
        }
        (indexes, merkle_root(&receipts))
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Puts headers and bodies together.
struct Judge {
    nodes: usize,
    /// How many of them must have shown a block that is final.
    needed: usize,
    places: BTreeMap<Height, Place>,
    /// Receipts roots that the header two heights later must name.
    expected_roots: VecDeque<(Height, Hash, bool)>,
    roots_named: BTreeMap<Height, Hash>,
    finality: Finality,
}

impl Judge {
    fn new(nodes: usize, transactions: usize) -> Self {
        Self {
            nodes,
            needed: nodes,
            places: BTreeMap::new(),
            expected_roots: VecDeque::new(),
            roots_named: BTreeMap::new(),
            finality: Finality {
                at: vec![None; transactions],
                count: 0,
                repeated: 0,
                blocks_with_failures: 0,
                blocks_checked: 0,
                blocks: Vec::new(),
                shown: vec![Vec::new(); nodes],
                behind: 0,
            },
        }
    }

    /// Whether the header is seen for the first time: then its block is to be read.
    fn on_header(&mut self, arrival: &Arrival) -> Result<bool, BenchError> {
        let height = arrival.header.height;
        let place = self.places.entry(height).or_default();
        let first = place.hash.is_none();
        if *place.hash.get_or_insert(arrival.hash) != arrival.hash {
            let problem = "it has another final block than the others".to_owned();
            return Err(BenchError::Contradiction { node: arrival.node, height: height.get(), problem });
        }
        place.shown += 1;
        place.last = Some(arrival.at);
        if first {
            if let Some(executed) = height.checked_sub(2) {
                self.roots_named.insert(executed, arrival.header.results.receipts_root);
            }
            self.finality.blocks.push(arrival.at);
        }
        if let Some(shown) = self.finality.shown.get_mut(arrival.node) {
            shown.push((arrival.at, height));
        }
        self.finish(height);
        self.compare_roots();
        Ok(first)
    }

    fn on_body(&mut self, body: Body) -> Result<(), BenchError> {
        let height = body.height;
        self.places.entry(height).or_default().body = Some(body);
        self.finish(height);
        self.compare_roots();
        Ok(())
    }

    /// A block that enough nodes have shown, and whose transactions are known, is final.
    fn finish(&mut self, height: Height) {
        let Some(place) = self.places.get_mut(&height) else { return };
        let last = place.last.filter(|_| !place.finished && place.shown >= self.needed);
        let found = last.and_then(|last| Some((last, place.body.take()?)));
        place.finished |= found.is_some();
        if place.finished && place.shown >= self.nodes {
            self.places.remove(&height);
        }
        let Some((last, body)) = found else { return };
        let at = last.max(body.at);
        for index in &body.indexes {
            match self.finality.at.get_mut(*index) {
                Some(place @ None) => {
                    *place = Some(at);
                    self.finality.count += 1;
                }
                Some(Some(_)) => self.finality.repeated += 1,
                None => {}
            }
        }
        self.expected_roots.push_back((height, body.receipts_root, !body.indexes.is_empty()));
    }

    fn compare_roots(&mut self) {
        let named = &mut self.roots_named;
        let finality = &mut self.finality;
        self.expected_roots.retain(|(height, expected, counts)| match named.remove(height) {
            Some(found) => {
                finality.blocks_checked += usize::from(*counts);
                finality.blocks_with_failures += usize::from(found != *expected);
                false
            }
            None => true,
        });
    }

    /// The receipts of every block with transactions are compared.
    fn settled(&self) -> bool {
        self.expected_roots.iter().all(|(_, _, counts)| !counts)
    }
}

#[cfg(test)]
mod tests {
    use node_core::types::{Hash, Header, Height, Identity, Results, Round, TimeMs};
    use tokio::time::Instant;

    use super::{Arrival, Body, Judge};

    fn header(height: u64, time: u64, receipts_root: Hash) -> Header {
        Header {
            height: Height::new(height),
            round: Round::new(0),
            parent: Hash::ZERO,
            proposer: Identity::new([1; 32]),
            time: TimeMs::new(time),
            batches: Vec::new(),
            voters_hash: Hash::ZERO,
            results: Results { receipts_root, ..Results::NONE },
            parameters_hash: Hash::ZERO,
        }
    }

    fn shown(node: usize, header: Header) -> Arrival {
        Arrival { node, at: Instant::now(), hash: header.hash(), header }
    }

    fn body(height: u64, indexes: &[usize], receipts_root: Hash) -> Body {
        Body { height: Height::new(height), at: Instant::now(), indexes: indexes.to_vec(), receipts_root }
    }

    #[test]
    fn a_transaction_is_final_once_every_node_has_shown_its_block() {
        let mut judge = Judge::new(2, 3);
        let block = header(1, 5, Hash::ZERO);
        assert!(judge.on_header(&shown(0, block.clone())).expect("it is the first"));
        judge.on_body(body(1, &[0, 2], Hash::ZERO)).expect("it fits");
        assert_eq!(judge.finality.count, 0);
        assert!(!judge.on_header(&shown(1, block)).expect("it is the same"));
        assert_eq!(judge.finality.at.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn an_absent_node_delays_nothing_and_has_to_show_the_same_later() {
        let mut judge = Judge::new(2, 1);
        judge.needed = 1;
        let block = header(1, 5, Hash::ZERO);
        judge.on_header(&shown(0, block.clone())).expect("it is the first");
        judge.on_body(body(1, &[0], Hash::ZERO)).expect("it fits");
        assert_eq!((judge.finality.count, judge.places.len()), (1, 1));
        assert!(judge.on_header(&shown(1, header(1, 6, Hash::ZERO))).is_err(), "it shows another block");
        let back = shown(1, block);
        judge.on_header(&back).expect("it is the same");
        assert_eq!((judge.finality.count, judge.places.len()), (1, 0));
        assert_eq!(judge.finality.caught_up(1, back.at), Some(back.at));
    }

    #[test]
    fn two_nodes_with_different_blocks_end_the_measurement() {
        let mut judge = Judge::new(2, 1);
        assert!(judge.on_header(&shown(0, header(1, 5, Hash::ZERO))).is_ok());
        assert!(judge.on_header(&shown(1, header(1, 6, Hash::ZERO))).is_err());
    }

    #[test]
    fn a_block_whose_certified_receipts_are_others_counts_as_one_with_failures() {
        let mut judge = Judge::new(1, 2);
        let (good, bad) = (Hash::new([1; 32]), Hash::new([2; 32]));
        for (height, named) in [(1, Hash::ZERO), (2, Hash::ZERO), (3, good), (4, bad)] {
            judge.on_header(&shown(0, header(height, height, named))).expect("there is one node");
            judge.on_body(body(height, &[usize::try_from(height % 2).unwrap_or(0)], good)).expect("it fits");
        }
        assert_eq!((judge.finality.blocks_checked, judge.finality.blocks_with_failures), (2, 1));
        assert_eq!((judge.finality.count, judge.finality.repeated), (2, 2));
    }
}
