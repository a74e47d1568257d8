//! Answers a node that asks about its claim or the former owner of its key, from live reads only.

use althing_crds::{ValidatorNodeSpec, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};

use super::observe::Observed;
use crate::chain::grants::{ClaimRead, ContainerRead, Ended, Live, PodRead, VolumeRead, decide};
use crate::chain::nodes::{question, start_grant};
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;

/// What the kubelet or the API server writes when nobody knows how a container ended.
const UNKNOWN_END: &str = "ContainerStatusUnknown";
/// Name of the data volume in the pod.
const VOLUME_DATA: &str = "data";

/// What counts of the spec's word that its storage cuts off a machine that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// It counts.
    AsDeclared,
    /// It does not: the spec is refused, and may say it for the first time.
    NotBelieved,
}

impl Fencing {
    fn is_declared(self, spec: &ValidatorNodeSpec) -> bool {
        match self {
            Self::AsDeclared => spec.node.storage.fencing.unwrap_or(false),
            Self::NotBelieved => false,
        }
    }
}

/// Sends a grant if there is anything to say.
pub async fn answer(context: &Context, observed: &Observed, fencing: Fencing) -> Result<(), Error> {
    let (Some(asked), Some(connection)) = (&observed.asked, &observed.connection) else { return Ok(()) };
    let question = question(asked);
    if !question.is_asking && !question.lacks_claim {
        return Ok(());
    }
    let Some(live) = read(context, observed, fencing).await? else { return Ok(()) };
    let Some(grant) = decide(&question, &live) else { return Ok(()) };
    let sent = connection.client.grant_start(start_grant(&grant, asked)).await;
    match connection.counted("GrantStart", sent) {
        // On a new volume nobody had to give way.
        Ok(answer) if answer.cleared && grant.ended == Ended::Unknown => {
            tracing::info!(node = %observed.node.name_any(), pod = %grant.pod_uid, "the node knows its claim");
        }
        Ok(answer) if answer.cleared => {
            let note = format!("pod {} may use the session key on its volume ({:?})", grant.pod_uid, grant.ended);
            let drafts = [Draft::normal("StartGranted", note)];
            context.publish(&observed.node.object_ref(&()), &drafts).await;
        }
        Ok(answer) => tracing::info!(node = %observed.node.name_any(), reason = %answer.reason, "grant was not enough"),
        Err(error) => tracing::info!(node = %observed.node.name_any(), %error, "grant not delivered, trying again"),
    }
    Ok(())
}

/// Everything that the decision needs, from the API server itself.
async fn read(context: &Context, observed: &Observed, fencing: Fencing) -> Result<Option<Live>, Error> {
    let client = &context.shared.client;
    let namespace = observed.node.namespace().unwrap_or_default();
    let name = observed.node.name_any();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let claim_name = names::claim(&name);
    let selector = ListParams::default().labels(&format!("{}={name}", names::LABEL_NODE));
    let (listed, claim) = tokio::try_join!(
        async { pods.list(&selector).await.map_err(Error::read(format!("Pods of {namespace}/{name}"))) },
        async {
            claims
                .get_opt(&claim_name)
                .await
                .map_err(Error::read(format!("PersistentVolumeClaim {namespace}/{claim_name}")))
        },
    )?;
    let pod_name = names::pod(&name);
    let Some(pod) = listed.items.iter().find(|pod| pod.name_any() == pod_name) else { return Ok(None) };
    let Some(claim) = claim.filter(|claim| claim.uid().as_deref() == observed.recorded_claim()) else {
        return Ok(None);
    };
    let volume = volume(context, &claim).await?;
    Ok(Some(Live {
        pod: pod_read(pod),
        claim: claim_read(&claim),
        volume,
        is_declared_fencing: fencing.is_declared(&observed.node.spec),
        pods: listed.items.iter().map(pod_read).collect(),
    }))
}

async fn volume(context: &Context, claim: &PersistentVolumeClaim) -> Result<VolumeRead, Error> {
    let Some(name) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) else {
        return Ok(VolumeRead::Other);
    };
    let api: Api<PersistentVolume> = Api::all(context.shared.client.clone());
    let found = api.get_opt(&name).await;
    let volume = match found {
        Ok(volume) => volume,
        // Without the right to read volumes nothing is known of this one.
        Err(kube::Error::Api(status)) if status.code == 403 => None,
        Err(error) => return Err(Error::read(format!("PersistentVolume {name}"))(error)),
    };
    let Some(spec) = volume.and_then(|volume| volume.spec) else { return Ok(VolumeRead::Other) };
    let is_shared =
        spec.nfs.is_some() || spec.cephfs.is_some() || spec.azure_file.is_some() || spec.glusterfs.is_some();
    Ok(if spec.local.is_some() || spec.host_path.is_some() {
        VolumeRead::NodeLocal
    } else if is_shared {
        VolumeRead::SharedFiles
    } else {
        VolumeRead::Other
    })
}

fn pod_read(pod: &Pod) -> PodRead {
    let claim = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).and_then(|volumes| {
        let data = volumes.iter().find(|volume| volume.name == VOLUME_DATA)?;
        data.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone())
    });
    PodRead {
        uid: pod.uid().unwrap_or_default(),
        is_deleting: pod.metadata.deletion_timestamp.is_some(),
        claim,
        container: container_read(pod),
    }
}

fn container_read(pod: &Pod) -> ContainerRead {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let node = statuses.and_then(|all| all.iter().find(|status| status.name == names::CONTAINER));
    let terminated = node.and_then(|status| status.state.as_ref()).and_then(|state| state.terminated.as_ref());
    match terminated {
        Some(end) if end.reason.as_deref() == Some(UNKNOWN_END) || end.finished_at.is_none() => ContainerRead::Lost,
        Some(_) => ContainerRead::Terminated,
        None => ContainerRead::NotTerminated,
    }
}

fn claim_read(claim: &PersistentVolumeClaim) -> ClaimRead {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
    let is_single = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
    ClaimRead {
        name: claim.name_any(),
        uid: claim.uid().unwrap_or_default(),
        is_single_writer: !modes.is_empty() && modes.iter().all(is_single),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::fixtures;

    #[test]
    fn a_refused_spec_does_not_make_storage_fence() {
        let mut spec = fixtures::node("demo-main-0").spec;
        assert!(!Fencing::AsDeclared.is_declared(&spec));
        spec.node.storage.fencing = Some(true);
        assert!(Fencing::AsDeclared.is_declared(&spec));
        assert!(!Fencing::NotBelieved.is_declared(&spec));
    }
}
