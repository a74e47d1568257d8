//! A network with its own authority, and a server on a loopback port, for the tests of TLS and of the client.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{net::SocketAddr, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use node_api::{
    authorize::AuthorizeLayer,
    client::{Client, ClientError, ClientOptions},
    pki::{CertificateAuthority, Validity},
    proto::{self, node_server::NodeServer},
    roles::{Role, SpiffeId},
    tls::{AcceptLimits, Expected, PeerInfo, TlsConnection, TlsPem, TlsStore, incoming, incoming_peers},
    trace::TRACEPARENT,
};
use node_core::types::{ChainId, Identity};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, transport::Server};

/// From 2000 to 2100: valid whenever the test runs.
pub fn current() -> Validity {
    Validity::new(946_684_800, 4_102_444_800).expect("ordered")
}

/// The year 2000.
pub fn past() -> Validity {
    Validity::new(946_684_800, 978_307_200).expect("ordered")
}

/// The year 2100.
pub fn future() -> Validity {
    Validity::new(4_102_444_800, 4_133_980_800).expect("ordered")
}

pub fn chain(name: &str) -> ChainId {
    ChainId::new(name).expect("a chain id")
}

pub fn identity(number: u8) -> Identity {
    Identity::new([number; 32])
}

pub fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::generate(name, current()).expect("an authority")
}

/// Who asks for a certificate.
pub fn id(chain_id: &str, role: Role, name: &str) -> SpiffeId {
    SpiffeId::new(&chain(chain_id), role, name).expect("an id")
}

pub fn validator(chain_id: &str, number: u8) -> SpiffeId {
    id(chain_id, Role::Validator, &identity(number).to_string())
}

/// A certificate of `issuer` for `id`, trusting the same authority.
pub fn pem(issuer: &CertificateAuthority, id: &SpiffeId) -> TlsPem {
    pem_with(issuer, id, current(), issuer.certificate_pem())
}

pub fn pem_with(issuer: &CertificateAuthority, id: &SpiffeId, validity: Validity, trusted: &str) -> TlsPem {
    TlsPem::from_issued(&issuer.issue(id, validity).expect("a certificate"), trusted)
}

pub fn store(pem: &TlsPem) -> Arc<TlsStore> {
    TlsStore::from_pem(pem).expect("usable files")
}

/// A running server that answers `GetStatus` with the caller it saw.
pub struct TestServer {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(store: Arc<TlsStore>) -> Self {
        Self::start_with(store, AcceptLimits::default()).await
    }

    pub async fn start_with(store: Arc<TlsStore>, limits: AcceptLimits) -> Self {
        Self::serve(|listener| incoming(listener, store, limits).boxed()).await
    }

    /// As the listener of peers does.
    pub async fn start_for_peers(store: Arc<TlsStore>) -> Self {
        Self::serve(|listener| incoming_peers(listener, store, AcceptLimits::default()).boxed()).await
    }

    async fn serve(secure: impl FnOnce(TcpListener) -> BoxStream<'static, std::io::Result<TlsConnection>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (reporter, health) = tonic_health::server::health_reporter();
        let connections = secure(listener);
        let task = tokio::spawn(async move {
            let _kept = reporter;
            Server::builder()
                .layer(AuthorizeLayer)
                .add_service(NodeServer::new(WhoAmI))
                .add_service(health)
                .serve_with_incoming(connections)
                .await
                .expect("serves until it is dropped");
        });
        Self { address, task }
    }

    /// A client that expects the first validator of chain `demo`.
    pub async fn client(&self, store: Arc<TlsStore>) -> Result<Client, ClientError> {
        self.client_expecting(store, Expected::node(&chain("demo"), &identity(1))).await
    }

    pub async fn client_expecting(&self, store: Arc<TlsStore>, expected: Expected) -> Result<Client, ClientError> {
        Client::connect_tcp(&self.address.to_string(), store, expected, ClientOptions::default()).await
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers with the caller in `state_reason`, the caller's address in `version`, and the caller's trace in `commit`.
pub struct WhoAmI;

#[tonic::async_trait]
impl proto::node_server::Node for WhoAmI {
    async fn get_status(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let peer = request.extensions().get::<PeerInfo>();
        let caller = peer.map(|peer| peer.id.to_string()).unwrap_or_default();
        let address = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
        let trace = request.metadata().get(TRACEPARENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Response::new(proto::GetStatusResponse {
            state_reason: caller,
            version: address,
            commit: trace.to_owned(),
            ..Default::default()
        }))
    }
}
