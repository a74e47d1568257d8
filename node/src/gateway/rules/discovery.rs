//! How often the names of backends are looked up: each second until they have named the same ones for a while.

/// Time between two looks while the backends may still be coming, in milliseconds.
pub const SOON_MS: u64 = 1_000;
/// Time between two looks when they have settled, in milliseconds.
pub const INTERVAL_MS: u64 = 5_000;
/// Time without a change, or since the start, after which they have settled, in milliseconds.
pub const SETTLED_MS: u64 = 30_000;

/// When the backends changed. Times count from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    changed_ms: u64,
}

impl Discovery {
    /// A look has found others than the one before.
    pub const fn on_change(&mut self, now_ms: u64) {
        self.changed_ms = now_ms;
    }

    /// Time from the beginning of this look to that of the next.
    pub const fn pause_ms(&self, now_ms: u64, tier_serves: bool) -> u64 {
        let settled = now_ms.saturating_sub(self.changed_ms) >= SETTLED_MS;
        if settled && tier_serves { INTERVAL_MS } else { SOON_MS }
    }
}

#[cfg(test)]
mod tests {
    use super::{Discovery, SETTLED_MS};

    /// The times of the looks of a minute.
    fn looks(changes_ms: &[u64], tier_serves: bool) -> Vec<u64> {
        let (mut discovery, mut now_ms, mut looks) = (Discovery::default(), 0, vec![]);
        while now_ms <= 2 * SETTLED_MS {
            looks.push(now_ms);
            if changes_ms.contains(&now_ms) {
                discovery.on_change(now_ms);
            }
            now_ms += discovery.pause_ms(now_ms, tier_serves);
        }
        looks
    }

    #[test]
    fn names_are_looked_up_each_second_until_they_have_settled_and_then_every_five() {
        let seconds = |from: u64, to: u64, step: usize| (from..=to).step_by(step).map(|second| second * 1_000);
        let plain: Vec<u64> = seconds(0, 30, 1).chain(seconds(35, 60, 5)).collect();
        assert_eq!(looks(&[0], true), plain);
        let late: Vec<u64> = seconds(0, 50, 1).chain(seconds(55, 60, 5)).collect();
        assert_eq!(looks(&[0, 20_000], true), late);
        let after: Vec<u64> = seconds(0, 30, 1).chain(seconds(35, 60, 1)).collect();
        assert_eq!(looks(&[0, 35_000], true), after, "a change counts whenever it comes");
        assert_eq!(looks(&[0], false), seconds(0, 60, 1).collect::<Vec<_>>(), "nobody serves");
    }
}
