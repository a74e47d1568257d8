//! Numbers about the operator itself, for Prometheus.

use node_api::metrics::{Description, Registrar};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// All metrics of the operator.
pub struct Metrics {
    registrar: Registrar,
    /// Finished reconciles by kind and result (`ok`, `conflict`, `error`, `timeout`, `panic`).
    pub reconciles: IntCounterVec,
    /// Seconds that a reconcile took, by kind.
    pub reconcile_seconds: HistogramVec,
    /// Writes sent to the API server by kind and verb.
    pub writes: IntCounterVec,
    /// Calls to nodes by method and result.
    pub node_calls: IntCounterVec,
    /// 1 while this process holds the leader lease.
    pub leader: IntGauge,
    /// Unix time at which the certificate authority of a network ends.
    pub authority_expires: IntGaugeVec,
    /// Unix time at which the operator's own certificate of a network ends.
    pub certificate_expires: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric once.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut registrar = Registrar::default();
        let mut counter =
            |name: &str, help: &str, labels: &[&str]| registrar.add(IntCounterVec::new(Opts::new(name, help), labels)?);
        let reconciles = counter(
            "althing_operator_reconciles_total",
            "Finished reconciles by kind and result.",
            &["kind", "result"],
        )?;
        let writes = counter(
            "althing_operator_writes_total",
            "Writes sent to the API server by kind and verb.",
            &["kind", "verb"],
        )?;
        let node_calls = counter(
            "althing_operator_node_calls_total",
            "Calls to nodes by method and result.",
            &["method", "result"],
        )?;
        let reconcile_seconds = registrar.add(HistogramVec::new(
            HistogramOpts::new(
                "althing_operator_reconcile_duration_seconds",
                "Seconds that a reconcile took, by kind.",
            )
            .buckets(vec![0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
            &["kind"],
        )?)?;
        let leader =
            registrar.add(IntGauge::new("althing_operator_leader", "1 while this process holds the leader lease.")?)?;
        let authority_expires = registrar.add(IntGaugeVec::new(
            Opts::new(
                "althing_operator_authority_expires_timestamp_seconds",
                "Unix time at which the certificate authority of a network ends, and with it every certificate of its nodes.",
            ),
            &["namespace", "network"],
        )?)?;
        let certificate_expires = registrar.add(IntGaugeVec::new(
            Opts::new(
                "althing_operator_certificate_expires_timestamp_seconds",
                "Unix time at which the operator's own certificate of a network ends, where an issuer of cert-manager issues it.",
            ),
            &["namespace", "network"],
        )?)?;
        Ok(Self {
            registrar,
            reconciles,
            reconcile_seconds,
            writes,
            node_calls,
            leader,
            authority_expires,
            certificate_expires,
        })
    }

    /// The metrics in the text format of Prometheus.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        self.registrar.text()
    }

    /// What each metric means.
    pub fn described(&self) -> &[Description] {
        self.registrar.described()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_write_is_exported() {
        let metrics = Metrics::new().expect("registers");
        metrics.writes.with_label_values(&["Service", "apply"]).inc();
        let text = metrics.text().expect("encodes");
        assert!(text.contains(r#"althing_operator_writes_total{kind="Service",verb="apply"} 1"#), "{text}");
    }
}
