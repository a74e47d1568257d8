//! `Blocks`: final blocks with the certificates that prove them.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use node_api::proto::{self, BlockDetail, blocks_server::Blocks};
use node_core::{
    codec::Encode,
    types::{CertifiedBlock, Height},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    adapters::storage::ProvingError,
    shell::handle::{ChainAccess, Handle},
};

/// Light blocks in one answer. With a hundred voters one has about 30 KiB.
const LIGHT_BLOCKS_MAX: usize = 64;
/// Blocks read from the disk before the receiver took the former ones.
const READ_AHEAD: usize = 4;

/// The service.
#[derive(Clone, Debug)]
pub struct BlocksService {
    handle: Handle,
}

impl BlocksService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

type BlockStream = Pin<Box<dyn Stream<Item = Result<proto::Block, Status>> + Send>>;

#[tonic::async_trait]
impl Blocks for BlocksService {
    type StreamBlocksStream = BlockStream;

    async fn get_block(&self, request: Request<proto::GetBlockRequest>) -> Result<Response<proto::Block>, Status> {
        let chain = self.handle.chain()?;
        let height = match request.into_inner().height {
            0 => chain.height(),
            height => Height::new(height),
        };
        Ok(Response::new(read(chain, height, BlockDetail::Unspecified).await?))
    }

    async fn stream_blocks(
        &self,
        request: Request<proto::StreamBlocksRequest>,
    ) -> Result<Response<BlockStream>, Status> {
        let chain = self.handle.chain()?.clone();
        let request = request.into_inner();
        let detail = request.detail();
        let first = match request.from_height {
            0 => chain.height().next(),
            height => Height::new(height),
        };
        let lowest = chain.lowest_height();
        if first < lowest {
            return Err(Status::not_found(format!("this node keeps blocks from height {lowest} on")));
        }
        let heights = chain.heights();
        let blocks = stream::unfold((chain, heights, first), move |(chain, mut heights, next)| async move {
            wait_for(&mut heights, next).await?;
            let block = read(&chain, next, detail).await;
            Some((block, (chain, heights, next.next())))
        });
        // The stream ends after the first error: there must be no gap.
        let blocks = blocks.scan(false, |failed, block| {
            let go_on = !*failed;
            *failed = block.is_err();
            std::future::ready(go_on.then_some(block))
        });
        Ok(Response::new(Box::pin(blocks.map(std::future::ready).buffered(READ_AHEAD))))
    }

    async fn get_light_blocks(
        &self,
        request: Request<proto::GetLightBlocksRequest>,
    ) -> Result<Response<proto::GetLightBlocksResponse>, Status> {
        let chain = self.handle.chain()?;
        let proto::GetLightBlocksRequest { trusted_height, to_height } = request.into_inner();
        let to = if to_height == 0 { chain.height() } else { Height::new(to_height) };
        let light_blocks = way(chain, Height::new(trusted_height), to).await?;
        Ok(Response::new(proto::GetLightBlocksResponse { light_blocks }))
    }
}

/// The way of a light client, read from the disk.
async fn way(chain: &ChainAccess, trusted: Height, to: Height) -> Result<Vec<Vec<u8>>, Status> {
    let newest = chain.height();
    if to > newest {
        return Err(Status::not_found(format!("the newest height here is {newest}")));
    }
    if to <= trusted {
        return Err(Status::invalid_argument(format!("height {to} is not after the trusted height {trusted}")));
    }
    let prover = chain.prover.clone();
    let read = move || prover.way(trusted, to, LIGHT_BLOCKS_MAX);
    let way = tokio::task::spawn_blocking(read).await.map_err(|error| Status::internal(error.to_string()))?;
    match way {
        Ok(way) => Ok(way.iter().map(Encode::encode).collect()),
        Err(error @ ProvingError::NoBlock { .. }) => Err(Status::not_found(error.to_string())),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// Waits until `height` is final here; nothing when the node stops.
async fn wait_for(heights: &mut watch::Receiver<Height>, height: Height) -> Option<()> {
    heights.wait_for(|newest| *newest >= height).await.ok().map(|_| ())
}

async fn read(chain: &ChainAccess, height: Height, detail: BlockDetail) -> Result<proto::Block, Status> {
    let block = chain.block(height).await.map_err(|error| Status::internal(error.to_string()))?;
    block
        .map(|block| match detail {
            BlockDetail::Unspecified => to_proto(&block),
            BlockDetail::Header => header_to_proto(&block),
        })
        .ok_or_else(|| Status::not_found(format!("this node has no block of height {height}")))
}

fn to_proto(certified: &CertifiedBlock) -> proto::Block {
    let CertifiedBlock { block, certificate } = certified;
    let header = block.header();
    let summary = proto::BlockSummary {
        parent: header.parent.as_bytes().to_vec(),
        proposer: header.proposer.as_bytes().to_vec(),
        round: certificate.round().get(),
        time_ms: header.time.get(),
        transactions: u32::try_from(block.transactions().count()).unwrap_or(u32::MAX),
        signers: certificate.signatures().iter().map(|signature| signature.voter.as_bytes().to_vec()).collect(),
        results_height: header.height.get().saturating_sub(2),
        state_root: header.results.roots.state_root.as_bytes().to_vec(),
    };
    proto::Block {
        height: header.height.get(),
        hash: block.hash().as_bytes().to_vec(),
        block: block.encode().into(),
        certificate: certificate.encode().into(),
        summary: Some(summary),
        header: Vec::new(),
    }
}

fn header_to_proto(certified: &CertifiedBlock) -> proto::Block {
    let header = certified.block.header();
    proto::Block {
        height: header.height.get(),
        hash: certified.block.hash().as_bytes().to_vec(),
        certificate: certified.certificate.encode().into(),
        header: header.encode(),
        ..proto::Block::default()
    }
}
