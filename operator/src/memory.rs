//! What was read by name from the API server, remembered for a short while: Secrets are never listed, so that nobody
//! tells when one changes. Presence is remembered; whether something is absent is asked anew before anything is made of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;

use crate::config::Config;
use crate::group::observe::{GenesisRead, GovernanceRead};
use crate::network::observe::AuthorityRead;
use crate::validator::observe::IdentityRead;

/// How long a certificate that is there counts as there: a deleted one is made again after this and one look.
pub const CERTIFICATE_AGE_MAX: Duration = Duration::from_secs(30);
/// The same for what is made once and only ever reported as lost.
pub const MADE_ONCE_AGE_MAX: Duration = Duration::from_secs(40);
/// How long a genesis that is not there counts as absent while no voter of the chain runs.
pub const NO_GENESIS_AGE_MAX: Duration = Duration::from_secs(10);
/// A step on the way, with which no condition begins or ceases to hold, waits this long after the last writing of a status.
pub const TOLD_AGE_MAX: Duration = Duration::from_secs(2);
/// Children that are written again within this time are worth a word in the status.
pub const APPLIED_AGE_MAX: Duration = Duration::from_secs(10);
/// How long a class that a spec names counts as there.
pub const REFERENCE_AGE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked for children that nobody wants although the wanted ones are the same as before.
pub const PRUNED_AGE_MAX: Duration = Duration::from_secs(60);
/// No memory of Secrets lets more of them be read anew than one in this time: with more than 300 certificates each is
/// remembered for longer, 100 s where there are 1,000.
pub const READ_PAUSE_MIN: Duration = Duration::from_millis(100);
/// What is known at one version of an object is read again after this all the same.
pub const VERSION_AGE_MAX: Duration = Duration::from_secs(3_600);

/// Everything that is remembered.
pub struct Memories {
    /// Identities of nodes.
    pub identities: Memory<IdentityRead>,
    /// Certificates of nodes and clients, without their keys.
    pub certificates: Memory<Secret>,
    /// Governance keys, only the public half.
    pub governance: Memory<GovernanceRead>,
    /// Certificate authorities as their networks see them.
    pub authorities: Memory<AuthorityRead>,
    /// Certificates of other members' authorities.
    pub bundles: Memory<String>,
    /// Genesis documents with the resourceVersion at which they were read.
    pub genesis: Memory<(String, GenesisRead)>,
    /// Chains without a kept genesis.
    pub no_genesis: Memory<()>,
    /// Objects whose status was written a moment ago.
    pub told: Memory<()>,
    /// Objects whose children were written a moment ago, without a word in their status.
    pub applied: Memory<()>,
    /// What specs name and is there.
    pub references: Memory<()>,
    /// The newest generation of each object that was looked at.
    pub generations: Memory<i64>,
    /// Groups whose disruption budget counts no pod without a mark.
    pub recounted: Memory<()>,
    /// The names of the children at which nothing was left over.
    pub pruned: Memory<Vec<String>>,
}

impl Memories {
    /// Nothing yet; ages are pauses as this process makes them.
    pub fn new(config: &Config) -> Self {
        let read_pause = config.pause(READ_PAUSE_MIN);
        Self {
            identities: Memory::paced(config.pause(MADE_ONCE_AGE_MAX), read_pause),
            certificates: Memory::paced(config.pause(CERTIFICATE_AGE_MAX), read_pause),
            governance: Memory::paced(config.pause(MADE_ONCE_AGE_MAX), read_pause),
            authorities: Memory::paced(config.pause(MADE_ONCE_AGE_MAX), read_pause),
            bundles: Memory::new(config.pause(REFERENCE_AGE_MAX)),
            genesis: Memory::new(config.pause(VERSION_AGE_MAX)),
            no_genesis: Memory::new(config.pause(NO_GENESIS_AGE_MAX)),
            told: Memory::new(config.pause(TOLD_AGE_MAX)),
            applied: Memory::new(config.pause(APPLIED_AGE_MAX)),
            references: Memory::new(config.pause(REFERENCE_AGE_MAX)),
            generations: Memory::new(config.pause(VERSION_AGE_MAX)),
            recounted: Memory::new(config.pause(VERSION_AGE_MAX)),
            pruned: Memory::new(config.pause(PRUNED_AGE_MAX)),
        }
    }
}

/// Values by the UID or namespace of what they belong to and their name.
pub struct Memory<T> {
    age_max: Duration,
    read_pause: Duration,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    entries: HashMap<(String, String), (Instant, T)>,
    swept: Instant,
}

impl<T: Clone> Memory<T> {
    /// Nothing yet; an entry is good for this long.
    pub fn new(age_max: Duration) -> Self {
        Self::paced(age_max, Duration::ZERO)
    }

    /// Nothing yet; an entry is good for `age`, and for longer if there are so many that more than one in `read_pause` would
    /// have to be read anew.
    pub fn paced(age: Duration, read_pause: Duration) -> Self {
        let kept = Mutex::new(Kept { entries: HashMap::new(), swept: Instant::now() });
        Self { age_max: age, read_pause, kept }
    }

    fn age_max(&self, entries: usize) -> Duration {
        self.age_max.max(self.read_pause.saturating_mul(u32::try_from(entries).unwrap_or(u32::MAX)))
    }

    /// What is remembered and young enough.
    pub fn get(&self, of: &str, name: &str) -> Option<T> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, value) = kept.entries.get(&(of.to_string(), name.to_string()))?;
        (at.elapsed() < self.age_max(kept.entries.len())).then(|| value.clone())
    }

    /// Remembers what was read or written at `at`: a read that began before a write must not outlive it as younger.
    pub fn put(&self, of: &str, name: &str, at: Instant, value: T) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let age_max = self.age_max(kept.entries.len());
        if kept.swept.elapsed() > age_max {
            kept.entries.retain(|_, (at, _)| at.elapsed() < age_max);
            kept.swept = Instant::now();
        }
        kept.entries.insert((of.to_string(), name.to_string()), (at, value));
    }

    /// It has changed: it is read again next time.
    pub fn forget(&self, of: &str, name: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entries.remove(&(of.to_string(), name.to_string()));
    }

    /// How much is remembered.
    pub fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_not_remembered_and_does_not_pile_up() {
        let memory = Memory::new(Duration::from_secs(10));
        let now = Instant::now();
        let old = now.checked_sub(Duration::from_secs(11)).expect("the machine runs for longer");
        memory.put("a", "young", now, 1);
        memory.put("a", "old", old, 2);
        assert_eq!((memory.get("a", "young"), memory.get("a", "old")), (Some(1), None));
        assert_eq!(memory.get("b", "young"), None, "an object of the same name made again is another one");
        memory.kept.lock().expect("not poisoned").swept = old;
        memory.put("a", "third", now, 3);
        assert_eq!(memory.len(), 2, "the old one is dropped");
        memory.forget("a", "young");
        assert_eq!(memory.get("a", "young"), None);
    }

    #[test]
    fn many_entries_are_remembered_for_longer() {
        let memory = Memory::paced(Duration::from_secs(10), Duration::from_secs(1));
        let old = Instant::now().checked_sub(Duration::from_secs(11)).expect("the machine runs for longer");
        for number in 0..10 {
            memory.put("a", &number.to_string(), old, number);
        }
        assert_eq!(memory.get("a", "0"), None, "ten in ten seconds");
        memory.put("a", "10", old, 10);
        memory.put("a", "11", old, 11);
        assert_eq!(memory.get("a", "0"), Some(0), "twelve are read anew in twelve seconds");
    }
}
