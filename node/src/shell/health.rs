//! What the kubelet asks: does the main loop turn, and is the node synced and able to sign.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A main loop that has not turned for this long hangs. Far above one slow disk flush.
const TURN_AGE_MAX: Duration = Duration::from_secs(30);

/// Shared between the main loop, which reports, and the HTTP port, which asks.
#[derive(Clone, Debug)]
pub struct Health {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    last_turn_ms: AtomicU64,
    synced: AtomicBool,
    able_to_sign: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        let shared = Shared {
            start: Instant::now(),
            last_turn_ms: AtomicU64::new(0),
            synced: AtomicBool::new(false),
            able_to_sign: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }
}

/// What the main loop says about itself at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The node is not behind its peers.
    pub synced: bool,
    /// The node holds a key that it may use, or it is an observer and needs none.
    pub able_to_sign: bool,
}

impl Health {
    /// The main loop turned.
    pub fn turned(&self, turn: Turn) {
        let since_start_ms = u64::try_from(self.shared.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared.last_turn_ms.store(since_start_ms, Ordering::Relaxed);
        self.shared.synced.store(turn.synced, Ordering::Relaxed);
        self.shared.able_to_sign.store(turn.able_to_sign, Ordering::Relaxed);
    }

    /// The reason why the process should be restarted, if there is one.
    pub fn alive(&self) -> Result<(), String> {
        let last = Duration::from_millis(self.shared.last_turn_ms.load(Ordering::Relaxed));
        let age = self.shared.start.elapsed().saturating_sub(last);
        if age > TURN_AGE_MAX {
            return Err(format!("the main loop has not turned for {} s", age.as_secs()));
        }
        Ok(())
    }

    /// The reason why the node should get no requests, if there is one.
    pub fn ready(&self) -> Result<(), String> {
        if !self.shared.synced.load(Ordering::Relaxed) {
            return Err("not synced".to_owned());
        }
        if !self.shared.able_to_sign.load(Ordering::Relaxed) {
            return Err("not able to sign".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Turn};

    #[test]
    fn ready_needs_both_sync_and_a_usable_key() {
        let health = Health::default();
        assert_eq!(health.ready(), Err("not synced".to_owned()));
        health.turned(Turn { synced: true, able_to_sign: false });
        assert_eq!(health.ready(), Err("not able to sign".to_owned()));
        health.turned(Turn { synced: true, able_to_sign: true });
        assert_eq!(health.ready(), Ok(()));
        assert_eq!(health.alive(), Ok(()));
    }
}
