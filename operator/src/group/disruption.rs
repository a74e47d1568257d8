//! Performs planned restarts: written down first, then through the Eviction API, exactly the pod that was meant.

use althing_crds::ConsensusGroupStatus;
use althing_crds::group::Disruption;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Resource, ResourceExt};

use super::observe::{Observed, Voter};
use super::rollout::{Begun, Member, MemberPod, Move, decide};
use super::{ceremony, desired};
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::kinds::Owner;
use crate::parts::Installation;
use crate::validator::status::{failing, is_pod_ready};

/// Why pods are restarted, in `status.disruption`.
const REASON: &str = "SpecChanged";

/// Takes the next move; it answers what is waited for.
pub async fn advance(context: &Context, owner: &Owner, observed: &mut Observed) -> Result<Option<String>, Error> {
    let installation = context.installation();
    let members: Vec<Member> = observed.voters.iter().map(|voter| member(voter, &installation)).collect();
    let begun = observed
        .status()
        .and_then(|status| status.disruption.as_ref())
        .map(|disruption| Begun { node: disruption.node.clone(), pod_uid: disruption.pod_uid.clone() });
    match decide(&members, begun.as_ref(), observed.facts.as_ref()) {
        Move::Nothing => Ok(None),
        Move::Wait(why) => Ok(Some(why)),
        Move::Finish => {
            ceremony::save(context, observed, |status| status.disruption = None).await?;
            let note = format!("{} runs the new spec", begun.map(|begun| begun.node).unwrap_or_default());
            tell(context, observed, "RestartFinished", note).await;
            Ok(Some("the next voter follows".to_string()))
        }
        Move::Begin(index) => {
            let Some((name, uid)) =
                members.get(index).and_then(|member| Some((member.name.clone(), member.pod.as_ref()?.uid.clone())))
            else {
                return Ok(None);
            };
            ceremony::save(context, observed, |status| write_down(status, &name, &uid)).await?;
            tell(context, observed, "RestartBegun", format!("{name} is restarted: its spec has changed")).await;
            evict(context, owner, observed, index).await
        }
        Move::Evict(index) => evict(context, owner, observed, index).await,
    }
}

fn write_down(status: &mut ConsensusGroupStatus, node: &str, pod_uid: &str) {
    status.disruption = Some(Disruption {
        node: node.to_string(),
        pod_uid: pod_uid.to_string(),
        reason: REASON.to_string(),
        since: Timestamp::now().to_string(),
    });
}

fn member(voter: &Voter, installation: &Installation) -> Member {
    let is_observed = voter.node.as_ref().is_some_and(|node| {
        node.status.as_ref().and_then(|status| status.observed_generation) == node.metadata.generation
    });
    let pod = match (&voter.node, &voter.pod) {
        (Some(node), Some(pod)) => Some(MemberPod {
            uid: pod.uid().unwrap_or_default(),
            is_current: desired::is_up_to_date(node, pod, installation),
            is_deleting: pod.metadata.deletion_timestamp.is_some(),
            is_failing: failing(pod).is_some(),
            is_ready: is_pod_ready(pod),
        }),
        (Some(_) | None, _) => None,
    };
    Member { name: voter.name.clone(), identity: voter.identity().map(str::to_string), is_observed, pod }
}

/// Evicts exactly the pod that was written down, as it is now.
async fn evict(context: &Context, owner: &Owner, observed: &Observed, index: usize) -> Result<Option<String>, Error> {
    let Some(disruption) = observed.status().and_then(|status| status.disruption.as_ref()) else { return Ok(None) };
    let Some(voter) = observed.voters.get(index) else { return Ok(None) };
    let name = althing_crds::names::pod(&voter.name);
    let what = format!("Pod {}/{name}", owner.namespace);
    let api: Api<Pod> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let live = api.get_metadata_opt(&name).await.map_err(Error::read(&what))?;
    let Some(live) = live.filter(|live| live.metadata.uid.as_deref() == Some(disruption.pod_uid.as_str())) else {
        return Ok(Some(format!("the pod of {} is gone", voter.name)));
    };
    let preconditions =
        Preconditions { uid: live.metadata.uid.clone(), resource_version: live.metadata.resource_version.clone() };
    let params = EvictParams {
        delete_options: Some(DeleteParams::default().preconditions(preconditions)),
        ..EvictParams::default()
    };
    match context.shared.writer.write("Pod", "evict", &what, api.evict(&name, &params)).await {
        Ok(_) => Ok(Some(format!("the pod of {} is stopping", voter.name))),
        Err(Error::Write { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == 429) => {
            Ok(Some(format!("the disruption budget does not let {} stop now", voter.name)))
        }
        Err(error) => Err(error),
    }
}

async fn tell(context: &Context, observed: &Observed, reason: &str, note: String) {
    context.publish(&observed.group.object_ref(&()), &[Draft::normal(reason, note)]).await;
}
