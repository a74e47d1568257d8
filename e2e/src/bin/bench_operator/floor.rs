//! How fast the API server takes the same objects when nobody else asks anything of it: no operator can make them faster.

use althing_e2e::trial::KINDS;
use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

const NAMESPACE: &str = "floor";
/// Writes that are on their way at the same time.
const AT_ONCE: usize = 16;

/// Applies a copy of everything that was made in a namespace, and nothing more: each object once, no read, no status, no event.
pub async fn measure(client: &Client, from: &str) -> Result<Value> {
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let mut copies = Vec::new();
    for (group, version, kind) in KINDS.iter().filter(|(_, _, kind)| *kind != "Pod") {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let made = Api::<DynamicObject>::namespaced_with(client.clone(), from, &resource);
        let copied = Api::<DynamicObject>::namespaced_with(client.clone(), NAMESPACE, &resource);
        for object in made.list(&ListParams::default()).await? {
            copies.push((copied.clone(), copy(&resource, object)));
        }
    }
    let objects = copies.len();
    let begin = Instant::now();
    let mut written = futures::stream::iter(copies)
        .map(|(api, copy)| async move {
            api.patch(&copy.name_any(), &PatchParams::apply("bench"), &Patch::Apply(&copy)).await
        })
        .buffer_unordered(AT_ONCE);
    while let Some(outcome) = written.next().await {
        outcome?;
    }
    let floor_s = begin.elapsed().as_secs_f64();
    println!("the API server alone takes the same {objects} objects in {floor_s:.1} s");
    Ok(json!({ "floor_s": super::round(floor_s), "floor_objects": objects }))
}

/// What the API server has added is left out, so that it has to add it once more.
fn copy(resource: &ApiResource, object: DynamicObject) -> DynamicObject {
    let DynamicObject { metadata, mut data, .. } = object;
    if let Some(fields) = data.as_object_mut() {
        fields.remove("status");
    }
    if let Some(spec) = data.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|field, _| !["clusterIP", "clusterIPs", "volumeName"].contains(&field.as_str()));
    }
    let ObjectMeta { name, labels, annotations, .. } = metadata;
    let metadata = ObjectMeta { name, labels, annotations, ..ObjectMeta::default() };
    DynamicObject { metadata, ..DynamicObject::new("", resource).data(data) }
}
