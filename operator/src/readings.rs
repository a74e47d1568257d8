//! What the status of groups and networks has in common: readings that change by themselves, and the order of conditions.

use althing_crds::conditions::{Condition, ConditionStatus, ConditionType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::config::STATUS_REFRESH;

/// Whether readings of this time are too young to be written again.
pub fn are_young(observed_at: Option<&String>, now: &Time) -> bool {
    observed_at
        .and_then(|text| text.parse::<k8s_openapi::jiff::Timestamp>().ok())
        .is_some_and(|then| now.0.duration_since(then).as_secs() < STATUS_REFRESH.as_secs().cast_signed())
}

/// No condition begins or ceases to hold, none is about another generation, and nobody is needed for another reason.
pub fn is_step(before: &[Condition], after: &[Condition]) -> bool {
    let key = |condition: &Condition| {
        let reason = Some(condition.reason.clone()).filter(|_| condition.kind == ConditionType::Stalled);
        (condition.kind, condition.status == ConditionStatus::True, reason, condition.observed_generation)
    };
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| key(before) == key(after))
}

/// The conditions in the order in which groups and networks show them.
pub fn in_order(mut conditions: Vec<Condition>) -> Vec<Condition> {
    conditions.sort_by_key(|condition| ConditionType::OF_GROUPS.iter().position(|kind| *kind == condition.kind));
    conditions
}
