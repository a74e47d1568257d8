//! PodDisruptionBudgets: the one of a chain, on which `kubectl drain` and the operator both draw, and those of tiers.

use althing_crds::names;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::context::GroupContext;
use super::labels;
use super::tiers::TierContext;

/// The budget of a group. `min_available` is a number of pods: a percentage, like `maxUnavailable`, counts the replicas
/// of one controller, and each voter has its own. Voters that are not ready may always be evicted: they sign nothing.
#[must_use]
pub fn budget(group: &GroupContext, min_available: u16) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: group.metadata(&names::disruption_budget(&group.name)),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(i32::from(min_available))),
            max_unavailable: None,
            selector: Some(labels::matching(labels::group_voters_selector(&group.name))),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_string()),
        }),
        status: None,
    }
}

/// The budget of a tier: one pod of it at a time. Its pods have one controller, so Kubernetes knows how many there are.
#[must_use]
pub fn tier(tier: &TierContext) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: tier.metadata(&tier.name),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: None,
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(labels::matching(tier.selector())),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_string()),
        }),
        status: None,
    }
}
