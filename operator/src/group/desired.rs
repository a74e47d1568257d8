//! The children that a group shall have.

use std::collections::BTreeSet;

use althing_crds::validator::Role;
use althing_crds::{NodeTemplate, ValidatorNode, ValidatorNodeSpec, names};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::observe::{Observed, Voter};
use crate::budget::{self, Budget};
use crate::chain::agreement::Facts;
use crate::error::Error;
use crate::kinds::Child;
use crate::parts::{GroupContext, poddisruptionbudget, services};
use crate::validator::pods::{is_counted, is_pod_ready};

/// Service, budget and one node for each voter, in the order in which they are applied.
pub fn children(observed: &Observed) -> Result<Vec<Child>, Error> {
    let group = group_context(observed)?;
    let mut children = vec![Child::of(&services::group_rpc(&group))?, budget(observed)?];
    for number in numbers(observed) {
        children.push(Child::of(&node(observed, &group, number))?);
    }
    Ok(children)
}

/// The disruption budget as the facts ask for it.
pub fn budget(observed: &Observed) -> Result<Child, Error> {
    let needed = pods_needed(&observed.voters, observed.facts.as_ref());
    Child::of(&poddisruptionbudget::budget(&group_context(observed)?, needed))
}

/// Numbers of the nodes: the voters, and one that is to become one.
pub fn numbers(observed: &Observed) -> BTreeSet<u32> {
    let change = observed.status().and_then(|status| status.members.as_ref()?.change.as_ref());
    let newcomer = change.and_then(|change| u32::try_from(change.number).ok());
    observed.numbers.iter().copied().chain(newcomer).collect()
}

/// The group as builders see it.
pub fn group_context(observed: &Observed) -> Result<GroupContext, Error> {
    GroupContext::new(&observed.group)
        .map_err(|error| Error::Build { what: observed.group.name_any(), message: error.to_string() })
}

/// Whether the disruption budget shall count this voter's pod: while the others see its votes. Nothing without facts, with
/// those that are late or show no quorum, or while its identity is not known.
pub fn shall_be_counted(voter: &Voter, facts: Option<&Facts>) -> Option<bool> {
    let facts = facts.filter(|facts| !facts.is_late && (facts.height == 0 || facts.has_quorum()))?;
    Some(facts.voters.get(voter.identity()?).is_some_and(|fact| fact.is_signing))
}

/// A voter signs, and the disruption budget does not count its pod yet: a drain waits for that.
pub fn lacks_mark(voters: &[Voter], facts: Option<&Facts>) -> bool {
    let is_uncounted = |pod: &Pod| is_pod_ready(pod) && !is_counted(pod);
    voters
        .iter()
        .any(|voter| voter.pod.as_ref().is_some_and(is_uncounted) && shall_be_counted(voter, facts) == Some(true))
}

/// How many of the pods that are or shall be counted must stay: all but what the fault budget lets go now. A pod that is
/// not counted yet already must stay, so that counting it lets no other one go.
pub fn pods_needed(voters: &[Voter], facts: Option<&Facts>) -> u16 {
    let is_gone = |voter: &&Voter| !voter.pod.as_ref().is_some_and(|pod| is_pod_ready(pod) && is_counted(pod));
    let is_there = |voter: &&Voter| {
        let shall = shall_be_counted(voter, facts).unwrap_or(false);
        let pod = voter.pod.as_ref().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        pod.is_some_and(|pod| shall || is_counted(pod))
    };
    let pods = voters.iter().filter(is_there).count();
    let identities = |voters: &mut dyn Iterator<Item = &Voter>| -> BTreeSet<String> {
        voters.filter_map(|voter| voter.identity().map(str::to_string)).collect()
    };
    let absent = identities(&mut voters.iter().filter(is_gone));
    let budget = facts.map(|facts| Budget::of(facts, &absent));
    budget::pods_needed(budget.as_ref(), &identities(&mut voters.iter()), pods)
}

/// Whether the node of this voter is what the group wants of it now; a pause leaves it as it was.
pub fn follows(observed: &Observed, voter: &Voter) -> bool {
    let number = names::node_number(&observed.group.name_any(), &voter.name);
    let (Some(number), Some(node), Ok(group)) = (number, &voter.node, group_context(observed)) else { return false };
    let wanted = self::node(observed, &group, number);
    let restart = |node: &ValidatorNode| node.annotations().get(names::ANNOTATION_RESTART).cloned();
    node.spec == wanted.spec && restart(node) == restart(&wanted)
}

/// The node of one voter. Labels and annotations of the group are not copied, but for the one that asks for a restart.
fn node(observed: &Observed, group: &GroupContext, number: u32) -> ValidatorNode {
    let spec = &observed.group.spec;
    let name = names::node(&group.name, number);
    let mut metadata = group.metadata(&name);
    if let Some(labels) = metadata.labels.as_mut() {
        labels.insert(names::LABEL_NODE.to_string(), name.clone());
    }
    let restart = observed.group.annotations().get(names::ANNOTATION_RESTART);
    metadata.annotations = restart.map(|value| [(names::ANNOTATION_RESTART.to_string(), value.clone())].into());
    let identity_secret = usize::try_from(number).ok().and_then(|number| spec.identity_secrets.get(number)).cloned();
    // Named to each node, so that what they run does not depend on the operator that looks at them.
    let image = observed.default_image().map(|default| default.image);
    let mut node = ValidatorNode::new(
        &name,
        ValidatorNodeSpec {
            network: spec.network.clone(),
            group: group.name.clone(),
            chain_id: observed.chain_id.clone(),
            role: Role::Validator,
            identity_secret,
            p2p: spec.p2p.with(spec.external.as_ref()),
            node: NodeTemplate { image: image.or_else(|| spec.node.image.clone()), ..spec.node.clone() },
            network_policy: spec.network_policy.clone(),
        },
    );
    node.metadata = metadata;
    node
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::observed;
    use super::*;

    #[test]
    fn the_disruption_budget_follows_who_signs_and_whose_pod_is_ready() {
        let mut seen = observed();
        assert_eq!(pods_needed(&seen.voters, seen.facts.as_ref()), 3);
        assert_eq!(pods_needed(&seen.voters, None), 4, "without facts nothing is disrupted");
        seen.facts.as_mut().expect("there").is_standing = true;
        assert_eq!(pods_needed(&seen.voters, seen.facts.as_ref()), 4, "facts of a chain that stands are of the past");
        seen.facts.as_mut().expect("there").is_standing = false;
        seen.voters[2].pod = None;
        assert_eq!(pods_needed(&seen.voters, seen.facts.as_ref()), 3, "a voter is gone: the other three must stay");
        let mut seen = observed();
        seen.voters[2].pod.as_mut().expect("there").metadata.labels = None;
        assert_eq!(pods_needed(&seen.voters, seen.facts.as_ref()), 4, "a voter is not counted yet");
        assert!(lacks_mark(&seen.voters, seen.facts.as_ref()), "it is looked at soon");
        assert!(!lacks_mark(&observed().voters, observed().facts.as_ref()));
        let mut seen = observed();
        seen.facts.as_mut().expect("there").is_late = true;
        let count =
            |seen: &Observed| seen.voters.iter().filter_map(|v| shall_be_counted(v, seen.facts.as_ref())).count();
        assert_eq!((pods_needed(&seen.voters, seen.facts.as_ref()), count(&seen)), (4, 0), "they are of the past");
        let mut seen = observed();
        let facts = seen.facts.as_mut().expect("there");
        facts.voters.values_mut().next().expect("a voter").is_signing = false;
        assert_eq!(pods_needed(&seen.voters, seen.facts.as_ref()), 4, "a voter is silent although its pod is ready");
    }

    #[test]
    fn marks_stay_as_they_are_while_no_quorum_is_seen_or_a_name_is_missing() {
        let mut seen = observed();
        let wanted = |seen: &Observed, number: usize| shall_be_counted(&seen.voters[number], seen.facts.as_ref());
        assert_eq!(wanted(&seen, 0), Some(true));
        seen.voters[1].node.as_mut().expect("there").status = None;
        assert_eq!(wanted(&seen, 1), None);
        let facts = seen.facts.as_mut().expect("there");
        let silent = facts.voters.keys().take(2).cloned().collect();
        *facts = facts.clone().without(&silent);
        assert_eq!((0..4).filter_map(|number| wanted(&seen, number)).count(), 0);
        assert_eq!(pods_needed(&seen.voters, seen.facts.as_ref()), 4);
    }

    #[test]
    fn nodes_whose_spec_names_no_image_keep_the_one_with_which_they_were_made() {
        let mut seen = observed();
        seen.group.spec.node.image = None;
        let image = |seen: &Observed| {
            let group = group_context(seen).expect("a whole group");
            node(seen, &group, 0).spec.node.image
        };
        assert_eq!(image(&seen).as_deref(), Some("a:1"), "the operator's");
        let default_image = seen.default_image();
        seen.group.status.as_mut().expect("there").default_image = default_image;
        seen.installation.node_image = "a:2".to_string();
        assert_eq!(image(&seen).as_deref(), Some("a:1"), "a newer operator");
        let restart = (names::ANNOTATION_RESTART.to_string(), "now".to_string());
        seen.group.metadata.annotations = Some([restart].into());
        assert_eq!(image(&seen).as_deref(), Some("a:2"), "a restart was asked for");
        seen.group.spec.node.image = Some("own:1".to_string());
        assert_eq!(image(&seen).as_deref(), Some("own:1"));
        assert_eq!(seen.default_image(), None);
    }
}
