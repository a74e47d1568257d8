//! How many pods a tier has: bounds and pace of its HorizontalPodAutoscaler. Voters have none.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// CPU use that is aimed at when nobody says so, in percent of the request.
pub const TARGET_CPU_DEFAULT: i32 = 70;
/// Requests a second of each gateway, in the custom metrics API.
pub const METRIC_REQUESTS: &str = "althing_gateway_requests_per_second";
/// Open connections of each gateway, in the custom metrics API.
pub const METRIC_CONNECTIONS: &str = "althing_gateway_connections";
/// Pending transactions of a network, in the external metrics API.
pub const METRIC_QUEUE: &str = "althing_pending_transactions";
/// The label of that metric that names the network: `althing.dev/network` as Prometheus writes it.
pub const METRIC_LABEL_NETWORK: &str = "althing_dev_network";

/// Lets a HorizontalPodAutoscaler decide how many pods there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas")
    .message("autoscaling.minReplicas must not be larger than autoscaling.maxReplicas"))]
pub struct Autoscaling {
    /// Never fewer pods than this.
    #[schemars(range(min = 1, max = 100))]
    pub min_replicas: i32,
    /// Never more pods than this.
    #[schemars(range(min = 1, max = 100))]
    pub max_replicas: i32,
    /// CPU use of all pods together that is aimed at, in percent of what they request; 70 if unset. The cluster must
    /// serve the metrics API (metrics-server).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub target_cpu_utilization: Option<i32>,
    /// Requests a second of one gateway that are aimed at beside CPU: the metric `althing_gateway_requests_per_second` of
    /// pods. The cluster must serve the custom metrics API (docs/autoscaling.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_requests_per_second: Option<i32>,
    /// Open connections of one gateway that are aimed at beside CPU: the metric `althing_gateway_connections` of pods. The
    /// cluster must serve the custom metrics API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_connections: Option<i32>,
    /// Pending transactions of the chain for each observer that are aimed at beside CPU, for example 1000: the metric
    /// `althing_pending_transactions`. The cluster must serve the external metrics API.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub target_queue_depth: Option<i32>,
    /// Pace of adding pods; unset, Kubernetes decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_up: Option<ScalePace>,
    /// Pace of removing pods; unset, Kubernetes decides: after five minutes of little use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_down: Option<ScalePace>,
}

/// Pace of adding or removing pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.podsMax) == has(self.periodSeconds)")
    .message("podsMax and periodSeconds go together: at most podsMax pods within periodSeconds"))]
pub struct ScalePace {
    /// How long the wish for another number must hold before it is followed, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub stabilization_window_seconds: Option<i32>,
    /// At most this many pods are added or removed within `periodSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub pods_max: Option<i32>,
    /// Length of the period that `podsMax` counts for, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_800))]
    pub period_seconds: Option<i32>,
}

/// What runs of a tier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierStatus {
    /// Pods that serve now.
    pub ready: i32,
    /// Pods that there shall be now: what the spec or the HorizontalPodAutoscaler says.
    pub desired: i32,
    /// Where clients in the cluster reach it, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 320))]
    pub address: Option<String>,
    /// What it waits for, if it is not as it shall be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}
