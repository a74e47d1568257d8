//! What the pods of nodes and tiers have in common: security, probes, places.

use std::collections::BTreeMap;

use althing_crds::names;
use althing_crds::template::{Placement, Toleration as OwnToleration};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, LocalObjectReference,
    ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, Probe, SeccompProfile,
    SecurityContext, Toleration, TopologySpreadConstraint, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::matching;
use super::settings::NodeSettings;

const TOPOLOGY_MACHINE: &str = "kubernetes.io/hostname";
const TOPOLOGY_ZONE: &str = "topology.kubernetes.io/zone";
/// Readable by the pod's group only.
pub(super) const MODE_SECRET: i32 = 0o440;

/// A pod under the ServiceAccount of this name, as its settings say, apart from those that `alike` selects. What runs in it is
/// still to be said.
pub(super) fn pod(name: &str, settings: &NodeSettings, alike: BTreeMap<String, String>) -> PodSpec {
    let template = &settings.template;
    let secrets = template.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() });
    PodSpec {
        service_account_name: Some(name.to_string()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod_security()),
        image_pull_secrets: present(secrets.collect()),
        priority_class_name: template.priority_class_name.clone(),
        node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
        tolerations: present(chosen(&template.tolerations)),
        topology_spread_constraints: Some(spread(&alike)),
        affinity: affinity(settings.placement, alike),
        ..PodSpec::default()
    }
}

/// The list, unless it is empty.
fn present<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// A TCP port of a container.
pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_string()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_string()),
        ..ContainerPort::default()
    }
}

/// A volume at a path.
pub(super) fn mount(name: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount { name: name.to_string(), mount_path: path.to_string(), read_only, ..VolumeMount::default() }
}

/// One key of a ConfigMap or Secret as a file.
pub(super) fn file(key: &str, path: String) -> KeyToPath {
    KeyToPath { key: key.to_string(), path, mode: None }
}

/// What a node wants to know of its pod.
pub(super) fn own_name() -> Vec<EnvVar> {
    vec![
        from_pod("POD_NAME", "metadata.name"),
        from_pod("POD_NAMESPACE", "metadata.namespace"),
        from_pod("POD_UID", "metadata.uid"),
    ]
}

fn from_pod(name: &str, field: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector { field_path: field.to_string(), api_version: Some("v1".to_string()) };
    EnvVar {
        name: name.to_string(),
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
        value: None,
    }
}

/// A probe of the HTTP port.
pub(super) fn probe(path: &str) -> Probe {
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

/// The strictest pod security.
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

/// The strictest container security.
pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_string()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Taints that the user lets a pod ignore.
pub(super) fn chosen(own: &[OwnToleration]) -> Vec<Toleration> {
    let toleration = |toleration: &OwnToleration| Toleration {
        key: Some(toleration.key.clone()),
        operator: Some(toleration.operator.map_or("Equal", |operator| operator.as_str()).to_string()),
        value: toleration.value.clone(),
        effect: toleration.effect.map(|effect| effect.as_str().to_string()),
        toleration_seconds: None,
    };
    own.iter().map(toleration).collect()
}

/// Never two of these pods on one machine, if that is required.
fn affinity(placement: Placement, alike: BTreeMap<String, String>) -> Option<Affinity> {
    let term = PodAffinityTerm {
        topology_key: TOPOLOGY_MACHINE.to_string(),
        label_selector: Some(matching(alike)),
        ..PodAffinityTerm::default()
    };
    match placement {
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
fn spread(alike: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    [TOPOLOGY_MACHINE, TOPOLOGY_ZONE]
        .map(|topology| TopologySpreadConstraint {
            topology_key: topology.to_string(),
            max_skew: 1,
            when_unsatisfiable: "ScheduleAnyway".to_string(),
            label_selector: Some(matching(alike.clone())),
            ..TopologySpreadConstraint::default()
        })
        .into()
}
