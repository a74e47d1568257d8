//! The side of a connection that the peer opened: the service `Peer` on the p2p port.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use http::Extensions;
use node_api::{
    proto::{Frame, peer_server::Peer},
    tls::PeerInfo,
};
use node_core::types::Identity;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{
    links::{LinkError, Links, Side},
    receive::{Inbox, ReadsRecords},
    records::READS_RECORDS,
};

/// The service.
#[derive(Clone, Debug)]
pub struct PeerService {
    links: Links,
    inbox: Inbox,
}

impl PeerService {
    /// Enters connections into `links` and delivers what they bring to `inbox`.
    pub fn new(links: Links, inbox: Inbox) -> Self {
        Self { links, inbox }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn connect(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::ConnectStream>, Status> {
        let peer = node_identity(request.extensions())?;
        let (link, queue) = self.links.open(peer, Side::Accepted).map_err(|error| match error {
            LinkError::Full => Status::resource_exhausted(error.to_string()),
            LinkError::Banned { .. } => Status::permission_denied(error.to_string()),
        })?;
        let reads = ReadsRecords::of(request.metadata());
        let frames = request.into_inner();
        let inbox = self.inbox.clone();
        // Ends with the connection: dropping the link closes the queue, and with it the answer stream.
        tokio::spawn(async move {
            let end = inbox.receive(link, reads, frames).await;
            tracing::debug!(%peer, ?end, "the peer's connection ended");
        });
        let mut response: Response<Self::ConnectStream> =
            Response::new(Box::pin(ReceiverStream::new(queue).map(|body| Ok(Frame { body }))));
        response.metadata_mut().insert(READS_RECORDS, MetadataValue::from_static("1"));
        Ok(response)
    }
}

/// The identity of the node at the other end. The role table lets nobody else through.
fn node_identity(extensions: &Extensions) -> Result<Identity, Status> {
    let caller =
        extensions.get::<PeerInfo>().ok_or_else(|| Status::unauthenticated("the connection has no certificate"))?;
    caller.id.identity().ok_or_else(|| Status::permission_denied(format!("{} is not a node", caller.id)))
}
