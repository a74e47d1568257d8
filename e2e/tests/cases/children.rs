//! Children that a person deletes: remade within seconds, or `Stalled` for what is made once.

use althing_e2e::dial::Access;
use althing_e2e::network::{Network, Voter, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use node_api::pki::LeafFacts;
use serde_json::Value;

use super::disturbance::{starts, watched_load};
use super::running_alpha;
use crate::Scene;

/// One child of every kind that the operator remakes.
const REMADE: &[(&str, &str)] = &[
    // First, because a kubelet brings a changed Secret into a pod only after a minute or two.
    ("secret", "alpha-main-0-tls"),
    ("service", "alpha-main-0-p2p"),
    ("service", "alpha-main-0-rpc"),
    ("service", "alpha-main-rpc"),
    ("configmap", "alpha-main-0"),
    ("serviceaccount", "alpha-main-0"),
    ("secret", "alpha-client"),
    ("networkpolicy", "alpha-default-deny"),
    ("networkpolicy", "alpha-main-0"),
    ("poddisruptionbudget", "alpha-main"),
    ("statefulset", "alpha-main-1"),
    ("vnode", "alpha-main-2"),
];

/// Kinds whose deletion ends a pod.
const TAKES_A_POD_ALONG: &[&str] = &["statefulset", "vnode"];

/// What stalls its owner: the child, the owner's kind and name.
const MADE_ONCE: &[(&str, &str, &str, &str)] = &[
    ("secret", "alpha-main-3-identity", "ValidatorNode", "alpha-main-3"),
    ("configmap", "alpha-main-genesis", "ConsensusGroup", "alpha-main"),
    ("secret", "alpha-ca", "BlockchainNetwork", "alpha"),
];

/// Every kind of child comes back under a new UID, and the chain stays inside its budget. A process whose certificate was
/// among them takes up the new one without a restart.
pub async fn deleted_children_come_back(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let voters = network.voters().await?;
    let pods: Vec<String> = voters.iter().map(|voter| voter.uid.clone()).collect();
    let first = voters.first().context("a voter")?;
    let access = Access::operator(&network).await?;
    let shown = access.shown_certificate(&network, first).await?;
    let started = starts(&network, first).await?;
    for (kind, name) in REMADE {
        let before = uid(&network, kind, name).await?;
        network.kubectl(&["delete", kind, name, "--wait=false"]).await?;
        eventually(&format!("{kind}/{name} is remade"), 150, || async {
            let now = uid(&network, kind, name).await?;
            ensure!(now != before, "it is still the old one");
            Ok(())
        })
        .await?;
        if TAKES_A_POD_ALONG.contains(kind) {
            let pod = format!("{name}-0");
            eventually(&format!("pod/{pod} is another one"), 120, || async {
                let now = uid(&network, "pod", &pod).await?;
                ensure!(!pods.contains(&now), "it is still the old one");
                Ok(())
            })
            .await?;
        }
        // What status says may be older than the deletion.
        watch.wait_all_present(4, 120).await?;
        network.wait_all_signing(4, 120).await?;
    }
    takes_up_its_certificate(&network, first, shown).await?;
    ensure!(starts(&network, first).await? == started, "{} was restarted for a certificate", first.node);
    watch.report(1).await?;
    Ok(())
}

/// Whoever connects is shown the certificate that is in the Secret now, and not the former one.
async fn takes_up_its_certificate(network: &Network, voter: &Voter, former: [u8; 32]) -> Result<()> {
    let made = LeafFacts::from_pem(&network.secret_text(&format!("{}-tls", voter.node), "tls.crt").await?)?;
    ensure!(made.fingerprint != former, "the certificate was not made anew");
    let access = Access::operator(network).await?;
    eventually(&format!("{} shows its new certificate", voter.node), 150, || async {
        let shown = access.shown_certificate(network, voter).await?;
        ensure!(shown == made.fingerprint, "it shows another one");
        Ok(())
    })
    .await
}

/// What is made once stalls its owner when it is gone, and is not made again; the chain goes on.
pub async fn what_is_made_once_is_never_remade(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    for (kind, name, owner_kind, owner) in MADE_ONCE {
        let saved = without_server_fields(&network.kubectl(&["get", kind, name, "-o", "json"]).await?)?;
        network.kubectl(&["delete", kind, name]).await?;
        let stalled = network.wait_condition(owner_kind, owner, "Stalled=True", 150).await?;
        ensure!(stalled.message.contains(name), "the message does not name {name}: {stalled:?}");
        let listed = network.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "name"]).await?;
        ensure!(listed.trim().is_empty(), "{kind}/{name} was made again");
        network.apply(&saved).await?;
        network.wait_condition(owner_kind, owner, "Stalled=False", 150).await?;
    }
    network.wait_all_signing(4, 60).await?;
    watch.report(0).await?;
    Ok(())
}

/// A voter's volume is lost with everything on it. Nothing happens by itself; when a person gives it up by name, the voter
/// comes back on another volume, with the same identity and a new session key, and no two votes conflict.
pub async fn a_lost_volume_is_rebuilt_when_a_person_gives_it_up(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let (watch, load) = watched_load(&network, 10).await?;
    let voter = network.voters().await?.into_iter().next_back().context("a voter")?;
    let claim = format!("{}-data", voter.node);
    let (lost, identity) = (uid(&network, "pvc", &claim).await?, uid_of_identity(&network, &voter.node).await?);
    network.kubectl(&["delete", "pvc", &claim, "--wait=false"]).await?;
    network.kubectl(&["delete", "pod", &voter.pod, "--grace-period=0", "--force", "--wait=false"]).await?;
    let stalled = network.wait_condition("ValidatorNode", &voter.node, "Stalled=True", 90).await?;
    ensure!(stalled.reason == "VolumeLost" && stalled.message.contains(&lost), "{stalled:?}");
    load.wait_more(20, 60).await.context("the others go on")?;
    let agreed = format!("althing.dev/rebuild-volume={lost}");
    network.kubectl(&["annotate", "vnode", &voter.node, &agreed]).await?;
    network.wait_all_signing(4, 150).await.context("it signs on another volume")?;
    ensure!(uid(&network, "pvc", &claim).await? != lost, "the claim is the lost one");
    ensure!(uid_of_identity(&network, &voter.node).await? == identity, "the identity has changed");
    load.wait_more(20, 60).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(1).await?;
    Ok(())
}

async fn uid_of_identity(network: &Network, node: &str) -> Result<String> {
    uid(network, "secret", &format!("{node}-identity")).await
}

/// The object as a person would keep it: without the fields that the API server gave it, and for any namespace.
pub(super) fn without_server_fields(text: &str) -> Result<String> {
    let mut object: Value = serde_json::from_str(text)?;
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut).context("an object has metadata")?;
    for field in ["namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    Ok(object.to_string())
}

async fn uid(network: &Network, kind: &str, name: &str) -> Result<String> {
    network.kubectl(&["get", kind, name, "-o", "jsonpath={.metadata.uid}"]).await
}
