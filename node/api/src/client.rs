//! The typed client of all services of a node: one connection, a deadline on every call, the caller's trace carried.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use node_core::{
    codec::Encode,
    types::{AccountId, CeremonyNonce, Genesis, Hash, Height, Recovery, Transaction, TransactionId},
};
use thiserror::Error;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

use crate::{
    proto::{
        self, MESSAGE_BYTES_MAX, accounts_client::AccountsClient, blocks_client::BlocksClient,
        events_client::EventsClient, lifecycle_client::LifecycleClient, node_client::NodeClient,
        peer_client::PeerClient, transactions_client::TransactionsClient, validators_client::ValidatorsClient,
        votes_client::VotesClient,
    },
    tls::{Dialer, Expected, TcpDialer, TlsDialer, TlsStore},
    trace::{TRACEPARENT, TraceParent},
};

/// Credit of one HTTP/2 stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Credit of one HTTP/2 connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// Times and trace of a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Longest wait for a connection with its handshake.
    pub connect_timeout: Duration,
    /// Deadline of each call that does not take one of its own; of a stream, until it is open.
    pub deadline: Duration,
    /// A quiet connection is asked for a sign of life after this time, and closed when it gives none.
    pub keep_alive: Duration,
    /// The trace that the calls belong to; each call gets a new parent id. None starts a trace with each call.
    pub trace: Option<TraceParent>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(5),
            keep_alive: Duration::from_secs(20),
            trace: None,
        }
    }
}

/// Why a call brought no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No connection: nobody there, or not who was expected, or we are not who was expected.
    #[error("failed to connect to {target}: {reason}")]
    Connect {
        /// Where to.
        target: String,
        /// Why, with all causes.
        reason: String,
    },
    /// No answer in time.
    #[error("{target} gave no answer to {method} within {deadline:?}")]
    Deadline {
        /// Who was asked.
        target: String,
        /// The call.
        method: &'static str,
        /// How long it was waited.
        deadline: Duration,
    },
    /// The connection broke, or the node says that it cannot answer now. Worth another try, here or elsewhere.
    #[error("{target} cannot answer {method} now: {reason}")]
    Unavailable {
        /// Who was asked.
        target: String,
        /// The call.
        method: &'static str,
        /// Why, with all causes.
        reason: String,
    },
    /// The node refused the call. The same call will be refused again while nothing changes.
    #[error("{target} refused {method}: {}: {}", status.code(), status.message())]
    Refused {
        /// Who was asked.
        target: String,
        /// The call.
        method: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
}

impl ClientError {
    /// The status code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { status, .. } => Some(status.code()),
            Self::Connect { .. } | Self::Deadline { .. } | Self::Unavailable { .. } => None,
        }
    }
}

/// The calls of one node. Cheap to clone; clones share the connection, which is made anew when it breaks.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    target: Arc<str>,
    options: ClientOptions,
}

impl Client {
    /// Connects to `host:port` over TCP.
    pub async fn connect_tcp(
        address: &str,
        store: Arc<TlsStore>,
        expected: Expected,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        Self::connect(TlsDialer::new(TcpDialer::new(address), store, expected), options).await
    }

    /// Connects by any dialer.
    pub async fn connect<D: Dialer>(dialer: TlsDialer<D>, options: ClientOptions) -> Result<Self, ClientError> {
        let target = dialer.target();
        let endpoint = endpoint(&options);
        let failed = |reason| ClientError::Connect { target: target.clone(), reason };
        let channel = tokio::time::timeout(options.connect_timeout, endpoint.connect_with_connector(dialer))
            .await
            .map_err(|_| failed(format!("no connection within {:?}", options.connect_timeout)))?
            .map_err(|error| failed(causes(&error)))?;
        Ok(Self { channel, target: target.into(), options })
    }

    /// A client that connects with its first call.
    pub fn lazy<D: Dialer>(dialer: TlsDialer<D>, options: ClientOptions) -> Self {
        let target = dialer.target().into();
        Self { channel: endpoint(&options).connect_with_connector_lazy(dialer), target, options }
    }

    /// The same connection with calls that belong to `trace`.
    #[must_use]
    pub fn with_trace(&self, trace: TraceParent) -> Self {
        Self { options: ClientOptions { trace: Some(trace), ..self.options }, ..self.clone() }
    }

    /// The same connection with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { options: ClientOptions { deadline, ..self.options }, ..self.clone() }
    }

    /// The connection itself, for a caller that forwards messages without looking into them.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Where the node is.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// `Node.GetStatus`.
    pub async fn status(&self) -> Result<proto::GetStatusResponse, ClientError> {
        let mut client = NodeClient::new(self.channel.clone());
        self.call("Node.GetStatus", client.get_status(self.request(proto::GetStatusRequest {}))).await
    }

    /// `Validators.GetValidators`.
    pub async fn validators(&self) -> Result<proto::GetValidatorsResponse, ClientError> {
        let mut client = ValidatorsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = self.request(proto::GetValidatorsRequest {});
        self.call("Validators.GetValidators", client.get_validators(request)).await
    }

    /// `Validators.GetGovernance`.
    pub async fn governance(&self) -> Result<proto::GetGovernanceResponse, ClientError> {
        let mut client = ValidatorsClient::new(self.channel.clone());
        let request = self.request(proto::GetGovernanceRequest {});
        self.call("Validators.GetGovernance", client.get_governance(request)).await
    }

    /// `Transactions.Submit`.
    pub async fn submit(
        &self,
        transaction: &Transaction,
        wait: proto::Wait,
    ) -> Result<proto::SubmitResponse, ClientError> {
        self.submit_bytes(transaction.encode().into(), wait).await
    }

    /// `Transactions.Submit` with bytes that may be no transaction.
    pub async fn submit_bytes(
        &self,
        transaction: Bytes,
        wait: proto::Wait,
    ) -> Result<proto::SubmitResponse, ClientError> {
        let mut client = TransactionsClient::new(self.channel.clone());
        let request = self.request(proto::SubmitRequest { transaction, wait: wait.into() });
        self.call("Transactions.Submit", client.submit(request)).await
    }

    /// `Transactions.SubmitBatch`.
    pub async fn submit_batch(
        &self,
        transactions: Vec<Bytes>,
        wait: proto::Wait,
    ) -> Result<proto::SubmitBatchResponse, ClientError> {
        let mut client = TransactionsClient::new(self.channel.clone());
        let request = self.request(proto::SubmitBatchRequest { transactions, wait: wait.into() });
        self.call("Transactions.SubmitBatch", client.submit_batch(request)).await
    }

    /// `Transactions.SubmitStream`: the transactions to send, and a stream of answers.
    pub async fn submit_stream(
        &self,
        requests: impl futures::Stream<Item = proto::SubmitStreamRequest> + Send + 'static,
    ) -> Result<Streaming<proto::SubmitStreamResponse>, ClientError> {
        let mut client = TransactionsClient::new(self.channel.clone());
        self.call("Transactions.SubmitStream", client.submit_stream(self.stream_request(requests))).await
    }

    /// `Transactions.GetTransaction`.
    pub async fn transaction(&self, id: &TransactionId) -> Result<proto::GetTransactionResponse, ClientError> {
        let mut client = TransactionsClient::new(self.channel.clone());
        let request = self.request(proto::GetTransactionRequest { transaction_id: id.as_bytes().to_vec() });
        self.call("Transactions.GetTransaction", client.get_transaction(request)).await
    }

    /// `Accounts.GetAccount` without proof.
    pub async fn account(&self, account: &AccountId) -> Result<proto::GetAccountResponse, ClientError> {
        self.get_account(proto::GetAccountRequest { account: account.as_bytes().to_vec(), prove: false }).await
    }

    /// `Accounts.GetAccount` with proof.
    pub async fn account_with_proof(&self, account: &AccountId) -> Result<proto::GetAccountResponse, ClientError> {
        self.get_account(proto::GetAccountRequest { account: account.as_bytes().to_vec(), prove: true }).await
    }

    async fn get_account(&self, request: proto::GetAccountRequest) -> Result<proto::GetAccountResponse, ClientError> {
        let mut client = AccountsClient::new(self.channel.clone());
        self.call("Accounts.GetAccount", client.get_account(self.request(request))).await
    }

    /// `Blocks.GetBlock`; nothing when the node has no block at this height. `None` asks for the newest.
    pub async fn block(&self, height: Option<Height>) -> Result<Option<proto::Block>, ClientError> {
        let mut client = BlocksClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = self.request(proto::GetBlockRequest { height: height.map_or(0, Height::get) });
        match self.call("Blocks.GetBlock", client.get_block(request)).await {
            Err(error) if error.code() == Some(Code::NotFound) => Ok(None),
            result => result.map(Some),
        }
    }

    /// `Blocks.StreamBlocks`; `None` begins with the next block.
    pub async fn blocks(&self, from: Option<Height>) -> Result<Streaming<proto::Block>, ClientError> {
        self.stream_blocks(from, proto::BlockDetail::Unspecified).await
    }

    /// `Blocks.StreamBlocks`, headers with their certificates only.
    pub async fn headers(&self, from: Option<Height>) -> Result<Streaming<proto::Block>, ClientError> {
        self.stream_blocks(from, proto::BlockDetail::Header).await
    }

    async fn stream_blocks(
        &self,
        from: Option<Height>,
        detail: proto::BlockDetail,
    ) -> Result<Streaming<proto::Block>, ClientError> {
        let mut client = BlocksClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let from_height = from.map_or(0, Height::get);
        let request = self.stream_request(proto::StreamBlocksRequest { from_height, detail: detail.into() });
        self.call("Blocks.StreamBlocks", client.stream_blocks(request)).await
    }

    /// `Blocks.GetLightBlocks`; `None` asks for the way to the newest height.
    pub async fn light_blocks(
        &self,
        trusted: Height,
        to: Option<Height>,
    ) -> Result<proto::GetLightBlocksResponse, ClientError> {
        let mut client = BlocksClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request =
            proto::GetLightBlocksRequest { trusted_height: trusted.get(), to_height: to.map_or(0, Height::get) };
        self.call("Blocks.GetLightBlocks", client.get_light_blocks(self.request(request))).await
    }

    /// `Events.StreamEvents`.
    pub async fn events(
        &self,
        request: proto::StreamEventsRequest,
    ) -> Result<Streaming<proto::StreamEventsResponse>, ClientError> {
        let mut client = EventsClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        self.call("Events.StreamEvents", client.stream_events(self.stream_request(request))).await
    }

    /// `Votes.StreamVotes`.
    pub async fn votes(&self) -> Result<Streaming<proto::VoteEvent>, ClientError> {
        let mut client = VotesClient::new(self.channel.clone());
        self.call("Votes.StreamVotes", client.stream_votes(self.stream_request(proto::StreamVotesRequest {}))).await
    }

    /// `Lifecycle.GetStartRequest`.
    pub async fn start_request(&self) -> Result<proto::StartRequest, ClientError> {
        let request = self.request(proto::GetStartRequestRequest {});
        self.call("Lifecycle.GetStartRequest", self.lifecycle().get_start_request(request)).await
    }

    /// `Lifecycle.GrantStart`.
    pub async fn grant_start(&self, grant: proto::StartGrant) -> Result<proto::GrantStartResponse, ClientError> {
        self.call("Lifecycle.GrantStart", self.lifecycle().grant_start(self.request(grant))).await
    }

    /// `Lifecycle.GetGenesisReport`.
    pub async fn genesis_report(&self, ceremony: &CeremonyNonce) -> Result<proto::GenesisReport, ClientError> {
        let request = self.request(proto::GetGenesisReportRequest { ceremony_nonce: ceremony.as_bytes().to_vec() });
        self.call("Lifecycle.GetGenesisReport", self.lifecycle().get_genesis_report(request)).await
    }

    /// `Lifecycle.AcceptGenesis`.
    pub async fn accept_genesis(&self, genesis: &Genesis) -> Result<proto::AcceptGenesisResponse, ClientError> {
        self.give_genesis(genesis, false).await
    }

    /// `Lifecycle.AcceptGenesis` for a node that joins a chain that runs already.
    pub async fn join_chain(&self, genesis: &Genesis) -> Result<proto::AcceptGenesisResponse, ClientError> {
        self.give_genesis(genesis, true).await
    }

    async fn give_genesis(&self, genesis: &Genesis, join: bool) -> Result<proto::AcceptGenesisResponse, ClientError> {
        let genesis_hash = genesis.hash().as_bytes().to_vec();
        let message = proto::AcceptGenesisRequest { genesis: genesis.encode(), genesis_hash, join };
        self.call("Lifecycle.AcceptGenesis", self.lifecycle().accept_genesis(self.request(message))).await
    }

    /// `Lifecycle.DropGenesis`.
    pub async fn drop_genesis(&self, hash: &Hash) -> Result<(), ClientError> {
        let request = self.request(proto::DropGenesisRequest { genesis_hash: hash.as_bytes().to_vec() });
        self.call("Lifecycle.DropGenesis", self.lifecycle().drop_genesis(request)).await.map(|_| ())
    }

    /// `Lifecycle.StartChain`.
    pub async fn start_chain(&self, hash: &Hash) -> Result<(), ClientError> {
        let request = self.request(proto::StartChainRequest { genesis_hash: hash.as_bytes().to_vec() });
        self.call("Lifecycle.StartChain", self.lifecycle().start_chain(request)).await.map(|_| ())
    }

    /// `Lifecycle.GetVoterReport`.
    pub async fn voter_report(&self) -> Result<proto::VoterReport, ClientError> {
        let request = self.request(proto::GetVoterReportRequest {});
        self.call("Lifecycle.GetVoterReport", self.lifecycle().get_voter_report(request)).await
    }

    /// `Lifecycle.GetRecoveryReport`.
    pub async fn recovery_report(&self) -> Result<proto::RecoveryReport, ClientError> {
        let request = self.request(proto::GetRecoveryReportRequest {});
        self.call("Lifecycle.GetRecoveryReport", self.lifecycle().get_recovery_report(request)).await
    }

    /// `Lifecycle.AcceptRecovery`.
    pub async fn accept_recovery(&self, recovery: &Recovery) -> Result<proto::AcceptRecoveryResponse, ClientError> {
        let request = self.request(proto::AcceptRecoveryRequest { recovery: recovery.encode() });
        self.call("Lifecycle.AcceptRecovery", self.lifecycle().accept_recovery(request)).await
    }

    /// `Lifecycle.CompleteRecovery`.
    pub async fn complete_recovery(&self, recovery: &Recovery) -> Result<(), ClientError> {
        let request = self.request(proto::CompleteRecoveryRequest { recovery: recovery.encode() });
        self.call("Lifecycle.CompleteRecovery", self.lifecycle().complete_recovery(request)).await.map(|_| ())
    }

    /// `Peer.Connect`: the frames to send, and a stream of those received. A frame may be up to [`MESSAGE_BYTES_MAX`].
    pub async fn peer(
        &self,
        frames: impl futures::Stream<Item = proto::Frame> + Send + 'static,
    ) -> Result<Streaming<proto::Frame>, ClientError> {
        let mut client = PeerClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        self.call("Peer.Connect", client.connect(self.stream_request(frames))).await
    }

    fn lifecycle(&self) -> LifecycleClient<Channel> {
        LifecycleClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A request that tells the node how long its answer is waited for.
    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = self.stream_request(message);
        request.set_timeout(self.options.deadline);
        request
    }

    fn stream_request<M>(&self, message: M) -> Request<M> {
        let trace = self.options.trace.map_or_else(TraceParent::start, |trace| trace.child());
        let mut request = Request::new(message);
        if let Ok(value) = AsciiMetadataValue::try_from(trace.to_string()) {
            request.metadata_mut().insert(TRACEPARENT, value);
        }
        request
    }

    async fn call<T>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        let deadline = self.options.deadline;
        let target = || self.target.to_string();
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Err(_) => Err(ClientError::Deadline { target: target(), method, deadline }),
            Ok(Err(status)) => Err(match status.code() {
                Code::DeadlineExceeded => ClientError::Deadline { target: target(), method, deadline },
                // Tonic's own timer, on either side, says Cancelled.
                Code::Cancelled if status.message() == "Timeout expired" => {
                    ClientError::Deadline { target: target(), method, deadline }
                }
                Code::Unavailable => ClientError::Unavailable { target: target(), method, reason: reason(&status) },
                _ if status.source().is_some() => {
                    ClientError::Unavailable { target: target(), method, reason: reason(&status) }
                }
                _ => ClientError::Refused { target: target(), method, status: Box::new(status) },
            }),
        }
    }
}

fn endpoint(options: &ClientOptions) -> Endpoint {
    // The name is not consulted by our dialers.
    Endpoint::from(Uri::from_static("https://althing.invalid"))
        .connect_timeout(options.connect_timeout)
        .http2_keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(options.keep_alive)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

fn reason(status: &Status) -> String {
    match status.source() {
        Some(source) => format!("{}: {}", status.message(), causes(source)),
        None => status.message().to_owned(),
    }
}

/// An error with all its causes, each said once.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
