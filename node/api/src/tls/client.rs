//! The dialing side: bytes from anywhere (TCP, a relay), TLS over them, and the check who is at the other end.

use std::{
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, ClientConfig, OtherError, client::Resumption, version::TLS13};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower::Service;

use super::{
    Expected, TlsError, TlsMaterial, TlsStore, Watched,
    material::ALPN,
    verify::{PeerVerifier, SingleKey},
    watched::shown,
};

/// Something that brings bytes to a node and back. Called anew for each connection, so names are resolved anew.
pub trait Dialer: Clone + Send + Sync + 'static {
    /// The connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects.
    fn dial(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Where it connects to, for messages.
    fn target(&self) -> String;
}

/// Dials `host:port` over TCP.
#[derive(Clone, Debug)]
pub struct TcpDialer {
    address: String,
}

impl TcpDialer {
    /// To `host:port`.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

impl Dialer for TcpDialer {
    type Stream = TcpStream;

    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn target(&self) -> String {
        self.address.clone()
    }
}

/// Dials through a relay on a Unix socket: the first line names the target as `host:port`, then come the bytes.
#[derive(Clone, Debug)]
pub struct RelayDialer {
    socket: PathBuf,
    target: String,
}

impl RelayDialer {
    /// Through the relay at `socket` to `target` (`host:port`, as the relay's side sees it).
    pub fn new(socket: impl Into<PathBuf>, target: impl Into<String>) -> Self {
        Self { socket: socket.into(), target: target.into() }
    }
}

impl Dialer for RelayDialer {
    type Stream = UnixStream;

    async fn dial(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream.write_all(format!("{}\n", self.target).as_bytes()).await?;
        Ok(stream)
    }

    fn target(&self) -> String {
        format!("{} by {}", self.target, self.socket.display())
    }
}

/// Runs the TLS handshake over a connection and checks who is at the other end.
pub async fn secure<S>(stream: S, material: &TlsMaterial, expected: Expected) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = client_config(material, expected).map_err(io::Error::other)?;
    // The name is not consulted: the certificate is checked by chain and SPIFFE id.
    let name = ServerName::try_from("althing.invalid").map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(plain)
}

/// Our own reason for a refusal in place of the library's wrapping of it.
fn plain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            io::Error::new(error.kind(), Arc::clone(reason))
        }
        _ => error,
    }
}

/// Dials and secures; the connector of a tonic endpoint.
#[derive(Clone, Debug)]
pub struct TlsDialer<D> {
    dialer: D,
    store: Arc<TlsStore>,
    expected: Expected,
}

impl<D: Dialer> TlsDialer<D> {
    /// Connects by `dialer`, presents what `store` holds at that moment, and accepts only who is expected.
    pub const fn new(dialer: D, store: Arc<TlsStore>, expected: Expected) -> Self {
        Self { dialer, store, expected }
    }

    /// Where it connects to, for messages.
    pub fn target(&self) -> String {
        self.dialer.target()
    }

    /// Connects once. The connection ends when the newest files do not vouch for the other side any more.
    pub async fn connect(&self) -> io::Result<Watched<TlsStream<D::Stream>>> {
        let stream = self.dialer.dial().await?;
        let changes = self.store.changes();
        let stream = secure(stream, &self.store.current(), self.expected.clone()).await?;
        let (shown, expected) = (shown(stream.get_ref().1.peer_certificates()), self.expected.clone());
        let counts =
            move |material: &TlsMaterial| verifier(material, expected.clone()).is_ok_and(|it| it.admits_server(&shown));
        Ok(Watched::new(stream, Arc::clone(&self.store), changes, counts))
    }
}

impl<D: Dialer> Service<Uri> for TlsDialer<D> {
    type Response = TokioIo<Watched<TlsStream<D::Stream>>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.connect().await.map(TokioIo::new) })
    }
}

fn verifier(material: &TlsMaterial, expected: Expected) -> Result<PeerVerifier, TlsError> {
    PeerVerifier::new(expected, &material.roots, &material.provider)?.with_members(material.members.as_ref())
}

fn client_config(material: &TlsMaterial, expected: Expected) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&material.provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Setup { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(material, expected)?))
        .with_client_cert_resolver(Arc::new(SingleKey::new(Arc::clone(&material.certified))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}
