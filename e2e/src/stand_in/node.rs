//! One node's process: the calls that an operator makes, answered over mutual TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use node_api::authorize::AuthorizeLayer;
use node_api::proto::{self, lifecycle_server, node_server, transactions_server, validators_server};
use node_api::tls::{AcceptLimits, TlsStore, incoming};
use node_core::codec::{Decode, Encode};
use node_core::crypto::{KeyPair, SigningBytes, verify_genesis, verify_transaction};
use node_core::mempool::Refusal;
use node_core::types::{CeremonyNonce, ChainId, Epoch, Genesis, SessionKey, Transaction};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::chain::{GovernanceView, View};
use super::chains::{Chains, Member};

/// What outlives the process: the node's volume.
pub struct Volume {
    session: KeyPair,
    epoch: Epoch,
    claim_uid: String,
    genesis: Option<Genesis>,
    has_started: bool,
}

impl Volume {
    /// An empty volume on which a session key was made.
    pub fn new(session: KeyPair) -> Self {
        Self { session, epoch: Epoch::FIRST, claim_uid: String::new(), genesis: None, has_started: false }
    }
}

/// One process.
#[derive(Clone)]
pub struct Process {
    /// Where it is and who it is.
    pub member: Member,
    /// Its chain.
    pub chain_id: ChainId,
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
    process.resume()?;
    let limits = AcceptLimits { connections_max: 16, ..AcceptLimits::default() };
    let connections = incoming(listener, tls, limits).boxed();
    let server = Server::builder()
        .layer(AuthorizeLayer)
        .add_service(node_server::NodeServer::new(process.clone()))
        .add_service(validators_server::ValidatorsServer::new(process.clone()))
        .add_service(transactions_server::TransactionsServer::new(process.clone()))
        .add_service(lifecycle_server::LifecycleServer::new(process.clone()));
    tokio::spawn(async move {
        tokio::select! {
            served = server.serve_with_incoming(connections) => {
                if let Err(error) = served {
                    eprintln!("stand-in of {}: {error}", process.member.identity);
                }
            }
            () = stop.cancelled() => {}
        }
        process.chains.stop(&process.member);
    });
    Ok(())
}

impl Process {
    fn volume(&self) -> std::sync::MutexGuard<'_, Volume> {
        self.volume.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has the last block of its chain, and nothing keeps it from signing.
    pub fn is_ready(&self) -> bool {
        self.view().is_some_and(|view| view.is_synced)
    }

    /// Goes on with a chain that was started before.
    fn resume(&self) -> Result<()> {
        let volume = self.volume();
        match volume.genesis.as_ref().filter(|_| volume.has_started) {
            Some(genesis) => self.chains.run(&self.member, genesis, SessionKey::new(volume.session.public())),
            None => Ok(()),
        }
    }

    /// The genesis of the chain that it follows.
    fn followed(&self) -> Option<Genesis> {
        let volume = self.volume();
        volume.genesis.clone().filter(|_| volume.has_started)
    }

    /// What it knows of the chain that it follows.
    fn view(&self) -> Option<View> {
        self.chains.view(&self.member, &self.followed()?)
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
        let state = match (&volume.genesis, &view) {
            (None, _) => proto::NodeState::WaitingForGenesis,
            (Some(_), None) => proto::NodeState::GenesisAccepted,
            (Some(_), Some(view)) if view.is_synced => proto::NodeState::Running,
            (Some(_), Some(_)) => proto::NodeState::Syncing,
        };
        let vote = view.as_ref().and_then(|view| view.vote(&self.member.identity));
        let session_state = match (&view, vote) {
            (None, _) => proto::SessionState::Proposed,
            (Some(_), Some(_)) => proto::SessionState::Cleared,
            (Some(_), None) => proto::SessionState::NotAVoter,
        };
        let is_synced = view.as_ref().is_some_and(|view| view.is_synced);
        let genesis_hash = volume.genesis.as_ref().map(|genesis| genesis.hash().as_bytes().to_vec());
        Ok(Response::new(proto::GetStatusResponse {
            version: self.version.clone(),
            chain_id: self.chain_id.as_str().to_string(),
            role: "validator".to_string(),
            identity: self.member.identity.as_bytes().to_vec(),
            genesis_hash: genesis_hash.unwrap_or_default(),
            state: state.into(),
            height: view.as_ref().map_or(0, |view| view.height),
            block_age_ms: view.as_ref().map_or(0, |view| u64::try_from(view.block_age.as_millis()).unwrap_or(0)),
            synced: is_synced,
            signing_enabled: is_synced && vote.is_some(),
            session: Some(proto::Session {
                state: session_state.into(),
                session_key: session_key.as_bytes().to_vec(),
                epoch: volume.epoch.get(),
                last_signed_height: vote.unwrap_or(0),
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
        let view = self.view().ok_or_else(not_started)?;
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
            reporter: self.member.identity.as_bytes().to_vec(),
            ..proto::GetValidatorsResponse::default()
        }))
    }

    async fn get_governance(
        &self,
        _: Request<proto::GetGovernanceRequest>,
    ) -> Result<Response<proto::GetGovernanceResponse>, Status> {
        let (genesis, view) = (self.followed().ok_or_else(not_started)?, self.view().ok_or_else(not_started)?);
        // It would answer from the state of the block that it has, which is gone.
        if !view.is_synced {
            return Err(Status::unavailable("the node fetches blocks"));
        }
        let governance = self.chains.governance(&self.member.namespace, &genesis).map_err(internal)?;
        let GovernanceView { height, nonce, rules } = governance;
        Ok(Response::new(proto::GetGovernanceResponse {
            height: height.get(),
            threshold: rules.governance.threshold,
            keys: rules.governance.keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
            nonce: nonce.get(),
            parameters: rules.parameters.encode(),
            ..proto::GetGovernanceResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl transactions_server::Transactions for Process {
    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitResponse>, Status> {
        let proto::SubmitRequest { transaction, wait: _ } = request.into_inner();
        let malformed = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let transaction = Transaction::decode(&transaction).map_err(|error| malformed(&error))?;
        let transaction = verify_transaction(transaction).map_err(|error| malformed(&error))?;
        let (id, genesis) = (transaction.id(), self.followed().ok_or_else(not_started)?);
        let taken = self.chains.submit(&self.member.namespace, &genesis, transaction).map_err(internal)?;
        taken.map_err(|refusal| match refusal {
            Refusal::WrongIncarnation => malformed(&refusal),
            refusal => Status::failed_precondition(refusal.to_string()),
        })?;
        let answer = proto::submit_response::Answer::Accepted(proto::Accepted {});
        Ok(Response::new(proto::SubmitResponse { transaction_id: id.as_bytes().to_vec(), answer: Some(answer) }))
    }

    async fn submit_batch(
        &self,
        _: Request<proto::SubmitBatchRequest>,
    ) -> Result<Response<proto::SubmitBatchResponse>, Status> {
        Err(Status::unimplemented("nobody sends a stand-in many transactions"))
    }

    type SubmitStreamStream = BoxStream<'static, Result<proto::SubmitStreamResponse, Status>>;

    async fn submit_stream(
        &self,
        _: Request<Streaming<proto::SubmitStreamRequest>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        Err(Status::unimplemented("nobody sends a stand-in many transactions"))
    }

    async fn get_transaction(
        &self,
        _: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        Err(Status::unimplemented("nobody asks a stand-in for transactions"))
    }
}

fn not_started() -> Status {
    Status::unavailable("the chain has not started")
}

fn internal(error: anyhow::Error) -> Status {
    Status::internal(format!("{error:#}"))
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
        let genesis = self.followed().ok_or_else(|| Status::failed_precondition("the chain has not started"))?;
        let epoch = self.chains.next_epoch(&self.member, &genesis).map_err(internal)?;
        let epoch = epoch.ok_or_else(|| Status::failed_precondition("this node is a voter already"))?;
        let (incarnation, identity) = (genesis.incarnation(), self.member.identity);
        let report = {
            let mut volume = self.volume();
            if volume.epoch != epoch {
                // A key of a former epoch can never count again.
                volume.session = node_api::keys::generate().map_err(|error| Status::internal(error.to_string()))?;
                volume.epoch = epoch;
            }
            let session_key = SessionKey::new(volume.session.public());
            let bytes = SigningBytes::voter_possession(&incarnation, &identity, epoch, &session_key);
            proto::VoterReport {
                incarnation: incarnation.as_bytes().to_vec(),
                identity: identity.as_bytes().to_vec(),
                epoch: epoch.get(),
                session_key: session_key.as_bytes().to_vec(),
                possession: volume.session.sign(&bytes).as_bytes().to_vec(),
            }
        };
        self.resume().map_err(internal)?;
        Ok(Response::new(report))
    }

    /// A process that was stopped gave its key back: nothing but the claim is ever asked.
    async fn get_start_request(
        &self,
        _: Request<proto::GetStartRequestRequest>,
    ) -> Result<Response<proto::StartRequest>, Status> {
        let session_key = self.session_key();
        let volume = self.volume();
        let (claim_uid, epoch) = (volume.claim_uid.clone(), volume.epoch);
        drop(volume);
        Ok(Response::new(proto::StartRequest {
            asking: false,
            own: Some(proto::Owner { pod_uid: self.member.pod_uid.clone(), ..proto::Owner::default() }),
            session_key: session_key.as_bytes().to_vec(),
            epoch: epoch.get(),
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
        if grant.pod_uid != self.member.pod_uid {
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
        let bytes = SigningBytes::genesis_possession(&self.chain_id, &nonce, &self.member.identity, &session_key);
        let volume = self.volume();
        let accepted = volume.genesis.as_ref();
        Ok(Response::new(proto::GenesisReport {
            identity: self.member.identity.as_bytes().to_vec(),
            session_key: session_key.as_bytes().to_vec(),
            epoch: volume.epoch.get(),
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
        let proto::AcceptGenesisRequest { genesis, genesis_hash: _, join } = request.into_inner();
        let genesis = Genesis::decode(&genesis).map_err(|error| Status::invalid_argument(error.to_string()))?;
        verify_genesis(&genesis).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if genesis.chain_id != self.chain_id {
            return Err(Status::invalid_argument(format!("the genesis is of chain {}", genesis.chain_id)));
        }
        let (session_key, identity) = (self.session_key(), self.member.identity);
        let mut volume = self.volume();
        let hash = genesis.hash();
        if volume.genesis.as_ref().is_some_and(|held| held.hash() != hash) {
            return Err(Status::failed_precondition("another genesis is accepted already"));
        }
        let bytes = SigningBytes::genesis_acceptance(&hash, &identity, &session_key);
        let signature = match genesis.voter_set().get(&identity) {
            _ if join => Vec::new(),
            Some(entry) if entry.session_key == session_key => volume.session.sign(&bytes).as_bytes().to_vec(),
            // An observer has nothing to sign with.
            None if self.member.number.is_none() => Vec::new(),
            Some(_) | None => return Err(Status::invalid_argument("the genesis does not name the key of this volume")),
        };
        volume.genesis = Some(genesis);
        Ok(Response::new(proto::AcceptGenesisResponse { genesis_hash: hash.as_bytes().to_vec(), signature }))
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
        self.resume().map_err(internal)?;
        Ok(Response::new(proto::StartChainResponse {}))
    }
}
