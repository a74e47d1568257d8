//! Remembers what peers did, by the clock: the rules are in [`super::rules`].

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use node_core::types::Identity;
use tokio::{sync::watch, time::Instant};

use super::rules::{Offence, Roster, Scores};

/// What the chain says about peers; nothing before it runs here.
pub type RosterWatch = watch::Receiver<Option<Arc<Roster>>>;

/// The standing of all peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Conduct {
    scores: Arc<Mutex<Scores>>,
    roster: RosterWatch,
    start: Instant,
}

impl Conduct {
    /// Nobody has done anything; the configuration names these peers.
    pub fn new(configured: BTreeSet<Identity>, roster: RosterWatch) -> Self {
        Self { scores: Arc::new(Mutex::new(Scores::new(configured))), roster, start: Instant::now() }
    }

    /// Milliseconds since the start of the process.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// For how long a peer stays away from now on, if it does.
    pub fn banned(&self, peer: &Identity) -> Option<Duration> {
        self.scores().banned_ms(peer, self.now_ms()).map(Duration::from_millis)
    }

    /// A peer did something. The answer is for how long it is sent away, if that was too much.
    pub fn report(&self, peer: Identity, offence: Offence) -> Option<Duration> {
        let roster = self.roster.borrow().clone();
        self.scores().report(peer, offence, roster.as_deref(), self.now_ms()).map(Duration::from_millis)
    }

    fn scores(&self) -> MutexGuard<'_, Scores> {
        // Nothing in here can leave the table half changed.
        self.scores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
