//! The newest facts of every chain, shared by the reconcilers of groups and nodes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::agreement::Facts;

/// What was last found out about one chain.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Facts that f+1 voters reported; none when too few answered.
    pub facts: Option<Facts>,
    /// When the nodes were asked.
    pub at: Instant,
}

impl Entry {
    /// The facts, if they are young enough to count.
    pub fn fresh(&self, age_max: Duration) -> Option<&Facts> {
        self.facts.as_ref().filter(|_| self.at.elapsed() <= age_max)
    }
}

/// All chains by namespace and name of their group.
#[derive(Default)]
pub struct Book {
    entries: Mutex<HashMap<(String, String), Entry>>,
}

impl Book {
    /// Records what was found out now; true when what it says of voters differs from before.
    pub fn record(&self, namespace: &str, group: &str, facts: Option<Facts>) -> bool {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_string(), group.to_string());
        let changed = entries.get(&key).map(|entry| entry.facts.as_ref().map(|facts| &facts.voters))
            != Some(facts.as_ref().map(|facts| &facts.voters));
        entries.insert(key, Entry { facts, at: Instant::now() });
        changed
    }

    /// What was last found out.
    pub fn get(&self, namespace: &str, group: &str) -> Option<Entry> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&(namespace.to_string(), group.to_string())).cloned()
    }

    /// Forgets a chain whose group is gone.
    pub fn forget(&self, namespace: &str, group: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&(namespace.to_string(), group.to_string()));
    }
}
