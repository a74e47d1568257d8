//! The newest blocks, followed once for all streams: a ring in bounded memory, older ones from the nodes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use node_api::{proto, trace::TraceParent};
use node_core::{
    codec::Decode,
    types::{AccountId, Block, Payload, TransactionId},
};
use prost::Message;
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Status};

use super::{
    backends::{Backends, CallContext},
    calls::Call,
    metrics::GatewayMetrics,
};

/// Blocks in the ring.
const BLOCKS_MAX: usize = 256;
/// Bytes of blocks in the ring.
const BYTES_MAX: usize = node_api::gateway::FEED_BYTES_MAX;
/// Pause before the stream of a node is opened again.
const PAUSE: Duration = Duration::from_millis(250);
/// Time for one look at a node.
const LOOK: Duration = Duration::from_secs(10);

/// A block as streams need it.
#[derive(Debug)]
pub struct FeedBlock {
    /// Its height.
    pub height: u64,
    /// Header facts, without body and certificate.
    pub brief: proto::Block,
    /// Its transactions in order.
    pub transactions: Vec<FeedTransaction>,
    bytes: usize,
}

/// A transaction of a block.
#[derive(Clone, Copy, Debug)]
pub struct FeedTransaction {
    /// Its hash.
    pub id: TransactionId,
    /// Who sent it.
    pub sender: AccountId,
    /// Who gets something, when it is a transfer.
    pub receiver: Option<AccountId>,
}

impl FeedTransaction {
    /// Whether one of these accounts sends or receives it.
    pub fn concerns(&self, accounts: &[AccountId]) -> bool {
        accounts.iter().any(|account| *account == self.sender || Some(*account) == self.receiver)
    }
}

#[derive(Debug, Default)]
struct Ring {
    blocks: VecDeque<Arc<FeedBlock>>,
    bytes: usize,
}

/// Follows the chain.
#[derive(Debug)]
pub struct Feed {
    backends: Arc<Backends>,
    metrics: Arc<GatewayMetrics>,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

impl Feed {
    /// A feed that [`Feed::run`] fills.
    pub fn new(backends: Arc<Backends>, metrics: Arc<GatewayMetrics>) -> Self {
        Self { backends, metrics, ring: Mutex::default(), newest: watch::Sender::new(0) }
    }

    /// The newest height, and each change of it.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Follows the chain until the future is dropped. A node that fails is replaced by the next.
    pub async fn run(&self) {
        loop {
            if let Err(status) = self.follow().await {
                tracing::debug!(%status, "the stream of blocks ended");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn follow(&self) -> Result<(), Status> {
        let newest = *self.newest.borrow();
        let from_height = if newest == 0 { self.look(0).await?.height } else { newest + 1 };
        let request =
            proto::StreamBlocksRequest { from_height, detail: proto::BlockDetail::Unspecified.into() }.encode_to_vec();
        let mut blocks = match self.backends.stream(Call::StreamBlocks.rule(), request.into(), &look()).await {
            // The node no longer has what is missing: go on with what it has.
            Err(status) if status.code() == Code::NotFound => {
                self.newest.send_replace(self.look(0).await?.height);
                return Err(status);
            }
            result => result?,
        };
        while let Some(block) = blocks.next().await {
            let block = proto::Block::decode(block?).map_err(|error| Status::data_loss(error.to_string()))?;
            self.push(decode(&block)?);
        }
        Ok(())
    }

    fn push(&self, block: FeedBlock) {
        let height = block.height;
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += block.bytes;
        ring.blocks.push_back(Arc::new(block));
        while ring.blocks.len() > BLOCKS_MAX || ring.bytes > BYTES_MAX {
            let Some(oldest) = ring.blocks.pop_front() else { break };
            ring.bytes -= oldest.bytes;
        }
        drop(ring);
        self.metrics.height.set(i64::try_from(height).unwrap_or(i64::MAX));
        self.newest.send_replace(height);
    }

    /// The block of a height that is final.
    pub async fn block(&self, height: u64) -> Result<Arc<FeedBlock>, Status> {
        if let Some(block) = self.recent(height) {
            return Ok(block);
        }
        decode(&self.look(height).await?).map(Arc::new)
    }

    fn recent(&self, height: u64) -> Option<Arc<FeedBlock>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.blocks.iter().rev().find(|block| block.height == height).map(Arc::clone)
    }

    async fn look(&self, height: u64) -> Result<proto::Block, Status> {
        let request = proto::GetBlockRequest { height }.encode_to_vec();
        let answer = self.backends.unary(Call::GetBlock.rule(), request.into(), &look()).await?;
        proto::Block::decode(answer).map_err(|error| Status::data_loss(error.to_string()))
    }
}

/// The gateway's own calls have a trace of their own.
fn look() -> CallContext {
    CallContext { deadline: Instant::now() + LOOK, trace: TraceParent::start(), request_id: "feed".into() }
}

fn decode(block: &proto::Block) -> Result<FeedBlock, Status> {
    let body = Block::decode(&block.block).map_err(|error| Status::data_loss(error.to_string()))?;
    let transactions = body.transactions().map(|transaction| FeedTransaction {
        id: transaction.id(),
        sender: transaction.body().sender,
        receiver: match &transaction.body().payload {
            Payload::Transfer(transfer) => Some(transfer.to),
            Payload::RotateSession(_) | Payload::KeepSession(_) | Payload::Governance(_) => None,
        },
    });
    let transactions: Vec<FeedTransaction> = transactions.collect();
    let brief = proto::Block { block: bytes::Bytes::new(), certificate: bytes::Bytes::new(), ..block.clone() };
    let bytes = brief.encoded_len() + transactions.len() * size_of::<FeedTransaction>();
    Ok(FeedBlock { height: block.height, brief, transactions, bytes })
}
