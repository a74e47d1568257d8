//! The listening side: our own accept loop, so that every connection uses the newest files and its peer is known.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{TlsMaterial, TlsStore, Watched, material::Listening, watched::shown};
use crate::{pki::LeafFacts, roles::SpiffeId};

/// Pause after the system refused to accept (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Connections at one time; one more is closed after its handshake.
    pub connections_max: usize,
    /// Handshakes at one time; further ones wait in the kernel's queue.
    pub handshakes_max: usize,
    /// Longest handshake.
    pub handshake_timeout: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { connections_max: 1024, handshakes_max: 64, handshake_timeout: Duration::from_secs(5) }
    }
}

/// Who is at the other end. Tonic puts it into the extensions of each request of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Whom the certificate names.
    pub id: SpiffeId,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
}

/// An accepted connection.
pub type TlsConnection = Watched<TlsStream<TcpStream>, Admitted>;

/// Who is at the other end of an accepted connection, and its place among those that there may be.
#[derive(Debug)]
pub struct Admitted {
    peer: PeerInfo,
    _permit: OwnedSemaphorePermit,
}

/// The connections of a listener; each ends when the newest files do not vouch for its peer. For [`tonic::transport::server::Router::serve_with_incoming`]. Connections that
/// fail are logged and left out, so that no item is an error.
pub fn incoming(
    listener: TcpListener,
    store: Arc<TlsStore>,
    limits: AcceptLimits,
) -> impl Stream<Item = io::Result<TlsConnection>> {
    secured(listener, store, limits, |material| &material.server)
}

/// The same for the listener of peers, to which also nodes that other members name may connect.
pub fn incoming_peers(
    listener: TcpListener,
    store: Arc<TlsStore>,
    limits: AcceptLimits,
) -> impl Stream<Item = io::Result<TlsConnection>> {
    secured(listener, store, limits, |material| &material.peer_server)
}

/// Which part of what is in use a listener takes.
type Part = fn(&TlsMaterial) -> &Listening;

fn secured(
    listener: TcpListener,
    store: Arc<TlsStore>,
    limits: AcceptLimits,
    part: Part,
) -> impl Stream<Item = io::Result<TlsConnection>> {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    stream::unfold(listener, |listener| async { Some((accept(&listener).await, listener)) })
        .map(move |(tcp, address)| {
            let (store, connections) = (Arc::clone(&store), Arc::clone(&connections));
            async move {
                let result = timeout(limits.handshake_timeout, handshake(tcp, address, store, part)).await;
                admit(result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())), address, connections)
            }
        })
        .buffer_unordered(limits.handshakes_max)
        .filter_map(|connection| async { connection.map(Ok) })
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    store: Arc<TlsStore>,
    part: Part,
) -> io::Result<(Watched<TlsStream<TcpStream>>, PeerInfo)> {
    tcp.set_nodelay(true)?;
    let changes = store.changes();
    let config = Arc::clone(&part(&store.current()).config);
    let stream = TlsAcceptor::from(config).accept(tcp).await?;
    let shown = shown(stream.get_ref().1.peer_certificates());
    let leaf = shown.first().ok_or_else(|| io::Error::other("the peer has no certificate"))?;
    let LeafFacts { id, fingerprint, .. } = LeafFacts::from_der(leaf).map_err(io::Error::other)?;
    let counts = move |material: &TlsMaterial| part(material).verifier.admits_client(&shown);
    let stream = Watched::new(stream, store, changes, counts);
    Ok((stream, PeerInfo { id, address, fingerprint }))
}

fn admit(
    result: io::Result<(Watched<TlsStream<TcpStream>>, PeerInfo)>,
    address: SocketAddr,
    connections: Arc<Semaphore>,
) -> Option<TlsConnection> {
    match (result, connections.try_acquire_owned()) {
        (Ok((stream, peer)), Ok(permit)) => {
            debug!(%address, peer = %peer.id, "accepted a connection");
            Some(stream.with(Admitted { peer, _permit: permit }))
        }
        (Ok((_, peer)), Err(_)) => {
            warn!(%address, peer = %peer.id, "closed a connection: too many");
            None
        }
        (Err(error), _) => {
            debug!(%address, %error, "a TLS handshake failed");
            None
        }
    }
}

impl TlsConnection {
    /// Who is at the other end.
    pub const fn peer(&self) -> &PeerInfo {
        &self.about().peer
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer().clone()
    }
}
