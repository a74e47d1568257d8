//! Voters that join and leave a chain under load, by `kubectl scale`.

use althing_e2e::network::{Network, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};

use super::disturbance::load_on_all;
use super::{alpha, manifest};
use crate::Scene;

/// Four voters, five, and four again: each change is one governance transaction, the chain goes on, and identity and
/// volume of the voter that left are kept.
pub async fn voters_join_and_leave_by_kubectl_scale(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    // Nobody says how many: the group's own number counts. A fifth voter shares a machine.
    let text = manifest(scene, "alpha", 4).replace("      replicas: 4\n", "");
    network.apply(&text.replace("placement: Required", "placement: Preferred")).await?;
    network.wait_all_signing(4, 120).await?;
    let watch = Watch::start(&network).await?;
    let load = load_on_all(&network, 0).await?;
    load.wait_more(10, 60).await?;

    scale(&network, 5).await?;
    network.wait_all_signing(5, 180).await.context("the fifth voter joins and signs")?;
    load.wait_more(20, 60).await?;
    let identity = network.secret_text("alpha-main-4-identity", "identity.pem").await?;

    scale(&network, 4).await?;
    network.wait_all_signing(4, 180).await.context("the chain has four voters again")?;
    eventually("the node of the voter that left is gone", 60, || async {
        let nodes = network.kubectl(&["get", "vnode,pods", "-o", "name"]).await?;
        ensure!(!nodes.contains("alpha-main-4"), "there are {nodes}");
        Ok(())
    })
    .await?;
    let kept = network.secret_text("alpha-main-4-identity", "identity.pem").await?;
    ensure!(kept == identity, "the identity of the voter that left has changed");
    network.kubectl(&["get", "pvc", "alpha-main-4-data"]).await.context("its volume is kept")?;
    load.wait_more(10, 60).await?;
    watch.acknowledged(&load.stop().await);
    // A newcomer counts as silent until it signs.
    watch.report(1).await?;
    Ok(())
}

async fn scale(network: &Network, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    network.kubectl(&["scale", "cgrp/alpha-main", &replicas]).await?;
    Ok(())
}
