//! Percentiles of latencies.

use serde::Serialize;

/// Three percentiles of one latency, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of all are at most this.
    pub p50_ms: f64,
    /// 95 of 100 are at most this.
    pub p95_ms: f64,
    /// 99 of 100 are at most this.
    pub p99_ms: f64,
}

impl Percentiles {
    /// By nearest rank; nothing of no latencies. Sorts `latencies_us`.
    pub fn of(latencies_us: &mut [u64]) -> Option<Self> {
        latencies_us.sort_unstable();
        let rank = |percent: usize| {
            let rank = (latencies_us.len() * percent).div_ceil(100).max(1);
            latencies_us.get(rank - 1).map(|latency_us| to_ms(*latency_us))
        };
        Some(Self { p50_ms: rank(50)?, p95_ms: rank(95)?, p99_ms: rank(99)? })
    }
}

/// Microseconds as milliseconds with one decimal.
#[expect(clippy::cast_precision_loss, reason = "no latency has more than 52 bits")]
fn to_ms(latency_us: u64) -> f64 {
    ((latency_us as f64) / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::Percentiles;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let mut latencies: Vec<u64> = (1..=200).rev().map(|ms| ms * 1000).collect();
        let found = Percentiles::of(&mut latencies);
        assert_eq!(found, Some(Percentiles { p50_ms: 100.0, p95_ms: 190.0, p99_ms: 198.0 }));
        assert_eq!(Percentiles::of(&mut [1_540]), Some(Percentiles { p50_ms: 1.5, p95_ms: 1.5, p99_ms: 1.5 }));
        assert_eq!(Percentiles::of(&mut []), None);
    }
}
