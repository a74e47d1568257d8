//! How fast messages of one connection are read.

/// Messages a second: some times what 256 voters say at full load.
const PER_SECOND: u64 = 4_000;
/// Messages that may come at once after a pause.
const BURST: u64 = 8_000;

/// A bucket that fills with time.
#[derive(Debug)]
pub struct MessageRate {
    /// Thousandths of messages that may be read now.
    thousandths: u64,
    at_ms: u64,
    /// When it was last told that there is too much.
    told_at_ms: Option<u64>,
}

/// What is to be done before the next message is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wait {
    /// For so long nothing is read.
    pub wait_ms: u64,
    /// Once a second: it counts as an offence.
    pub counts: bool,
}

impl MessageRate {
    /// Full.
    pub fn new(now_ms: u64) -> Self {
        Self { thousandths: BURST * 1_000, at_ms: now_ms, told_at_ms: None }
    }

    /// Takes one message; with an answer only after that time.
    pub fn take(&mut self, now_ms: u64) -> Option<Wait> {
        let filled = now_ms.saturating_sub(self.at_ms).saturating_mul(PER_SECOND);
        self.thousandths = self.thousandths.saturating_add(filled).min(BURST * 1_000);
        self.at_ms = self.at_ms.max(now_ms);
        if let Some(rest) = self.thousandths.checked_sub(1_000) {
            self.thousandths = rest;
            return None;
        }
        self.thousandths = 0;
        let counts = self.told_at_ms.is_none_or(|told_at_ms| now_ms >= told_at_ms.saturating_add(1_000));
        if counts {
            self.told_at_ms = Some(now_ms);
        }
        // Long enough to be worth a timer.
        Some(Wait { wait_ms: 20, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, MessageRate, PER_SECOND};

    #[test]
    fn a_burst_passes_and_what_follows_is_slowed_down_to_the_rate() {
        let mut rate = MessageRate::new(0);
        assert!((0..BURST).all(|_| rate.take(0).is_none()));
        let (mut now_ms, mut read, mut offences) = (0, 0, 0);
        while now_ms < 10_000 {
            read += 1;
            if let Some(wait) = rate.take(now_ms) {
                now_ms += wait.wait_ms;
                offences += u32::from(wait.counts);
            }
        }
        assert!(read <= 10 * PER_SECOND + 1_000, "{read} messages in 10 s");
        assert!((9..=11).contains(&offences), "{offences} offences");
    }

    #[test]
    fn a_peer_below_the_rate_never_waits() {
        let mut rate = MessageRate::new(0);
        assert!((0..100_000).all(|message| rate.take(message * 1_000 / PER_SECOND).is_none()));
    }
}
