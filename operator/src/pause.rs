//! A person's wish that nothing below an object is changed, and what its status says of that.

use althing_crds::conditions::Statement;
use althing_crds::{ConditionStatus, ConditionType, Reason, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

/// What is said while nothing may be changed.
pub const PAUSED: &str = "the annotation althing.dev/pause is set";

/// A person asks to change nothing below this object.
pub fn is_paused<K: Resource>(object: &K) -> bool {
    object.annotations().get(names::ANNOTATION_PAUSE).is_some_and(|value| value == "true")
}

/// A pause during which the spec is carried out is rest; else what the spec says is not what runs, and `why` says it.
pub fn reconciling(meta: &ObjectMeta, why: Option<String>) -> Statement {
    let say = |status, message| Statement::new(ConditionType::Reconciling, status, Reason::Paused, message);
    match why {
        Some(why) => {
            let generation = meta.generation.unwrap_or(0);
            say(ConditionStatus::True, format!("{PAUSED}; generation {generation} is not carried out: {why}"))
        }
        None => say(ConditionStatus::False, PAUSED.to_string()),
    }
}
