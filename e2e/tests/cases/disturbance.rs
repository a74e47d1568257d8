//! Validators that die, vanish and return under load.

use althing_e2e::dial::Access;
use althing_e2e::load::Load;
use althing_e2e::network::{Network, Voter, eventually};
use althing_e2e::watch::{Watch, client_of};
use anyhow::{Context, Result, ensure};

use super::running_alpha;
use crate::Scene;

/// A killed pod: the chain goes on, the pod returns, catches up and signs again.
pub async fn a_killed_validator_catches_up(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let load = load_on_all(&network, 0).await?;
    load.wait_more(20, 60).await?;
    let victim = network.voters().await?.pop().context("a voter exists")?;
    network.kubectl(&["delete", "pod", &victim.pod, "--grace-period=0", "--force", "--wait=false"]).await?;
    load.wait_more(40, 60).await.context("the chain goes on without one of four")?;
    let access = Access::operator(&network).await?;
    caught_up(&network, &access, &victim).await?;
    network.wait_all_signing(4, 90).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// A pod that is force-deleted while its process goes on behind a partition: nothing it signs conflicts with anything,
/// and the validator returns after the partition heals.
pub async fn a_partitioned_validator_never_signs_twice(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let load = load_on_all(&network, 0).await?;
    load.wait_more(20, 60).await?;
    // Node 1 carries the switch of the local cluster; a voter on another one is taken.
    let victim =
        network.voters().await?.into_iter().find(|voter| voter.host != "node1").context("a voter off node 1")?;
    let number = victim.host.trim_start_matches("node").to_string();
    scene.environment.cluster(&["node", "partition", &number]).await?;
    load.wait_more(20, 60).await.context("the chain goes on while one is cut off")?;
    network.kubectl(&["delete", "pod", &victim.pod, "--grace-period=0", "--force", "--wait=false"]).await?;
    load.wait_more(20, 60).await?;
    scene.environment.cluster(&["node", "heal", &number]).await?;
    let access = Access::operator(&network).await?;
    caught_up(&network, &access, &victim).await?;
    network.wait_all_signing(4, 150).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// One sender for each voter.
pub async fn load_on_all(network: &Network, first_account: u32) -> Result<Load> {
    let access = Access::operator(network).await?;
    let nodes: Vec<String> = network.voters().await?.into_iter().map(|voter| voter.node).collect();
    Ok(Load::start(network, &access, &nodes, first_account))
}

/// Waits until another pod of the same validator has the chain's newest blocks.
async fn caught_up(network: &Network, access: &Access, before: &Voter) -> Result<()> {
    eventually(&format!("{} is back in another pod and synced", before.node), 150, || async {
        let now = network.voters().await?.into_iter().find(|voter| voter.node == before.node);
        let now = now.context("it has no pod")?;
        ensure!(now.uid != before.uid, "it is still the old pod");
        let status = client_of(network, access, &before.node).await?.status().await?;
        ensure!(status.synced, "it is at {} of {}", status.height, status.highest_known_height);
        Ok(())
    })
    .await
}
