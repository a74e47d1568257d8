//! The gRPC services, each a thin translation between protobuf and the main loop, behind the role table.

mod accounts;
mod blocks;
mod events;
mod lifecycle;
mod node;
mod submissions;
mod trace;
mod transactions;
mod validators;
mod votes;

use std::sync::Arc;

use node_api::{
    authorize::AuthorizeLayer,
    client::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    proto::{
        FILE_DESCRIPTOR_SET, MESSAGE_BYTES_MAX, accounts_server::AccountsServer, blocks_server::BlocksServer,
        events_server::EventsServer, lifecycle_server::LifecycleServer, node_server::NodeServer,
        peer_server::PeerServer, transactions_server::TransactionsServer, validators_server::ValidatorsServer,
        votes_server::VotesServer,
    },
    tls::{AcceptLimits, TlsStore, incoming, incoming_peers},
};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Server};

use crate::{
    adapters::p2p::PeerService,
    shell::{
        handle::{Handle, HandleError},
        verifier::Verifier,
    },
};
use trace::TraceLayer;

/// Calls in progress on one connection.
const STREAMS_MAX: u32 = 1024;

/// Why a server ended.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The reflection service could not read the descriptors.
    #[error("failed to set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("failed to serve")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves the node API until `stop` is cancelled.
pub async fn serve_api(
    listener: TcpListener,
    tls: Arc<TlsStore>,
    handle: Handle,
    verifier: Verifier,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    server()
        .layer(TraceLayer)
        .layer(AuthorizeLayer)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(TransactionsServer::new(transactions::TransactionsService::new(handle.clone(), verifier)))
        .add_service(AccountsServer::new(accounts::AccountsService::new(handle.clone())))
        .add_service(
            BlocksServer::new(blocks::BlocksService::new(handle.clone())).max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            EventsServer::new(events::EventsService::new(handle.clone())).max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(ValidatorsServer::new(validators::ValidatorsService::new(handle.clone())))
        .add_service(NodeServer::new(node::NodeService::new(handle.clone())))
        .add_service(
            LifecycleServer::new(lifecycle::LifecycleService::new(handle.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(VotesServer::new(votes::VotesService::new(handle)))
        .serve_with_incoming_shutdown(incoming(listener, tls, AcceptLimits::default()), stop.cancelled_owned())
        .await?;
    Ok(())
}

/// Serves peers until `stop` is cancelled. What the voters see is answered here too: the operator of another member reaches
/// no other port.
pub async fn serve_peers(
    listener: TcpListener,
    tls: Arc<TlsStore>,
    peers: PeerService,
    handle: Handle,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let peers = PeerServer::new(peers)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server()
        .layer(AuthorizeLayer)
        .add_service(peers)
        .add_service(ValidatorsServer::new(validators::ValidatorsService::new(handle)))
        .serve_with_incoming_shutdown(incoming_peers(listener, tls, AcceptLimits::default()), stop.cancelled_owned())
        .await?;
    Ok(())
}

fn server() -> Server {
    Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(5)))
}

impl From<HandleError> for Status {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::NotStarted | HandleError::Stopping => Self::unavailable(error.to_string()),
            HandleError::Busy => Self::resource_exhausted(error.to_string()),
        }
    }
}
