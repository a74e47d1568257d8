//! What all requests share.

use std::sync::Arc;

use node_api::{gateway::GatewayConfig, tls::TlsStore};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    auth::{AuthError, Authenticator, Roles},
    backends::{Backends, Dialing, Names},
    bodies::AnswerRoom,
    cache::{AnswerCache, Lifetime, Stored},
    feed::Feed,
    json::{JsonError, Translator},
    limits::Limiter,
    metrics::GatewayMetrics,
    openapi,
    shared_limits::SharedLimits,
    shares::Shares,
};

/// Everything that handlers use.
#[derive(Debug)]
pub struct Gateway {
    /// The configuration.
    pub config: GatewayConfig,
    /// Who callers are.
    pub authenticator: Authenticator,
    /// How much they get.
    pub limiter: Limiter,
    /// The nodes.
    pub backends: Arc<Backends>,
    /// The newest blocks.
    pub feed: Arc<Feed>,
    /// Answers that do not change, or not soon.
    pub cache: AnswerCache,
    /// Protobuf to JSON and back.
    pub translator: Translator,
    /// The OpenAPI document.
    pub openapi: Stored,
    /// What `/metrics` shows.
    pub metrics: Arc<GatewayMetrics>,
    /// Places for requests in progress.
    pub requests: Arc<Semaphore>,
    /// Places for open streams.
    pub streams: Arc<Semaphore>,
    /// Open streams of each caller.
    pub stream_shares: Arc<Shares>,
    /// Connections of each address.
    pub connection_shares: Arc<Shares>,
    /// Room for bodies, in units of [`BODY_UNIT`] bytes.
    pub bodies: Arc<Semaphore>,
    /// As much room again for answers: who does not read them keeps nobody from sending.
    pub answers: AnswerRoom,
    /// Cancelled when the process stops: streams end then.
    pub stop: CancellationToken,
}

/// Bytes that one permit of [`Gateway::bodies`] stands for.
pub const BODY_UNIT: usize = 1 << 10;

/// Why there is no gateway.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// Authentication could not be set up.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A metric could not be registered.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
    /// The descriptors of the API could not be read.
    #[error("failed to read the descriptors of the API")]
    Json(#[from] JsonError),
}

impl Gateway {
    /// As configured. Nothing runs yet.
    pub fn new(config: GatewayConfig, tls: Arc<TlsStore>, stop: CancellationToken) -> Result<Arc<Self>, GatewayError> {
        let metrics = Arc::new(GatewayMetrics::new()?);
        let dialing = Dialing { tls, chain_id: config.chain_id.clone(), names: Names::of_this_machine() };
        let backends = Arc::new(Backends::new(&config.gateway.backends, dialing, Arc::clone(&metrics)));
        let limits = &config.gateway.limits;
        let shared = limits.redis.as_ref();
        let shared = shared.map(|redis| SharedLimits::new(redis.clone(), &config.chain_id, Arc::clone(&metrics)));
        let translator = Translator::new()?;
        let openapi = Stored::new(openapi::document(&translator)?.to_string().into(), Lifetime::Static);
        Ok(Arc::new(Self {
            authenticator: Authenticator::new(
                &config.gateway.authentication,
                Roles::new(config.gateway.roles.clone()),
            )?,
            limiter: Limiter::new(limits, shared),
            feed: Arc::new(Feed::new(Arc::clone(&backends), Arc::clone(&metrics))),
            cache: AnswerCache::new(limits.cache_bytes_max, Arc::clone(&metrics)),
            translator,
            openapi,
            requests: Arc::new(Semaphore::new(limits.requests_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            stream_shares: Shares::new(limits.streams_per_caller_max),
            connection_shares: Shares::new(limits.connections_per_address_max),
            bodies: Arc::new(Semaphore::new(limits.bodies_bytes_max / BODY_UNIT)),
            answers: AnswerRoom::new(limits.bodies_bytes_max),
            backends,
            metrics,
            config,
            stop,
        }))
    }
}
