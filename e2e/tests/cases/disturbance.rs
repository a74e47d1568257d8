//! Validators that die, vanish and return under load.

use althing_e2e::dial::Access;
use althing_e2e::environment::OPERATOR_NAMESPACE;
use althing_e2e::load::Load;
use althing_e2e::network::{Network, Voter, condition, eventually};
use althing_e2e::watch::{Watch, client_of};
use anyhow::{Context, Result, ensure};

use super::running_alpha;
use crate::Scene;

/// A killed pod: the chain goes on, the pod returns, catches up and signs again.
pub async fn a_killed_validator_catches_up(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
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
    let (watch, load) = watched_load(&network, 20).await?;
    let (victim, number) = off_node_1(&network).await?;
    scene.environment.cluster(&["node", "partition", &number]).await?;
    load.wait_more(20, 60).await.context("the chain goes on while one is cut off")?;
    nobody_may_be_drained(&network).await.context("of the three that are left")?;
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

/// The disruption budget counts the three that sign, and lets none of them go: also while the pod of the fourth is still ready.
async fn nobody_may_be_drained(network: &Network) -> Result<()> {
    let path = "jsonpath={.status.expectedPods} {.status.disruptionsAllowed}";
    eventually("the disruption budget lets nobody go", 60, || async {
        let said = network.kubectl(&["get", "poddisruptionbudget", &network.group, "-o", path]).await?;
        ensure!(said == "3 0", "counted and allowed: {said}");
        Ok(())
    })
    .await
}

/// A machine loses its power under load and comes back with its disk: the chain goes on meanwhile and status says with how
/// many, then the same pod starts again, catches up and signs, and nothing is signed twice.
pub async fn a_crashed_machine_comes_back_with_its_voter(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
    let (victim, number) = off_node_1(&network).await?;
    let starts = starts(&network, &victim).await?;
    scene.environment.cluster(&["node", "crash", &number]).await?;
    let outage = goes_on_with_three(&network, &load).await;
    scene.environment.cluster(&["node", "add", &number]).await?;
    outage?;
    let access = Access::operator(&network).await?;
    eventually(&format!("{} has started again in the same pod and is synced", victim.node), 150, || async {
        let now = self::starts(&network, &victim).await?;
        ensure!(now != starts, "it has not started");
        ensure!(now.0 == victim.uid, "it is another pod: {now:?} after {victim:?}");
        let status = client_of(&network, &access, &victim.node).await?.status().await?;
        ensure!(status.synced, "it is at {} of {}", status.height, status.highest_known_height);
        Ok(())
    })
    .await?;
    watch.wait_all_present(4, 60).await?;
    network.wait_all_signing(4, 150).await.context("the voter signs again")?;
    load.wait_more(20, 60).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// The chain goes on without one of four, and status says so.
async fn goes_on_with_three(network: &Network, load: &Load) -> Result<()> {
    load.wait_more(20, 90).await.context("the chain goes on without one machine")?;
    eventually("status says 3/4", 60, || async {
        let group = network.object("ConsensusGroup", &network.group).await?;
        let signing = group.data.pointer("/status/signing").and_then(|value| value.as_str());
        ensure!(signing == Some("3/4"), "status.signing is {signing:?}");
        Ok(())
    })
    .await
}

/// UID of a voter's pod, and how often its container was started again in it.
pub(super) async fn starts(network: &Network, voter: &Voter) -> Result<(String, String)> {
    let path = "jsonpath={.metadata.uid} {.status.containerStatuses[0].restartCount}";
    let found = network.kubectl(&["get", "pod", &voter.pod, "-o", path]).await?;
    let (uid, restarts) = found.split_once(' ').context("a pod has a UID and a container")?;
    Ok((uid.to_string(), restarts.to_string()))
}

/// Two of four voters are cut off, which is more than may fail: the chain stands still, status says so and who is missing,
/// nothing is rebuilt, and when they return the chain goes on with the same pods and volumes.
pub async fn more_than_f_lost_voters_stop_the_chain_until_they_return(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 10).await?;
    watch.acknowledged(&load.stop().await);
    let before = kept(&network).await?;
    // Node 1 carries the switch of the local cluster, and somewhere an operator must stay.
    let machines = ["get", "pods", "--namespace", OPERATOR_NAMESPACE, "-o", "jsonpath={.items[*].spec.nodeName}"];
    let operators = scene.environment.kubectl(&machines).await?;
    let mut lost = network.voters().await?;
    lost.retain(|voter| voter.host != "node1");
    lost.sort_by_key(|voter| operators.split_whitespace().any(|host| host == voter.host));
    lost.truncate(2);
    ensure!(lost.len() == 2, "two voters off node 1");
    for voter in &lost {
        scene.environment.cluster(&["node", "partition", voter.host.trim_start_matches("node")]).await?;
    }
    let said = outage_is_said(&network, &lost).await;
    // Two are more than any other case allows: the watcher's own rule is shown what it must find.
    let counted = eventually("the watcher counts two that are away", 60, || async {
        let away = watch.counts().away_max;
        ensure!(away == 2, "it has counted {away}");
        Ok(())
    })
    .await;
    let during = kept(&network).await;
    for voter in &lost {
        scene.environment.cluster(&["node", "heal", voter.host.trim_start_matches("node")]).await?;
    }
    said?;
    counted?;
    let during = during?;
    ensure!(before == during, "something was rebuilt: {before:?} became {during:?}");
    network.wait_all_signing(4, 150).await?;
    let after = kept(&network).await?;
    ensure!(before == after, "something was rebuilt: {before:?} became {after:?}");
    network.wait_condition("ConsensusGroup", &network.group, "QuorumAtRisk=False", 60).await?;
    let load = load_on_all(&network, 10).await?;
    load.wait_more(10, 60).await.context("the chain goes on")?;
    watch.acknowledged(&load.stop().await);
    watch.report(2).await?;
    Ok(())
}

/// Group and network say that the chain stands still and who is missing, and go on saying so; nobody needs a person.
async fn outage_is_said(network: &Network, lost: &[Voter]) -> Result<()> {
    network.wait_condition("ConsensusGroup", &network.group, "Available=False", 90).await?;
    network.wait_condition("BlockchainNetwork", &network.name, "Available=False", 30).await?;
    for (kind, name) in [("ConsensusGroup", &network.group), ("BlockchainNetwork", &network.name)] {
        eventually(&format!("{kind} {name} says who is missing"), 60, || async {
            let risk = condition(&network.object(kind, name).await?, "QuorumAtRisk");
            let names_all = lost.iter().all(|voter| risk.message.contains(&voter.node));
            ensure!(risk.status == "True" && names_all, "it says {risk:?}");
            Ok(())
        })
        .await?;
    }
    let group = network.object("ConsensusGroup", &network.group).await?;
    let stalled = condition(&group, "Stalled");
    ensure!(stalled.status == "False", "an outage that heals by itself is no stall: {stalled:?}");
    let signing = group.data.pointer("/status/signing").and_then(|value| value.as_str());
    ensure!(signing == Some("2/4"), "status.signing is {signing:?}");
    Ok(())
}

/// UIDs of pods and claims by name.
async fn kept(network: &Network) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
    let selector = format!("{}={}", althing_crds::names::LABEL_GROUP, network.group);
    let listed = network.kubectl(&["get", "pods,pvc", "-l", &selector, "-o", path]).await?;
    let mut lines: Vec<String> = listed.lines().map(str::to_string).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// A voter on a machine that can be lost, and the number of that machine: node 1 carries the switch of the local cluster.
async fn off_node_1(network: &Network) -> Result<(Voter, String)> {
    let voters = network.voters().await?;
    let voter = voters.into_iter().find(|voter| voter.host != "node1").context("a voter off node 1")?;
    let number = voter.host.trim_start_matches("node").to_string();
    Ok((voter, number))
}

/// A watch, and a load on all voters that has so many transactions through.
pub async fn watched_load(network: &Network, transactions: usize) -> Result<(Watch, Load)> {
    let watch = Watch::start(network).await?;
    let load = load_on_all(network, 0).await?;
    load.wait_more(transactions, 60).await?;
    Ok((watch, load))
}

/// One sender for each voter.
pub async fn load_on_all(network: &Network, first_account: u32) -> Result<Load> {
    Ok(Load::start(network, &Access::operator(network).await?, first_account))
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
