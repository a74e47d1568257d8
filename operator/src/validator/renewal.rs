//! Restarts an observer whose pod runs a former spec. It has no vote, so that no budget is asked; voters are restarted by
//! their group.

use althing_crds::names;
use althing_crds::validator::Role;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Preconditions;
use kube::{Api, Resource, ResourceExt};

use super::observe::Observed;
use crate::context::Context;
use crate::error::Error;
use crate::events::Draft;
use crate::kinds::{Child, Kind, Owner};

/// Evicts exactly the pod that was seen; true when it did.
pub async fn advance(context: &Context, owner: &Owner, observed: &Observed, children: &[Child]) -> Result<bool, Error> {
    let (Role::Observer, Some(pod)) = (observed.node.spec.role, &observed.pod) else { return Ok(false) };
    if pod.metadata.deletion_timestamp.is_some() || is_current(pod, children) {
        return Ok(false);
    }
    if !is_template_seen(context, owner).await? {
        return Ok(false);
    }
    let preconditions = Preconditions { uid: pod.uid(), resource_version: pod.resource_version() };
    context.shared.writer.evict(&owner.namespace, &pod.name_any(), preconditions).await?;
    let note = format!("{} is restarted: its spec has changed", owner.name);
    context.publish(&observed.node.object_ref(&()), &[Draft::normal("RestartBegun", note)]).await;
    Ok(true)
}

/// The controller of StatefulSets makes the next pod from the newest template, and not once more from the former one. Its
/// word wakes the node.
async fn is_template_seen(context: &Context, owner: &Owner) -> Result<bool, Error> {
    let api: Api<StatefulSet> = Api::namespaced(context.shared.client.clone(), &owner.namespace);
    let what = format!("StatefulSet {}/{}", owner.namespace, owner.name);
    let set = api.get_opt(&owner.name).await.map_err(Error::read(what))?;
    Ok(set.is_some_and(|set| {
        let seen = set.status.and_then(|status| status.observed_generation);
        seen.is_some() && seen == set.metadata.generation
    }))
}

/// The pod is of the template that the StatefulSet has now.
fn is_current(pod: &Pod, children: &[Child]) -> bool {
    let set = children.iter().find(|child| child.kind == Kind::StatefulSet);
    let annotations = set.and_then(|set| set.body.pointer("/spec/template/metadata/annotations"));
    let wanted = annotations.and_then(|all| all.get(names::ANNOTATION_CONFIG_HASH)).and_then(|hash| hash.as_str());
    pod.annotations().get(names::ANNOTATION_CONFIG_HASH).map(String::as_str) == wanted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_of_another_template_is_not_current() {
        let pod = |hash: &str| -> Pod {
            let annotations = json!({ names::ANNOTATION_CONFIG_HASH: hash });
            serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).expect("a pod")
        };
        let body = json!({ "spec": { "template": { "metadata": { "annotations": { names::ANNOTATION_CONFIG_HASH: "b" } } } } });
        let children = [Child { kind: Kind::StatefulSet, name: "a".to_string(), body }];
        assert!(is_current(&pod("b"), &children));
        assert!(!is_current(&pod("a"), &children));
    }
}
