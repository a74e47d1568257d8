//! The operator is lost or replaced in the middle of work: the next leader goes on, and no validator notices.

use std::collections::BTreeSet;

use althing_crds::names;
use althing_e2e::environment::OPERATOR_NAMESPACE;
use althing_e2e::network::{Network, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::disturbance::watched_load;
use super::upgrades::{all_run, set_image, uids};
use super::{alpha, manifest, running_alpha};
use crate::Scene;

/// Name of the lease of the chart.
const LEASE: &str = "althing-operator";

/// Every operator pod dies when the first of four voters has been restarted: the change is finished by the next leader,
/// still one voter at a time.
pub async fn an_operator_killed_in_mid_rollout_resumes(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 10).await?;
    let before = uids(&network).await?;
    set_image(&network, &scene.node_next).await?;
    eventually("the first voter is restarted", 90, || async {
        let now = uids(&network).await?;
        ensure!(now.iter().any(|pod| !before.contains(pod)), "none is");
        Ok(())
    })
    .await?;
    let kept = uids(&network).await?.iter().filter(|pod| before.contains(pod)).count();
    ensure!(kept > 0, "the change was over before the operator could be killed");
    kill_operators(scene).await?;
    all_run(&network, &scene.node_next, 240).await?;
    load.wait_more(10, 60).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// Every operator pod dies when a change of the voters is written down and not over: the next leader finishes exactly it.
pub async fn an_operator_killed_in_mid_scale_resumes(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    let text = manifest(scene, "alpha", 4).replace("      replicas: 4\n", "");
    network.apply(&text.replace("placement: Required", "placement: Preferred")).await?;
    network.wait_all_signing(4, 120).await?;
    let (watch, load) = watched_load(&network, 10).await?;
    network.kubectl(&["scale", "cgrp/alpha-main", "--replicas=5"]).await?;
    eventually("the change is written down", 60, || async {
        let group = network.object("ConsensusGroup", &network.group).await?;
        ensure!(
            group.data.pointer("/status/members/change/number").is_some(),
            "status.members is {:?}",
            group.data.pointer("/status/members")
        );
        Ok(())
    })
    .await?;
    kill_operators(scene).await?;
    network.wait_all_signing(5, 180).await.context("the fifth voter joins although the operator died")?;
    let nodes = network.kubectl(&["get", "vnode", "-o", "name"]).await?;
    ensure!(nodes.lines().count() == 5, "there are {nodes}");
    load.wait_more(10, 60).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

/// The machine on which the leader runs is drained: a standby on another machine leads, and what is deleted meanwhile
/// comes back. The voter on that machine waits for it, the others go on.
pub async fn a_drain_of_the_leaders_machine_moves_the_lead(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 10).await?;
    let (leader, host) = leader(scene).await?;
    // By force: what removes the volumes of the case before this one may still run there as a bare pod.
    let drain = ["drain", &host, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=100s"];
    let drained = scene.environment.kubectl_call(&drain).within(120).stdout().await;
    let outcome = after_drain(scene, &network, &leader).await;
    scene.environment.kubectl(&["uncordon", &host]).await?;
    drained.context("the drain of the leader's machine makes progress")?;
    outcome?;
    network.wait_all_signing(4, 120).await?;
    load.wait_more(10, 60).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

async fn after_drain(scene: &Scene, network: &Network, former: &str) -> Result<()> {
    eventually("another pod leads", 60, || async {
        let (now, _) = leader(scene).await?;
        ensure!(now != former, "{now} still does");
        Ok(())
    })
    .await?;
    let service = format!("{}-rpc", network.group);
    let uid = ["get", "service", &service, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"];
    let before = network.kubectl(&uid).await?;
    network.kubectl(&["delete", "service", &service]).await?;
    eventually("the new leader remakes a child", 60, || async {
        let now = network.kubectl(&uid).await?;
        ensure!(!now.is_empty() && now != before, "it is not there");
        Ok(())
    })
    .await
}

/// `helm upgrade` to other operator pods, which have another image for nodes whose spec names none, as that of the voters
/// does: no validator's pod is restarted or even changed in its spec.
pub async fn an_operator_upgrade_restarts_no_validator(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    let named = format!("    image: {}\n", scene.images.node);
    let text = manifest(scene, "alpha", 4);
    ensure!(text.contains(&named), "the manifest has changed its form");
    network.apply(&text.replace(&named, "")).await?;
    network.wait_all_signing(4, 120).await?;
    let watch = Watch::start(&network).await?;
    let (voters, operators) = (restarts(&network).await?, operators(scene).await?);
    let (_, tag) = scene.node_next.rsplit_once(':').context("an image has a tag")?;
    let tag = format!("nodeImage.tag={tag}");
    let upgrade = ["upgrade", "althing", "charts/althing", "--namespace", OPERATOR_NAMESPACE, "--reuse-values"];
    let changed = ["--set", tag.as_str(), "--wait", "--timeout", "120s"];
    scene.environment.helm(&[upgrade.as_slice(), &changed].concat()).await?;
    eventually("every operator pod is another one", 60, || async {
        let now = self::operators(scene).await?;
        ensure!(now.len() == operators.len() && now.is_disjoint(&operators), "they are {now:?}");
        Ok(())
    })
    .await?;
    after_drain(scene, &network, "none").await.context("the new operator works")?;
    let height = watch.counts().heights;
    eventually("twenty more blocks", 60, || async {
        ensure!(watch.counts().heights >= height + 20, "{:?}", watch.counts());
        Ok(())
    })
    .await?;
    let after = restarts(&network).await?;
    ensure!(voters == after, "validators changed from {voters:?} to {after:?}");
    network.wait_all_signing(4, 60).await?;
    // It is no change that waits for its turn either.
    network.wait_condition("ConsensusGroup", &network.group, "Ready=True", 60).await?;
    let updated = network.object("ConsensusGroup", &network.group).await?;
    let updated = updated.data.pointer("/status/updatedReplicas").and_then(serde_json::Value::as_i64);
    ensure!(updated == Some(4), "updatedReplicas is {updated:?}");
    watch.report(0).await?;
    Ok(())
}

async fn kill_operators(scene: &Scene) -> Result<()> {
    let arguments =
        ["--namespace", OPERATOR_NAMESPACE, "delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false"];
    scene.environment.kubectl(&arguments).await?;
    Ok(())
}

/// The pod that leads, and its machine.
pub(super) async fn leader(scene: &Scene) -> Result<(String, String)> {
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), OPERATOR_NAMESPACE);
    let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let (pod, _) = holder.rsplit_once('_').with_context(|| format!("nobody leads: the holder is {holder:?}"))?;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), OPERATOR_NAMESPACE);
    let found = pods.get(pod).await.with_context(|| format!("the leader {pod} is gone"))?;
    let host = found.spec.and_then(|spec| spec.node_name).context("the leader runs on a machine")?;
    Ok((pod.to_string(), host))
}

/// UIDs of the operator's pods that are not stopping.
async fn operators(scene: &Scene) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), OPERATOR_NAMESPACE);
    let selector = format!("app.kubernetes.io/name={}", names::MANAGED_BY);
    let listed = pods.list(&ListParams::default().labels(&selector)).await?;
    let alive = listed.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(alive.filter_map(|pod| pod.uid()).collect())
}

/// UID and restarts of every voter's pod.
async fn restarts(network: &Network) -> Result<Vec<(String, i32)>> {
    let pods: Api<Pod> = Api::namespaced(network.client.clone(), &network.namespace);
    let listed = pods.list(&ListParams::default().labels(names::LABEL_NODE)).await?;
    let count = |pod: &Pod| {
        let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        containers.map_or(0, |all| all.iter().map(|one| one.restart_count).sum())
    };
    Ok(listed.iter().map(|pod| (pod.uid().unwrap_or_default(), count(pod))).collect())
}
