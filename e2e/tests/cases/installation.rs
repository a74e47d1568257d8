//! The chart comes, is upgraded and goes, for some namespaces or for the whole cluster; networks stay.

use althing_e2e::environment::OPERATOR_NAMESPACE;
use althing_e2e::network::{Network, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;

use super::rights::seen;
use super::{manifest, running_alpha};
use crate::Scene;

/// `helm upgrade` and `helm uninstall` restart no validator and delete no network. Installed again for the whole cluster, the
/// operator goes on with what is there and makes what is new, and nothing that it asks for is refused.
pub async fn networks_outlive_the_chart(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let before: Vec<String> = network.voters().await?.into_iter().map(|voter| voter.uid).collect();
    scene.environment.install_operator(&scene.images, &scene.namespaces).await?;
    scene.environment.helm(&["uninstall", "althing", "--namespace", OPERATOR_NAMESPACE, "--wait"]).await?;
    let height = watch.counts().heights;
    eventually("ten more blocks without an operator", 60, || async {
        ensure!(watch.counts().heights >= height + 10, "{:?}", watch.counts());
        Ok(())
    })
    .await?;
    let after: Vec<String> = network.voters().await?.into_iter().map(|voter| voter.uid).collect();
    ensure!(before == after, "pods were replaced: {before:?} became {after:?}");
    network.object("BlockchainNetwork", "alpha").await?;
    no_operator_runs(scene).await?;
    let begin = Timestamp::now();
    scene.environment.install_operator_everywhere(&scene.images, &scene.namespaces).await?;
    let everywhere = works_everywhere(scene, &network, begin).await;
    scene.environment.install_operator(&scene.images, &scene.namespaces).await?;
    everywhere?;
    network.wait_all_signing(4, 90).await?;
    watch.report(0).await?;
    Ok(())
}

/// Waits until the pods of the operator have ended: those that stay are refused everything.
async fn no_operator_runs(scene: &Scene) -> Result<()> {
    eventually("no operator runs", 60, || async {
        let pods = ["--namespace", OPERATOR_NAMESPACE, "get", "pods", "-o", "name"];
        let pods = scene.environment.kubectl(&pods).await?;
        ensure!(pods.trim().is_empty(), "there are {pods}");
        Ok(())
    })
    .await
}

/// The operator of the whole cluster sees the voters of `network`, remakes a child of it, and makes a network of its own.
async fn works_everywhere(scene: &Scene, network: &Network, begin: Timestamp) -> Result<()> {
    let operator = ["--namespace", OPERATOR_NAMESPACE, "get", "deployment", "-o", "jsonpath={..containers[0].args}"];
    let told = scene.environment.kubectl(&operator).await?;
    ensure!(told.contains("\"--watch-namespaces=\""), "it works in some namespaces only: {told}");
    let service = format!("{}-rpc", network.group);
    let uid = ["get", "service", &service, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"];
    let before = network.kubectl(&uid).await?;
    network.kubectl(&["delete", "service", &service]).await?;
    eventually("a deleted child is back", 60, || async {
        let now = network.kubectl(&uid).await?;
        ensure!(!now.is_empty() && now != before, "it is not there");
        Ok(())
    })
    .await?;
    let new = Network::new(&scene.environment, &scene.client, &scene.namespace, "beta", "main");
    new.apply(&manifest(scene, "beta", 1)).await?;
    new.wait_all_signing(1, 90).await.context("a network that is made now")?;
    network.wait_all_signing(4, 60).await?;
    new.kubectl(&["delete", "bcn", "beta", "--timeout=60s"]).await?;
    let seen = seen(scene, begin)?;
    ensure!(seen.refused.is_empty(), "the operator was refused: {:?}", seen.refused);
    ensure!(!seen.writers.is_empty(), "the audit log shows no write of the operator");
    Ok(())
}
