//! The StatefulSet of a node: exactly one pod, which restarts only when the operator says so.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_crds::template::Toleration as OwnToleration;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, KeyToPath, PersistentVolumeClaimVolumeSource, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, SecretProjection, Toleration, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::context::NodeContext;
use super::labels::{self, matching};
use super::pods::{self, MODE_SECRET, container_security, file, mount, port, probe};
use super::settings::NodeSettings;

/// Seconds that a node gets to release its session key and to close its files.
const GRACE_PERIOD_S: i64 = 120;
const VOLUME_CONFIG: &str = "config";
const VOLUME_DATA: &str = "data";

/// The node's StatefulSet. `config_hash` is [`super::configmaps::config_hash`]: with another one the operator restarts
/// the pod when the fault budget allows it.
#[must_use]
pub fn statefulset(node: &NodeContext, config_hash: &str) -> StatefulSet {
    StatefulSet {
        metadata: node.metadata(&node.name),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(names::p2p_service(&node.name)),
            selector: matching(labels::node_selector(&node.name)),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_string()),
                rolling_update: None,
            }),
            revision_history_limit: Some(2),
            template: PodTemplateSpec { metadata: Some(pod_metadata(node, config_hash)), spec: Some(pod(node)) },
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn pod_metadata(node: &NodeContext, config_hash: &str) -> ObjectMeta {
    let mut pod_labels = node.settings.template.pod_labels.clone();
    pod_labels.extend(labels::node_labels(node));
    let mut annotations = node.settings.template.pod_annotations.clone();
    annotations.insert(names::ANNOTATION_CONFIG_HASH.to_string(), config_hash.to_string());
    if let Some(restart) = &node.restart {
        annotations.insert(names::ANNOTATION_RESTART.to_string(), restart.clone());
    }
    ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn pod(node: &NodeContext) -> PodSpec {
    PodSpec {
        termination_grace_period_seconds: Some(GRACE_PERIOD_S),
        tolerations: Some(tolerations(&node.settings.template.tolerations)),
        containers: vec![container(node)],
        volumes: Some(vec![config_volume(node), data_volume(node)]),
        ..pods::pod(&node.name, &node.settings, alike(node))
    }
}

fn container(node: &NodeContext) -> Container {
    let config_file = format!("{}/{}", names::FOLDER_CONFIG, names::FILE_CONFIG);
    Container {
        name: names::CONTAINER.to_string(),
        image: Some(node.settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_string()),
        args: Some(vec![node.role.as_str().to_string(), "--config".to_string(), config_file]),
        env: Some(pods::own_name()),
        ports: Some(vec![
            port(names::PORT_NAME_P2P, names::PORT_P2P),
            port(names::PORT_NAME_GRPC, names::PORT_GRPC),
            port(names::PORT_NAME_HTTP, names::PORT_HTTP),
        ]),
        resources: Some(guaranteed(&node.settings)),
        security_context: Some(container_security()),
        startup_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(150), ..probe("/livez") }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(6), ..probe("/livez") }),
        readiness_probe: Some(Probe { period_seconds: Some(2), failure_threshold: Some(3), ..probe("/readyz") }),
        volume_mounts: Some(vec![
            mount(VOLUME_CONFIG, names::FOLDER_CONFIG, Some(true)),
            mount(VOLUME_DATA, names::FOLDER_DATA, None),
        ]),
        ..Container::default()
    }
}

/// Requests are limits: a Guaranteed pod is evicted last.
pub(super) fn guaranteed(settings: &NodeSettings) -> ResourceRequirements {
    let amounts: BTreeMap<String, Quantity> = [
        ("cpu".to_string(), Quantity(settings.cpu.clone())),
        ("memory".to_string(), Quantity(settings.memory.clone())),
    ]
    .into();
    ResourceRequirements { requests: Some(amounts.clone()), limits: Some(amounts), claims: None }
}

/// A voter outlasts a lost machine without limit: another pod of it elsewhere could not sign before the chain or the
/// operator knows that the old one has ended.
fn tolerations(own: &[OwnToleration]) -> Vec<Toleration> {
    let outlasted = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"].map(|key| Toleration {
        key: Some(key.to_string()),
        operator: Some("Exists".to_string()),
        effect: Some("NoExecute".to_string()),
        value: None,
        toleration_seconds: None,
    });
    outlasted.into_iter().chain(pods::chosen(own)).collect()
}

/// The nodes of the same chain with the same role.
fn alike(node: &NodeContext) -> BTreeMap<String, String> {
    let mut selector = labels::group_selector(&node.group);
    selector.insert(names::LABEL_APP_COMPONENT.to_string(), node.role.as_str().to_string());
    selector
}

/// One volume for configuration, certificate and identity, so that kubelet swaps what belongs together at once.
fn config_volume(node: &NodeContext) -> Volume {
    let secret = |name: String, items: Vec<KeyToPath>| VolumeProjection {
        secret: Some(SecretProjection { name, items: Some(items), optional: None }),
        ..VolumeProjection::default()
    };
    let config = ConfigMapProjection {
        name: node.name.clone(),
        items: Some(vec![file(names::FILE_CONFIG, names::FILE_CONFIG.to_string())]),
        optional: None,
    };
    let members = (!node.p2p.trusted_authorities.is_empty()).then_some(names::FILE_MEMBERS);
    let certificate = ["ca.crt", "tls.crt", "tls.key"].into_iter().chain(members);
    let sources = vec![
        VolumeProjection { config_map: Some(config), ..VolumeProjection::default() },
        secret(names::tls_secret(&node.name), certificate.map(|key| file(key, format!("tls/{key}"))).collect()),
        secret(
            node.identity_secret.clone(),
            vec![file(names::FILE_IDENTITY, format!("identity/{}", names::FILE_IDENTITY))],
        ),
    ];
    Volume {
        name: VOLUME_CONFIG.to_string(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: Some(MODE_SECRET) }),
        ..Volume::default()
    }
}

fn data_volume(node: &NodeContext) -> Volume {
    let source = PersistentVolumeClaimVolumeSource { claim_name: names::claim(&node.name), read_only: None };
    Volume { name: VOLUME_DATA.to_string(), persistent_volume_claim: Some(source), ..Volume::default() }
}
