//! The StatefulSet of a node: exactly one pod, which restarts only when the operator says so.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_crds::template::{Placement, Toleration as OwnToleration};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
    KeyToPath, LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, ResourceRequirements,
    SeccompProfile, SecretProjection, SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::context::NodeContext;
use super::labels::{self, matching};

/// Seconds that a node gets to release its session key and to close its files.
const GRACE_PERIOD_S: i64 = 120;
const TOPOLOGY_MACHINE: &str = "kubernetes.io/hostname";
const TOPOLOGY_ZONE: &str = "topology.kubernetes.io/zone";
const VOLUME_CONFIG: &str = "config";
const VOLUME_DATA: &str = "data";
/// Readable by the node's group only.
const MODE_SECRET: i32 = 0o440;

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
    let template = &node.settings.template;
    let secrets = template.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        service_account_name: Some(node.name.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_PERIOD_S),
        security_context: Some(pod_security()),
        image_pull_secrets: present(secrets.collect()),
        priority_class_name: template.priority_class_name.clone(),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: Some(tolerations(&template.tolerations)),
        affinity: affinity(node),
        topology_spread_constraints: Some(spread(node)),
        containers: vec![container(node)],
        volumes: Some(vec![config_volume(node), data_volume(node)]),
        ..PodSpec::default()
    }
}

fn present<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn container(node: &NodeContext) -> Container {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_string()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_string()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_string(),
        mount_path: path.to_string(),
        read_only,
        ..VolumeMount::default()
    };
    let config_file = format!("{}/{}", names::FOLDER_CONFIG, names::FILE_CONFIG);
    Container {
        name: names::CONTAINER.to_string(),
        image: Some(node.settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_string()),
        args: Some(vec![node.role.as_str().to_string(), "--config".to_string(), config_file]),
        env: Some(vec![
            from_pod("POD_NAME", "metadata.name"),
            from_pod("POD_NAMESPACE", "metadata.namespace"),
            from_pod("POD_UID", "metadata.uid"),
        ]),
        ports: Some(vec![
            port(names::PORT_NAME_P2P, names::PORT_P2P),
            port(names::PORT_NAME_GRPC, names::PORT_GRPC),
            port(names::PORT_NAME_HTTP, names::PORT_HTTP),
        ]),
        resources: Some(resources(node)),
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

fn from_pod(name: &str, field: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { field_path: field.to_string(), api_version: Some("v1".to_string()) };
    EnvVar {
        name: name.to_string(),
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
        value: None,
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_string()),
            port: IntOrString::String(names::PORT_NAME_HTTP.to_string()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// Requests are limits: a Guaranteed pod is evicted last.
fn resources(node: &NodeContext) -> ResourceRequirements {
    let amounts: BTreeMap<String, Quantity> = [
        ("cpu".to_string(), Quantity(node.settings.cpu.clone())),
        ("memory".to_string(), Quantity(node.settings.memory.clone())),
    ]
    .into();
    ResourceRequirements { requests: Some(amounts.clone()), limits: Some(amounts), claims: None }
}

fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(names::USER),
        run_as_group: Some(names::USER),
        fs_group: Some(names::USER),
        fs_group_change_policy: Some("OnRootMismatch".to_string()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_string(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_string()]), add: None }),
        ..SecurityContext::default()
    }
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
    let chosen = own.iter().map(|toleration| Toleration {
        key: Some(toleration.key.clone()),
        operator: Some(toleration.operator.map_or("Equal", |operator| operator.as_str()).to_string()),
        value: toleration.value.clone(),
        effect: toleration.effect.map(|effect| effect.as_str().to_string()),
        toleration_seconds: None,
    });
    outlasted.into_iter().chain(chosen).collect()
}

/// The nodes of the same chain with the same role.
fn alike(node: &NodeContext) -> BTreeMap<String, String> {
    let mut selector = labels::group_selector(&node.group);
    selector.insert(names::LABEL_APP_COMPONENT.to_string(), node.role.as_str().to_string());
    selector
}

fn affinity(node: &NodeContext) -> Option<Affinity> {
    let term = PodAffinityTerm {
        topology_key: TOPOLOGY_MACHINE.to_string(),
        label_selector: Some(matching(alike(node))),
        ..PodAffinityTerm::default()
    };
    match node.settings.placement {
        Placement::Preferred => None,
        Placement::Required => Some(Affinity {
            pod_anti_affinity: Some(PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: Some(vec![term]),
                preferred_during_scheduling_ignored_during_execution: None,
            }),
            ..Affinity::default()
        }),
    }
}

/// Even over machines and zones where possible. Zones are never a condition: where machines carry no zone label, a
/// condition on it would keep every pod from starting.
fn spread(node: &NodeContext) -> Vec<TopologySpreadConstraint> {
    [TOPOLOGY_MACHINE, TOPOLOGY_ZONE]
        .map(|topology| TopologySpreadConstraint {
            topology_key: topology.to_string(),
            max_skew: 1,
            when_unsatisfiable: "ScheduleAnyway".to_string(),
            label_selector: Some(matching(alike(node))),
            ..TopologySpreadConstraint::default()
        })
        .into()
}

/// One volume for configuration, certificate and identity, so that kubelet swaps what belongs together at once.
fn config_volume(node: &NodeContext) -> Volume {
    let file = |key: &str, folder: &str| KeyToPath { key: key.to_string(), path: format!("{folder}{key}"), mode: None };
    let secret = |name: String, items: Vec<KeyToPath>| VolumeProjection {
        secret: Some(SecretProjection { name, items: Some(items), optional: None }),
        ..VolumeProjection::default()
    };
    let config = ConfigMapProjection {
        name: node.name.clone(),
        items: Some(vec![file(names::FILE_CONFIG, "")]),
        optional: None,
    };
    let certificate = ["ca.crt", "tls.crt", "tls.key"].map(|key| file(key, "tls/"));
    let sources = vec![
        VolumeProjection { config_map: Some(config), ..VolumeProjection::default() },
        secret(names::tls_secret(&node.name), certificate.into()),
        secret(node.identity_secret.clone(), vec![file(names::FILE_IDENTITY, "identity/")]),
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
