//! Makes the disruption controller count again after a mark was taken away.
//!
//! It counts when a pod changes that a budget selects as the pod is then (`updatePod` in kubernetes/pkg/controller/disruption,
//! 1.36): of a pod that has just lost its mark it hears nothing, and unless the budget changes as well, it goes on letting
//! another one go for it. An annotation on the budget makes it count.

use std::time::Instant;

use althing_crds::names;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use crate::context::Context;
use crate::error::Error;
use crate::kinds::{Kind, Owner, is_controlled};

/// A mark was taken away: the count is not known to be right.
pub fn request(context: &Context, owner: &Owner) {
    context.shared.memories.recounted.forget(&owner.uid, &owner.name);
}

/// Whether the count of the group's budget is known to be right.
pub fn is_done(context: &Context, owner: &Owner) -> bool {
    context.shared.memories.recounted.get(&owner.uid, &owner.name).is_some()
}

/// Reads how many pods are marked and how many the budget counts, and has them counted again if those are more.
pub async fn recount(context: &Context, owner: &Owner) -> Result<(), Error> {
    if is_done(context, owner) {
        return Ok(());
    }
    let at = Instant::now();
    let (client, namespace) = (&context.shared.client, &owner.namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
    let name = names::disruption_budget(&owner.name);
    let selector = format!("{}={},{}=true", names::LABEL_GROUP, owner.name, names::LABEL_VOTER);
    let selector = ListParams::default().labels(&selector);
    // Marks change only here, so that the count is not older than the pods.
    let marked = pods.list_metadata(&selector).await.map_err(Error::read(format!("Pods of {}", owner.what())))?;
    let budget = budgets.get_opt(&name).await.map_err(Error::read(format!("PodDisruptionBudget {name}")))?;
    let ours = budget.filter(|budget| is_controlled(&budget.metadata, &owner.uid));
    if ours.is_some_and(|budget| counts_more_than(&budget, marked.items.len())) {
        let now = Timestamp::now().to_string();
        context.shared.writer.annotate(owner, Kind::PodDisruptionBudget, &name, (names::ANNOTATION_RECOUNT, &now)).await
    } else {
        context.shared.memories.recounted.put(&owner.uid, &owner.name, at, ());
        Ok(())
    }
}

/// The disruption controller last counted more pods than are marked.
fn counts_more_than(budget: &PodDisruptionBudget, marked: usize) -> bool {
    let counted = budget.status.as_ref().and_then(|status| status.expected_pods).unwrap_or(0);
    usize::try_from(counted).is_ok_and(|counted| counted > marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_counts_a_pod_without_a_mark_is_counted_again() {
        let budget = |status: serde_json::Value| -> PodDisruptionBudget {
            serde_json::from_value(serde_json::json!({ "metadata": {}, "status": status })).expect("a budget")
        };
        let counted = budget(serde_json::json!({ "currentHealthy": 4, "desiredHealthy": 3, "disruptionsAllowed": 1,
            "expectedPods": 4 }));
        assert!(counts_more_than(&counted, 3), "one has lost its mark");
        assert!(!counts_more_than(&counted, 4));
        assert!(!counts_more_than(&counted, 5), "of a new mark the controller hears");
        assert!(!counts_more_than(&budget(serde_json::Value::Null), 0), "it has not counted yet, and lets nobody go");
    }
}
