//! A network of real processes with its clients, for tests.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test may fail anywhere")]

mod certificates;
mod events;
mod limits;
mod members;
mod peers;
mod recovery;
mod states;
mod volumes;

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use althing_node::devnet::{
    Devnet, accounts,
    plan::{Plan, PlanRequest, PlannedNode},
    ports,
};
use node_api::{
    client::{Client, ClientOptions},
    config::LogLevel,
    proto::{self, Wait, get_transaction_response, submit_response::Answer, vote_event::Event},
    tls::{Expected, TcpDialer, TlsDialer, TlsStore},
    transactions::{TransferTerms, transfer},
};
use node_core::{
    mempool::TRANSFER_VALIDITY_BLOCKS_MAX,
    types::{Amount, Genesis, Height, Incarnation, Nonce, ParametersDraft, TransactionId},
};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

pub const BINARY: &str = env!("CARGO_BIN_EXE_althing-node");
pub const STEP_TIME_MAX: Duration = Duration::from_secs(60);

pub struct Network {
    pub devnet: Devnet,
    pub clients: Vec<Client>,
    pub watchers: Vec<Client>,
    pub genesis: Genesis,
    pub incarnation: Incarnation,
    pub directory: TempDir,
}

pub async fn network(validators: u16, observers: u16) -> Network {
    start(processes(validators, 0, observers)).await
}

/// With validators that genesis does not name.
pub async fn network_with_candidates(validators: u16, candidates: u16) -> Network {
    start(processes(validators, candidates, 0)).await
}

pub async fn start((mut devnet, directory): (Devnet, TempDir)) -> Network {
    let genesis = timeout(STEP_TIME_MAX, devnet.start_chain(parameters())).await;
    let genesis = genesis.expect("the ceremony ends in time").expect("the ceremony succeeds");
    Network::of(devnet, directory, &genesis)
}

/// The processes of a network without a chain.
pub fn processes(validators: u16, candidates: u16, observers: u16) -> (Devnet, TempDir) {
    let directory = TempDir::new().expect("a temporary directory can be made");
    processes_of(PathBuf::from(BINARY), directory, (validators, candidates, observers))
}

/// The same with another program in the place of the node's.
pub fn processes_of(
    binary: PathBuf,
    directory: TempDir,
    (validators, candidates, observers): (u16, u16, u16),
) -> (Devnet, TempDir) {
    let request = PlanRequest {
        directory: directory.path().to_owned(),
        chain_id: "devnet".parse().expect("the name is a chain id"),
        ports: ports::free(validators + candidates + observers).expect("there are free ports"),
        observers: usize::from(observers),
        candidates: usize::from(candidates),
        log_level: LogLevel::Info,
    };
    (Devnet::create(binary, &request).expect("the processes start"), directory)
}

pub fn parameters() -> ParametersDraft {
    ParametersDraft { block_interval_ms: 200, ..ParametersDraft::default() }
}

pub fn connect(plan: &Plan, directory: &Path) -> Vec<Client> {
    let tls = TlsStore::from_directory(directory).expect("the certificate is good");
    let options = ClientOptions { deadline: Duration::from_secs(30), ..ClientOptions::default() };
    let client = |node: &PlannedNode| {
        let expected = Expected::node(&plan.chain_id, &node.identity);
        let dialer = TlsDialer::new(TcpDialer::new(node.listen.grpc.to_string()), Arc::clone(&tls), expected);
        Client::lazy(dialer, options)
    };
    plan.nodes.iter().map(client).collect()
}

/// Asks again and again until the answer is there or time is up.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
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
    pub fn of(devnet: Devnet, directory: TempDir, genesis: &Genesis) -> Self {
        let plan = devnet.plan();
        let (clients, watchers) = (connect(plan, &plan.client), connect(plan, &plan.operator));
        Self { incarnation: genesis.incarnation(), genesis: genesis.clone(), clients, watchers, devnet, directory }
    }

    pub async fn status(&self, number: usize) -> Option<proto::GetStatusResponse> {
        self.clients[number].status().await.ok()
    }

    pub async fn wait_signing(&self, number: usize) -> proto::GetStatusResponse {
        let what = format!("node {number} signs");
        until(&what, || async { self.status(number).await.filter(|status| status.signing_enabled) }).await
    }

    pub async fn wait_height(&self, number: usize, height: u64) {
        let what = format!("node {number} is at height {height}");
        until(&what, || async { self.status(number).await.filter(|status| status.height >= height) }).await;
    }

    /// Sends one transfer of a development account to its neighbour, and waits until it is final.
    pub async fn send(&self, number: usize, account: u32, nonce: u64) -> (TransactionId, proto::Final) {
        let terms = TransferTerms {
            incarnation: self.incarnation,
            nonce: Nonce::new(nonce),
            valid_until: Height::new(TRANSFER_VALIDITY_BLOCKS_MAX),
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
    pub async fn receipts(&self, id: &TransactionId) -> Vec<proto::Final> {
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

pub type Slot = (Vec<u8>, u64, u32, i32);

/// Every verified vote and proposal that the watched nodes saw, by voter, height, round and kind.
#[derive(Clone, Default)]
pub struct Ballot {
    seen: Arc<Mutex<BTreeMap<Slot, Vec<u8>>>>,
    conflicts: Arc<Mutex<Vec<Slot>>>,
}

impl Ballot {
    pub async fn watch(&self, client: &Client) {
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

    pub fn count_of(&self, voter: &[u8]) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.keys().filter(|(who, ..)| who == voter).count()
    }

    pub fn conflicts(&self) -> Vec<Slot> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
