//! The buckets of many callers in bounded memory.
//!
//! A bucket that is full again is the same as one that was never used, so it can be forgotten without a trace. When
//! more callers are active than there is room for, the one nearest to a full bucket is forgotten: it gains the least.

use std::collections::{BTreeSet, HashMap};

use super::rate::{Rate, Verdict};

/// Full buckets that are forgotten with each request.
const FORGET_MAX: usize = 2;

/// The buckets of one class of callers.
#[derive(Debug)]
pub struct Callers {
    full_at: HashMap<u64, u64>,
    by_time: BTreeSet<(u64, u64)>,
    entries_max: usize,
}

impl Callers {
    /// Room for `entries_max` callers.
    pub fn new(entries_max: usize) -> Self {
        Self { full_at: HashMap::new(), by_time: BTreeSet::new(), entries_max: entries_max.max(1) }
    }

    /// Takes one token of `caller` (a keyed hash of who it is) at `now_ns`.
    pub fn take(&mut self, caller: u64, rate: Rate, now_ns: u64) -> Verdict {
        self.forget_full(now_ns);
        let known = self.full_at.get(&caller).copied();
        let (verdict, full_at) = rate.take(known.unwrap_or(0), now_ns);
        if verdict.allowed {
            match known {
                Some(before) => {
                    self.by_time.remove(&(before, caller));
                }
                None if self.full_at.len() >= self.entries_max => self.forget_first(),
                None => {}
            }
            self.full_at.insert(caller, full_at);
            self.by_time.insert((full_at, caller));
        }
        verdict
    }

    /// Callers that are counted now.
    pub fn len(&self) -> usize {
        self.full_at.len()
    }

    /// Whether nobody is counted.
    pub fn is_empty(&self) -> bool {
        self.full_at.is_empty()
    }

    fn forget_full(&mut self, now_ns: u64) {
        for _ in 0..FORGET_MAX {
            match self.by_time.first() {
                Some((full_at, _)) if *full_at <= now_ns => self.forget_first(),
                _ => return,
            }
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, caller)) = self.by_time.pop_first() {
            self.full_at.remove(&caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Callers, Rate};
    use crate::gateway::rules::rate::Quota;

    const SECOND: u64 = 1_000_000_000;

    fn rate() -> Rate {
        Rate::share(Quota { per_minute: 60, burst_percent: 10 }, 1)
    }

    #[test]
    fn ten_thousand_callers_get_their_limit_each_and_nothing_more() {
        let mut callers = Callers::new(100_000);
        let mut passed = vec![0_u32; 10_000];
        // Every caller asks twice a second for a minute: twice its limit.
        for half_second in 0..120 {
            for caller in 0..10_000_u64 {
                let now = 100 * SECOND + half_second * SECOND / 2;
                if callers.take(caller, rate(), now).allowed {
                    passed[caller as usize] += 1;
                }
            }
        }
        assert_eq!(callers.len(), 10_000);
        assert!(passed.iter().all(|passed| (64..=66).contains(passed)), "{:?}", passed.iter().max());
    }

    #[test]
    fn memory_is_bounded_however_many_callers_come() {
        let mut callers = Callers::new(1_000);
        for caller in 0..200_000_u64 {
            assert!(callers.take(caller, rate(), SECOND + caller).allowed);
            assert!(callers.len() <= 1_000 && callers.by_time.len() == callers.full_at.len());
        }
    }

    #[test]
    fn a_crowd_does_not_empty_the_memory_of_who_is_over_the_limit() {
        let mut callers = Callers::new(1_000);
        let now = 10 * SECOND;
        while callers.take(7, rate(), now).allowed {}
        for stranger in 1_000..50_000 {
            callers.take(stranger, rate(), now);
        }
        assert!(!callers.take(7, rate(), now).allowed, "the limited caller was forgotten");
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut callers = Callers::new(1_000);
        for caller in 0..500 {
            callers.take(caller, rate(), SECOND);
        }
        for _ in 0..300 {
            callers.take(999, rate(), 1_000 * SECOND);
        }
        assert_eq!(callers.len(), 1);
    }
}
