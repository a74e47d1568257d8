//! Counts who was made and deleted, and how often anything changed, from watches of the API server itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;

/// Everything that the operator makes, and the pods that come of it.
pub const KINDS: &[(&str, &str, &str)] = &[
    ("", "v1", "Secret"),
    ("", "v1", "ConfigMap"),
    ("", "v1", "Service"),
    ("", "v1", "ServiceAccount"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "Pod"),
    ("apps", "v1", "StatefulSet"),
    ("apps", "v1", "Deployment"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("policy", "v1", "PodDisruptionBudget"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("gateway.networking.k8s.io", "v1", "TLSRoute"),
    ("althing.dev", "v1alpha1", "BlockchainNetwork"),
    ("althing.dev", "v1alpha1", "ConsensusGroup"),
    ("althing.dev", "v1alpha1", "ValidatorNode"),
];

/// Our own kinds: their status carries readings that are refreshed once a minute, so that they are compared instead.
const OURS: &str = "althing.dev";

/// How long it may take until every kind is watched.
const WATCHED_MAX: Duration = Duration::from_secs(30);

/// How often an object was made and deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By kind and name.
    pub made: BTreeMap<String, usize>,
    /// By kind and name.
    pub deleted: BTreeMap<String, usize>,
}

impl Counts {
    /// What is different from the expected counts.
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (word, is, shall) in [("made", &self.made, &expected.made), ("deleted", &self.deleted, &expected.deleted)] {
            let names: BTreeSet<&String> = is.keys().chain(shall.keys()).collect();
            for name in names {
                let (is, shall) = (is.get(name).copied().unwrap_or(0), shall.get(name).copied().unwrap_or(0));
                if is != shall {
                    found.push(format!("{name} was {word} {is} times instead of {shall}"));
                }
            }
        }
        found
    }
}

#[derive(Default)]
struct Book {
    uids: BTreeMap<String, BTreeSet<String>>,
    deleted: BTreeMap<String, BTreeSet<String>>,
    versions: BTreeMap<String, String>,
    changes: u64,
}

/// The ledger of all namespaces.
#[derive(Clone, Default)]
pub struct Ledger {
    books: Arc<Mutex<BTreeMap<String, Book>>>,
}

impl Ledger {
    /// Starts watching and waits until every kind is watched; the watches run as long as the process.
    ///
    /// # Errors
    /// When a kind cannot be watched.
    pub async fn start(client: &Client) -> Result<Self> {
        let ledger = Self::default();
        let (watched, mut now_watched) = mpsc::channel(KINDS.len());
        for (group, version, kind) in KINDS {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), &resource);
            let stream = watcher(api, watcher::Config::default()).default_backoff();
            let ledger = ledger.clone();
            let counts_changes = *group != OURS;
            let watched = watched.clone();
            tokio::spawn(stream.for_each(move |event| {
                match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => ledger.seen(kind, &object, counts_changes),
                    Ok(Event::Delete(object)) => ledger.gone(kind, &object),
                    // Nobody listens any more when a list is read a second time.
                    Ok(Event::InitDone) => drop(watched.try_send(*kind)),
                    Ok(Event::Init) | Err(_) => {}
                }
                std::future::ready(())
            }));
        }
        let all = async {
            let mut waiting: BTreeSet<&str> = KINDS.iter().map(|(_, _, kind)| *kind).collect();
            while !waiting.is_empty() {
                waiting.remove(now_watched.recv().await.unwrap_or_default());
            }
        };
        tokio::time::timeout(WATCHED_MAX, all).await.context("the API server does not let every kind be watched")?;
        Ok(ledger)
    }

    fn with<T>(&self, namespace: &str, work: impl FnOnce(&mut Book) -> T) -> T {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        work(books.entry(namespace.to_string()).or_default())
    }

    fn seen(&self, kind: &str, object: &PartialObjectMeta<DynamicObject>, counts_changes: bool) {
        let name = format!("{kind}/{}", object.name_any());
        let (uid, version) = (object.uid().unwrap_or_default(), object.resource_version().unwrap_or_default());
        self.with(&object.namespace().unwrap_or_default(), |book| {
            book.uids.entry(name.clone()).or_default().insert(uid);
            let is_new = book.versions.insert(name, version.clone()) != Some(version);
            book.changes += u64::from(is_new && counts_changes);
        });
    }

    fn gone(&self, kind: &str, object: &PartialObjectMeta<DynamicObject>) {
        let name = format!("{kind}/{}", object.name_any());
        self.with(&object.namespace().unwrap_or_default(), |book| {
            book.deleted.entry(name).or_default().insert(object.uid().unwrap_or_default());
            book.changes += 1;
        });
    }

    /// How often anything but our own kinds changed in a namespace so far.
    pub fn changes(&self, namespace: &str) -> u64 {
        self.with(namespace, |book| book.changes)
    }

    /// How often each object of a namespace was made and deleted.
    pub fn counts(&self, namespace: &str) -> Counts {
        let count = |sets: &BTreeMap<String, BTreeSet<String>>| {
            sets.iter().map(|(name, uids)| (name.clone(), uids.len())).collect()
        };
        self.with(namespace, |book| Counts { made: count(&book.uids), deleted: count(&book.deleted) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_making_and_a_deletion_are_differences() {
        let once = Counts { made: [("a".to_string(), 1)].into(), deleted: BTreeMap::new() };
        let twice = Counts { made: [("a".to_string(), 2)].into(), deleted: [("a".to_string(), 1)].into() };
        assert_eq!(once.differences(&once), Vec::<String>::new());
        let expected = ["a was made 2 times instead of 1", "a was deleted 1 times instead of 0"];
        assert_eq!(twice.differences(&once), expected);
    }
}
