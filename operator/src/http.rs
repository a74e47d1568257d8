//! `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// A process whose main loop has not turned for this long is not alive.
const PULSE_AGE_MAX: Duration = Duration::from_secs(30);

/// Whether the process is alive and ready, as its tasks report it.
pub struct Health {
    started: Instant,
    pulse_ms: AtomicU64,
    ready: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self { started: Instant::now(), pulse_ms: AtomicU64::new(0), ready: AtomicBool::new(false) }
    }
}

impl Health {
    /// The main loop has turned.
    pub fn pulse(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.pulse_ms.store(elapsed, Ordering::Relaxed);
    }

    /// The API server has answered; a standby is ready too.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn is_live(&self) -> bool {
        let pulse = Duration::from_millis(self.pulse_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(pulse) < PULSE_AGE_MAX
    }

    fn is_ready(&self) -> bool {
        self.is_live() && self.ready.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Served {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Serves until `stop` becomes true.
pub async fn serve(
    address: SocketAddr,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(|State(served): State<Served>| async move { answer(served.health.is_live()) }))
        .route("/readyz", get(|State(served): State<Served>| async move { answer(served.health.is_ready()) }))
        .route("/metrics", get(metrics_text))
        .with_state(Served { health, metrics });
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(%address, "serving health and metrics");
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is a stop as well.
            let _ = stop.wait_for(|stopped| *stopped).await;
        })
        .await
}

fn answer(good: bool) -> (StatusCode, &'static str) {
    if good { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not yet\n") }
}

async fn metrics_text(State(served): State<Served>) -> (StatusCode, String) {
    match served.metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
