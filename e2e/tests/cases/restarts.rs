//! The operator and the API server restart at bad moments.

use althing_e2e::environment::OPERATOR_NAMESPACE;
use althing_e2e::network::eventually;
use althing_e2e::watch::Watch;
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::{alpha, manifest, running_alpha};
use crate::Scene;

/// Every operator pod dies as soon as the first voter's pod exists; the next leader finishes the network.
pub async fn an_operator_restart_in_mid_creation_is_resumed(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    network.apply(&manifest(scene, "alpha", 4)).await?;
    eventually("the first voter's pod exists", 60, || async {
        ensure!(!network.voters().await?.is_empty(), "no pod");
        Ok(())
    })
    .await?;
    let arguments =
        ["--namespace", OPERATOR_NAMESPACE, "delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false"];
    scene.environment.kubectl(&arguments).await?;
    network.wait_all_signing(4, 180).await?;
    let watch = Watch::start(&network).await?;
    watch.wait_height(watch.chain_height().await? + 3, 60).await?;
    watch.report(0).await?;
    Ok(())
}

/// The API server is away; blocks go on, no pod restarts.
pub async fn the_chain_does_not_notice_an_api_server_restart(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let before = restarts(scene).await?;
    let height = watch.chain_height().await?;
    scene.environment.cluster(&["restart", "1", "kube-apiserver"]).await?;
    watch.wait_height(height + 5, 60).await?;
    network.wait_all_signing(4, 90).await?;
    let after = restarts(scene).await?;
    ensure!(before == after, "pods changed from {before:?} to {after:?}");
    watch.report(0).await?;
    Ok(())
}

/// UID and restart count of every pod of the case.
async fn restarts(scene: &Scene) -> Result<Vec<(String, i32)>> {
    let pods = Api::<Pod>::namespaced(scene.client.clone(), &scene.namespace).list(&ListParams::default()).await?;
    let count = |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        containers.map_or(0, |all| all.iter().map(|one| one.restart_count).sum())
    };
    Ok(pods.iter().map(|pod| (pod.metadata.uid.clone().unwrap_or_default(), count(pod))).collect())
}
