//! `Validators`: who votes, and whom this node has seen voting.

use node_api::proto::{self, validators_server::Validators};
use node_core::{codec::Encode, ledger::Rules};
use tonic::{Request, Response, Status};

use crate::shell::{
    handle::{self, Handle, HandleError},
    state::GovernanceView,
};

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

    async fn get_governance(
        &self,
        _request: Request<proto::GetGovernanceRequest>,
    ) -> Result<Response<proto::GetGovernanceResponse>, Status> {
        let read = self.handle.chain()?.state.governance().await;
        let GovernanceView { height, nonce, rules } = read.map_err(|error| Status::internal(error.to_string()))?;
        let Rules { parameters, pending, governance } = rules;
        Ok(Response::new(proto::GetGovernanceResponse {
            height: height.get(),
            threshold: governance.threshold,
            keys: governance.keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            nonce: nonce.get(),
            parameters: parameters.encode(),
            pending_parameters: pending.as_ref().map(|pending| pending.parameters.encode()).unwrap_or_default(),
            pending_from_height: pending.map_or(0, |pending| pending.counts_from.get()),
        }))
    }
}
