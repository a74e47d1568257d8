//! Labels on children, and the selectors that find them again.

use std::collections::BTreeMap;

use althing_crds::names::{
    APP_NAME, LABEL_APP_COMPONENT, LABEL_APP_INSTANCE, LABEL_APP_MANAGED_BY, LABEL_APP_NAME, LABEL_APP_PART_OF,
    LABEL_GROUP, LABEL_NETWORK, LABEL_NODE, LABEL_VOTER, MANAGED_BY,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::context::{GroupContext, NetworkContext, NodeContext};

type Labels = BTreeMap<String, String>;

fn of(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect()
}

/// Labels of a node's children and of its pod. The voter label is not among them: it is patched on the live pod.
#[must_use]
pub fn node_labels(node: &NodeContext) -> Labels {
    of(&[
        (LABEL_APP_NAME, APP_NAME),
        (LABEL_APP_INSTANCE, &node.name),
        (LABEL_APP_COMPONENT, node.role.as_str()),
        (LABEL_APP_PART_OF, &node.network),
        (LABEL_APP_MANAGED_BY, MANAGED_BY),
        (LABEL_NETWORK, &node.network),
        (LABEL_GROUP, &node.group),
        (LABEL_NODE, &node.name),
    ])
}

/// Labels of a group's children.
#[must_use]
pub fn group_labels(group: &GroupContext) -> Labels {
    of(&[
        (LABEL_APP_NAME, APP_NAME),
        (LABEL_APP_INSTANCE, &group.name),
        (LABEL_APP_COMPONENT, "group"),
        (LABEL_APP_PART_OF, &group.network),
        (LABEL_APP_MANAGED_BY, MANAGED_BY),
        (LABEL_NETWORK, &group.network),
        (LABEL_GROUP, &group.name),
    ])
}

/// Labels of a network's children.
#[must_use]
pub fn network_labels(network: &NetworkContext) -> Labels {
    of(&[
        (LABEL_APP_NAME, APP_NAME),
        (LABEL_APP_INSTANCE, &network.name),
        (LABEL_APP_COMPONENT, "network"),
        (LABEL_APP_PART_OF, &network.name),
        (LABEL_APP_MANAGED_BY, MANAGED_BY),
        (LABEL_NETWORK, &network.name),
    ])
}

/// Finds the pod of a node.
#[must_use]
pub fn node_selector(node: &str) -> Labels {
    of(&[(LABEL_NODE, node)])
}

/// Finds the pods of a group.
#[must_use]
pub fn group_selector(group: &str) -> Labels {
    of(&[(LABEL_GROUP, group)])
}

/// Finds the pods of a group that have power on its chain.
#[must_use]
pub fn group_voters_selector(group: &str) -> Labels {
    of(&[(LABEL_GROUP, group), (LABEL_VOTER, "true")])
}

/// Finds the pods of a network.
#[must_use]
pub fn network_selector(network: &str) -> Labels {
    of(&[(LABEL_NETWORK, network)])
}

/// Finds the pods of one tier of a network.
#[must_use]
pub fn tier_selector(network: &str, component: &str) -> Labels {
    of(&[(LABEL_NETWORK, network), (LABEL_APP_COMPONENT, component)])
}

/// The selector of these labels.
pub(super) fn matching(labels: Labels) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}
