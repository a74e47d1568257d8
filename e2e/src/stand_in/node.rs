//! One node's process: the calls that an operator makes, answered over mutual TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt;
use node_api::authorize::AuthorizeLayer;
use node_api::proto::{self, lifecycle_server, node_server, validators_server};
use node_api::tls::{AcceptLimits, TlsStore, incoming};
use node_core::codec::{Decode, Encode};
use node_core::crypto::{KeyPair, SigningBytes};
use node_core::types::{CeremonyNonce, ChainId, Epoch, Genesis, Identity, SessionKey};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::chains::{Chains, View};

/// What outlives the process: the node's volume.
pub struct Volume {
    session: KeyPair,
    claim_uid: String,
    genesis: Option<Genesis>,
    has_started: bool,
}

impl Volume {
    /// An empty volume on which a session key was made.
    pub fn new(session: KeyPair) -> Self {
        Self { session, claim_uid: String::new(), genesis: None, has_started: false }
    }

    /// The chain was started on it.
    pub fn has_started(&self) -> bool {
        self.has_started
    }
}

/// One process.
#[derive(Clone)]
pub struct Process {
    /// Namespace of its pod.
    pub namespace: String,
    /// UID of its pod.
    pub pod_uid: String,
    /// Its chain.
    pub chain_id: ChainId,
    /// Its identity.
    pub identity: Identity,
    /// Version that it reports.
    pub version: String,
    /// Its volume.
    pub volume: Arc<Mutex<Volume>>,
    /// Where heights come from.
    pub chains: Arc<Chains>,
}

/// Serves until `stop` with the certificate that is in the store.
///
/// # Errors
/// When the address cannot be used.
pub async fn serve(process: Process, address: SocketAddr, tls: Arc<TlsStore>, stop: CancellationToken) -> Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    process.resume();
    let limits = AcceptLimits { connections_max: 16, ..AcceptLimits::default() };
    let connections = incoming(listener, tls, limits).boxed();
    let server = Server::builder()
        .layer(AuthorizeLayer)
        .add_service(node_server::NodeServer::new(process.clone()))
        .add_service(validators_server::ValidatorsServer::new(process.clone()))
        .add_service(lifecycle_server::LifecycleServer::new(process.clone()));
    tokio::spawn(async move {
        tokio::select! {
            served = server.serve_with_incoming(connections) => {
                if let Err(error) = served {
                    eprintln!("stand-in of {}: {error}", process.identity);
                }
            }
            () = stop.cancelled() => {}
        }
        process.chains.stop(&process.namespace, process.identity);
    });
    Ok(())
}

impl Process {
    fn volume(&self) -> std::sync::MutexGuard<'_, Volume> {
        self.volume.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with a chain that was started before.
    fn resume(&self) {
        let volume = self.volume();
        if let Some(genesis) = volume.genesis.as_ref().filter(|_| volume.has_started) {
            self.chains.run(&self.namespace, genesis, self.identity);
        }
    }

    fn view(&self) -> Option<View> {
        let genesis = self.volume().genesis.clone()?;
        self.chains.view(&self.namespace, &genesis)
    }

    fn session_key(&self) -> SessionKey {
        SessionKey::new(self.volume().session.public())
    }
}

#[tonic::async_trait]
impl node_server::Node for Process {
    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let session_key = self.session_key();
        let view = self.view();
        let volume = self.volume();
        let view = view.filter(|_| volume.has_started);
        let state = match (&volume.genesis, volume.has_started) {
            (None, _) => proto::NodeState::WaitingForGenesis,
            (Some(_), false) => proto::NodeState::GenesisAccepted,
            (Some(_), true) => proto::NodeState::Running,
        };
        let genesis_hash = volume.genesis.as_ref().map(|genesis| genesis.hash().as_bytes().to_vec());
        Ok(Response::new(proto::GetStatusResponse {
            version: self.version.clone(),
            chain_id: self.chain_id.as_str().to_string(),
            role: "validator".to_string(),
            identity: self.identity.as_bytes().to_vec(),
            genesis_hash: genesis_hash.unwrap_or_default(),
            state: state.into(),
            height: view.as_ref().map_or(0, |view| view.height),
            block_age_ms: view.as_ref().map_or(0, |view| u64::try_from(view.block_age.as_millis()).unwrap_or(0)),
            synced: view.is_some(),
            signing_enabled: view.is_some(),
            session: Some(proto::Session {
                state: proto::SessionState::Cleared.into(),
                session_key: session_key.as_bytes().to_vec(),
                epoch: Epoch::FIRST.get(),
                last_signed_height: view.as_ref().map_or(0, |view| view.height),
            }),
            ..proto::GetStatusResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl validators_server::Validators for Process {
    async fn get_validators(
        &self,
        _: Request<proto::GetValidatorsRequest>,
    ) -> Result<Response<proto::GetValidatorsResponse>, Status> {
        let view = self.view().ok_or_else(|| Status::failed_precondition("the chain has not started"))?;
        let voters = view.voters.iter().map(|(entry, heights, last)| proto::Voter {
            identity: entry.identity.as_bytes().to_vec(),
            power: entry.power.get(),
            session_key: entry.session_key.as_bytes().to_vec(),
            epoch: entry.epoch.get(),
            precommit_heights_seen: *heights,
            last_precommit_height: *last,
            ..proto::Voter::default()
        });
        Ok(Response::new(proto::GetValidatorsResponse {
            height: view.height,
            block_age_ms: u64::try_from(view.block_age.as_millis()).unwrap_or(0),
            total_power: view.voters.iter().map(|(entry, _, _)| entry.power.get()).sum(),
            voters: voters.collect(),
            window_heights: view.window,
            reporter: self.identity.as_bytes().to_vec(),
            ..proto::GetValidatorsResponse::default()
        }))
    }

    async fn get_governance(
        &self,
        _: Request<proto::GetGovernanceRequest>,
    ) -> Result<Response<proto::GetGovernanceResponse>, Status> {
        Err(Status::unimplemented("the voters of a stand-in's chain do not change"))
    }
}

#[tonic::async_trait]
impl lifecycle_server::Lifecycle for Process {
    async fn get_recovery_report(
        &self,
        _: Request<proto::GetRecoveryReportRequest>,
    ) -> Result<Response<proto::RecoveryReport>, Status> {
        Err(Status::unimplemented("a stand-in's chain is never recovered"))
    }

    async fn accept_recovery(
        &self,
        _: Request<proto::AcceptRecoveryRequest>,
    ) -> Result<Response<proto::AcceptRecoveryResponse>, Status> {
        Err(Status::unimplemented("a stand-in's chain is never recovered"))
    }

    async fn complete_recovery(
        &self,
        _: Request<proto::CompleteRecoveryRequest>,
    ) -> Result<Response<proto::CompleteRecoveryResponse>, Status> {
        Err(Status::unimplemented("a stand-in's chain is never recovered"))
    }

    async fn get_voter_report(
        &self,
        _: Request<proto::GetVoterReportRequest>,
    ) -> Result<Response<proto::VoterReport>, Status> {
        Err(Status::unimplemented("the voters of a stand-in's chain do not change"))
    }

    /// A process that was stopped gave its key back: nothing but the claim is ever asked.
    async fn get_start_request(
        &self,
        _: Request<proto::GetStartRequestRequest>,
    ) -> Result<Response<proto::StartRequest>, Status> {
        let session_key = self.session_key();
        let claim_uid = self.volume().claim_uid.clone();
        Ok(Response::new(proto::StartRequest {
            asking: false,
            own: Some(proto::Owner { pod_uid: self.pod_uid.clone(), ..proto::Owner::default() }),
            session_key: session_key.as_bytes().to_vec(),
            epoch: Epoch::FIRST.get(),
            key_claim_uid: claim_uid.clone(),
            claim_uid,
            ..proto::StartRequest::default()
        }))
    }

    async fn grant_start(
        &self,
        request: Request<proto::StartGrant>,
    ) -> Result<Response<proto::GrantStartResponse>, Status> {
        let grant = request.into_inner();
        if grant.pod_uid != self.pod_uid {
            return Err(Status::failed_precondition("the grant is for another pod"));
        }
        self.volume().claim_uid = grant.claim_uid;
        Ok(Response::new(proto::GrantStartResponse { cleared: true, reason: String::new() }))
    }

    async fn get_genesis_report(
        &self,
        request: Request<proto::GetGenesisReportRequest>,
    ) -> Result<Response<proto::GenesisReport>, Status> {
        let nonce: [u8; 32] = request
            .into_inner()
            .ceremony_nonce
            .try_into()
            .map_err(|_| Status::invalid_argument("ceremony_nonce has 32 bytes"))?;
        let session_key = self.session_key();
        let nonce = CeremonyNonce::new(nonce);
        let bytes = SigningBytes::genesis_possession(&self.chain_id, &nonce, &self.identity, &session_key);
        let volume = self.volume();
        let accepted = volume.genesis.as_ref();
        Ok(Response::new(proto::GenesisReport {
            identity: self.identity.as_bytes().to_vec(),
            session_key: session_key.as_bytes().to_vec(),
            epoch: Epoch::FIRST.get(),
            possession: volume.session.sign(&bytes).as_bytes().to_vec(),
            accepted_genesis_hash: accepted.map(|it| it.hash().as_bytes().to_vec()).unwrap_or_default(),
            started: volume.has_started,
            accepted_genesis: accepted.map(|it| it.encode()).unwrap_or_default(),
        }))
    }

    async fn accept_genesis(
        &self,
        request: Request<proto::AcceptGenesisRequest>,
    ) -> Result<Response<proto::AcceptGenesisResponse>, Status> {
        let genesis = Genesis::decode(&request.into_inner().genesis)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let session_key = self.session_key();
        let mut volume = self.volume();
        let hash = genesis.hash();
        if volume.genesis.as_ref().is_some_and(|held| held.hash() != hash) {
            return Err(Status::failed_precondition("another genesis is accepted already"));
        }
        let bytes = SigningBytes::genesis_acceptance(&hash, &self.identity, &session_key);
        volume.genesis = Some(genesis);
        Ok(Response::new(proto::AcceptGenesisResponse {
            genesis_hash: hash.as_bytes().to_vec(),
            signature: volume.session.sign(&bytes).as_bytes().to_vec(),
        }))
    }

    async fn drop_genesis(
        &self,
        request: Request<proto::DropGenesisRequest>,
    ) -> Result<Response<proto::DropGenesisResponse>, Status> {
        let hash = request.into_inner().genesis_hash;
        let mut volume = self.volume();
        if volume.has_started {
            return Err(Status::failed_precondition("the chain has started"));
        }
        volume.genesis = volume.genesis.take().filter(|held| held.hash().as_bytes().as_slice() != hash.as_slice());
        Ok(Response::new(proto::DropGenesisResponse {}))
    }

    async fn start_chain(
        &self,
        request: Request<proto::StartChainRequest>,
    ) -> Result<Response<proto::StartChainResponse>, Status> {
        let hash = request.into_inner().genesis_hash;
        {
            let mut volume = self.volume();
            if volume.genesis.as_ref().is_none_or(|held| held.hash().as_bytes().as_slice() != hash.as_slice()) {
                return Err(Status::failed_precondition("this genesis is not accepted"));
            }
            volume.has_started = true;
        }
        self.resume();
        Ok(Response::new(proto::StartChainResponse {}))
    }
}
