//! Plays the garbage collector for nodes: what a deleted ValidatorNode or StatefulSet owned goes after it.

use std::time::Duration;

use althing_crds::names;
use anyhow::Result;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use tokio::time::{MissedTickBehavior, interval};

/// What a ValidatorNode owns.
const OWNED: [(&str, &str, &str); 7] = [
    ("", "v1", "ConfigMap"),
    ("", "v1", "Secret"),
    ("", "v1", "Service"),
    ("", "v1", "ServiceAccount"),
    ("", "v1", "PersistentVolumeClaim"),
    ("apps", "v1", "StatefulSet"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
];
/// So often it is looked for: a write that was on its way comes after its owner has gone.
const LOOKS: u32 = 6;
const LOOK: Duration = Duration::from_millis(700);

/// Deletes what the owner with this UID has left.
pub async fn collect(client: Client, namespace: String, owner_uid: String) -> Result<()> {
    let mut pace = interval(LOOK);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ours = ListParams::default().labels(&format!("{}={}", names::LABEL_APP_MANAGED_BY, names::MANAGED_BY));
    for _ in 0..LOOKS {
        pace.tick().await;
        for (group, version, kind) in OWNED {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
            for object in api.list_metadata(&ours).await? {
                if is_owned(&object.metadata, &owner_uid) {
                    gone(api.delete(&object.name_any(), &exactly(&object.metadata)).await.map(drop))?;
                }
            }
        }
    }
    Ok(())
}

/// Deletes the pod of a StatefulSet that is gone.
pub async fn collect_pod(client: Client, set: StatefulSet) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, &set.namespace().unwrap_or_default());
    let name = names::pod(&set.name_any());
    let owned = pods.get_opt(&name).await?.filter(|pod| is_owned(&pod.metadata, &set.uid().unwrap_or_default()));
    match owned {
        Some(pod) => gone(pods.delete(&name, &exactly(&pod.metadata)).await.map(drop)),
        None => Ok(()),
    }
}

fn is_owned(meta: &ObjectMeta, owner_uid: &str) -> bool {
    let mut owners = meta.owner_references.iter().flatten();
    meta.deletion_timestamp.is_none() && owners.any(|owner| owner.uid == owner_uid)
}

fn exactly(meta: &ObjectMeta) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions { uid: meta.uid.clone(), resource_version: None })
}

fn gone(deleted: kube::Result<()>) -> Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        deleted => Ok(deleted?),
    }
}
