//! What a gateway shows at `/metrics`: rate, errors and duration of routes and backends, and what was turned away.

use std::{net::SocketAddr, time::Duration};

use node_api::metrics::{Description, Registrar};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{
    backends::BackendView,
    calls::Tier,
    rules::{
        breaker::{CallResult, Position},
        probes::Standing,
    },
};

/// Every metric of the process.
#[derive(Debug)]
pub struct GatewayMetrics {
    registrar: Registrar,
    /// Requests, by route, class of the caller and status.
    pub requests_total: IntCounterVec,
    /// Seconds from the head of a request until its answer, by route.
    pub request_seconds: HistogramVec,
    /// Requests that had to wait for their limit, by class.
    pub limited_total: IntCounterVec,
    /// Requests turned away because of too much work, by reason.
    pub shed_total: IntCounterVec,
    /// Connections cut because their client did not take the answers.
    pub unread_total: IntCounter,
    /// Calls to backends, by backend and result.
    pub backend_calls_total: IntCounterVec,
    /// Seconds of calls to backends, by backend.
    pub backend_call_seconds: HistogramVec,
    /// 1 while the probes of a backend are good and it is connected.
    pub backend_up: IntGaugeVec,
    /// Position of a backend's breaker: 0 closed, 1 half open, 2 open.
    pub backend_breaker: IntGaugeVec,
    /// Calls that were made again at another backend.
    pub retries_total: IntCounter,
    /// Look-ups in the cache, by result.
    pub cache_total: IntCounterVec,
    /// Callers whose use is counted now.
    pub callers: IntGauge,
    /// Gateways that share the limits, as this one counts.
    pub gateways: IntGauge,
    /// 1 while the Redis of the limits answers.
    pub shared_limits_up: IntGauge,
    /// Requests that the Redis of the limits was asked about, by result.
    pub shared_limits_total: IntCounterVec,
    /// Open streams.
    pub streams: IntGauge,
    /// Open connections.
    pub connections: IntGauge,
    /// Newest block that the gateway has seen.
    pub height: IntGauge,
}

impl GatewayMetrics {
    /// Registers every metric.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut registrar = Registrar::default();
        Ok(Self {
            requests_total: counters(
                &mut registrar,
                "althing_gateway_requests_total",
                "Requests, by route, class of the caller and status.",
                &["route", "class", "status"],
            )?,
            request_seconds: histogram(
                &mut registrar,
                "althing_gateway_request_seconds",
                "Seconds from the head of a request until its answer begins, by route.",
                "route",
            )?,
            limited_total: counters(
                &mut registrar,
                "althing_gateway_limited_total",
                "Requests beyond the limit of their caller, by class.",
                &["class"],
            )?,
            shed_total: counters(
                &mut registrar,
                "althing_gateway_shed_total",
                "Requests turned away because of too much work, by reason.",
                &["reason"],
            )?,
            backend_calls_total: counters(
                &mut registrar,
                "althing_gateway_backend_calls_total",
                "Calls to backends, by backend and result.",
                &["backend", "result"],
            )?,
            backend_call_seconds: histogram(
                &mut registrar,
                "althing_gateway_backend_call_seconds",
                "Seconds of calls to backends, by backend.",
                "backend",
            )?,
            backend_up: gauges(
                &mut registrar,
                "althing_gateway_backend_up",
                "1 while the probes of a backend are good and it is connected.",
            )?,
            backend_breaker: gauges(
                &mut registrar,
                "althing_gateway_backend_breaker",
                "Position of a backend's breaker: 0 closed, 1 half open, 2 open.",
            )?,
            cache_total: counters(
                &mut registrar,
                "althing_gateway_cache_total",
                "Look-ups in the cache, by result.",
                &["result"],
            )?,
            callers: gauge(&mut registrar, "althing_gateway_callers", "Callers whose use is counted now.")?,
            gateways: gauge(
                &mut registrar,
                "althing_gateway_gateways",
                "Gateways that share the limits, as this one counts.",
            )?,
            shared_limits_up: gauge(
                &mut registrar,
                "althing_gateway_shared_limits_up",
                "1 while the Redis of the limits answers; 0 also when none is named.",
            )?,
            shared_limits_total: counters(
                &mut registrar,
                "althing_gateway_shared_limits_total",
                "Requests by who counted them where a Redis is named: counted there, or by this gateway's share because \
                 it was away or failed.",
                &["result"],
            )?,
            streams: gauge(&mut registrar, "althing_gateway_streams", "Open streams.")?,
            connections: gauge(&mut registrar, "althing_gateway_connections", "Open connections of clients.")?,
            height: gauge(&mut registrar, "althing_gateway_height", "Newest block that this gateway has seen.")?,
            unread_total: registrar.add(IntCounter::new(
                "althing_gateway_unread_total",
                "Connections cut because their client did not take the answers in time.",
            )?)?,
            retries_total: registrar.add(IntCounter::new(
                "althing_gateway_retries_total",
                "Calls that were made again at another backend.",
            )?)?,
            registrar,
        })
    }

    /// One call to a backend.
    pub fn called(&self, backend: SocketAddr, result: CallResult, time: Duration) {
        let backend = backend.to_string();
        let result = match result {
            CallResult::Answered => "answered",
            CallResult::Failed => "failed",
            CallResult::Abandoned => "abandoned",
        };
        self.backend_calls_total.with_label_values(&[backend.as_str(), result]).inc();
        self.backend_call_seconds.with_label_values(&[backend.as_str()]).observe(time.as_secs_f64());
    }

    /// The backends of a tier as they are now.
    pub fn show_backends(&self, tier: Tier, backends: &[BackendView]) {
        for BackendView { address, standing, breaker } in backends {
            let labels = [tier.as_str(), &address.to_string()];
            self.backend_up.with_label_values(&labels).set(i64::from(*standing == Standing::Serves));
            let position = match breaker {
                Position::Closed => 0,
                Position::HalfOpen => 1,
                Position::Open => 2,
            };
            self.backend_breaker.with_label_values(&labels).set(position);
        }
    }

    /// Forgets backends that are gone.
    pub fn forget(&self, tier: Tier, gone: &[SocketAddr]) {
        for address in gone {
            let address = address.to_string();
            let labels = [tier.as_str(), &address];
            // A label that never had a value is no error.
            let _ = self.backend_up.remove_label_values(&labels);
            let _ = self.backend_breaker.remove_label_values(&labels);
            let _ = self.backend_call_seconds.remove_label_values(&[&address]);
            for result in ["answered", "failed", "abandoned"] {
                let _ = self.backend_calls_total.remove_label_values(&[&address, result]);
            }
        }
    }

    /// The Prometheus text format of every metric.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        self.registrar.text()
    }

    /// What each metric means.
    pub fn described(&self) -> &[Description] {
        self.registrar.described()
    }
}

fn counters(
    registrar: &mut Registrar,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registrar.add(IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registrar: &mut Registrar, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registrar.add(IntGauge::new(name, help)?)
}

/// Of each backend.
fn gauges(registrar: &mut Registrar, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    registrar.add(IntGaugeVec::new(Opts::new(name, help), &["tier", "backend"])?)
}

/// Buckets from 100 us to 6.5 s, each double the one before.
fn histogram(
    registrar: &mut Registrar,
    name: &str,
    help: &str,
    label: &str,
) -> Result<HistogramVec, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 17)?;
    registrar.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label])?)
}
