//! The observers of a network: nodes that follow a chain, answer reads, and never vote.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::scaling::Autoscaling;
use crate::template::NodeTemplate;

/// Most observers of a network: each has an identity of its own, all of which are made beforehand.
pub const OBSERVERS_MAX: u16 = 16;
/// Observers when nobody says how many.
pub const OBSERVERS_DEFAULT: i32 = 2;

/// Nodes that follow one chain with its whole state and answer reads. They have no session key and no power, and count
/// in no quorum; any of them can be lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.replicas) && has(self.autoscaling))")
        .message("replicas and autoscaling exclude each other: with autoscaling the HorizontalPodAutoscaler owns the number"),
    validation = Rule::new("!has(self.autoscaling) || self.autoscaling.maxReplicas <= 16")
        .message("observers: autoscaling.maxReplicas is at most 16"),
    validation = Rule::new("!has(self.autoscaling) || !(has(self.autoscaling.targetRequestsPerSecond) || has(self.autoscaling.targetConnections))")
        .message("observers: autoscaling.targetRequestsPerSecond and targetConnections are for the gateway")
)]
pub struct Observers {
    /// Name of the group whose chain they follow; may be left out where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub group: Option<String>,
    /// How many. Unset without `autoscaling`: 2 at first, then the number that is there is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler decide how many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How their pods are made; what is unset is taken from `spec.node`. Their volumes live as long as their pods and
    /// hold copies only, so `storage.size` may shrink too, and `storage.fencing` means nothing here.
    #[serde(default)]
    pub node: NodeTemplate,
}
