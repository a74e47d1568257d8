//! The children that a group shall have.

use althing_crds::validator::Role;
use althing_crds::{ValidatorNode, ValidatorNodeSpec, names};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::observe::Observed;
use crate::chain::agreement::faults;
use crate::error::Error;
use crate::kinds::Child;
use crate::parts::{GroupContext, Installation, NodeContext, poddisruptionbudget, services};
use crate::validator::desired::template_hash;

/// Service, budget and one node for each voter, in the order in which they are applied.
pub fn children(observed: &Observed, voters: u32) -> Result<Vec<Child>, Error> {
    let group = group_context(observed)?;
    let mut children = vec![
        Child::of(&services::group_rpc(&group))?,
        Child::of(&poddisruptionbudget::budget(&group, pods_needed(voters)))?,
    ];
    for number in 0..voters {
        children.push(Child::of(&node(observed, &group, number))?);
    }
    Ok(children)
}

/// The group as builders see it.
pub fn group_context(observed: &Observed) -> Result<GroupContext, Error> {
    GroupContext::new(&observed.group)
        .map_err(|error| Error::Build { what: observed.group.name_any(), message: error.to_string() })
}

/// How many voters' pods must stay: all but the fault budget. A chain that tolerates no fault could never be drained, so
/// there one at a time may go, and the status says what that means.
pub fn pods_needed(voters: u32) -> u16 {
    let budget = faults(u64::from(voters)).max(1);
    u16::try_from(u64::from(voters).saturating_sub(budget)).unwrap_or(u16::MAX)
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
    let mut node = ValidatorNode::new(
        &name,
        ValidatorNodeSpec {
            network: spec.network.clone(),
            group: group.name.clone(),
            chain_id: observed.chain_id.clone(),
            role: Role::Validator,
            identity_secret,
            node: spec.node.clone(),
            network_policy: spec.network_policy.clone(),
        },
    );
    node.metadata = metadata;
    node
}

/// The pod runs what the spec of its node says now.
pub fn is_up_to_date(node: &ValidatorNode, pod: &Pod, installation: &Installation) -> bool {
    let Ok(context) = NodeContext::new(node, Vec::new(), installation) else { return false };
    let Ok(hash) = template_hash(&context) else { return false };
    pod.annotations().get(names::ANNOTATION_CONFIG_HASH) == Some(&hash)
}

#[cfg(test)]
mod tests {
    use super::pods_needed;

    #[test]
    fn the_budget_leaves_a_quorum_and_one_voter_can_be_drained() {
        let table = [(1, 0), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7), (13, 9)];
        for (voters, expected) in table {
            assert_eq!(pods_needed(voters), expected, "{voters} voters");
        }
    }
}
