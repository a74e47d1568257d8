//! Which voters are away: their pods are stopping, not ready or missing, after they were ready once. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;

/// What the pod of a node shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is ready.
    Ready,
    /// It is there, and not ready.
    NotReady,
    /// It has a deletionTimestamp, ready or not.
    Stopping,
}

impl Presence {
    /// What this pod shows.
    pub fn of(pod: &Pod) -> Self {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is_ready = conditions.into_iter().flatten().any(|found| found.type_ == "Ready" && found.status == "True");
        match (&pod.metadata.deletion_timestamp, is_ready) {
            (Some(_), _) => Self::Stopping,
            (None, true) => Self::Ready,
            (None, false) => Self::NotReady,
        }
    }
}

/// The pods of a group as the API server tells of them, event by event.
#[derive(Debug, Default)]
pub struct Attendance {
    pods: BTreeMap<u32, Presence>,
    known: BTreeSet<u32>,
}

impl Attendance {
    /// The pod of the node of this number has changed.
    pub fn shows(&mut self, number: u32, presence: Presence) {
        self.pods.insert(number, presence);
        if presence == Presence::Ready {
            self.known.insert(number);
        }
    }

    /// The pod of the node of this number is no more.
    pub fn gone(&mut self, number: u32) {
        self.pods.remove(&number);
    }

    /// These are all pods there are.
    pub fn listed(&mut self, pods: BTreeMap<u32, Presence>) {
        self.pods.clear();
        for (number, presence) in pods {
            self.shows(number, presence);
        }
    }

    /// The numbers of nodes whose pod was ready at some time.
    pub const fn known(&self) -> &BTreeSet<u32> {
        &self.known
    }

    /// Of `voters`, or of all when the group has never changed them: who is away now. A first start does not count, nor does
    /// who left.
    pub fn away(&self, voters: Option<&BTreeSet<u32>>) -> BTreeSet<u32> {
        let counts = |number: &u32| voters.is_none_or(|voters| voters.contains(number));
        let is_away = |number: &u32| self.pods.get(number) != Some(&Presence::Ready);
        self.known.iter().copied().filter(counts).filter(is_away).collect()
    }

    /// How many pods are ready.
    pub fn ready(&self) -> usize {
        self.pods.values().filter(|presence| **presence == Presence::Ready).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_ready() -> Attendance {
        let mut attendance = Attendance::default();
        attendance.listed((0..4).map(|number| (number, Presence::Ready)).collect());
        attendance
    }

    #[test]
    fn a_pod_is_away_from_its_deletion_until_its_successor_is_ready() {
        let mut attendance = all_ready();
        let mut away = vec![attendance.away(None).len()];
        for presence in [Some(Presence::Stopping), None, Some(Presence::NotReady), Some(Presence::Ready)] {
            match presence {
                Some(presence) => attendance.shows(3, presence),
                None => attendance.gone(3),
            }
            away.push(attendance.away(None).len());
        }
        assert_eq!(away, [0, 1, 1, 1, 0]);
    }

    #[test]
    fn two_that_are_away_in_different_ways_are_two() {
        let mut attendance = all_ready();
        attendance.gone(1);
        attendance.shows(2, Presence::Stopping);
        assert_eq!(attendance.away(None), [1, 2].into());
        assert_eq!(attendance.ready(), 2);
    }

    #[test]
    fn a_pod_that_a_new_list_lacks_is_away() {
        let mut attendance = all_ready();
        attendance.listed((1..4).map(|number| (number, Presence::Ready)).collect());
        assert_eq!(attendance.away(None), [0].into());
    }

    #[test]
    fn a_first_start_and_a_voter_that_left_do_not_count() {
        let mut attendance = all_ready();
        attendance.shows(4, Presence::NotReady);
        assert_eq!(attendance.away(None), BTreeSet::new());
        attendance.gone(0);
        assert_eq!(attendance.away(Some(&[1, 2, 3, 4].into())), BTreeSet::new());
        assert_eq!(attendance.away(Some(&[0, 1, 2, 3].into())), [0].into());
    }
}
