//! The search for the highest rate that is sustained.

use super::{
    BenchError,
    trial::{Setting, Trial, TrialRequest},
};

/// Between two rates that are closer than this share of the lower one the search ends.
const PRECISION: f64 = 0.04;
/// If the full run at the rate that short trials found is not sustained, lower ones are tried this often.
const CONFIRMATIONS_MAX: u32 = 4;
/// How much lower.
const STEP_DOWN: f64 = 0.95;

/// Where and how to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// A rate that should be sustained.
    pub low: u32,
    /// A rate that is as high as is worth trying.
    pub high: u32,
    /// Short trials, at most.
    pub trials_max: u32,
    /// Load before the measured time of a short trial, seconds.
    pub short_warm_up_s: u32,
    /// Measured time of a short trial, seconds.
    pub short_run_s: u32,
    /// The full trial.
    pub warm_up_s: u32,
    /// The full trial.
    pub run_s: u32,
}

impl Search {
    /// Halves the range by short trials, then makes a full one at the best rate. The last trial is the result, whether or
    /// not it was sustained.
    pub async fn run(&self, setting: &Setting, done: &mut Vec<Trial>) -> Result<Trial, BenchError> {
        let (mut low, mut high) = (self.low, self.high);
        let short = |rate| TrialRequest { rate, warm_up_s: self.short_warm_up_s, run_s: self.short_run_s };
        let mut next = high;
        for _ in 0..self.trials_max {
            let trial = short(next).run(setting).await?;
            eprintln!("bench: {} tx/s {}", next, if trial.sustained { "is sustained" } else { "is too much" });
            if trial.sustained {
                low = next;
            } else {
                high = next;
            }
            done.push(trial);
            if f64::from(high.saturating_sub(low)) <= f64::from(low) * PRECISION {
                break;
            }
            next = low.midpoint(high);
        }
        let full = |rate| TrialRequest { rate, warm_up_s: self.warm_up_s, run_s: self.run_s };
        let mut rate = low;
        let mut trial = full(rate).run(setting).await?;
        for _ in 0..CONFIRMATIONS_MAX {
            if trial.sustained {
                break;
            }
            done.push(trial);
            rate = lower(rate);
            trial = full(rate).run(setting).await?;
        }
        Ok(trial)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a rate is a rate")]
fn lower(rate: u32) -> u32 {
    (f64::from(rate) * STEP_DOWN) as u32
}
