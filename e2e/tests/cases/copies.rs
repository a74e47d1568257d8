//! A copy of a voter's volume, started beside the living voter with the same identity.

use althing_e2e::dial::Access;
use althing_e2e::network::{Network, Voter, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use node_api::proto::{OwnerEnded, StartGrant, VolumeKind};
use serde_json::{Value, json};

use super::running_alpha;
use crate::Scene;

/// The copy has the identity and the session key, and a grant that somebody fakes for it; it signs nothing, and the
/// living voter stays.
pub async fn a_copied_volume_never_signs(scene: &Scene) -> Result<()> {
    let network = running_alpha(scene).await?;
    let watch = Watch::start(&network).await?;
    let original = network.voters().await?.into_iter().next().context("a voter exists")?;
    make_claim_with_copy(&network, &original).await?;
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

/// A claim on the same Kubernetes node, bound by a pod that ends at once, filled with what the original holds.
async fn make_claim_with_copy(network: &Network, original: &Voter) -> Result<()> {
    let manifest = json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "copy"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "binder"}, "spec": {
                "restartPolicy": "Never", "nodeName": original.host.clone(),
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "copy"}}],
                "containers": [{"name": "binder", "image": "docker.io/local/busybox:1", "command": ["true"],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}]});
    let annotated = with_selected_node(manifest, &original.host);
    network.apply(&annotated.to_string()).await?;
    eventually("the claim is bound and its pod has ended", 60, || async {
        let phase = network.kubectl(&["get", "pod", "binder", "-o", "jsonpath={.status.phase}"]).await?;
        ensure!(phase == "Succeeded", "the pod is {phase}");
        Ok(())
    })
    .await?;
    let from = network.claim_folder(&format!("{}-data", original.node)).await?;
    let to = network.claim_folder("copy").await?;
    // Stopped while it is copied, as a snapshot of the volume would find it: all files of one moment.
    let script = format!(
        "pids=$(grep -l 'pod{uid}' /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3)
         kill -STOP $pids && cp -a {from}/. {to}/; code=$?; kill -CONT $pids; exit $code",
        uid = original.uid,
        from = from.display(),
        to = to.display(),
    );
    althing_e2e::process::Call::new("sh", &["-c", &script]).stdout().await?;
    Ok(())
}

/// Tells the provisioner which node to use: a pod with a node name bypasses the scheduler that normally does.
fn with_selected_node(mut manifest: Value, host: &str) -> Value {
    if let Some(metadata) = manifest.pointer_mut("/items/0/metadata").and_then(Value::as_object_mut) {
        metadata.insert("annotations".into(), json!({"volume.kubernetes.io/selected-node": host}));
    }
    manifest
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
