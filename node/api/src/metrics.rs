//! Registers the Prometheus metrics of a process and keeps what each one means, for `docs/metrics.md`.

use prometheus::{Encoder, Registry, TextEncoder, core::Collector, proto::MetricType};

/// The registry of one process.
#[derive(Debug, Default)]
pub struct Registrar {
    registry: Registry,
    described: Vec<Description>,
}

/// One metric, as it is documented.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Description {
    /// With the prefix `althing_` and the unit at the end.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// What it counts or measures.
    pub help: String,
}

impl Registrar {
    /// Registers a metric and hands it back.
    ///
    /// # Errors
    /// The name is taken or malformed.
    pub fn add<M: Collector + Clone + 'static>(&mut self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        let kinds: Vec<MetricType> =
            metric.collect().iter().map(prometheus::proto::MetricFamily::get_field_type).collect();
        for (position, description) in metric.desc().into_iter().enumerate() {
            let kind = match kinds.get(position) {
                Some(MetricType::COUNTER) => "counter",
                Some(MetricType::GAUGE) => "gauge",
                Some(MetricType::HISTOGRAM) => "histogram",
                Some(MetricType::SUMMARY) => "summary",
                Some(MetricType::UNTYPED) | None => "untyped",
            };
            self.described.push(Description {
                name: description.fq_name.clone(),
                kind,
                labels: description.variable_labels.clone(),
                help: description.help.clone(),
            });
        }
        Ok(metric)
    }

    /// Every metric that was registered, in that order.
    #[must_use]
    pub fn described(&self) -> &[Description] {
        &self.described
    }

    /// The text format of Prometheus.
    ///
    /// # Errors
    /// A metric is not consistent with itself.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, IntGauge, Opts};

    use super::{Description, Registrar};

    #[test]
    fn a_metric_without_a_value_is_described_all_the_same() {
        let mut registrar = Registrar::default();
        let calls = IntCounterVec::new(Opts::new("althing_calls_total", "Calls, by result."), &["result"]);
        let calls = registrar.add(calls.expect("well formed")).expect("the first of its name");
        let again = IntGauge::new("althing_calls_total", "Another.").expect("well formed");
        assert!(registrar.add(again).is_err());
        let expected = Description {
            name: "althing_calls_total".to_owned(),
            kind: "counter",
            labels: vec!["result".to_owned()],
            help: "Calls, by result.".to_owned(),
        };
        assert_eq!(registrar.described(), [expected]);
        calls.with_label_values(&["ok"]).inc();
        assert!(registrar.text().expect("consistent").contains("althing_calls_total{result=\"ok\"} 1"));
    }
}
