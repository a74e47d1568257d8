//! The side of a connection that this node opens: dials a configured peer for as long as the node runs, and others once.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use node_api::{
    client::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
    proto::{Frame, MESSAGE_BYTES_MAX, peer_client::PeerClient},
    tls::{Expected, TcpDialer, TlsDialer, TlsStore},
};
use node_core::types::{ChainId, Hash, Identity};
use thiserror::Error;
use tokio::{
    sync::watch,
    time::{Instant, error::Elapsed},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, metadata::MetadataValue, transport::Endpoint};

use super::{
    backoff::Backoff,
    links::{Link, LinkError, Links, Side},
    receive::{Inbox, ReadsRecords},
    records::READS_RECORDS,
    renewal,
};

/// A peer that does not finish the connection in this time counts as unreachable. Short, because a network that drops
/// packets until its policies are in place answers no sooner to a dial that began before.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
/// A connection that held this long was a good one: the next dial comes at once.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// Silence after which a connection is probed, and how long the probe may take. A partitioned peer is noticed, and its
/// queue given up, after the sum.
const PROBE_AFTER: Duration = Duration::from_secs(2);
const PROBE_TIME_MAX: Duration = Duration::from_secs(3);

/// One peer and how to reach it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The chain that its certificate must name.
    pub chain_id: ChainId,
    /// The identity that its certificate must name.
    pub identity: Identity,
    /// Host and port; the host is resolved anew at every dial.
    pub address: String,
    /// SHA-256 of the public key that its certificate must have, if its record says so.
    pub tls_key: Option<Hash>,
    /// This node's certificate.
    pub tls: Arc<TlsStore>,
}

/// Why a dial failed.
#[derive(Debug, Error)]
pub enum DialError {
    /// No connection, or the wrong peer at the other end.
    #[error("failed to connect")]
    Connect(#[from] tonic::transport::Error),
    /// The peer refused the stream.
    #[error("the peer refused the stream: {}", .0.message())]
    Refused(Box<Status>),
    /// Not in time.
    #[error("no connection within {} s", CONNECT_TIME_MAX.as_secs())]
    Timeout,
    /// No place in the table.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Keeps one connection to the peer until `stop` is cancelled. Some time after this node's certificates were replaced it is
/// closed and opened anew with them.
pub async fn keep_connected(target: Target, links: Links, inbox: Inbox, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let start = Instant::now();
        let dialed = tokio::select! {
            () = stop.cancelled() => return,
            dialed = tokio::time::timeout(CONNECT_TIME_MAX, dial(&target, &links)) => dialed,
        };
        match serve(&target, dialed, &inbox).await {
            Served::Renewed => {
                backoff.reset();
                continue;
            }
            Served::Ended | Served::Failed => {}
        }
        if start.elapsed() > GOOD_CONNECTION {
            backoff.reset();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
}

/// Dials a peer at one address after the other, and stays until the first connection ends. The answer is whether there was
/// one.
pub async fn connect_once(target: Target, addresses: Vec<String>, links: &Links, inbox: &Inbox) -> bool {
    for address in addresses {
        let target = Target { address, ..target.clone() };
        let dialed = tokio::time::timeout(CONNECT_TIME_MAX, dial(&target, links)).await;
        match serve(&target, dialed, inbox).await {
            Served::Renewed | Served::Ended => return true,
            Served::Failed => {}
        }
    }
    false
}

/// What became of a dial.
enum Served {
    /// No connection.
    Failed,
    /// The connection has ended.
    Ended,
    /// It was closed because this node has other certificates now.
    Renewed,
}

/// Reads from a peer that was dialed until the connection ends, if there is one.
async fn serve(target: &Target, dialed: Result<Result<Dialed, DialError>, Elapsed>, inbox: &Inbox) -> Served {
    let Target { identity: peer, address, .. } = target;
    let by_record = target.tls_key.is_some();
    match dialed.unwrap_or(Err(DialError::Timeout)) {
        Ok(Dialed { link, reads, frames, changes }) => {
            tracing::info!(%peer, address, by_record, "connected to a peer");
            let close = link.closer();
            let reading = inbox.receive(link, reads, frames);
            tokio::pin!(reading);
            tokio::select! {
                end = &mut reading => {
                    tracing::info!(%peer, ?end, "the connection to a peer ended");
                    Served::Ended
                }
                () = renewal::due(changes) => {
                    close.cancel();
                    reading.await;
                    tracing::info!(%peer, "closed the connection to a peer: it is opened anew with the new certificates");
                    Served::Renewed
                }
            }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::debug!(%peer, address, by_record, %error, cause, "failed to dial a peer");
            Served::Failed
        }
    }
}

/// An open connection.
struct Dialed {
    link: Link,
    reads: ReadsRecords,
    frames: Streaming<Frame>,
    /// Tells when this node's certificates are others than those that the connection was made with.
    changes: watch::Receiver<u64>,
}

async fn dial(target: &Target, links: &Links) -> Result<Dialed, DialError> {
    let expected = Expected::node(&target.chain_id, &target.identity);
    let expected = match target.tls_key {
        Some(key) => expected.with_key(*key.as_bytes()),
        None => expected,
    };
    let changes = target.tls.changes();
    let dialer = TlsDialer::new(TcpDialer::new(&target.address), Arc::clone(&target.tls), expected);
    // The dialer does TLS itself, so the scheme here is plain; the name is not used.
    let channel = Endpoint::from_static("http://peer.invalid")
        .http2_keep_alive_interval(PROBE_AFTER)
        .keep_alive_timeout(PROBE_TIME_MAX)
        .keep_alive_while_idle(true)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .connect_with_connector(dialer)
        .await?;
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (link, queue) = links.open(target.identity, Side::Dialed)?;
    let outgoing = ReceiverStream::new(queue).map(|body| Frame { body });
    let mut request = Request::new(outgoing);
    request.metadata_mut().insert(READS_RECORDS, MetadataValue::from_static("1"));
    let answer = client.connect(request).await.map_err(|status| DialError::Refused(Box::new(status)))?;
    let reads = ReadsRecords::of(answer.metadata());
    Ok(Dialed { link, reads, frames: answer.into_inner(), changes })
}
