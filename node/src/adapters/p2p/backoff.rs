//! How long to wait before the next dial of a peer that could not be reached.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(1);

/// Doubles from 100 ms to 1 s; each wait is drawn between half and the whole of it.
///
/// The jitter keeps the nodes of a network that restarts as one from dialing each other in step. The maximum is short
/// because a chain waits for the connection.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The wait before the next attempt.
    pub fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(MAX);
        let half_ms = u64::try_from(whole.as_millis() / 2).unwrap_or(u64::MAX);
        Duration::from_millis(half_ms + rand::rng().random_range(0..=half_ms))
    }

    /// Starts over: the peer answered.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, MAX};

    #[test]
    fn waits_grow_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.wait() <= FIRST);
        for _ in 0..20 {
            let wait = backoff.wait();
            assert!(wait <= MAX);
        }
        assert!(backoff.wait() >= MAX / 2);
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
    }
}
