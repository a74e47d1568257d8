//! Copies of volumes: one beside the living voter with the same identity, and those of a whole network in another namespace.

use althing_e2e::dial::Access;
use althing_e2e::network::{Network, Voter, condition, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use node_api::proto::{OwnerEnded, StartGrant, VolumeKind};
use serde_json::{Value, json};

use super::children::without_server_fields;
use super::{alpha, manifest, running_alpha};
use crate::Scene;

/// The copy has the identity and the session key, and a grant that somebody fakes for it; it signs nothing, and the
/// living voter stays.
pub async fn a_copied_volume_never_signs(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let original = network.voters().await?.into_iter().next().context("a voter exists")?;
    let claim = json!({"metadata": {"name": "copy"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    bind(&network, &[(claim, original.host.clone())]).await?;
    fill(&network, &original, &network, "copy").await?;
    let copy = start_copy(&network, &original).await?;
    let access = Access::operator(&network).await?;
    let client = access.client(&network, &copy)?;
    let request = eventually("the copy asks whether it may start", 60, || async {
        let request = client.start_request().await?;
        ensure!(request.asking, "it does not ask");
        Ok(request)
    })
    .await?;
    let claim_uid = network.kubectl(&["get", "pvc", "copy", "-o", "jsonpath={.metadata.uid}"]).await?;
    let grant = StartGrant {
        pod_uid: copy.uid.clone(),
        claim_uid,
        volume_kind: VolumeKind::NodeLocal.into(),
        owner: request.owner,
        owner_ended: OwnerEnded::TerminatedByKubelet.into(),
    };
    let answer = client.grant_start(grant).await?;
    ensure!(!answer.cleared, "the copy took the key over");
    let height = watch.counts().heights;
    eventually("twenty more blocks beside the copy", 90, || async {
        ensure!(watch.counts().heights >= height + 20, "{:?}", watch.counts());
        Ok(())
    })
    .await?;
    ensure!(!client.status().await?.signing_enabled, "the copy signs");
    network.kubectl(&["delete", "pod", "copy", "--grace-period=0", "--force"]).await?;
    network.wait_all_signing(4, 90).await?;
    watch.report(0).await?;
    Ok(())
}

/// Everything that is made once and copies of all volumes come to another namespace, and the same manifest is applied there.
/// The copy finds keys that were used under other claims, so it says `SignersWaiting` and stands still; the original goes on,
/// and no signature of the one conflicts with one of the other.
pub async fn a_network_restored_elsewhere_waits(scene: &Scene) -> Result<()> {
    let original = running_alpha(scene).await?;
    let copy = Network { namespace: crate::copy_namespace(&scene.namespace), ..alpha(scene) };
    let mut watch = Watch::start(&original).await?;
    watch.wait_height(watch.chain_height().await? + 5, 60).await?;
    restore(&original, &copy).await?;
    copy.apply(&manifest(scene, "alpha", 4)).await?;
    eventually("the copy says that its signers wait", 150, || async {
        let stalled = condition(&copy.object("ConsensusGroup", &copy.group).await?, "Stalled");
        ensure!(stalled.status == "True" && stalled.reason == "SignersWaiting", "it says {stalled:?}");
        Ok(())
    })
    .await?;
    watch.also_follow(&copy).await?;
    let access = Access::operator(&copy).await?;
    let height = eventually("all nodes of the copy are equally far", 60, || async {
        let heights = heights(&copy, &access).await?;
        let (first, last) = (heights.first().copied().unwrap_or(0), heights.last().copied().unwrap_or(0));
        ensure!(heights.len() == 4 && first > 0 && first == last, "they are at {heights:?}");
        Ok(first)
    })
    .await?;
    let seen = watch.chain_height().await?;
    ensure!(seen > height, "the copy is at {height}, the original at {seen}");
    watch.wait_height(seen + 20, 90).await.context("the original goes on")?;
    let after = heights(&copy, &access).await?;
    ensure!(after == [height; 4], "the copy has come from {height} to {after:?}");
    let group = copy.object("ConsensusGroup", &copy.group).await?;
    let (stalled, available) = (condition(&group, "Stalled"), condition(&group, "Available"));
    ensure!(available.status == "False" && available.reason == "QuorumLost", "the copy says {available:?}");
    // A signer that waits also asks for a new key, which nobody can decide: it still waits.
    ensure!(stalled.reason == "SignersWaiting", "the copy does not say any more that its signers wait: {stalled:?}");
    original.wait_all_signing(4, 60).await?;
    watch.report(0).await?;
    Ok(())
}

/// Heights of the nodes, the lowest first.
async fn heights(network: &Network, access: &Access) -> Result<Vec<u64>> {
    let mut heights = vec![];
    for voter in network.voters().await? {
        heights.push(access.client(network, &voter)?.status().await?.height);
    }
    heights.sort_unstable();
    Ok(heights)
}

/// What a person would bring back from a backup: Secrets and ConfigMaps that are made once, claims and what is on them.
async fn restore(original: &Network, copy: &Network) -> Result<()> {
    let listed: Value = serde_json::from_str(&original.kubectl(&["get", "secrets,cm,pvc", "-o", "json"]).await?)?;
    let items = listed.get("items").and_then(Value::as_array).context("a list")?;
    let is_made_once = |item: &&Value| {
        let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        item.pointer("/metadata/ownerReferences").is_none() && name.starts_with("alpha")
    };
    let (claims, objects): (Vec<&Value>, Vec<&Value>) =
        items.iter().filter(is_made_once).partition(|item| item.get("kind") == Some(&json!("PersistentVolumeClaim")));
    ensure!(
        objects.len() >= 7,
        "a CA, a governance key, a genesis and four identities are kept, not {}",
        objects.len()
    );
    for object in objects {
        copy.apply(&without_server_fields(&object.to_string())?).await?;
    }
    let voters = original.voters().await?;
    let mut placed = vec![];
    for voter in &voters {
        let name = format!("{}-data", voter.node);
        let claim = claims.iter().find(|claim| claim.pointer("/metadata/name") == Some(&json!(name)));
        let claim = claim.with_context(|| format!("claim {name} is there"))?;
        let part = |path: &str| claim.pointer(path).cloned().unwrap_or_default();
        let kept = json!({
            "metadata": {"name": name, "labels": part("/metadata/labels"), "annotations": part("/metadata/annotations")},
            "spec": {"accessModes": part("/spec/accessModes"), "resources": part("/spec/resources")}});
        placed.push((kept, voter.host.clone()));
    }
    bind(copy, &placed).await?;
    for voter in &voters {
        fill(original, voter, copy, &format!("{}-data", voter.node)).await?;
    }
    Ok(())
}

/// Makes claims, each bound on this machine by a pod that ends at once.
async fn bind(network: &Network, claims: &[(Value, String)]) -> Result<()> {
    let mut binders = vec![];
    for (claim, host) in claims {
        let name = claim.pointer("/metadata/name").and_then(Value::as_str).context("a claim has a name")?;
        let binder = format!("binder-{name}");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": binder}, "spec": {
            "restartPolicy": "Never", "nodeName": host,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
            "containers": [{"name": "binder", "image": "docker.io/local/busybox:1", "command": ["true"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}});
        network.apply(&placed(claim.clone(), host)?.to_string()).await?;
        network.apply(&pod.to_string()).await?;
        binders.push(binder);
    }
    for binder in binders {
        eventually(&format!("{binder} has ended on its claim"), 60, || async {
            let phase = network.kubectl(&["get", "pod", &binder, "-o", "jsonpath={.status.phase}"]).await?;
            ensure!(phase == "Succeeded", "the pod is {phase}");
            Ok(())
        })
        .await?;
        network.kubectl(&["delete", "pod", &binder]).await?;
    }
    Ok(())
}

/// Fills a claim with what a voter's volume holds.
async fn fill(original: &Network, voter: &Voter, network: &Network, claim: &str) -> Result<()> {
    let from = original.claim_folder(&format!("{}-data", voter.node)).await?;
    let to = network.claim_folder(claim).await?;
    // Stopped while it is copied, as a snapshot of the volume would find it: all files of one moment.
    let script = format!(
        "pids=$(grep -l 'pod{uid}' /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3)
         kill -STOP $pids && cp -a {from}/. {to}/; code=$?; kill -CONT $pids; exit $code",
        uid = voter.uid,
        from = from.display(),
        to = to.display(),
    );
    althing_e2e::process::Call::new("sh", &["-c", &script]).stdout().await?;
    Ok(())
}

/// The claim as it is made. Tells the provisioner which node to use: a pod with a node name bypasses the scheduler that
/// normally does. What was said of another volume is left out.
fn placed(mut claim: Value, host: &str) -> Result<Value> {
    let parts = claim.as_object_mut().context("a claim is an object")?;
    parts.insert("apiVersion".into(), json!("v1"));
    parts.insert("kind".into(), json!("PersistentVolumeClaim"));
    let metadata = parts.get_mut("metadata").and_then(Value::as_object_mut).context("a claim has metadata")?;
    let mut annotations = metadata.get("annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    annotations.retain(|name, _| !name.contains("kubernetes.io/"));
    annotations.insert("volume.kubernetes.io/selected-node".into(), json!(host));
    metadata.insert("annotations".into(), annotations.into());
    Ok(claim)
}

/// A pod like the original's on the copied claim.
async fn start_copy(network: &Network, original: &Voter) -> Result<Voter> {
    let text = network.kubectl(&["get", "pod", &original.pod, "-o", "json"]).await?;
    let pod: Value = serde_json::from_str(&text)?;
    let mut spec = pod.get("spec").cloned().context("a pod has a spec")?;
    for key in ["hostname", "subdomain", "affinity", "topologySpreadConstraints"] {
        spec.as_object_mut().context("a spec is an object")?.remove(key);
    }
    for volume in spec.pointer_mut("/volumes").and_then(Value::as_array_mut).context("a pod has volumes")? {
        if let Some(claim) = volume.pointer_mut("/persistentVolumeClaim/claimName") {
            *claim = json!("copy");
        }
    }
    let mut labels = pod.pointer("/metadata/labels").cloned().context("a pod has labels")?;
    // Without the controller's labels no StatefulSet adopts it and no Service sends to it; the policies still fit.
    let kept = labels.as_object_mut().context("labels are an object")?;
    for key in ["controller-revision-hash", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"] {
        kept.remove(key);
    }
    kept.insert("althing.dev/node".into(), json!("copy"));
    let manifest =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy", "labels": labels}, "spec": spec});
    network.apply(&manifest.to_string()).await?;
    eventually("the copy has an address", 60, || async {
        let address = network.kubectl(&["get", "pod", "copy", "-o", "jsonpath={.status.podIP}"]).await?;
        ensure!(!address.is_empty(), "none yet");
        let uid = network.kubectl(&["get", "pod", "copy", "-o", "jsonpath={.metadata.uid}"]).await?;
        Ok(Voter { node: "copy".into(), pod: "copy".into(), address, uid, ..original.clone() })
    })
    .await
}
