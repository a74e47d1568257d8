//! How a node's pod and volume are made: the part of the spec that networks, groups and nodes share.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;
use crate::schemas;

/// How a node's pod and volume are made. What is unset here is taken from the group, then from the network, then from
/// the operator's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.podLabels) || self.podLabels.all(key, !key.startsWith('althing.dev/') && !key.startsWith('app.kubernetes.io/'))")
        .message("podLabels: keys under althing.dev/ and app.kubernetes.io/ belong to the operator"),
    validation = Rule::new("!has(self.podAnnotations) || self.podAnnotations.all(key, !key.startsWith('althing.dev/'))")
        .message("podAnnotations: keys under althing.dev/ belong to the operator")
)]
pub struct NodeTemplate {
    /// Image of the node with a tag other than `latest`, or with a digest. Going back to an older tag rolls back. Unset:
    /// the one that the operator brings, as it was when the nodes were made (`status.defaultImage` of the group or node);
    /// a newer operator restarts none of them. To have its image, name it, or give `althing.dev/restart` a new value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^\\s@]+(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$') && !self.endsWith(':latest')")
        .message("image must end with a tag other than latest, or with a sha256 digest"))]
    pub image: Option<String>,
    /// Names of Secrets in the same namespace that hold credentials for the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Vec<String>,
    /// CPU and memory of the node. Requests and limits are the same, so that the node is evicted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The volume that holds the chain's data and the session key.
    #[serde(default)]
    pub storage: Storage,
    /// How the voters of a chain are kept apart: `Preferred` spreads them over machines and zones where it can,
    /// `Required` never puts two on one machine and lets a voter wait for a free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Labels that a Kubernetes node must have to run this node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that this node's pod may ignore, beside not-ready and unreachable, which it always outlasts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the pod. It must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Labels added to the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::label_map")]
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations added to the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::annotation_map")]
    pub pod_annotations: BTreeMap<String, String>,
    /// When a node takes the state of a late height from its peers instead of executing all blocks.
    #[serde(default, skip_serializing_if = "StateSync::is_unset")]
    pub state_sync: StateSync,
    /// How much the node logs, `info` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

impl NodeTemplate {
    /// This template with everything unset taken from `defaults`. Maps are merged by key, lists are taken whole.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        Self {
            image: self.image.clone().or_else(|| defaults.image.clone()),
            image_pull_secrets: list_over(&self.image_pull_secrets, &defaults.image_pull_secrets),
            resources: self.resources.clone().or_else(|| defaults.resources.clone()),
            storage: self.storage.over(&defaults.storage),
            placement: self.placement.or(defaults.placement),
            node_selector: map_over(&self.node_selector, &defaults.node_selector),
            tolerations: list_over(&self.tolerations, &defaults.tolerations),
            priority_class_name: self.priority_class_name.clone().or_else(|| defaults.priority_class_name.clone()),
            pod_labels: map_over(&self.pod_labels, &defaults.pod_labels),
            pod_annotations: map_over(&self.pod_annotations, &defaults.pod_annotations),
            state_sync: StateSync { after_blocks: self.state_sync.after_blocks.or(defaults.state_sync.after_blocks) },
            log_level: self.log_level.or(defaults.log_level),
        }
    }
}

/// The image of nodes whose spec names none. It is taken from the operator once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultImage {
    /// The image. A newer operator does not change it; naming one in the spec, or a new value of `althing.dev/restart`,
    /// does.
    #[schemars(length(max = 512))]
    pub image: String,
    /// SHA-256 of the value that `althing.dev/restart` had then; hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub restart_hash: Option<String>,
}

fn list_over<T: Clone>(own: &[T], defaults: &[T]) -> Vec<T> {
    if own.is_empty() { defaults.to_vec() } else { own.to_vec() }
}

fn map_over(own: &BTreeMap<String, String>, defaults: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut merged = defaults.clone();
    merged.extend(own.clone());
    merged
}

/// CPU and memory of the node. Requests and limits are the same, so that the node is evicted last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// CPU, for example `500m` or `2`.
    pub cpu: Quantity,
    /// Memory, for example `512Mi`.
    pub memory: Quantity,
}

/// The volume of a node. It is made once and never remade; it is kept when the node is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)")
        .message("storage.storageClassName cannot be changed: volumes are made once"),
    validation = Rule::new("has(self.accessMode) == has(oldSelf.accessMode) && (!has(self.accessMode) || self.accessMode == oldSelf.accessMode)")
        .message("storage.accessMode cannot be changed: volumes are made once")
)]
pub struct Storage {
    /// Size of the volume, for example `20Gi`. It can grow where the StorageClass allows it, never shrink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// StorageClass of the volume; unset takes the cluster's default. It must exist. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Access mode of the volume, `ReadWriteOncePod` if unset. It cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Say true only if this storage cuts off a machine before it lets another one write the volume (fencing). A
    /// validator then continues after the loss of its machine without waiting for proof that the old one has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fencing: Option<bool>,
    /// How many of the newest blocks a node keeps at least; all if unset. Once all nodes have removed a block, nobody can
    /// execute the chain from genesis any more; what proofs to light clients need is always kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 128))]
    pub keep_blocks: Option<i64>,
}

impl Storage {
    /// This storage with everything unset taken from `defaults`.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        Self {
            size: self.size.clone().or_else(|| defaults.size.clone()),
            storage_class_name: self.storage_class_name.clone().or_else(|| defaults.storage_class_name.clone()),
            access_mode: self.access_mode.or(defaults.access_mode),
            fencing: self.fencing.or(defaults.fencing),
            keep_blocks: self.keep_blocks.or(defaults.keep_blocks),
        }
    }
}

/// When a node takes the state of a late height from its peers instead of executing all blocks. Every piece is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateSync {
    /// When it is more than so many blocks behind. Unset: observers at 1000, validators only when their peers do not keep
    /// the blocks any more that they need.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 32))]
    pub after_blocks: Option<i64>,
}

impl StateSync {
    /// Nobody has said anything.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}

/// Access mode of the volume, `ReadWriteOncePod` if unset. It cannot be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// One pod in the whole cluster.
    #[default]
    ReadWriteOncePod,
    /// One machine; for storage that does not know `ReadWriteOncePod`.
    ReadWriteOnce,
}

impl AccessMode {
    /// The name in a claim.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteOnce => "ReadWriteOnce",
        }
    }
}

/// How the voters of a chain are kept apart: `Preferred` spreads them over machines and zones where it can, `Required`
/// never puts two on one machine and lets a voter wait for a free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Placement {
    /// Apart where possible.
    #[default]
    Preferred,
    /// Never two on one machine; over zones where possible.
    Required,
}

/// How much the node logs, `info` if unset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only failures.
    Error,
    /// Failures and what looks wrong.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// What happens, with reasons.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name in the node's configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A taint that the pod may ignore; the fields mean what they mean in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.operator) || self.operator != 'Exists' || !has(self.value)")
    .message("tolerations: operator Exists takes no value"))]
pub struct Toleration {
    /// Key of the taint.
    #[schemars(length(min = 1, max = 316))]
    pub key: String,
    /// How key and value are compared, `Equal` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint for `Equal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// Effect of the taint; unset means every effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// How key and value are compared, `Equal` if unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value are the same.
    Equal,
    /// The key is there, with any value.
    Exists,
}

impl TolerationOperator {
    /// The name in a pod.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::Exists => "Exists",
        }
    }
}

/// Effect of the taint; unset means every effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// Running pods leave too.
    NoExecute,
}

impl TaintEffect {
    /// The name in a pod.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unset_comes_from_the_defaults() {
        let defaults: NodeTemplate = serde_yaml::from_str(
            "{image: 'a:1', storage: {size: 1Gi, storageClassName: slow}, podLabels: {team: a, tier: x}}",
        )
        .expect("parses");
        let own: NodeTemplate =
            serde_yaml::from_str("{image: 'a:2', storage: {size: 2Gi}, podLabels: {team: b}}").expect("parses");
        let expected: NodeTemplate = serde_yaml::from_str(
            "{image: 'a:2', storage: {size: 2Gi, storageClassName: slow}, podLabels: {team: b, tier: x}}",
        )
        .expect("parses");
        assert_eq!(own.over(&defaults), expected);
    }
}
