//! The roll of a network under watch: follows the pods of its group, who of them is away, and whom else to follow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use althing_crds::names;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::attendance::{Attendance, Presence};
use crate::network::Network;
use crate::watch::{Follower, lock};

/// Follows the pods of a group: who is away, and whom else to follow.
pub(crate) struct Roll {
    /// Follows whoever is found.
    pub(crate) follower: Follower,
    /// What is found.
    pub(crate) attendance: Arc<Mutex<Attendance>>,
    /// Told once the first list is complete.
    pub(crate) listed: Option<oneshot::Sender<()>>,
}

impl Roll {
    /// Until the watch ends.
    pub(crate) async fn call(mut self) {
        let network = self.follower.network.clone();
        let selector = format!("{}={}", names::LABEL_GROUP, network.group);
        let pods: Api<Pod> = Api::namespaced(network.client.clone(), &network.namespace);
        let events = watcher(pods, watcher::Config::default().labels(&selector)).default_backoff();
        let mut events = std::pin::pin!(events);
        let stop = self.follower.stop.clone();
        let mut followers = JoinSet::new();
        let (mut followed, mut list) = (BTreeSet::new(), BTreeMap::new());
        loop {
            let event = tokio::select! { event = events.next() => event, () = stop.cancelled() => break };
            match event {
                Some(Ok(Event::Init)) => list.clear(),
                Some(Ok(Event::InitApply(pod))) => list.extend(presence(&network, &pod)),
                Some(Ok(Event::InitDone)) => {
                    roll_of(&self.attendance).listed(std::mem::take(&mut list));
                    self.listed.take().map(|listed| listed.send(()));
                }
                Some(Ok(Event::Apply(pod))) => {
                    if let Some((number, presence)) = presence(&network, &pod) {
                        roll_of(&self.attendance).shows(number, presence);
                    }
                }
                Some(Ok(Event::Delete(pod))) => {
                    if let Some((number, _)) = presence(&network, &pod) {
                        roll_of(&self.attendance).gone(number);
                    }
                }
                // The stream goes on by itself after a pause.
                Some(Err(_)) => continue,
                None => break,
            }
            let known = roll_of(&self.attendance).known().clone();
            for number in known.into_iter().filter(|number| followed.insert(*number)) {
                followers.spawn(self.follower.clone().follow(names::node(&network.group, number)));
            }
            tokio::select! { () = self.count() => {}, () = stop.cancelled() => break }
        }
        while followers.join_next().await.is_some() {}
    }

    /// Keeps who is away if it is more than ever before. Who is a voter is read live: a voter that left is written down
    /// before its pod is stopped, so that such a pod is never taken for one that is away.
    async fn count(&self) {
        let away = roll_of(&self.attendance).away(None).len();
        if away <= lock(&self.follower.seen).counts().away_max {
            return;
        }
        let mut pace = interval(Duration::from_millis(250));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let network = &self.follower.network;
        let voters = loop {
            pace.tick().await;
            if let Ok(voters) = network.voter_numbers().await {
                break voters;
            }
        };
        let away = roll_of(&self.attendance).away(voters.as_ref());
        lock(&self.follower.seen).away(away.into_iter().map(|number| names::node(&network.group, number)).collect());
    }
}

/// The number of the node that this pod belongs to, if it is one of the group, and what it shows.
fn presence(network: &Network, pod: &Pod) -> Option<(u32, Presence)> {
    let number = names::node_number(&network.group, pod.labels().get(names::LABEL_NODE)?)?;
    Some((number, Presence::of(pod)))
}

/// The attendance as it is now.
pub(crate) fn roll_of(attendance: &Mutex<Attendance>) -> MutexGuard<'_, Attendance> {
    attendance.lock().unwrap_or_else(PoisonError::into_inner)
}
