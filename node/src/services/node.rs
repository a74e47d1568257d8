//! `Node`: what the process says of itself.

use node_api::proto::{self, node_server::Node};
use tonic::{Request, Response, Status};

use crate::shell::handle::{self, Handle};

/// The service.
#[derive(Clone, Debug)]
pub struct NodeService {
    handle: Handle,
}

impl NodeService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn get_status(
        &self,
        _request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        Ok(Response::new(self.handle.ask(handle::Request::Status).await?))
    }
}
