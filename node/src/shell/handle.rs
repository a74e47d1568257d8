//! How the gRPC services reach the main loop and read the chain.

use std::sync::{Arc, OnceLock};

use node_api::proto;
use node_core::types::{CertifiedBlock, Epoch, Height, Identity, Recovery, TransactionId};
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{lifecycle::LifecycleError, state::StateAccess, submission::Submission};
use crate::adapters::storage::{BlockReader, EventReader, Prover, StorageError};

/// Calls that may wait for the main loop.
pub const REQUESTS_MAX: usize = 1024;
/// Votes kept for a watcher that reads slowly.
const WATCHED_VOTES_MAX: usize = 4096;

/// A question to the main loop, with where to put the answer.
#[derive(Debug)]
pub enum Request {
    /// What the node says of itself.
    Status(oneshot::Sender<proto::GetStatusResponse>),
    /// Who votes and who was seen voting; nothing before genesis.
    Validators(oneshot::Sender<Option<proto::GetValidatorsResponse>>),
    /// Verified transactions for the mempool.
    Submit(Vec<Submission>),
    /// What is known of a transaction.
    Transaction(TransactionId, oneshot::Sender<proto::GetTransactionResponse>),
    /// A step of the node's life that the operator directs.
    Lifecycle(LifecycleRequest),
}

/// The calls of the operator.
#[derive(Debug)]
pub enum LifecycleRequest {
    /// Which proof does the node wait for?
    GetStartRequest(oneshot::Sender<proto::StartRequest>),
    /// What is known of the former owner.
    GrantStart(proto::StartGrant, oneshot::Sender<Result<proto::GrantStartResponse, LifecycleError>>),
    /// The voter's part of a genesis.
    GetGenesisReport([u8; 32], oneshot::Sender<Result<proto::GenesisReport, LifecycleError>>),
    /// One genesis to accept.
    AcceptGenesis(proto::AcceptGenesisRequest, oneshot::Sender<Result<proto::AcceptGenesisResponse, LifecycleError>>),
    /// The hash of a genesis to forget.
    DropGenesis(Vec<u8>, oneshot::Sender<Result<(), LifecycleError>>),
    /// The last block and a fresh session key, for a recovery.
    GetRecoveryReport(oneshot::Sender<Result<proto::RecoveryReport, LifecycleError>>),
    /// A recovery that governance has approved.
    AcceptRecovery(Box<Recovery>, oneshot::Sender<Result<proto::AcceptRecoveryResponse, LifecycleError>>),
    /// A recovery that identities of a quorum have accepted.
    CompleteRecovery(Box<Recovery>, oneshot::Sender<Result<(), LifecycleError>>),
    /// The proof that the node holds a session key of this epoch, with which it can be voted in.
    GetVoterReport(Epoch, oneshot::Sender<Result<proto::VoterReport, LifecycleError>>),
    /// The hash of the genesis to start.
    StartChain(Vec<u8>, oneshot::Sender<Result<(), LifecycleError>>),
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandleError {
    /// The chain has not started here.
    #[error("this node has not started a chain yet")]
    NotStarted,
    /// Too many calls wait.
    #[error("this node has too many calls waiting")]
    Busy,
    /// The node is going down.
    #[error("this node is stopping")]
    Stopping,
}

/// What the services hold; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    requests: mpsc::Sender<Request>,
    votes: broadcast::Sender<Arc<proto::SeenVote>>,
    chain: OnceLock<ChainAccess>,
}

impl Handle {
    /// The handle and the main loop's end of its queue.
    pub fn new(identity: Identity) -> (Self, mpsc::Receiver<Request>) {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let (votes, _) = broadcast::channel(WATCHED_VOTES_MAX);
        (Self { shared: Arc::new(Shared { identity, requests, votes, chain: OnceLock::new() }) }, queue)
    }

    /// The identity of this node.
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// Asks the main loop. `request` gets the place for the answer.
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.tell(request(reply))?;
        answer.await.map_err(|_| HandleError::Stopping)
    }

    /// Queues a request whose answer is awaited elsewhere.
    pub fn tell(&self, request: Request) -> Result<(), HandleError> {
        self.shared.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HandleError::Busy,
            mpsc::error::TrySendError::Closed(_) => HandleError::Stopping,
        })
    }

    /// Queues transactions, or gives them back.
    pub fn submit(&self, submissions: Vec<Submission>) -> Result<(), Vec<Submission>> {
        match self.shared.requests.try_reserve() {
            Ok(place) => {
                place.send(Request::Submit(submissions));
                Ok(())
            }
            Err(_) => Err(submissions),
        }
    }

    /// The chain's stores, once it has started here.
    pub fn chain(&self) -> Result<&ChainAccess, HandleError> {
        self.shared.chain.get().ok_or(HandleError::NotStarted)
    }

    /// The chain has started; called once by the main loop.
    pub fn start(&self, chain: ChainAccess) {
        // A second start is impossible: the main loop leaves the ceremony once.
        let _ = self.shared.chain.set(chain);
    }

    /// Every vote from now on.
    pub fn watch_votes(&self) -> broadcast::Receiver<Arc<proto::SeenVote>> {
        self.shared.votes.subscribe()
    }

    /// Whether somebody watches votes.
    pub fn votes_are_watched(&self) -> bool {
        self.shared.votes.receiver_count() > 0
    }

    /// Tells the watchers of a vote.
    pub fn show_vote(&self, vote: proto::SeenVote) {
        // No watcher left is no error.
        let _ = self.shared.votes.send(Arc::new(vote));
    }
}

/// The chain's stores, for reading.
#[derive(Clone, Debug)]
pub struct ChainAccess {
    /// Blocks on disk.
    pub blocks: BlockReader,
    /// The executed state.
    pub state: StateAccess,
    /// What proves heights to others.
    pub prover: Prover,
    /// Events on disk, where they are kept.
    pub events: Option<EventReader>,
    /// The newest final and executed height.
    pub heights: watch::Receiver<Height>,
}

impl ChainAccess {
    /// The newest final and executed height.
    pub fn height(&self) -> Height {
        *self.heights.borrow()
    }

    /// The oldest height on disk; 1 while there is none.
    pub fn lowest_height(&self) -> Height {
        self.blocks.first_height().unwrap_or(Height::new(1))
    }

    /// The newest height as it changes.
    pub fn heights(&self) -> watch::Receiver<Height> {
        self.heights.clone()
    }

    /// One block, if it is final and executed here and still on disk.
    pub async fn block(&self, height: Height) -> Result<Option<CertifiedBlock>, StorageError> {
        if height > self.height() {
            return Ok(None);
        }
        let reader = self.blocks.clone();
        // A read that was interrupted is a shutdown: nobody waits for the block.
        tokio::task::spawn_blocking(move || reader.read(height)).await.unwrap_or(Ok(None))
    }
}
