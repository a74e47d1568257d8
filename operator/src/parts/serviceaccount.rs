//! The ServiceAccount of a node: a name without any permission and without a token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::context::NodeContext;

/// The node's ServiceAccount, called like the node.
#[must_use]
pub fn service_account(node: &NodeContext) -> ServiceAccount {
    ServiceAccount {
        metadata: node.metadata(&node.name),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
