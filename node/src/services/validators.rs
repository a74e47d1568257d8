//! `Validators`: who votes, and whom this node has seen voting.

use node_api::proto::{self, validators_server::Validators};
use tonic::{Request, Response, Status};

use crate::shell::handle::{self, Handle, HandleError};

/// The service.
#[derive(Clone, Debug)]
pub struct ValidatorsService {
    handle: Handle,
}

impl ValidatorsService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl Validators for ValidatorsService {
    async fn get_validators(
        &self,
        _request: Request<proto::GetValidatorsRequest>,
    ) -> Result<Response<proto::GetValidatorsResponse>, Status> {
        let view = self.handle.ask(handle::Request::Validators).await?;
        Ok(Response::new(view.ok_or(HandleError::NotStarted)?))
    }
}
