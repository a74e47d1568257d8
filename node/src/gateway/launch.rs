//! Starts the parts of a gateway, and ends them together.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Method, header};
use node_api::{
    gateway::{GatewayConfig, GatewaySection},
    roles::Role,
    tls::{ClientCertificates, EdgeStore, Reload, TlsError, TlsReport, TlsStore},
};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;
use tower_http::{
    compression::{
        CompressionLayer,
        predicate::{Predicate, SizeAbove},
    },
    cors::{AllowOrigin, CorsLayer},
};

use super::{
    calls::Tier,
    grpc, readiness, rest,
    serve::{self, Security},
    state::{Gateway, GatewayError},
};
use crate::causes;

/// How often the TLS files are looked at.
const TLS_LOOK: Duration = Duration::from_secs(10);
/// Smallest answer that is compressed, in bytes.
const COMPRESS_BYTES_MIN: u64 = 1_024;

/// Why a gateway did not start or did not go on.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The TLS files cannot be used.
    #[error("failed to load TLS from {}", path.display())]
    Tls {
        /// Where they are.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<TlsError>,
    },
    /// The certificate is of somebody else.
    #[error(
        "tlsDirectory: the certificate names {found}, a gateway of {chain_id} needs spiffe://{chain_id}/gateway/<name>"
    )]
    OtherCertificate {
        /// Whom it names.
        found: String,
        /// The chain of the configuration.
        chain_id: String,
    },
    /// A part could not be set up.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Reflection could not be set up.
    #[error("failed to set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// An address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port for metrics and probes failed.
    #[error("failed to serve metrics")]
    Http(#[source] io::Error),
}

/// Runs a gateway until `stop` is cancelled.
pub async fn run(config: GatewayConfig, stop: CancellationToken) -> Result<(), LaunchError> {
    let tls = load_tls(&config)?;
    let security = security(&config, &tls)?;
    let listen = config.listen;
    let gateway = Gateway::new(config, Arc::clone(&tls), stop.clone())?;
    let (router, health) = router(&gateway)?;
    let edge = bind(listen.edge).await?;
    let probes = bind(listen.http).await?;
    tracing::info!(edge = %listen.edge, http = %listen.http, "the gateway listens");

    let background = async {
        tokio::join!(
            gateway.authenticator.run(),
            gateway.limiter.count_gateways(),
            gateway.limiter.keep_shared(),
            gateway.feed.run(),
            readiness::report(&gateway, &health),
            gateway.backends.probe(Tier::Submit),
            gateway.backends.probe(Tier::Read),
            watch_tls(Arc::clone(&tls), security.clone()),
        );
    };
    let public = serve::serve(Arc::clone(&gateway), edge, security.clone(), router);
    let private =
        axum::serve(probes, private_router(&gateway, &tls)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = async {
        let (private, ()) = tokio::join!(private, public);
        private.map_err(LaunchError::Http)
    };
    tokio::select! {
        result = serving => result,
        () = background => Ok(()),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, LaunchError> {
    TcpListener::bind(address).await.map_err(|source| LaunchError::Listen { address, source })
}

fn load_tls(config: &GatewayConfig) -> Result<Arc<TlsStore>, LaunchError> {
    let path = config.tls_directory.clone();
    let tls = TlsStore::from_directory(&path).map_err(|source| LaunchError::Tls { path, source: Box::new(source) })?;
    let id = tls.current().facts().id.clone();
    if *id.chain_id() != config.chain_id || id.role() != Role::Gateway {
        let (found, chain_id) = (id.to_string(), config.chain_id.to_string());
        return Err(LaunchError::OtherCertificate { found, chain_id });
    }
    Ok(tls)
}

fn security(config: &GatewayConfig, tls: &Arc<TlsStore>) -> Result<Security, LaunchError> {
    let GatewaySection { edge, authentication, .. } = &config.gateway;
    if edge.plaintext {
        return Ok(Security::Plaintext);
    }
    let clients = if authentication.certificate_roles.is_empty() {
        ClientCertificates::NotAsked
    } else {
        ClientCertificates::Asked
    };
    let directory = edge.tls_directory.clone();
    let store = EdgeStore::new(Arc::clone(tls), directory.clone(), clients);
    let path = directory.unwrap_or_else(|| config.tls_directory.clone());
    Ok(Security::Tls(store.map_err(|source| LaunchError::Tls { path, source: Box::new(source) })?))
}

/// Takes new files without a restart, for the nodes' side first.
async fn watch_tls(tls: Arc<TlsStore>, security: Security) {
    let mut ticks = tokio::time::interval(TLS_LOOK);
    loop {
        ticks.tick().await;
        let (tls, security) = (Arc::clone(&tls), security.clone());
        let look = move || {
            let edge = |security: &Security| match security {
                Security::Tls(store) => store.reload(),
                Security::Plaintext => Ok(Reload::Unchanged),
            };
            [("nodes", tls.reload()), ("clients", edge(&security))]
        };
        let Ok(results) = tokio::task::spawn_blocking(look).await else { continue };
        for (side, result) in results {
            match result {
                Ok(Reload::Unchanged) => {}
                Ok(Reload::Replaced) => tracing::info!(side, "the TLS files were replaced"),
                Err(error) => {
                    let error = causes::chain(&error);
                    tracing::error!(side, error, "the new TLS files cannot be used, the old ones stay");
                }
            }
        }
    }
}

/// Everything that clients reach, and whom to tell what the health service answers.
fn router(gateway: &Arc<Gateway>) -> Result<(Router, HealthReporter), LaunchError> {
    let json_only = |_: StatusCode, _: http::Version, headers: &http::HeaderMap, _: &http::Extensions| {
        let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        kind.starts_with(b"application/json") || kind.starts_with(b"application/problem+json")
    };
    let compression =
        CompressionLayer::new().gzip(true).compress_when(SizeAbove::new(COMPRESS_BYTES_MIN).and(json_only));
    let (calls, health) = grpc::router(gateway)?;
    // Messages of gRPC are never compressed here, so their answers do not pass through the layer.
    let routes = rest::router(gateway).layer(compression).merge(calls);
    let router = rest::with_fallbacks(routes, gateway);
    let router = match cors(&gateway.config.gateway.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    Ok((router, health))
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let name = HeaderName::from_static;
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_NONE_MATCH,
                name("last-event-id"),
                name("traceparent"),
                name("x-api-key"),
                name("x-request-id"),
            ])
            .expose_headers([
                header::ETAG,
                header::RETRY_AFTER,
                name("ratelimit"),
                name("ratelimit-policy"),
                name("x-request-id"),
            ])
            .max_age(Duration::from_secs(3_600)),
    )
}

/// `/metrics`, `/livez` and `/readyz`, and which TLS files are in use towards the nodes.
fn private_router(gateway: &Arc<Gateway>, tls: &Arc<TlsStore>) -> Router {
    let (metrics, ready, tls) = (Arc::clone(gateway), Arc::clone(gateway), Arc::clone(tls));
    Router::new()
        .route(TlsReport::PATH, get(move || async move { Json(TlsReport::of(&tls.current())) }))
        .route("/metrics", get(move || async move { show(&metrics) }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness(&ready) }))
}

fn show(gateway: &Gateway) -> Response {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    gateway.metrics.callers.set(count(gateway.limiter.callers()));
    gateway.backends.show();
    gateway.metrics.gateways.set(i64::from(gateway.limiter.gateways()));
    match gateway.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn readiness(gateway: &Gateway) -> Response {
    match gateway.readiness() {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why.as_str())).into_response(),
    }
}
