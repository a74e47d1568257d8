//! Which pod the votes are of: those of the former pod say nothing of the one that has its name now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far above the height at which a pod was first seen its precommits must be: the voters that report may be this many
/// blocks apart, so that lower ones may be of the pod before.
pub const PROOF_DISTANCE: u64 = 2;

/// By the UID of a pod; none for one that was there before the chain began.
type Heights = HashMap<String, Option<u64>>;

/// The height that the chain had when this process first saw a pod, by the UID of its group and its own. A process that has
/// just started knows none, and waits for votes that are newer than itself.
#[derive(Default)]
pub struct FirstSeen {
    groups: Mutex<HashMap<String, Heights>>,
}

impl FirstSeen {
    /// These are the pods of a group at this height, or before its chain began; all others are forgotten.
    pub fn note(&self, group: &str, pods: &[String], height: Option<u64>) {
        let mut groups = self.lock();
        let seen = groups.entry(group.to_string()).or_default();
        seen.retain(|pod, _| pods.contains(pod));
        for pod in pods {
            seen.entry(pod.clone()).or_insert(height);
        }
    }

    /// A precommit of this height can only be of this pod.
    pub fn has_voted(&self, group: &str, pod: &str, last_precommit: u64) -> bool {
        let groups = self.lock();
        let first = groups.get(group).and_then(|seen| seen.get(pod));
        first.is_some_and(|first| last_precommit > first.map_or(0, |first| first.saturating_add(PROOF_DISTANCE)))
    }

    /// The group is gone.
    pub fn forget(&self, group: &str) {
        self.lock().remove(group);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heights>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_votes_that_are_newer_than_the_first_sight_of_a_pod_are_its_own() {
        let seen = FirstSeen::default();
        let pods = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(!seen.has_voted("g", "a", 1_000), "nobody has seen it yet");
        seen.note("g", &pods(&["a", "b"]), Some(100));
        seen.note("g", &pods(&["a", "b"]), Some(110));
        assert!(!seen.has_voted("g", "a", 102), "perhaps of the pod before");
        assert!(seen.has_voted("g", "a", 103));
        assert!(!seen.has_voted("h", "a", 103), "of another group");
        seen.note("g", &pods(&["b"]), Some(120));
        seen.note("g", &pods(&["a", "b"]), Some(130));
        assert!(!seen.has_voted("g", "a", 103), "it was away");
        seen.note("f", &pods(&["a"]), None);
        seen.note("f", &pods(&["a"]), Some(1));
        assert!(!seen.has_voted("f", "a", 0));
        assert!(seen.has_voted("f", "a", 1), "no pod has voted before it");
        seen.note("f", &pods(&["b"]), Some(1));
        assert!(!seen.has_voted("f", "b", 3), "another one has");
        seen.forget("g");
        assert!(!seen.has_voted("g", "b", 1_000));
    }
}
