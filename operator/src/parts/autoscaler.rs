//! The HorizontalPodAutoscaler of a tier: it alone owns the number of pods.

use althing_crds::scaling::{
    Autoscaling, METRIC_CONNECTIONS, METRIC_LABEL_NETWORK, METRIC_QUEUE, METRIC_REQUESTS, ScalePace, TARGET_CPU_DEFAULT,
};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    PodsMetricSource, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::labels::matching;
use super::tiers::TierContext;

/// The autoscaler of the workload of this kind that has the tier's name.
#[must_use]
pub fn autoscaler(tier: &TierContext, autoscaling: &Autoscaling, kind: &str) -> HorizontalPodAutoscaler {
    HorizontalPodAutoscaler {
        metadata: tier.metadata(&tier.name),
        spec: HorizontalPodAutoscalerSpec {
            min_replicas: Some(autoscaling.min_replicas),
            max_replicas: autoscaling.max_replicas,
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_string()),
                kind: kind.to_string(),
                name: tier.name.clone(),
            },
            metrics: Some(metrics(tier, autoscaling)),
            behavior: behavior(autoscaling),
        },
        status: None,
    }
}

/// CPU always: the autoscaler follows the metric that asks for the most pods, so it still grows while another one is not
/// served.
fn metrics(tier: &TierContext, autoscaling: &Autoscaling) -> Vec<MetricSpec> {
    let cpu = ResourceMetricSource {
        name: "cpu".to_string(),
        target: MetricTarget {
            type_: "Utilization".to_string(),
            average_utilization: Some(autoscaling.target_cpu_utilization.unwrap_or(TARGET_CPU_DEFAULT)),
            ..MetricTarget::default()
        },
    };
    let mut metrics = vec![MetricSpec { type_: "Resource".to_string(), resource: Some(cpu), ..MetricSpec::default() }];
    let of_pods = [
        (METRIC_REQUESTS, autoscaling.target_requests_per_second),
        (METRIC_CONNECTIONS, autoscaling.target_connections),
    ];
    metrics.extend(of_pods.into_iter().filter_map(|(name, target)| Some(per_pod(name, target?))));
    metrics.extend(autoscaling.target_queue_depth.map(|target| queue(tier, target)));
    metrics
}

fn average(target: i32) -> MetricTarget {
    MetricTarget {
        type_: "AverageValue".to_string(),
        average_value: Some(Quantity(target.to_string())),
        ..MetricTarget::default()
    }
}

fn per_pod(name: &str, target: i32) -> MetricSpec {
    let metric = MetricIdentifier { name: name.to_string(), selector: None };
    let pods = PodsMetricSource { metric, target: average(target) };
    MetricSpec { type_: "Pods".to_string(), pods: Some(pods), ..MetricSpec::default() }
}

/// It is the queue of the voters that grows, not one of the pods that are scaled.
fn queue(tier: &TierContext, target: i32) -> MetricSpec {
    let network = [(METRIC_LABEL_NETWORK.to_string(), tier.network.name.clone())].into();
    let metric = MetricIdentifier { name: METRIC_QUEUE.to_string(), selector: Some(matching(network)) };
    let external = ExternalMetricSource { metric, target: average(target) };
    MetricSpec { type_: "External".to_string(), external: Some(external), ..MetricSpec::default() }
}

fn behavior(autoscaling: &Autoscaling) -> Option<HorizontalPodAutoscalerBehavior> {
    let Autoscaling { scale_up, scale_down, .. } = autoscaling;
    (scale_up.is_some() || scale_down.is_some()).then(|| HorizontalPodAutoscalerBehavior {
        scale_up: scale_up.as_ref().map(rules),
        scale_down: scale_down.as_ref().map(rules),
    })
}

fn rules(pace: &ScalePace) -> HPAScalingRules {
    let policy = pace.pods_max.zip(pace.period_seconds).map(|(value, period_seconds)| HPAScalingPolicy {
        type_: "Pods".to_string(),
        value,
        period_seconds,
    });
    HPAScalingRules {
        stabilization_window_seconds: pace.stabilization_window_seconds,
        policies: policy.map(|policy| vec![policy]),
        ..HPAScalingRules::default()
    }
}
