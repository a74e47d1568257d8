//! The timers that the core asked for.

use std::collections::BTreeMap;

use tokio::time::Instant;

/// Deadlines by timer; setting a timer again moves it. The core bounds the number of its timers.
#[derive(Debug)]
pub struct Timers<K> {
    deadlines: BTreeMap<K, Instant>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { deadlines: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets or moves a timer.
    pub fn set(&mut self, timer: K, deadline: Instant) {
        self.deadlines.insert(timer, deadline);
    }

    /// Forgets a timer.
    pub fn cancel(&mut self, timer: &K) {
        self.deadlines.remove(timer);
    }

    /// Forgets all timers.
    pub fn clear(&mut self) {
        self.deadlines.clear();
    }

    /// The next deadline, if a timer is set.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.values().min().copied()
    }

    /// Takes the timer that is due first, if one is due at `now`.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        let (timer, _) =
            self.deadlines.iter().filter(|(_, deadline)| **deadline <= now).min_by_key(|(_, deadline)| **deadline)?;
        let timer = timer.clone();
        self.deadlines.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Timers;

    #[test]
    fn timers_come_due_in_the_order_of_their_deadlines_and_a_moved_one_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        timers.set("propose", at(30));
        timers.set("prevote", at(20));
        timers.set("propose", at(10));
        timers.set("precommit", at(40));
        timers.cancel(&"precommit");
        assert_eq!(timers.next_deadline(), Some(at(10)));
        assert_eq!(timers.take_due(at(5)), None);
        assert_eq!(timers.take_due(at(25)), Some("propose"));
        assert_eq!(timers.take_due(at(25)), Some("prevote"));
        assert_eq!(timers.take_due(at(60)), None);
    }
}
