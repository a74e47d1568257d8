//! Rolling changes: one voter after the other inside the fault budget, paused when a voter does not come back, also
//! against a drain at the same moment.

use std::time::{Duration, Instant};

use althing_e2e::load::Load;
use althing_e2e::network::{Network, condition, eventually};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::disturbance::watched_load;
use super::running_alpha;
use crate::Scene;

/// An image that no node has and no registry answers for.
const MISSING_IMAGE: &str = "docker.io/althing/node:missing";
/// How long the watcher looks after a pause: nothing else may be restarted meanwhile.
const MORE_WHILE_PAUSED: usize = 40;

/// All four voters go to another image under load; the watcher reports gaps and what was acknowledged.
pub async fn a_rolling_image_change_under_load_loses_nothing(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
    let recorded = [recorded(scene, "cgrp")?, recorded(scene, "vnode")?];
    let begin = Instant::now();
    set_image(&network, &scene.node_next).await?;
    all_run(&network, &scene.node_next, 240).await?;
    println!("    the rolling change took {:.1} s", begin.elapsed().as_secs_f64());
    load.wait_more(10, 60).await?;
    drop(recorded);
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// What `kubectl get -w` shows of a kind, written to `target/e2e/rolling-change-<kind>.txt` until the value is dropped.
fn recorded(scene: &Scene, kind: &str) -> Result<tokio::process::Child> {
    let folder = scene.environment.root.join("target/e2e");
    std::fs::create_dir_all(&folder)?;
    let file = std::fs::File::create(folder.join(format!("rolling-change-{kind}.txt")))?;
    let arguments = ["get", kind, "--watch", "--namespace", scene.namespace.as_str()];
    let mut command = scene.environment.kubectl_call(&arguments).into_command();
    command.stdout(file).spawn().context("kubectl starts")
}

/// The first voter cannot start: the others are left alone, the group says so, and the old spec brings it back.
pub async fn a_bad_image_pauses_and_is_rolled_back(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
    let before = uids(&network).await?;
    set_image(&network, MISSING_IMAGE).await?;
    let why = "its image cannot be pulled";
    paused_and_rolled_back(&network, &load, &before, why, |network| set_image_back(network, scene)).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// The same with a program that does not understand how the node is started: the pod starts, ends at once, and again.
pub async fn a_program_that_ends_at_once_pauses_and_is_rolled_back(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
    let before = uids(&network).await?;
    set_image(&network, &scene.images.operator).await?;
    let why = "it ends again and again";
    paused_and_rolled_back(&network, &load, &before, why, |network| set_image_back(network, scene)).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// The same with resources that no machine has: the pod is never scheduled. Then with resources that fit: all voters get
/// them, one after the other.
pub async fn impossible_resources_pause_and_are_rolled_back_others_roll(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
    let before = uids(&network).await?;
    set(&network, r#"{"spec":{"node":{"resources":{"cpu":"400","memory":"256Mi"}}}}"#).await?;
    paused_and_rolled_back(&network, &load, &before, "the pod finds no machine", |network| {
        Box::pin(async move { set(network, r#"{"spec":{"node":{"resources":{"cpu":"300m"}}}}"#).await })
    })
    .await?;
    set(&network, r#"{"spec":{"node":{"resources":{"cpu":"250m"}}}}"#).await?;
    all_have(&network, "resources.requests.cpu", "250m", 240).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// The machine of the voter whose turn comes last is drained while the image changes: the two ask for the same budget at
/// the same time, and together they never take more than one of four.
pub async fn a_drain_and_a_rolling_change_share_one_budget(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 20).await?;
    let before = uids(&network).await?;
    // A change goes from the highest number down.
    let last = network.voters().await?.into_iter().next().context("a voter")?;
    set_image(&network, &scene.node_next).await?;
    let waiting = eventually("the change has begun", 60, || async {
        let waiting = unchanged(&before, &uids(&network).await?);
        ensure!(waiting.len() < before.len(), "no voter is restarted");
        Ok(waiting)
    })
    .await?;
    ensure!(waiting.contains(&last.node) && waiting.len() > 1, "the change was over before the drain: {waiting:?}");
    let selector = format!("--pod-selector={}={}", althing_crds::names::LABEL_GROUP, network.group);
    let drain = ["drain", &last.host, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=150s", &selector];
    let drained = scene.environment.kubectl_call(&drain).within(170).output().await?;
    ensure!(drained.code == 0, "the drain makes no progress: {}", drained.stderr);
    // Either the drain had to wait for the change, or it went first and the change has to wait for the voter.
    let waiting = unchanged(&before, &uids(&network).await?);
    let was_refused = drained.stderr.contains("disruption budget");
    ensure!(was_refused || !waiting.is_empty(), "drain and change did not meet: {}", drained.stderr);
    println!("    the drain was refused at first: {was_refused}; not yet changed after it: {waiting:?}");
    load.wait_more(20, 60).await.context("the chain goes on while one machine is drained")?;
    scene.environment.kubectl(&["uncordon", &last.host]).await?;
    all_run(&network, &scene.node_next, 240).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// Names of the nodes whose pods are still the ones of before.
fn unchanged(before: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    before.iter().filter(|pod| now.contains(pod)).map(|(name, _)| name.clone()).collect()
}

type Back<'a> = futures::future::BoxFuture<'a, Result<()>>;

async fn paused_and_rolled_back<'a>(
    network: &'a Network,
    load: &Load,
    before: &[(String, String)],
    why: &str,
    back: impl FnOnce(&'a Network) -> Back<'a>,
) -> Result<()> {
    let stalled = network.wait_condition("ConsensusGroup", &network.group, "Stalled=True", 90).await?;
    ensure!(stalled.reason == "RolloutPaused", "it is stalled for another reason: {stalled:?}");
    load.wait_more(MORE_WHILE_PAUSED, 60).await.context("the chain goes on while the rollout is paused")?;
    let kept = unchanged(before, &uids(network).await?);
    ensure!(kept.len() == 3, "left alone before the pause: {kept:?}");
    let changed = before.iter().map(|(name, _)| name).find(|name| !kept.contains(name)).context("one was changed")?;
    ensure!(stalled.message.contains(changed), "the group does not name {changed}: {stalled:?}");
    eventually(&format!("{changed} says why"), 60, || async {
        let ready = condition(&network.object("ValidatorNode", changed).await?, "Ready");
        ensure!(ready.reason == "PodFailing" && ready.message.contains(why), "it says {ready:?}");
        Ok(())
    })
    .await?;
    back(network).await?;
    network.wait_condition("ConsensusGroup", &network.group, "Stalled=False", 90).await?;
    network.wait_condition("ConsensusGroup", &network.group, "Ready=True", 150).await?;
    network.wait_all_signing(4, 60).await?;
    let after = unchanged(before, &uids(network).await?);
    ensure!(after == kept, "of {kept:?}, which were left alone, only {after:?} are still the same");
    Ok(())
}

fn set_image_back<'a>(network: &'a Network, scene: &'a Scene) -> Back<'a> {
    Box::pin(async move { set_image(network, &scene.images.node).await })
}

pub async fn set_image(network: &Network, image: &str) -> Result<()> {
    set(network, &format!(r#"{{"spec":{{"node":{{"image":"{image}"}}}}}}"#)).await
}

async fn set(network: &Network, patch: &str) -> Result<()> {
    network.kubectl(&["patch", "bcn", &network.name, "--type=merge", "-p", patch]).await?;
    Ok(())
}

/// Name and UID of every pod.
pub async fn uids(network: &Network) -> Result<Vec<(String, String)>> {
    Ok(network.voters().await?.into_iter().map(|voter| (voter.node, voter.uid)).collect())
}

/// Every pod has this image, the group says so, and all sign.
pub async fn all_run(network: &Network, image: &str, seconds: u64) -> Result<()> {
    all_have(network, "image", image, seconds).await
}

/// The container of every pod has this value at this field, the group says so, and all sign.
async fn all_have(network: &Network, field: &str, value: &str, seconds: u64) -> Result<()> {
    let path = format!("jsonpath={{.items[*].spec.containers[0].{field}}}");
    eventually(&format!("all voters have {field} {value}"), seconds, || async {
        let selector = format!("{}={}", althing_crds::names::LABEL_GROUP, network.group);
        let values = network.kubectl(&["get", "pods", "-l", &selector, "-o", &path]).await?;
        let values: Vec<&str> = values.split_whitespace().collect();
        ensure!(values.len() == 4 && values.iter().all(|one| *one == value), "they have {values:?}");
        let group = network.object("ConsensusGroup", &network.group).await?;
        let updated = group.data.pointer("/status/updatedReplicas").and_then(Value::as_i64);
        ensure!(updated == Some(4), "updatedReplicas is {updated:?}");
        Ok(())
    })
    .await?;
    network.wait_condition("ConsensusGroup", &network.group, "Ready=True", 90).await?;
    network.wait_all_signing(4, Duration::from_secs(60).as_secs()).await
}
