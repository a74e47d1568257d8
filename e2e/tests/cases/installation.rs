//! The chart comes, is upgraded and goes; networks stay.

use althing_e2e::environment::OPERATOR_NAMESPACE;
use althing_e2e::network::eventually;
use althing_e2e::watch::Watch;
use anyhow::{Result, ensure};

use super::running_alpha;
use crate::Scene;

/// `helm upgrade` and `helm uninstall` restart no validator and delete no network.
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
    scene.environment.install_operator(&scene.images, &scene.namespaces).await?;
    network.wait_all_signing(4, 90).await?;
    watch.report(0).await?;
    Ok(())
}
