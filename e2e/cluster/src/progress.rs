//! Progress on standard error: one line a step, with the milliseconds since the start and of the step itself.

use std::time::Instant;

/// Prints the steps of one command.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    last: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { start: now, last: now }
    }

    /// A step is done.
    pub fn done(&mut self, step: &str) {
        let now = Instant::now();
        let total = now.duration_since(self.start).as_millis();
        let own = now.duration_since(self.last).as_millis();
        self.last = now;
        eprintln!("{total:>7} ms  (+{own:>5})  {step}");
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
