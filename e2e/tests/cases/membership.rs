//! Voters that join and leave a chain under load: by `kubectl scale`, and by name.

use althing_e2e::network::{Network, Voter, eventually};
use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;

use super::disturbance::watched_load;
use super::leaders::leader;
use super::{alpha, manifest};
use crate::Scene;

/// Four voters, seven, and four again: each change is one governance transaction, the chain goes on, and identities and
/// volumes of the voters that left are kept.
pub async fn voters_join_and_leave_by_kubectl_scale(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    // Nobody says how many: the group's own number counts. A fifth voter shares a machine.
    let text = manifest(scene, "alpha", 4).replace("      replicas: 4\n", "");
    network.apply(&text.replace("placement: Required", "placement: Preferred")).await?;
    network.wait_all_signing(4, 120).await?;
    let (watch, load) = watched_load(&network, 10).await?;

    scale(&network, 7).await?;
    network.wait_all_signing(7, 240).await.context("three voters more join and sign")?;
    load.wait_more(20, 60).await?;
    let joined = ["alpha-main-4", "alpha-main-5", "alpha-main-6"];
    let identities = identities(&network, &joined).await?;

    scale(&network, 4).await?;
    network.wait_all_signing(4, 240).await.context("the chain has four voters again")?;
    for node in joined {
        is_gone(&network, node).await?;
        network.kubectl(&["get", "pvc", &format!("{node}-data")]).await.context("its volume is kept")?;
    }
    let kept = self::identities(&network, &joined).await?;
    ensure!(kept == identities, "the identity of a voter that left has changed");
    load.wait_more(10, 60).await?;
    watch.acknowledged(&load.stop().await);
    // A newcomer counts as silent until it signs.
    watch.report(1).await?;
    Ok(())
}

/// A voter whose machine is lost is named in the spec and another one takes its place, while the machine is away. The
/// first newcomer is put on that very machine, as happens before Kubernetes knows that it is lost, and is named too. Then a
/// voter that signs is replaced in the same way. Never more than one voter is silent, and nobody signs twice.
pub async fn a_voter_is_replaced_by_name(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    let text = manifest(scene, "alpha", 4).replace("placement: Required", "placement: Preferred");
    network.apply(&text).await?;
    network.wait_all_signing(4, 120).await?;
    let (watch, load) = watched_load(&network, 10).await?;
    // Node 1 carries the switch of the local cluster. A lost leader would take longer than Kubernetes to see the loss.
    let (voters, (_, leads)) = (network.voters().await?, leader(scene).await?);
    let lost = voters.iter().find(|voter| voter.host != "node1" && voter.host != leads).context("a voter to lose")?;
    let newcomer = format!("{}-4", network.group);
    let machine = lost.host.trim_start_matches("node").to_string();
    scene.environment.cluster(&["node", "partition", &machine]).await?;
    let replaced = async {
        let placed = lands_on(&network, &newcomer, lost, &with_retired(&text, &[&lost.node])).await;
        network.kubectl(&["uncordon", "--selector", "kubernetes.io/hostname"]).await?;
        // On a slow machine Kubernetes may see the loss first; then the newcomer is an ordinary one that is retired too.
        if let Err(error) = placed {
            println!("    the newcomer was not put on the lost machine: {error:#}");
        }
        retire(&network, &text, &[&lost.node, &newcomer]).await
    };
    let replaced = replaced.await;
    scene.environment.cluster(&["node", "heal", &machine]).await?;
    let numbers = replaced?;
    load.wait_more(20, 60).await?;
    is_gone(&network, &lost.node).await?;
    is_gone(&network, &newcomer).await?;

    let signing = voters.iter().find(|voter| voter.host == "node1").context("a voter on node 1")?;
    let after = retire(&network, &text, &[&lost.node, &newcomer, &signing.node]).await?;
    ensure!(numbers.len() == 4 && after.len() == 4 && after != numbers, "voters {numbers:?}, then {after:?}");
    is_gone(&network, &signing.node).await?;
    load.wait_more(10, 60).await?;
    identities(&network, &[&lost.node, &signing.node]).await.context("identities of who left are kept")?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// Applies a manifest that asks for a newcomer while only this machine may be chosen for it, and waits until it is: then
/// its pod cannot start anywhere else.
async fn lands_on(network: &Network, newcomer: &str, lost: &Voter, manifest: &str) -> Result<()> {
    network.kubectl(&["cordon", "--selector", &format!("kubernetes.io/hostname!={}", lost.host)]).await?;
    network.apply(manifest).await?;
    let claim = format!("pvc/{newcomer}-data");
    let chosen = "jsonpath={.metadata.annotations.volume\\.kubernetes\\.io/selected-node}";
    eventually(&format!("{newcomer} is placed on {}", lost.host), 40, || async {
        let chosen = network.kubectl(&["get", &claim, "-o", chosen]).await?;
        ensure!(chosen == lost.host, "its volume is for {chosen:?}");
        Ok(())
    })
    .await
}

fn with_retired(manifest: &str, nodes: &[&str]) -> String {
    let names = nodes.join(", ");
    manifest.replace("      replicas: 4\n", &format!("      replicas: 4\n      retired: [{names}]\n"))
}

/// Names who shall vote no more, waits until four others sign, and returns their numbers.
async fn retire(network: &Network, manifest: &str, nodes: &[&str]) -> Result<Vec<u64>> {
    network.apply(&with_retired(manifest, nodes)).await?;
    eventually(&format!("others are in the place of {}", nodes.join(", ")), 180, || async {
        let group = network.object("ConsensusGroup", &network.group).await?;
        let numbers = numbers(&group)?;
        let change = group.data.pointer("/status/members/change");
        let retired = |number: &u64| nodes.contains(&format!("{}-{number}", network.group).as_str());
        ensure!(change.is_none() && !numbers.iter().any(retired), "voters {numbers:?}, change {change:?}");
        Ok(())
    })
    .await?;
    network.wait_all_signing(4, 60).await?;
    numbers(&network.object("ConsensusGroup", &network.group).await?)
}

fn numbers(group: &DynamicObject) -> Result<Vec<u64>> {
    let numbers = group.data.pointer("/status/members/numbers").context("no voter has changed yet")?;
    Ok(serde_json::from_value(numbers.clone())?)
}

async fn is_gone(network: &Network, node: &str) -> Result<()> {
    eventually(&format!("{node} is gone"), 90, || async {
        let nodes = network.kubectl(&["get", "vnode,pods", "-o", "name"]).await?;
        ensure!(!nodes.contains(node), "there are {nodes}");
        Ok(())
    })
    .await
}

async fn identities(network: &Network, nodes: &[&str]) -> Result<Vec<String>> {
    let mut all = vec![];
    for node in nodes {
        all.push(network.secret_text(&format!("{node}-identity"), "identity.pem").await?);
    }
    Ok(all)
}

async fn scale(network: &Network, replicas: u32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    network.kubectl(&["scale", "cgrp/alpha-main", &replicas]).await?;
    Ok(())
}
