//! `Lifecycle`: the operator's calls, each answered by the main loop.

use node_api::proto::{self, lifecycle_server::Lifecycle};
use node_core::{codec::Decode, types::Recovery};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::shell::{
    handle::{self, Handle, LifecycleRequest},
    lifecycle::LifecycleError,
};

/// The service.
#[derive(Clone, Debug)]
pub struct LifecycleService {
    handle: Handle,
}

impl LifecycleService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, LifecycleError>>) -> LifecycleRequest,
    ) -> Result<T, Status> {
        let answer = self.handle.ask(|reply| handle::Request::Lifecycle(request(reply))).await?;
        answer.map_err(|error| match error {
            LifecycleError::Invalid { .. } => Status::invalid_argument(error.to_string()),
            LifecycleError::NotNow { .. } => Status::failed_precondition(error.to_string()),
            LifecycleError::Volume { .. } => Status::internal(error.to_string()),
        })
    }
}

#[tonic::async_trait]
impl Lifecycle for LifecycleService {
    async fn get_start_request(
        &self,
        _request: Request<proto::GetStartRequestRequest>,
    ) -> Result<Response<proto::StartRequest>, Status> {
        let answer =
            self.handle.ask(|reply| handle::Request::Lifecycle(LifecycleRequest::GetStartRequest(reply))).await?;
        Ok(Response::new(answer))
    }

    async fn grant_start(
        &self,
        request: Request<proto::StartGrant>,
    ) -> Result<Response<proto::GrantStartResponse>, Status> {
        let grant = request.into_inner();
        self.ask(|reply| LifecycleRequest::GrantStart(grant, reply)).await.map(Response::new)
    }

    async fn get_genesis_report(
        &self,
        request: Request<proto::GetGenesisReportRequest>,
    ) -> Result<Response<proto::GenesisReport>, Status> {
        let nonce = <[u8; 32]>::try_from(request.into_inner().ceremony_nonce)
            .map_err(|_| Status::invalid_argument("ceremony_nonce must be 32 bytes"))?;
        self.ask(|reply| LifecycleRequest::GetGenesisReport(nonce, reply)).await.map(Response::new)
    }

    async fn accept_genesis(
        &self,
        request: Request<proto::AcceptGenesisRequest>,
    ) -> Result<Response<proto::AcceptGenesisResponse>, Status> {
        let genesis = request.into_inner();
        self.ask(|reply| LifecycleRequest::AcceptGenesis(genesis, reply)).await.map(Response::new)
    }

    async fn drop_genesis(
        &self,
        request: Request<proto::DropGenesisRequest>,
    ) -> Result<Response<proto::DropGenesisResponse>, Status> {
        let hash = request.into_inner().genesis_hash;
        self.ask(|reply| LifecycleRequest::DropGenesis(hash, reply)).await?;
        Ok(Response::new(proto::DropGenesisResponse {}))
    }

    async fn start_chain(
        &self,
        request: Request<proto::StartChainRequest>,
    ) -> Result<Response<proto::StartChainResponse>, Status> {
        let hash = request.into_inner().genesis_hash;
        self.ask(|reply| LifecycleRequest::StartChain(hash, reply)).await?;
        Ok(Response::new(proto::StartChainResponse {}))
    }

    async fn get_recovery_report(
        &self,
        _request: Request<proto::GetRecoveryReportRequest>,
    ) -> Result<Response<proto::RecoveryReport>, Status> {
        self.ask(LifecycleRequest::GetRecoveryReport).await.map(Response::new)
    }

    async fn accept_recovery(
        &self,
        request: Request<proto::AcceptRecoveryRequest>,
    ) -> Result<Response<proto::AcceptRecoveryResponse>, Status> {
        let recovery = decode_recovery(&request.into_inner().recovery)?;
        self.ask(|reply| LifecycleRequest::AcceptRecovery(recovery, reply)).await.map(Response::new)
    }

    async fn complete_recovery(
        &self,
        request: Request<proto::CompleteRecoveryRequest>,
    ) -> Result<Response<proto::CompleteRecoveryResponse>, Status> {
        let recovery = decode_recovery(&request.into_inner().recovery)?;
        self.ask(|reply| LifecycleRequest::CompleteRecovery(recovery, reply)).await?;
        Ok(Response::new(proto::CompleteRecoveryResponse {}))
    }

    async fn get_voter_report(
        &self,
        _request: Request<proto::GetVoterReportRequest>,
    ) -> Result<Response<proto::VoterReport>, Status> {
        let chain = self.handle.chain().map_err(|error| Status::failed_precondition(error.to_string()))?;
        let epoch = chain.state.next_epoch(self.handle.identity()).await;
        let epoch = epoch.map_err(|error| Status::internal(error.to_string()))?;
        self.ask(|reply| LifecycleRequest::GetVoterReport(epoch, reply)).await.map(Response::new)
    }
}

fn decode_recovery(bytes: &[u8]) -> Result<Box<Recovery>, Status> {
    let recovery = Recovery::decode(bytes);
    recovery.map(Box::new).map_err(|error| Status::invalid_argument(format!("this is no recovery: {error}")))
}
