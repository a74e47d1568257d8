//! Real validator processes on loopback: they finalise, survive a kill, catch up, and never sign twice.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may fail anywhere")]

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use althing_node::devnet::{Devnet, accounts, plan::PlanRequest, ports};
use node_api::{
    client::{Client, ClientOptions},
    config::LogLevel,
    proto::{self, Wait, get_transaction_response, submit_response::Answer, vote_event::Event},
    tls::{Expected, TcpDialer, TlsDialer, TlsStore},
    transactions::{TransferTerms, transfer},
};
use node_core::types::{Amount, Height, Incarnation, Nonce, ParametersDraft, TransactionId};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const STEP_TIME_MAX: Duration = Duration::from_secs(60);

struct Network {
    devnet: Devnet,
    clients: Vec<Client>,
    watchers: Vec<Client>,
    incarnation: Incarnation,
    directory: TempDir,
}

async fn network(validators: u16, observers: u16) -> Network {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let request = PlanRequest {
        directory: directory.path().to_owned(),
        chain_id: "devnet".parse().expect("the name is a chain id"),
        ports: ports::free(validators + observers).expect("there are free ports"),
        observers: usize::from(observers),
        log_level: LogLevel::Info,
    };
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_althing-node"));
    let mut devnet = Devnet::create(binary, &request).expect("the processes start");
    let parameters = ParametersDraft { block_interval_ms: 200, ..ParametersDraft::default() };
    let genesis = timeout(STEP_TIME_MAX, devnet.start_chain(parameters)).await;
    let genesis = genesis.expect("the ceremony ends in time").expect("the ceremony succeeds");
    let plan = devnet.plan();
    let connect = |directory: &PathBuf| {
        let tls = TlsStore::from_directory(directory).expect("the certificate is good");
        let options = ClientOptions { deadline: Duration::from_secs(30), ..ClientOptions::default() };
        plan.nodes
            .iter()
            .map(|node| {
                let expected = Expected::node(&plan.chain_id, &node.identity);
                let dialer = TlsDialer::new(TcpDialer::new(node.listen.grpc.to_string()), Arc::clone(&tls), expected);
                Client::lazy(dialer, options)
            })
            .collect::<Vec<_>>()
    };
    let (clients, watchers) = (connect(&plan.client), connect(&plan.operator));
    Network { incarnation: genesis.incarnation(), clients, watchers, devnet, directory }
}

/// Asks again and again until the answer is there or time is up.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + STEP_TIME_MAX;
    let mut ticks = interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
    }
}

impl Network {
    async fn status(&self, number: usize) -> Option<proto::GetStatusResponse> {
        self.clients[number].status().await.ok()
    }

    async fn wait_signing(&self, number: usize) -> proto::GetStatusResponse {
        let what = format!("node {number} signs");
        until(&what, || async { self.status(number).await.filter(|status| status.signing_enabled) }).await
    }

    async fn wait_height(&self, number: usize, height: u64) {
        let what = format!("node {number} is at height {height}");
        until(&what, || async { self.status(number).await.filter(|status| status.height >= height) }).await;
    }

    /// The status code of one HTTP request.
    async fn get(&self, number: usize, path: &str) -> u16 {
        let address = self.devnet.plan().nodes[number].listen.http;
        let mut stream = TcpStream::connect(address).await.expect("the HTTP port is open");
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request leaves");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the answer comes");
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("the answer has a status code")
    }

    /// Sends one transfer of a development account to its neighbour, and waits until it is final.
    async fn send(&self, number: usize, account: u32, nonce: u64) -> (TransactionId, proto::Final) {
        let terms = TransferTerms {
            incarnation: self.incarnation,
            nonce: Nonce::new(nonce),
            valid_until: Height::new(u64::MAX / 2),
            to: accounts::account(account + 1),
            amount: Amount::new(7),
        };
        let transaction = transfer(&accounts::key(account), &terms);
        let answer = self.clients[number].submit(&transaction, Wait::Final).await.expect("the transfer is taken");
        match answer.answer {
            Some(Answer::Final(done)) => (transaction.id(), done),
            other => panic!("the transfer is not final: {other:?}"),
        }
    }

    /// What all nodes say of one transaction, once all of them know it.
    async fn receipts(&self, id: &TransactionId) -> Vec<proto::Final> {
        let mut receipts = Vec::new();
        for client in &self.clients {
            let receipt = until("every node knows the receipt", || async {
                match client.transaction(id).await.ok()?.status? {
                    get_transaction_response::Status::Final(done) => Some(done),
                    _ => None,
                }
            });
            receipts.push(receipt.await);
        }
        receipts
    }
}

type Slot = (Vec<u8>, u64, u32, i32);

/// Every verified vote and proposal that the watched nodes saw, by voter, height, round and kind.
#[derive(Clone, Default)]
struct Ballot {
    seen: Arc<Mutex<BTreeMap<Slot, Vec<u8>>>>,
    conflicts: Arc<Mutex<Vec<Slot>>>,
}

impl Ballot {
    async fn watch(&self, client: &Client) {
        let mut votes = until("the votes can be watched", || async { client.votes().await.ok() }).await;
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(event)) = votes.message().await {
                if let Some(Event::Vote(vote)) = event.event
                    && vote.verified
                {
                    this.add(&vote);
                }
            }
        });
    }

    fn add(&self, vote: &proto::SeenVote) {
        let slot = (vote.voter.clone(), vote.height, vote.round, vote.kind);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry(slot.clone()).or_insert_with(|| vote.block_hash.clone());
        if *known != vote.block_hash {
            self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }

    fn count_of(&self, voter: &[u8]) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.keys().filter(|(who, ..)| who == voter).count()
    }

    fn conflicts(&self) -> Vec<Slot> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_finalises_survives_a_kill_and_never_signs_twice() {
    let mut network = network(4, 1).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    for nonce in 0..3 {
        let (id, done) = network.send(nonce as usize, 0, nonce).await;
        assert_eq!(done.receipt.as_ref().map(|receipt| receipt.outcome()), Some(proto::Outcome::Executed));
        for receipt in network.receipts(&id).await {
            assert_eq!(receipt, done);
        }
    }

    network.devnet.kill_node(3).await.expect("the node can be killed");
    let mut sent = Vec::new();
    for nonce in 0..3 {
        sent.push(network.send(nonce as usize, 10, nonce).await);
    }

    let before = network.status(0).await.expect("node 0 answers").height;
    network.devnet.start_node(3).expect("the node starts again");
    network.wait_height(3, before).await;
    let back = network.wait_signing(3).await;
    // The same key again: the same instance on the same boot decides alone, and needs no rotation.
    assert_eq!(back.session.as_ref().map(|session| session.epoch), Some(1));
    let identity = back.identity.clone();
    let voted = ballot.count_of(&identity);
    until("node 3 votes again", || async { (ballot.count_of(&identity) > voted).then_some(()) }).await;
    sent.push(network.send(3, 20, 0).await);
    for (id, done) in &sent {
        for receipt in network.receipts(id).await {
            assert_eq!(receipt, *done);
        }
    }

    // The observer has followed it all, and signs nothing.
    let observer = network.status(4).await.expect("the observer answers");
    assert_eq!((observer.role.as_str(), observer.synced, observer.signing_enabled), ("observer", true, false));
    assert_eq!(network.get(3, "/readyz").await, 200);
    assert_eq!(network.get(4, "/livez").await, 200);
    assert_eq!(network.get(0, "/metrics").await, 200);
    assert_eq!(network.get(0, "/nothing").await, 404);

    let height = network.status(3).await.expect("node 3 answers").height;
    network.wait_height(4, height).await;
    for height in 1..=height {
        let mut hashes = Vec::new();
        for client in &network.clients {
            let block = client.block(Some(Height::new(height))).await.expect("the node answers");
            hashes.push(block.expect("the block is there").hash);
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "the nodes have different blocks of height {height}");
    }
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stopped_as_a_whole_goes_on_with_the_same_keys() {
    let mut network = network(4, 0).await;
    network.wait_signing(0).await;
    let (id, _) = network.send(0, 0, 0).await;
    for number in 0..4 {
        network.devnet.kill_node(number).await.expect("the node can be killed");
    }
    for number in 0..4 {
        network.devnet.start_node(number).expect("the node starts again");
    }
    let (second, done) = {
        for number in 0..4 {
            let status = network.wait_signing(number).await;
            assert_eq!(status.session.map(|session| session.epoch), Some(1));
        }
        network.send(1, 0, 1).await
    };
    assert_ne!(id, second);
    assert!(done.height > 1);
    network.devnet.stop().await.expect("the nodes stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_makes_blocks_and_stops_in_good_order() {
    let mut network = network(1, 0).await;
    let (_, done) = network.send(0, 0, 0).await;
    assert!(done.height >= 1);
    network.devnet.stop_node(0).await.expect("the node stops");
    network.devnet.start_node(0).expect("the node starts again");
    network.wait_signing(0).await;
    let (_, later) = network.send(0, 0, 1).await;
    assert!(later.height > done.height);
    network.devnet.stop().await.expect("the node stops");
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the entry can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the entry has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_was_rolled_back_never_signs_with_its_key_again() {
    let mut network = network(4, 0).await;
    let before = network.wait_signing(3).await;
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    network.send(0, 0, 0).await;
    let data = network.directory.path().join("node-3/data");
    let kept = network.directory.path().join("kept");
    network.devnet.kill_node(3).await.expect("the node can be killed");
    copy(&data, &kept);
    network.devnet.start_node(3).expect("the node starts again");
    let signing = network.wait_signing(3).await;
    network.wait_height(3, signing.height + 5).await;

    network.devnet.kill_node(3).await.expect("the node can be killed");
    std::fs::remove_dir_all(&data).expect("the volume can be removed");
    std::fs::rename(&kept, &data).expect("the old volume can take its place");
    network.devnet.start_node(3).expect("the node starts again");
    // It signs again, but only with a new key that it asked the chain for.
    let back = network.wait_signing(3).await.session.expect("a voter has a session");
    assert_eq!(back.epoch, 2);
    assert_ne!(Some(back.session_key), before.session.map(|session| session.session_key));
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_volume_never_gets_in() {
    let network = network(1, 0).await;
    network.wait_signing(0).await;
    let node = &network.devnet.plan().nodes[0];
    let config = std::fs::read_to_string(&node.config).expect("the configuration can be read");
    let listen = ports::free(1).expect("there are free ports")[0];
    let second = config
        .replace(&node.listen.p2p.port().to_string(), &listen.p2p.to_string())
        .replace(&node.listen.grpc.port().to_string(), &listen.grpc.to_string())
        .replace(&node.listen.http.port().to_string(), &listen.http.to_string());
    let path = network.directory.path().join("second.yaml");
    std::fs::write(&path, second).expect("the configuration can be written");
    let ended = tokio::process::Command::new(env!("CARGO_BIN_EXE_althing-node"))
        .args(["validator", "--config"])
        .arg(&path)
        .kill_on_drop(true)
        .stderr(std::process::Stdio::null())
        .status();
    let status = timeout(STEP_TIME_MAX, ended).await.expect("it gives up in time").expect("it can be started");
    assert_eq!(status.code(), Some(4));
    network.send(0, 0, 0).await;
    network.devnet.stop().await.expect("the node stops");
}
