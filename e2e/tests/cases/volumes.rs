//! Volumes that grow.

use std::collections::BTreeMap;

use althing_e2e::network::{Network, eventually};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::disturbance::watched_load;
use super::{alpha, manifest};
use crate::Scene;

/// A larger `storage.size` makes the claims of all voters larger without restarting one of them, and the fill is said.
pub async fn volumes_grow_without_a_restart(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    let text = manifest(scene, "alpha", 4);
    network.apply(&text).await?;
    network.wait_all_signing(4, 120).await?;
    // Votes are seen before the kubelet has looked.
    for voter in network.voters().await? {
        network.wait_condition("ValidatorNode", &voter.node, "Ready=True", 30).await?;
    }
    let (watch, load) = watched_load(&network, 10).await?;
    let pods = uids(&network, "pods").await?;
    let claims = uids(&network, "pvc").await?;
    network.apply(&text.replace("storage: {size: 1Gi}", "storage: {size: 2Gi}")).await?;
    eventually("all claims ask for more", 60, || async {
        let found = items(&network, "pvc").await?;
        let sizes: Vec<&str> =
            found.iter().filter_map(|claim| claim.pointer("/spec/resources/requests/storage")?.as_str()).collect();
        ensure!(sizes == ["2Gi"; 4], "claims ask for {sizes:?}");
        Ok(())
    })
    .await?;
    resize(&network).await?;
    load.wait_more(20, 60).await?;
    network.wait_condition("BlockchainNetwork", &network.name, "Ready=True", 60).await?;
    for node in items(&network, "vnode").await? {
        let used = node.pointer("/status/volumeUsed").and_then(Value::as_str);
        ensure!(used.is_some_and(|used| used.starts_with('<') || used.starts_with('>')), "volumeUsed is {used:?}");
    }
    ensure!(uids(&network, "pods").await? == pods, "a pod was made anew");
    ensure!(uids(&network, "pvc").await? == claims, "a claim was made anew");
    watch.acknowledged(&load.stop().await);
    watch.report(0).await?;
    Ok(())
}

/// The local cluster has no resizer: what one does at the end of its work.
async fn resize(network: &Network) -> Result<()> {
    let capacity = json!({"capacity": {"storage": "2Gi"}});
    for claim in items(network, "pvc").await? {
        let text = |path: &str| claim.pointer(path).and_then(Value::as_str).context("a claim is bound");
        let volume = json!({"spec": capacity}).to_string();
        network.kubectl(&["patch", "pv", text("/spec/volumeName")?, "--type=merge", "-p", &volume]).await?;
        let status = json!({"status": capacity}).to_string();
        let arguments =
            ["patch", "pvc", text("/metadata/name")?, "--subresource=status", "--type=merge", "-p", status.as_str()];
        network.kubectl(&arguments).await?;
    }
    Ok(())
}

async fn uids(network: &Network, kind: &str) -> Result<BTreeMap<String, String>> {
    let text = |item: &Value, path: &str| item.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string();
    let found = items(network, kind).await?;
    Ok(found.iter().map(|item| (text(item, "/metadata/name"), text(item, "/metadata/uid"))).collect())
}

async fn items(network: &Network, kind: &str) -> Result<Vec<Value>> {
    let listed: Value = serde_json::from_str(&network.kubectl(&["get", kind, "-o", "json"]).await?)?;
    let items = listed.pointer("/items").and_then(Value::as_array).context("a list has items")?;
    Ok(items.clone())
}
