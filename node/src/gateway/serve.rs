//! The public port: accepts, shakes hands, and serves HTTP/1.1 and HTTP/2 on each connection, all in bounds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use node_api::{pki::LeafFacts, roles::SpiffeId, tls::EdgeStore};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{interval, sleep, timeout},
};
use tower::ServiceExt;

use super::{entrance::Connection, rules, state::Gateway};

/// Longest TLS handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the head of a request, also on a connection that is idle between two.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Requests at one time on one connection.
const STREAMS_MAX: u32 = 128;
/// Bytes that one stream, and one connection, may send before the gateway reads them.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// How long requests in progress may take when the process stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections begin.
#[derive(Clone, Debug)]
pub enum Security {
    /// With TLS.
    Tls(Arc<EdgeStore>),
    /// Without: something on the same machine did it.
    Plaintext,
}

/// Serves `router` until the gateway is told to stop, then waits for requests in progress.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, security: Security, router: Router) {
    let places = Arc::new(Semaphore::new(gateway.config.gateway.limits.connections_max));
    let builder = Arc::new(builder());
    loop {
        // No more is taken from the kernel than there are places.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = gateway.stop.cancelled() => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gateway.stop.cancelled() => break,
        };
        match accepted {
            Ok((tcp, address)) => {
                let task = connection(
                    Accepted { tcp, address, place, security: security.clone() },
                    Arc::clone(&gateway),
                    Arc::clone(&builder),
                    router.clone(),
                );
                tokio::spawn(task);
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Those in their handshake give up their share when they see that the process stops.
    let all = u32::try_from(gateway.config.gateway.limits.connections_max).unwrap_or(u32::MAX);
    if timeout(DRAIN_TIME_MAX, places.acquire_many(all)).await.is_err() {
        tracing::warn!("some connections did not end in time");
    }
}

struct Accepted {
    tcp: TcpStream,
    address: SocketAddr,
    place: OwnedSemaphorePermit,
    security: Security,
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn connection(accepted: Accepted, gateway: Arc<Gateway>, builder: Arc<Builder<TokioExecutor>>, router: Router) {
    let Accepted { tcp, address, place, security } = accepted;
    let _place = place;
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%address, %error, "failed to set up a connection");
        return;
    }
    let from = rules::address::counted(address.ip());
    let trusted = gateway.config.gateway.edge.trusted_proxies.iter().any(|network| network.contains(&from));
    let share = if trusted { None } else { Some(gateway.connection_shares.take(from)) };
    if matches!(share, Some(None)) {
        tracing::debug!(%address, "closed a connection: the address has enough of them");
        return;
    }
    gateway.metrics.connections.inc();
    match security {
        Security::Plaintext => {
            let connection = Connection { address, certificate: None, departures: Arc::default() };
            http(tcp, connection, &gateway, &builder, router).await;
        }
        Security::Tls(store) => match timeout(HANDSHAKE_TIME_MAX, store.accept(tcp)).await {
            Ok(Ok(stream)) => {
                let certificate = stream.get_ref().get_ref().1.peer_certificates().and_then(certificate_of);
                let connection = Connection { address, certificate, departures: Arc::default() };
                http(stream, connection, &gateway, &builder, router).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%address, "a TLS handshake took too long"),
        },
    }
    gateway.metrics.connections.dec();
}

fn certificate_of(chain: &[rustls_pki_types::CertificateDer<'_>]) -> Option<SpiffeId> {
    chain.first().and_then(|leaf| LeafFacts::from_der(leaf).ok()).map(|facts| facts.id)
}

async fn http<S>(stream: S, connection: Connection, gateway: &Gateway, builder: &Builder<TokioExecutor>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (address, departures) = (connection.address, Arc::clone(&connection.departures));
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        router.clone().oneshot(request)
    });
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let limits = &gateway.config.gateway.limits;
    let send_time_max = Duration::from_millis(limits.send_timeout_ms);
    let mut looks = interval(send_time_max / 2);
    let age = sleep(age(limits.connection_age_s, rand::random()));
    tokio::pin!(age);
    let mut ending = false;
    let result = loop {
        tokio::select! {
            result = &mut serving => break result,
            () = gateway.stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                match timeout(DRAIN_TIME_MAX, &mut serving).await {
                    Ok(result) => break result,
                    Err(_) => return,
                }
            }
            // Requests in progress and open streams go on to their end; the client opens another connection.
            () = &mut age, if !ending => {
                serving.as_mut().graceful_shutdown();
                ending = true;
            }
            _ = looks.tick() => {
                if departures.oldest().is_some_and(|since| since.elapsed() >= send_time_max) {
                    gateway.metrics.unread_total.inc();
                    tracing::debug!(%address, "cut a connection: its client does not take the answers");
                    return;
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "a connection failed");
    }
}

/// The age at which a connection ends: what is configured, give or take a tenth, so that connections that began
/// together do not come again together.
fn age(configured_s: u64, chance: u16) -> Duration {
    let part = 0.9 + 0.2 * f64::from(chance) / f64::from(u16::MAX);
    Duration::from_secs(configured_s).mul_f64(part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::age;

    #[test]
    fn connections_end_within_a_tenth_of_their_age() {
        let ages = [0, u16::MAX / 2, u16::MAX].map(|chance| age(300, chance));
        assert_eq!((ages[0], ages[2]), (Duration::from_secs(270), Duration::from_secs(330)));
        assert!(ages[0] < ages[1] && ages[1] < ages[2]);
    }
}
