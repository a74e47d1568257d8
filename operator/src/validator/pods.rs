//! What a pod shows: whether it is ready, whether the disruption budget counts it, and why it cannot start.

use std::time::Duration;

use althing_crds::names;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::Timestamp;

/// The pod is ready and not about to go.
pub fn is_pod_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ready =
        conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}

/// The disruption budget counts the pod: it stands for a voter that signs.
pub fn is_counted(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(names::LABEL_VOTER)).is_some_and(|value| value == "true")
}

/// The container of the node runs at this moment.
pub fn is_running(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let node = statuses.into_iter().flatten().find(|status| status.name == names::CONTAINER);
    node.and_then(|node| node.state.as_ref()).is_some_and(|state| state.running.is_some())
}

/// The pod was made longer ago than this.
pub fn is_older_than(pod: &Pod, age: Duration) -> bool {
    let made = pod.metadata.creation_timestamp.as_ref();
    let since = made.and_then(|made| Duration::try_from(Timestamp::now().duration_since(made.0)).ok());
    since.is_some_and(|since| since > age)
}

/// Why the pod cannot start, if it cannot.
pub fn failing(pod: &Pod) -> Option<String> {
    if let Some(condition) = unschedulable(pod) {
        return Some(format!("the pod finds no machine: {}", condition.message.clone().unwrap_or_default()));
    }
    let status = pod.status.as_ref()?;
    let node = status.container_statuses.as_ref()?.iter().find(|status| status.name == names::CONTAINER)?;
    if let Some(why) = ended_again(node) {
        return Some(why);
    }
    let waiting = node.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let is_harmless = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    // The kubelet's words change with each try; what is wrong does not.
    let what = match reason {
        "ErrImagePull" | "ImagePullBackOff" => "its image cannot be pulled",
        "CrashLoopBackOff" => "it ends again and again, see its logs",
        "ErrImageNeverPull" | "InvalidImageName" => "its image cannot be used",
        other => other,
    };
    let image = node.image.as_str();
    (!is_harmless).then(|| format!("the container waits: {what} ({image})"))
}

/// What the scheduler says of a pod that it has looked at and found no machine for.
pub fn unschedulable(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })
}

/// A process that failed once may do better the second time; one that failed twice and is not ready does not start.
fn ended_again(node: &ContainerStatus) -> Option<String> {
    let last = node.last_state.as_ref()?.terminated.as_ref()?;
    let fails = last.exit_code != 0 && node.restart_count >= 2 && !node.ready;
    fails.then(|| format!("the container waits: it ends again and again, see its logs ({})", node.image))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::pod;
    use super::*;

    #[test]
    fn an_image_that_cannot_be_pulled_is_named() {
        let mut pod = pod("demo-main-0");
        let waiting = "{name: node, image: a, imageID: a, ready: false, restartCount: 0, state: {waiting: {reason: ImagePullBackOff}}}";
        let status = serde_yaml::from_str(waiting).expect("parses");
        pod.status.as_mut().expect("there").container_statuses = Some(vec![status]);
        assert_eq!(failing(&pod), Some("the container waits: its image cannot be pulled (a)".to_string()));
    }
}
