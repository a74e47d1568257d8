//! Plays the controllers of what a network has beside voters: a Deployment or StatefulSet of a tier has all its pods at
//! once, ready and of its newest form; the pods themselves are not made.

use althing_crds::names;
use anyhow::Result;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The pods of this StatefulSet are those of a tier, and not a node of a group.
pub fn is_tier(set: &StatefulSet) -> bool {
    !set.labels().contains_key(names::LABEL_NODE)
}

/// Says that the next pod of a node will be of the newest template; nothing when that was said.
pub async fn see_set(client: Client, set: StatefulSet) -> Result<()> {
    if set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation {
        return Ok(());
    }
    say(client, &set, json!({ "observedGeneration": set.metadata.generation, "replicas": 1 })).await
}

/// Says that all pods of an observers' StatefulSet are ready; nothing when that was said.
pub async fn serve_set(client: Client, set: StatefulSet) -> Result<()> {
    let status = set.status.as_ref();
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let seen = status.and_then(|status| status.observed_generation);
    let ready = status.and_then(|status| status.ready_replicas);
    if (seen, ready) == (set.metadata.generation, Some(replicas)) {
        return Ok(());
    }
    say(client, &set, all_ready(set.metadata.generation, replicas)).await
}

/// The same for a gateway's Deployment.
pub async fn serve_deployment(client: Client, deployment: Deployment) -> Result<()> {
    let status = deployment.status.as_ref();
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let seen = status.and_then(|status| status.observed_generation);
    let ready = status.and_then(|status| status.ready_replicas);
    if (seen, ready) == (deployment.metadata.generation, Some(replicas)) {
        return Ok(());
    }
    say(client, &deployment, all_ready(deployment.metadata.generation, replicas)).await
}

fn all_ready(generation: Option<i64>, replicas: i32) -> Value {
    json!({
        "observedGeneration": generation,
        "replicas": replicas,
        "readyReplicas": replicas,
        "availableReplicas": replicas,
        "updatedReplicas": replicas,
    })
}

async fn say<K>(client: Client, workload: &K, status: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client, &workload.namespace().unwrap_or_default());
    let patch = json!({ "metadata": { "uid": workload.uid() }, "status": status });
    match api.patch_status(&workload.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}
