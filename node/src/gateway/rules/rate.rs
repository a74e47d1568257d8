//! A token bucket in one number: the time at which it will be full again (the generic cell rate algorithm).

/// How fast a bucket fills and how much it holds.
///
/// In any span of time a caller gets at most `span / interval + burst` requests: with a burst of a tenth of a
/// minute's requests, at most 1.1 times the limit in any minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval_ns: u64,
    burst: u64,
    per_minute: u64,
}

const MINUTE_NS: u128 = 60_000_000_000;

/// The limit of one class of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests a minute through all gateways together; at least 1.
    pub per_minute: u64,
    /// Part of them that may come at once, in percent: 1 to 100.
    pub burst_percent: u64,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may pass.
    pub allowed: bool,
    /// Requests that may still come at once.
    pub remaining: u64,
    /// Nanoseconds until the bucket is full.
    pub full_in_ns: u64,
    /// Nanoseconds until the next request may pass; 0 when it may now.
    pub retry_in_ns: u64,
}

impl Rate {
    /// The share of one of `gateways` gateways.
    pub fn share(quota: Quota, gateways: u32) -> Self {
        let gateways = u64::from(gateways.max(1));
        let per_minute = quota.per_minute.max(1);
        // Rounded up: rather a little less than the limit than more.
        let interval = (MINUTE_NS * u128::from(gateways)).div_ceil(u128::from(per_minute));
        let burst = u128::from(per_minute) * u128::from(quota.burst_percent) / 100 / u128::from(gateways);
        Self {
            interval_ns: u64::try_from(interval).unwrap_or(u64::MAX),
            burst: u64::try_from(burst).unwrap_or(u64::MAX).max(1),
            per_minute: (per_minute / gateways).max(1),
        }
    }

    /// Requests a minute of this gateway's share.
    pub const fn per_minute(self) -> u64 {
        self.per_minute
    }

    /// The time that one request takes up, rounded up, and how much of such time a bucket holds, in microseconds: for a
    /// bucket that lies elsewhere.
    pub fn in_microseconds(self) -> (u64, u64) {
        let interval_us = self.interval_ns.div_ceil(1_000);
        (interval_us, self.burst.saturating_mul(interval_us))
    }

    /// What a bucket that lies elsewhere says: the time until it is full, and until the next request when this one may
    /// not pass.
    pub fn told(self, full_in_us: u64, refused_for_us: Option<u64>) -> Verdict {
        let (interval_us, room_us) = self.in_microseconds();
        let remaining = room_us.saturating_sub(full_in_us) / interval_us.max(1);
        Verdict {
            allowed: refused_for_us.is_none(),
            remaining: if refused_for_us.is_none() { remaining } else { 0 },
            full_in_ns: full_in_us.saturating_mul(1_000),
            retry_in_ns: refused_for_us.unwrap_or(0).saturating_mul(1_000),
        }
    }

    /// Takes one token at `now_ns` from a bucket that is full at `full_at_ns`. The second result is the new state.
    pub fn take(self, full_at_ns: u64, now_ns: u64) -> (Verdict, u64) {
        let start = full_at_ns.max(now_ns);
        let after = start.saturating_add(self.interval_ns);
        let room = self.burst.saturating_mul(self.interval_ns);
        if after - now_ns > room {
            let verdict = Verdict {
                allowed: false,
                remaining: 0,
                full_in_ns: start - now_ns,
                retry_in_ns: (after - now_ns).saturating_sub(room),
            };
            return (verdict, full_at_ns);
        }
        let full_in_ns = after - now_ns;
        let remaining = (room - full_in_ns) / self.interval_ns.max(1);
        (Verdict { allowed: true, remaining, full_in_ns, retry_in_ns: 0 }, after)
    }
}

#[cfg(test)]
mod tests {
    use super::{Quota, Rate};

    const SECOND: u64 = 1_000_000_000;

    /// Offers a request every `step_ns` and returns the times of those that passed.
    fn passed(rate: Rate, step_ns: u64, until_ns: u64) -> Vec<u64> {
        let (mut state, mut times, mut now) = (0, vec![], 10 * SECOND);
        while now < 10 * SECOND + until_ns {
            let (verdict, next) = rate.take(state, now);
            state = next;
            if verdict.allowed {
                times.push(now);
            }
            now += step_ns;
        }
        times
    }

    #[test]
    fn no_minute_holds_more_than_the_limit_and_the_burst() {
        for (limit, burst_percent, gateways) in [(1_000, 10, 1), (1_000, 10, 3), (500, 1, 2), (7, 10, 1), (60, 100, 4)]
        {
            let rate = Rate::share(Quota { per_minute: limit, burst_percent }, gateways);
            let times = passed(rate, 7_000_001, 300 * SECOND);
            let most = (0..times.len())
                .map(|first| times.iter().skip(first).take_while(|time| **time < times[first] + 60 * SECOND).count())
                .max()
                .unwrap_or(0) as u64;
            let allowed = limit / u64::from(gateways) + (limit * burst_percent / 100 / u64::from(gateways)).max(1) + 1;
            assert!(most <= allowed, "{limit}/min over {gateways}: {most} in a minute, at most {allowed}");
            assert!(
                times.len() as u64 * u64::from(gateways) + 5 * u64::from(gateways) >= limit * 5,
                "{limit}: too few passed"
            );
        }
    }

    #[test]
    fn a_refused_request_may_come_again_after_exactly_the_time_it_was_told() {
        let rate = Rate::share(Quota { per_minute: 60, burst_percent: 5 }, 1);
        let (mut state, now) = (0, 5 * SECOND);
        for left in [2, 1, 0] {
            let (verdict, next) = rate.take(state, now);
            assert_eq!((verdict.allowed, verdict.remaining), (true, left));
            state = next;
        }
        let (verdict, same) = rate.take(state, now);
        assert_eq!((verdict.allowed, verdict.retry_in_ns, same), (false, SECOND, state));
        assert!(!rate.take(state, now + SECOND - 1).0.allowed);
        assert!(rate.take(state, now + SECOND).0.allowed);
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        for per_minute in [1, u64::MAX] {
            for gateways in [0, 1, u32::MAX] {
                let rate = Rate::share(Quota { per_minute, burst_percent: 100 }, gateways);
                for now in [0, u64::MAX / 2, u64::MAX] {
                    let (_, state) = rate.take(0, now);
                    let _ = rate.take(state, now);
                }
            }
        }
    }
}
