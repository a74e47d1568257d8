//! The HorizontalPodAutoscaler of a tier: it alone owns the number of pods.

use althing_crds::scaling::{Autoscaling, ScalePace, TARGET_CPU_DEFAULT};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};

use super::tiers::TierContext;

/// The autoscaler of the workload of this kind that has the tier's name.
#[must_use]
pub fn autoscaler(tier: &TierContext, autoscaling: &Autoscaling, kind: &str) -> HorizontalPodAutoscaler {
    let target = autoscaling.target_cpu_utilization.unwrap_or(TARGET_CPU_DEFAULT);
    let cpu = ResourceMetricSource {
        name: "cpu".to_string(),
        target: MetricTarget {
            type_: "Utilization".to_string(),
            average_utilization: Some(target),
            ..MetricTarget::default()
        },
    };
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
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_string(),
                resource: Some(cpu),
                ..MetricSpec::default()
            }]),
            behavior: behavior(autoscaling),
        },
        status: None,
    }
}

fn behavior(autoscaling: &Autoscaling) -> Option<HorizontalPodAutoscalerBehavior> {
    let Autoscaling { scale_up, scale_down, min_replicas: _, max_replicas: _, target_cpu_utilization: _ } = autoscaling;
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
