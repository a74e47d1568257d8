//! The only writer: server-side apply of children, things made once, pruning, pod labels and status.
//!
//! Nothing is sent without the leader lease, and nothing is sent twice for the same desired state: a child is applied
//! again only when it or what is wanted of it has changed since the last time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::core::response::StatusSummary;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::kinds::{Child, Kind, Owner, Standing, standing};
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::prints::{Record, all_hash, digest, fingerprint, hashed};

/// Children of one owner and one kind that are written at the same time.
const WRITES_MAX: usize = 4;
/// Longest time that one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Field manager that holds a number of replicas until an autoscaler changes it.
const MANAGER_AUTOSCALER: &str = "althing-autoscaler";

/// An object that exists has another resourceVersion: they count the writes of a whole cluster.
const VERSION_OF_NOTHING: &str = "1";

/// What became of a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as wanted already.
    Unchanged,
    /// It was made or changed.
    Written,
    /// Its name belongs to somebody else; nothing was written.
    Taken,
}

/// What became of all children of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllOutcome {
    /// They are as wanted.
    Applied {
        /// How many were made or changed.
        written: usize,
        /// Hash of what is wanted and what is there: while it is the same, nothing has to be applied again.
        hash: Option<String>,
    },
    /// The name of this one belongs to somebody else; it and the kinds after it were not written.
    Taken(String),
}

/// What became of something that is made once.
#[derive(Clone, Debug)]
pub enum Made<K> {
    /// It was made now.
    Now(K),
    /// It was there and is ours.
    Before(K),
    /// Its name belongs to somebody else.
    Taken,
}

struct Applied {
    wanted: [u8; 32],
    found: [u8; 32],
}

type Key = (Kind, String, String);

/// Writes to the API server.
pub struct Writer {
    client: Client,
    leadership: Arc<Leadership>,
    metrics: Arc<Metrics>,
    applied: Mutex<HashMap<Key, Applied>>,
}

impl Writer {
    /// A writer that works only under this leadership.
    pub fn new(client: Client, leadership: Arc<Leadership>, metrics: Arc<Metrics>) -> Self {
        Self { client, leadership, metrics, applied: Mutex::default() }
    }

    /// Makes all children what they shall be, one kind after the other. `recorded` is the hash of an earlier run, perhaps of another
    /// process: when it is that of what is wanted and of what the watch knows, nothing is sent.
    pub async fn apply_all(
        &self,
        owner: &Owner,
        children: &[Child],
        recorded: Option<&str>,
        cached: impl Fn(&Child) -> Option<ObjectMeta>,
    ) -> Result<AllOutcome, Error> {
        self.recall(owner, children, recorded, &cached);
        let mut written = 0;
        for of_kind in children.chunk_by(|one, next| one.kind == next.kind) {
            let applied: Vec<BoxFuture<'_, Result<(&Child, Outcome), Error>>> =
                of_kind.iter().map(|child| self.apply_known(owner, child, cached(child)).boxed()).collect();
            let outcomes: Vec<(&Child, Outcome)> =
                futures::stream::iter(applied).buffered(WRITES_MAX).try_collect().await?;
            for (child, outcome) in outcomes {
                match outcome {
                    Outcome::Taken => return Ok(AllOutcome::Taken(child.what(&owner.namespace))),
                    Outcome::Written => written += 1,
                    Outcome::Unchanged => {}
                }
            }
        }
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let records = hashed(children).map(|child| {
            let record = applied.get(&key(owner, child))?;
            Some((child, record.wanted, record.found))
        });
        Ok(AllOutcome::Applied { written, hash: all_hash(records) })
    }

    async fn apply_known<'a>(
        &self,
        owner: &Owner,
        child: &'a Child,
        known: Option<ObjectMeta>,
    ) -> Result<(&'a Child, Outcome), Error> {
        Ok((child, self.apply(owner, child, known.as_ref()).await?))
    }

    /// Takes what an earlier process applied as applied.
    fn recall(
        &self,
        owner: &Owner,
        children: &[Child],
        recorded: Option<&str>,
        cached: impl Fn(&Child) -> Option<ObjectMeta>,
    ) {
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.is_none() || hashed(children).all(|child| applied.contains_key(&key(owner, child))) {
            return;
        }
        let found: Vec<Option<Record<'_>>> = hashed(children)
            .map(|child| cached(child).map(|meta| (child, digest(&child.body), fingerprint(child.kind, &meta))))
            .collect();
        if all_hash(found.iter().copied()).as_deref() != recorded {
            return;
        }
        for (child, wanted, found) in found.into_iter().flatten() {
            applied.insert(key(owner, child), Applied { wanted, found });
        }
    }

    /// Makes a child what it shall be. `cached` is what the watch knows of it; without it the API server decides whether
    /// the name is free, so that an object of somebody else is never taken over.
    pub async fn apply(&self, owner: &Owner, child: &Child, cached: Option<&ObjectMeta>) -> Result<Outcome, Error> {
        if cached.is_some() {
            return self.apply_over(owner, child, cached).await;
        }
        if !self.has_applied(&key(owner, child)) {
            match self.create(owner, child).await {
                // Something has the name.
                Err(Error::Conflict { .. }) => {}
                made => return made,
            }
        }
        let what = child.what(&owner.namespace);
        let live = self.api(owner, child).get_metadata_opt(&child.name).await.map_err(Error::read(&what))?;
        self.apply_over(owner, child, live.as_ref().map(|object| &object.metadata)).await
    }

    /// An apply that makes the child or fails: it names a version that no object has (ADR 31).
    async fn create(&self, owner: &Owner, child: &Child) -> Result<Outcome, Error> {
        let mut body = child.body.clone();
        if let Some(metadata) = body.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            metadata.insert("resourceVersion".to_string(), VERSION_OF_NOTHING.into());
        }
        let written = self.send(owner, child, &body).await?;
        self.remember(key(owner, child), digest(&child.body), &written.metadata);
        Ok(Outcome::Written)
    }

    /// The same over what is there now; none when the API server has just said that nothing is.
    async fn apply_over(&self, owner: &Owner, child: &Child, present: Option<&ObjectMeta>) -> Result<Outcome, Error> {
        let what = child.what(&owner.namespace);
        let key = key(owner, child);
        let wanted = digest(&child.body);
        if let Some(meta) = present {
            match standing(meta, owner) {
                Standing::Foreign => return Ok(Outcome::Taken),
                Standing::Former => return Err(Error::BeingDeleted { what }),
                Standing::Ours if meta.deletion_timestamp.is_some() => return Err(Error::BeingDeleted { what }),
                Standing::Ours => {}
            }
            if self.is_applied(&key, &wanted, meta) {
                return Ok(Outcome::Unchanged);
            }
        }
        let written = self.send(owner, child, &child.body).await?;
        let changed = present.is_none_or(|meta| meta.resource_version != written.metadata.resource_version);
        self.remember(key, wanted, &written.metadata);
        Ok(if changed { Outcome::Written } else { Outcome::Unchanged })
    }

    async fn send(&self, owner: &Owner, child: &Child, body: &serde_json::Value) -> Result<DynamicObject, Error> {
        let params = PatchParams::apply(owner.manager).force();
        let patch = Patch::Apply(body);
        let api = self.api(owner, child);
        let request = api.patch(&child.name, &params, &patch);
        self.write(child.kind.as_str(), "apply", &child.what(&owner.namespace), request).await
    }

    fn api(&self, owner: &Owner, child: &Child) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &owner.namespace, &child.kind.resource())
    }

    fn has_applied(&self, key: &Key) -> bool {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn is_applied(&self, key: &Key, wanted: &[u8; 32], meta: &ObjectMeta) -> bool {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        applied.get(key).is_some_and(|applied| applied.wanted == *wanted && applied.found == fingerprint(key.0, meta))
    }

    fn remember(&self, key: Key, wanted: [u8; 32], meta: &ObjectMeta) {
        let record = Applied { wanted, found: fingerprint(key.0, meta) };
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record);
    }

    /// Lets somebody else hold the number of replicas, so that it stays when the next apply leaves it out: a field that
    /// nobody holds falls back to 1.
    pub async fn hand_over_replicas(&self, owner: &Owner, kind: Kind, name: &str, replicas: i32) -> Result<(), Error> {
        let resource = kind.resource();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &owner.namespace, &resource);
        let body = serde_json::json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name },
            "spec": { "replicas": replicas },
        });
        let what = format!("{} {}/{name}", kind.as_str(), owner.namespace);
        let params = PatchParams::apply(MANAGER_AUTOSCALER).force();
        self.write(kind.as_str(), "hand over", &what, api.patch(name, &params, &Patch::Apply(&body))).await?;
        Ok(())
    }

    /// Makes something that is never made again. It is posted, not applied: what exists is never changed.
    pub async fn make_once<K>(&self, owner: &Owner, object: &K) -> Result<Made<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.name_any();
        let kind = K::kind(&()).into_owned();
        let what = format!("{kind} {}/{name}", owner.namespace);
        let api: Api<K> = Api::namespaced(self.client.clone(), &owner.namespace);
        let params = PostParams { field_manager: Some(owner.manager.to_string()), ..PostParams::default() };
        match self.write(&kind, "create", &what, api.create(&params, object)).await {
            Ok(made) => Ok(Made::Now(made)),
            Err(Error::Conflict { .. }) => {
                let present = api.get(&name).await.map_err(Error::read(&what))?;
                match standing(present.meta(), owner) {
                    Standing::Ours => Ok(Made::Before(present)),
                    Standing::Former | Standing::Foreign => Ok(Made::Taken),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Changes a Secret that is kept, exactly as it was read: the patch must name the resourceVersion that it is made for.
    pub async fn patch_secret(&self, owner: &Owner, name: &str, patch: &serde_json::Value) -> Result<Secret, Error> {
        let what = format!("Secret {}/{name}", owner.namespace);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &owner.namespace);
        let params = PatchParams { field_manager: Some(owner.manager.to_string()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        self.write("Secret", "patch", &what, api.patch(name, &params, &patch)).await
    }

    /// Deletes children that are not wanted any more, exactly those that were seen.
    pub async fn prune(&self, owner: &Owner, kind: Kind, orphans: &[ObjectMeta]) -> Result<usize, Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &owner.namespace, &kind.resource());
        let mut pruned = 0;
        for meta in orphans.iter().filter(|meta| meta.deletion_timestamp.is_none()) {
            let name = meta.name.clone().unwrap_or_default();
            let what = format!("{} {}/{name}", kind.as_str(), owner.namespace);
            let params = DeleteParams::background().preconditions(Preconditions {
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
            });
            self.write(kind.as_str(), "delete", &what, api.delete(&name, &params)).await?;
            pruned += 1;
        }
        Ok(pruned)
    }

    /// Writes the status if it differs from what `before` says, and answers the object as it is then. The
    /// resourceVersion of `after` must still be current.
    pub async fn status<K, S>(&self, before: Option<&S>, after: &K, status: &S) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
        S: PartialEq,
    {
        if before == Some(status) {
            return Ok(None);
        }
        let kind = K::kind(&()).into_owned();
        let (namespace, name) = (after.namespace().unwrap_or_default(), after.name_any());
        let what = format!("status of {kind} {namespace}/{name}");
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some("althing-status".to_string()), ..PostParams::default() };
        self.write(&kind, "status", &what, api.replace_status(&name, &params, after)).await.map(Some)
    }

    /// Sets or removes one label of exactly this pod.
    pub async fn label_pod(&self, pod: &Pod, label: &str, value: Option<&str>) -> Result<(), Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let what = format!("Pod {namespace}/{name}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let patch = serde_json::json!({ "metadata": { "uid": pod.metadata.uid, "labels": { label: value } } });
        let params = PatchParams::default();
        self.write("Pod", "label", &what, api.patch_metadata(&name, &params, &Patch::Merge(&patch))).await?;
        Ok(())
    }

    /// Sets an annotation of a child that no apply sets.
    pub async fn annotate(
        &self,
        owner: &Owner,
        kind: Kind,
        name: &str,
        (key, value): (&str, &str),
    ) -> Result<(), Error> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &owner.namespace, &kind.resource());
        let what = format!("{} {}/{name}", kind.as_str(), owner.namespace);
        let patch = serde_json::json!({ "metadata": { "annotations": { key: value } } });
        let params = PatchParams::default();
        self.write(kind.as_str(), "annotate", &what, api.patch_metadata(name, &params, &Patch::Merge(&patch))).await?;
        Ok(())
    }

    /// Evicts a pod by these preconditions. What a disruption budget forbids is a write that failed with 429.
    pub async fn evict(&self, namespace: &str, name: &str, preconditions: Preconditions) -> Result<(), Error> {
        let what = format!("Pod {namespace}/{name}");
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let (params, eviction) = (PostParams::default(), eviction(name, preconditions));
        let request = async { evicted(api.create_subresource("eviction", name, &params, &eviction).await?) };
        self.write("Pod", "evict", &what, request).await
    }

    /// Sends one write: only under the lease, and never past its end.
    pub async fn write<T>(
        &self,
        kind: &str,
        verb: &'static str,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        let limit = self.leadership.remaining()?.min(WRITE_TIMEOUT);
        self.metrics.writes.with_label_values(&[kind, verb]).inc();
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Error::Conflict { what: what.to_string() }),
            Ok(Err(source)) => Err(Error::Write { verb, what: what.to_string(), source: Box::new(source) }),
            Err(_) => Err(Error::WriteTimeout { verb, what: what.to_string() }),
        }
    }
}

/// `Api::evict` of kube 5.0 is of no use: it sends `delete_options`, which the API server does not know and drops, and with
/// them the preconditions.
fn eviction(name: &str, preconditions: Preconditions) -> Eviction {
    let Preconditions { uid, resource_version } = preconditions;
    let preconditions = Some(meta::v1::Preconditions { uid, resource_version });
    Eviction {
        metadata: ObjectMeta { name: Some(name.to_string()), ..ObjectMeta::default() },
        delete_options: Some(meta::v1::DeleteOptions { preconditions, ..meta::v1::DeleteOptions::default() }),
    }
}

/// The API server may answer a refusal as a success that holds a failure: so it does when several disruption budgets count
/// the pod.
fn evicted(answer: Status) -> Result<(), kube::Error> {
    match answer.status {
        Some(StatusSummary::Failure) => Err(kube::Error::Api(Box::new(answer))),
        Some(StatusSummary::Success) | None => Ok(()),
    }
}

fn key(owner: &Owner, child: &Child) -> Key {
    (child.kind, owner.namespace.clone(), child.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eviction_says_which_pod_is_meant_in_the_words_of_the_api() {
        let preconditions = Preconditions { uid: Some("u".to_string()), resource_version: Some("7".to_string()) };
        let sent = serde_json::to_value(eviction("a-0", preconditions)).expect("JSON");
        assert_eq!(
            sent,
            serde_json::json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "a-0" },
                "deleteOptions": { "preconditions": { "uid": "u", "resourceVersion": "7" } },
            })
        );
    }

    #[test]
    fn an_eviction_that_is_answered_with_a_failure_has_failed() {
        let answer = |text: &str| evicted(serde_json::from_str(text).expect("a Status"));
        assert!(answer(r#"{"kind": "Status", "status": "Success", "code": 201}"#).is_ok());
        let several = r#"{"kind": "Status", "status": "Failure", "code": 500, "message": "This pod has more than one PodDisruptionBudget"}"#;
        assert!(matches!(answer(several), Err(kube::Error::Api(status)) if status.code == 500));
    }
}
