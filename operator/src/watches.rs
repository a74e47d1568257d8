//! Watches and the caches they fill: the three kinds whole, pods and claims with what is looked at, all other children as
//! metadata only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use althing_crds::names;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use kube_runtime::reflector::store::Writer as StoreWriter;
use kube_runtime::reflector::{Store, reflector};
use kube_runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::context::Wakers;
use crate::kinds::{Kind, controller};
use crate::news::{self, Lists};

/// An object that may not be decodable; one bad object does not stop the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// What a watch tells.
pub type Event<K> = Result<watcher::Event<K>, watcher::Error>;

/// Seconds after which a watch is renewed, so that a dead one is noticed.
const WATCH_SECONDS: u32 = 60;

/// A child as its watch tells of it.
pub type ChildMeta = PartialObjectMeta<DynamicObject>;

/// Metadata of all children of a scope, by kind.
#[derive(Default)]
pub struct Children {
    shelves: HashMap<Kind, Arc<Shelf>>,
}

impl Children {
    /// The metadata of one child.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<ObjectMeta> {
        self.shelves.get(&kind)?.get(namespace, name)
    }

    /// The metadata of all children of one kind that this object controls.
    pub fn owned_by(&self, kind: Kind, uid: &str) -> Vec<ObjectMeta> {
        self.shelves.get(&kind).map(|shelf| shelf.owned_by(uid)).unwrap_or_default()
    }
}

/// The metadata of one kind, as the text that it was: most of it are strings, which decoded take three times the room. There
/// are seven such objects for each node.
#[derive(Default)]
struct Shelf {
    kept: RwLock<Metas>,
    /// What a list has brought so far; it takes the place of the rest when it is complete.
    listed: Mutex<Metas>,
}

/// By namespace and name.
type Metas = HashMap<(String, String), Text>;

/// The metadata of one object.
struct Text {
    /// UID of the object that controls it: to look through a thousand texts for it costs more than all else at rest.
    owner: Box<str>,
    json: Box<str>,
}

impl Shelf {
    /// Follows the watch.
    fn follow(&self, event: &Event<ChildMeta>) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = || self.kept.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(child)) => {
                drop(listed.insert(key(&child.metadata), Text::of(&child.metadata)))
            }
            Ok(watcher::Event::InitDone) => *kept() = std::mem::take(&mut listed),
            Ok(watcher::Event::Apply(child)) => drop(kept().insert(key(&child.metadata), Text::of(&child.metadata))),
            Ok(watcher::Event::Delete(child)) => drop(kept().remove(&key(&child.metadata))),
            Err(_) => {}
        }
    }

    fn get(&self, namespace: &str, name: &str) -> Option<ObjectMeta> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.get(&(namespace.to_string(), name.to_string())).and_then(Text::meta)
    }

    fn owned_by(&self, uid: &str) -> Vec<ObjectMeta> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.values().filter(|text| &*text.owner == uid).filter_map(Text::meta).collect()
    }
}

fn key(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Text {
    fn of(meta: &ObjectMeta) -> Self {
        let owner = controller(meta).map(|reference| reference.uid.as_str()).unwrap_or_default();
        let json = serde_json::to_string(meta).unwrap_or_default();
        Self { owner: owner.into(), json: json.into_boxed_str() }
    }

    /// The same again: it came as such text.
    fn meta(&self) -> Option<ObjectMeta> {
        serde_json::from_str(&self.json).ok()
    }
}

/// Api of a kind in one namespace or in all.
pub fn api_of<K>(client: &Client, scope: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// What every watch here has in common.
pub fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn of_ours() -> watcher::Config {
    config().labels(&format!("{}={}", names::LABEL_APP_MANAGED_BY, names::MANAGED_BY))
}

/// Fills `writer` from a watch and answers every object that was made, changed or deleted, and a count of the lists.
pub fn touched<K>(
    api: Api<K>,
    writer: StoreWriter<K>,
    filling: &Filling,
) -> (impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>, Lists)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let stream = watcher(api, config()).default_backoff().modify(drop_managed_fields);
    let lists = Lists::default();
    (news::touched(filling.of(reflector(writer, stream)), &lists), lists)
}

fn drop_managed_fields<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Who wrote an object stays, which of its fields goes: see the fingerprint of an autoscaler.
fn drop_field_names(object: &mut ChildMeta) {
    for entry in object.metadata.managed_fields.iter_mut().flatten() {
        entry.fields_v1 = None;
    }
}

/// Starts the metadata watches of all kinds of children; each change wakes the object that the labels name. Of a kind that the
/// cluster lacks nothing is known, and it is asked for again now and then.
pub fn watch_children(
    client: &Client,
    scope: Option<&str>,
    wakers: &Wakers,
    filling: &Filling,
) -> (Children, Vec<Watch>) {
    let mut children = Children::default();
    let mut watches = Vec::new();
    for kind in Kind::WATCHED.into_iter().chain(Kind::OPTIONAL) {
        let is_optional = Kind::OPTIONAL.contains(&kind);
        let resource = kind.resource();
        let api: Api<ChildMeta> = match scope {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let shelf = Arc::new(Shelf::default());
        children.shelves.insert(kind, Arc::clone(&shelf));
        let trim =
            if kind == Kind::HorizontalPodAutoscaler { drop_field_names } else { drop_managed_fields::<ChildMeta> };
        let stream = watcher(api, of_ours()).default_backoff().modify(trim);
        let stream = stream.inspect(move |event| shelf.follow(event));
        let stream = if is_optional { stream.left_stream() } else { filling.of(stream).right_stream() };
        let stream = stream.touched_objects();
        let wakers = wakers.clone();
        let wake = stream.for_each(move |touched| {
            match touched {
                Ok(child) => wake_owner(&wakers, &child.metadata),
                Err(error) if is_optional && is_unknown_kind(&error) => {}
                Err(error) => tracing::warn!(kind = kind.as_str(), %error, "watch failed, trying again"),
            }
            std::future::ready(())
        });
        watches.push(Watch { name: kind.as_str(), task: Box::pin(wake) });
    }
    (children, watches)
}

/// The API server says that it has no such kind.
fn is_unknown_kind(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(source) | WatchStartFailed(source) | WatchFailed(source) => {
            matches!(source, kube::Error::Api(status) if status.code == 404)
        }
        watcher::Error::WatchError(status) => status.code == 404,
        watcher::Error::NoResourceVersion => false,
    }
}

/// Of a pod's spec only its machine stays: what it was made from is known by the hash in its annotation.
fn drop_template(pod: &mut Pod) {
    drop_managed_fields(pod);
    pod.spec = pod.spec.take().map(|spec| PodSpec { node_name: spec.node_name, ..PodSpec::default() });
}

/// Starts the watch of the nodes' pods.
pub fn watch_pods(client: &Client, scope: Option<&str>, wakers: &Wakers, filling: &Filling) -> (Store<Pod>, Watch) {
    let writer = StoreWriter::<Pod>::default();
    let store = writer.as_reader();
    let stream = watcher(api_of::<Pod>(client, scope), config().labels(names::LABEL_NODE)).default_backoff();
    let stream = filling.of(reflector(writer, stream.modify(drop_template))).touched_objects();
    let wakers = wakers.clone();
    let wake = stream.for_each(move |touched| {
        match touched {
            Ok(pod) => {
                wake_owner(&wakers, &pod.metadata);
                wake_group(&wakers, &pod.metadata);
            }
            Err(error) => tracing::warn!(kind = "Pod", %error, "watch failed, trying again"),
        }
        std::future::ready(())
    });
    (store, Watch { name: "Pod", task: Box::pin(wake) })
}

/// Starts the watch of the nodes' claims: how large they are is asked of them, not only whether they are there.
pub fn watch_claims(
    client: &Client,
    scope: Option<&str>,
    wakers: &Wakers,
    filling: &Filling,
) -> (Store<PersistentVolumeClaim>, Watch) {
    let writer = StoreWriter::<PersistentVolumeClaim>::default();
    let store = writer.as_reader();
    let stream = watcher(api_of::<PersistentVolumeClaim>(client, scope), of_ours()).default_backoff();
    let stream = stream.modify(|claim| {
        drop_managed_fields(claim);
        let capacity = claim.status.take().and_then(|status| status.capacity);
        claim.status = capacity.map(|capacity| PersistentVolumeClaimStatus {
            capacity: Some(capacity),
            ..PersistentVolumeClaimStatus::default()
        });
    });
    let stream = filling.of(reflector(writer, stream)).touched_objects();
    let wakers = wakers.clone();
    let wake = stream.for_each(move |touched| {
        match touched {
            Ok(claim) => wake_owner(&wakers, &claim.metadata),
            Err(error) => tracing::warn!(kind = "PersistentVolumeClaim", %error, "watch failed, trying again"),
        }
        std::future::ready(())
    });
    (store, Watch { name: "PersistentVolumeClaim", task: Box::pin(wake) })
}

/// A watch that runs for as long as the process leads.
pub struct Watch {
    /// Kind that is watched.
    pub name: &'static str,
    /// Never ends by itself.
    pub task: futures::future::BoxFuture<'static, ()>,
}

/// Wakes the group that the labels name: the disruption budget follows its pods.
fn wake_group(wakers: &Wakers, meta: &ObjectMeta) {
    let group = meta.labels.as_ref().and_then(|labels| labels.get(names::LABEL_GROUP));
    if let (Some(namespace), Some(group)) = (meta.namespace.as_deref(), group) {
        wakers.group(namespace, group);
    }
}

/// Wakes the nearest owner that the labels name: a node, else a group, else a network.
fn wake_owner(wakers: &Wakers, meta: &ObjectMeta) {
    let Some(namespace) = meta.namespace.as_deref() else { return };
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key));
    if let Some(node) = label(names::LABEL_NODE) {
        wakers.node(namespace, node);
    } else if let Some(group) = label(names::LABEL_GROUP) {
        wakers.group(namespace, group);
    } else if let Some(network) = label(names::LABEL_NETWORK) {
        wakers.network(namespace, network);
    }
}

/// Whether the caches of a scope have been filled once. The stores' own sign of it wakes one waiter only.
#[derive(Clone, Debug, Default)]
pub struct Filling {
    left: Arc<watch::Sender<usize>>,
}

impl Filling {
    /// Counts one cache, which this stream fills.
    fn of<K, S>(&self, stream: S) -> impl Stream<Item = Event<K>> + Send + use<K, S>
    where
        S: Stream<Item = Event<K>> + Send,
    {
        self.left.send_modify(|left| *left += 1);
        let (left, mut is_first) = (Arc::clone(&self.left), true);
        stream.inspect(move |event| {
            if is_first && matches!(event, Ok(watcher::Event::InitDone)) {
                is_first = false;
                left.send_modify(|left| *left = left.saturating_sub(1));
            }
        })
    }

    /// Waits until all have been filled.
    pub async fn done(&self) {
        // The sender lives as long as this.
        let _ = self.left.subscribe().wait_for(|left| *left == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn child(name: &str, owner: &str) -> ChildMeta {
        let metadata = serde_json::json!({
            "namespace": "demo", "name": name, "uid": name, "resourceVersion": "7", "generation": 2,
            "labels": { "a": "b" }, "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": owner, "controller": true }],
        });
        let metadata: ObjectMeta = serde_json::from_value(metadata).expect("metadata");
        serde_json::from_value(serde_json::json!({ "metadata": metadata })).expect("a child")
    }

    #[test]
    fn a_shelf_holds_what_the_watch_tells() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let shelf = Shelf::default();
        let follow = |events: Vec<watcher::Event<ChildMeta>>| {
            for event in events {
                shelf.follow(&Ok(event));
            }
        };
        follow(vec![Init, InitApply(child("a", "1")), InitApply(child("b", "2")), InitDone, Apply(child("c", "1"))]);
        assert_eq!(shelf.get("demo", "a"), Some(child("a", "1").metadata), "it is the same");
        assert_eq!(shelf.get("other", "a"), None);
        let owned = |uid: &str| -> Vec<String> {
            let mut names: Vec<String> = shelf.owned_by(uid).into_iter().filter_map(|meta| meta.name).collect();
            names.sort();
            names
        };
        assert_eq!(owned("1"), ["a", "c"]);
        assert_eq!(owned("c"), [""; 0], "its own UID is no owner's");
        follow(vec![Delete(child("a", "1")), Init, InitApply(child("d", "1"))]);
        assert_eq!(owned("1"), ["c"], "a list counts when it is complete");
        follow(vec![InitDone]);
        assert_eq!((owned("1"), owned("2")), (vec!["d".to_string()], vec![]), "what is in no list is gone");
    }

    #[tokio::test]
    async fn a_scope_is_filled_when_its_last_cache_is_and_everybody_who_waits_is_told() {
        let filling = Filling::default();
        let event = |done: bool| Ok(if done { watcher::Event::InitDone } else { watcher::Event::<Pod>::Init });
        let quick = filling.of(futures::stream::iter([event(false), event(true), event(false), event(true)]));
        let slow = filling.of(futures::stream::iter([event(false), event(true)]));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let filling = filling.clone();
                tokio::spawn(async move { filling.done().await })
            })
            .collect();
        quick.for_each(|_| std::future::ready(())).await;
        assert!(timeout(Duration::from_millis(50), filling.done()).await.is_err(), "one is still being filled");
        slow.for_each(|_| std::future::ready(())).await;
        for waiter in waiters {
            timeout(Duration::from_secs(5), waiter).await.expect("told in time").expect("ends");
        }
    }
}
