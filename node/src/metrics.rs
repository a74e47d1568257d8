//! The metrics of a node, all under the prefix `althing_` and in base units.

use node_api::metrics::{Description, Registrar};
use node_core::types::{Receipt, ReceiptStatus};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

/// Every metric of the process; made once, shared by reference.
#[derive(Debug)]
pub struct Metrics {
    registrar: Registrar,
    /// Height of the newest block that is on disk.
    pub height: IntGauge,
    /// Height of the newest block that is executed.
    pub executed_height: IntGauge,
    /// Age of the newest block by this machine's clock, as of the last turn of the main loop.
    pub block_age_seconds: Gauge,
    /// Round of the height in progress.
    pub round: IntGauge,
    /// 1 while this node may sign at the height in progress.
    pub signing: IntGauge,
    /// 1 while this node is not behind its peers.
    pub synced: IntGauge,
    /// Peers with at least one open connection.
    pub peers: IntGauge,
    /// Peer records at hand, by whose they are.
    pub peer_records: IntGaugeVec,
    /// What peers did against the rules.
    pub peer_offences_total: IntCounterVec,
    /// How often a peer was sent away.
    pub peer_bans_total: IntCounter,
    /// Transactions that wait for inclusion.
    pub mempool_transactions: IntGauge,
    /// Transactions in executed blocks, by result.
    pub transactions_total: IntCounterVec,
    /// Verified votes seen, late ones included, by step.
    pub votes_seen_total: IntCounterVec,
    /// Messages from peers, by what became of them.
    pub messages_received_total: IntCounterVec,
    /// Messages to peers, by what became of them.
    pub messages_sent_total: IntCounterVec,
    /// Size of the volume.
    pub volume_size_bytes: IntGauge,
    /// What can still be written to it.
    pub volume_available_bytes: IntGauge,
    /// Unix time at which the node's certificate ends.
    pub certificate_expires: IntGauge,
    /// Seconds of one durable log flush.
    pub log_flush_seconds: Histogram,
    /// Seconds of one durable write of batches.
    pub batch_write_seconds: Histogram,
    /// 1 from a start that found its batches gone until the next start.
    pub batches_lost: IntGauge,
    /// Seconds of one durable write of a block.
    pub block_write_seconds: Histogram,
    /// Seconds of one turn of the main loop, by what it was for.
    pub turn_seconds: HistogramVec,
    /// Seconds from the seal of an own batch until a quorum had it.
    pub certified_seconds: Histogram,
    /// Seconds from the start of a block's execution until its state is durable.
    pub execution_seconds: Histogram,
    /// Newest height whose events are kept.
    pub events_height: IntGauge,
    /// Events kept.
    pub events_total: IntCounter,
    /// Seconds to make the events of a block and keep them durably.
    pub events_seconds: Histogram,
    /// Evidence of two conflicting signatures by one session key.
    pub equivocations_total: IntCounter,
    /// 1 for the version that runs.
    build_info: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut registrar = Registrar::default();
        let metrics = Self {
            height: int_gauge(&mut registrar, "althing_height", "Height of the newest block on disk.")?,
            executed_height: int_gauge(
                &mut registrar,
                "althing_executed_height",
                "Height of the newest executed block.",
            )?,
            block_age_seconds: gauge(
                &mut registrar,
                "althing_block_age_seconds",
                "Age of the newest block by the clock of this machine.",
            )?,
            round: int_gauge(&mut registrar, "althing_round", "Round of the height in progress.")?,
            signing: int_gauge(
                &mut registrar,
                "althing_signing",
                "1 while this node may sign at the height in progress.",
            )?,
            synced: int_gauge(&mut registrar, "althing_synced", "1 while this node is not behind its peers.")?,
            peers: int_gauge(&mut registrar, "althing_peers", "Peers with at least one open connection.")?,
            peer_records: registrar.add(IntGaugeVec::new(
                Opts::new(
                    "althing_peer_records",
                    "Signed peer records at hand: of members (voters and configured peers), or of observers.",
                ),
                &["of"],
            )?)?,
            peer_offences_total: counters(
                &mut registrar,
                "althing_peer_offences_total",
                "What peers did against the rules.",
                "offence",
            )?,
            peer_bans_total: registrar.add(IntCounter::new(
                "althing_peer_bans_total",
                "How often a peer was refused for a while because it broke the rules.",
            )?)?,
            mempool_transactions: int_gauge(
                &mut registrar,
                "althing_mempool_transactions",
                "Transactions that wait for inclusion.",
            )?,
            transactions_total: counters(
                &mut registrar,
                "althing_transactions_total",
                "Transactions in executed blocks, by result.",
                "result",
            )?,
            votes_seen_total: counters(
                &mut registrar,
                "althing_votes_seen_total",
                "Verified votes seen, late ones included, by step.",
                "step",
            )?,
            messages_received_total: counters(
                &mut registrar,
                "althing_messages_received_total",
                "Messages from peers, by what became of them.",
                "outcome",
            )?,
            messages_sent_total: counters(
                &mut registrar,
                "althing_messages_sent_total",
                "Messages to peers, by what became of them.",
                "outcome",
            )?,
            volume_size_bytes: int_gauge(
                &mut registrar,
                "althing_volume_size_bytes",
                "Size of the volume with the node's data.",
            )?,
            volume_available_bytes: int_gauge(
                &mut registrar,
                "althing_volume_available_bytes",
                "What the node can still write to its volume; below 67108864 it signs nothing.",
            )?,
            certificate_expires: int_gauge(
                &mut registrar,
                "althing_certificate_expires_timestamp_seconds",
                "Unix time at which the certificate that this node presents ends; it takes a new one without a restart.",
            )?,
            log_flush_seconds: histogram(
                &mut registrar,
                "althing_log_flush_seconds",
                "Seconds of one durable log flush.",
            )?,
            batch_write_seconds: histogram(
                &mut registrar,
                "althing_batch_write_seconds",
                "Seconds of one durable write of the batches that waited.",
            )?,
            batches_lost: int_gauge(
                &mut registrar,
                "althing_batches_lost",
                "1 when this start found the batches gone that the node had acknowledged, or some may have been.",
            )?,
            block_write_seconds: histogram(
                &mut registrar,
                "althing_block_write_seconds",
                "Seconds of one durable write of a block.",
            )?,
            turn_seconds: registrar.add(HistogramVec::new(
                HistogramOpts::new(
                    "althing_turn_seconds",
                    "Seconds of one turn of the main loop, by what it was for; while it lasts, everything else waits.",
                )
                .buckets(buckets()?),
                &["input"],
            )?)?,
            certified_seconds: histogram(
                &mut registrar,
                "althing_certified_seconds",
                "Seconds from the seal of a batch of this node until a quorum had stored it.",
            )?,
            execution_seconds: histogram(
                &mut registrar,
                "althing_execution_seconds",
                "Seconds from the start of a block's execution until its state is durable.",
            )?,
            events_height: int_gauge(
                &mut registrar,
                "althing_events_height",
                "Newest height whose events are kept; 0 where none are.",
            )?,
            events_total: registrar.add(IntCounter::new("althing_events_total", "Events kept since the start.")?)?,
            events_seconds: histogram(
                &mut registrar,
                "althing_events_seconds",
                "Seconds to make the events of a block and keep them durably; part of its execution.",
            )?,
            equivocations_total: registrar.add(IntCounter::new(
                "althing_equivocations_total",
                "Evidence of two conflicting signatures by one session key.",
            )?)?,
            build_info: registrar.add(IntGaugeVec::new(
                Opts::new("althing_build_info", "1 for the version that runs."),
                &["version", "commit"],
            )?)?,
            registrar,
        };
        metrics.build_info.with_label_values(&[crate::commands::VERSION, crate::commands::COMMIT]).set(1);
        Ok(metrics)
    }

    /// Counts the transactions of an executed block.
    pub fn count_transactions(&self, receipts: &[Receipt]) {
        let applied = receipts.iter().filter(|receipt| receipt.status == ReceiptStatus::Executed).count();
        for (result, count) in [("applied", applied), ("failed", receipts.len() - applied)] {
            self.transactions_total.with_label_values(&[result]).inc_by(count as u64);
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

fn int_gauge(registrar: &mut Registrar, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registrar.add(IntGauge::new(name, help)?)
}

fn gauge(registrar: &mut Registrar, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    registrar.add(Gauge::new(name, help)?)
}

fn counters(
    registrar: &mut Registrar,
    name: &str,
    help: &str,
    label: &str,
) -> Result<IntCounterVec, prometheus::Error> {
    registrar.add(IntCounterVec::new(Opts::new(name, help), &[label])?)
}

/// Buckets from 100 us to 6.5 s, each double the one before.
fn histogram(registrar: &mut Registrar, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    registrar.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets()?))?)
}

fn buckets() -> Result<Vec<f64>, prometheus::Error> {
    prometheus::exponential_buckets(0.000_1, 2.0, 17)
}

#[cfg(test)]
mod tests {
    use node_core::types::{Height, Receipt, ReceiptStatus, TransactionId};

    use super::Metrics;

    #[test]
    fn each_transaction_of_a_block_counts_once_by_its_result() {
        let metrics = Metrics::new().expect("the metrics register");
        let receipt =
            |status| Receipt { transaction: TransactionId::new([1; 32]), height: Height::new(1), index: 0, status };
        let block = [ReceiptStatus::Executed, ReceiptStatus::Deferred, ReceiptStatus::Executed].map(receipt);
        metrics.count_transactions(&block);
        metrics.count_transactions(&[]);
        let count = |result| metrics.transactions_total.with_label_values(&[result]).get();
        assert_eq!((count("applied"), count("failed")), (2, 1));
    }

    #[test]
    fn every_metric_has_the_prefix_and_a_help_text() {
        let metrics = Metrics::new().expect("the metrics register");
        metrics.votes_seen_total.with_label_values(&["precommit"]).inc();
        let text = metrics.render().expect("the metrics render");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("althing_"), "{line}");
        }
        assert!(text.contains("althing_votes_seen_total{step=\"precommit\"} 1"), "{text}");
        assert!(text.contains("althing_build_info{commit="), "{text}");
    }
}
