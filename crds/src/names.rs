//! Names, labels, ports and files of everything that the operator makes.

/// Longest name of a ValidatorNode.
pub const NODE_NAME_LENGTH_MAX: usize = 45;

/// Label with the name of the BlockchainNetwork.
pub const LABEL_NETWORK: &str = "althing.dev/network";
/// Label with the name of the ConsensusGroup.
pub const LABEL_GROUP: &str = "althing.dev/group";
/// Label with the name of the ValidatorNode.
pub const LABEL_NODE: &str = "althing.dev/node";
/// Label on pods whose node has power on the chain (`true`); PodDisruptionBudgets select it. It is patched on the live
/// pod, so that gaining or losing power restarts nothing.
pub const LABEL_VOTER: &str = "althing.dev/voter";
/// Label by which pods of the same namespace ask to reach the nodes' gRPC (`true`).
pub const LABEL_CLIENT: &str = "althing.dev/client";
/// Label by which namespaces ask to scrape metrics from the nodes (`true`).
pub const LABEL_MONITORING: &str = "althing.dev/monitoring";
/// Label `app.kubernetes.io/name`.
pub const LABEL_APP_NAME: &str = "app.kubernetes.io/name";
/// Label `app.kubernetes.io/instance`.
pub const LABEL_APP_INSTANCE: &str = "app.kubernetes.io/instance";
/// Label `app.kubernetes.io/component`.
pub const LABEL_APP_COMPONENT: &str = "app.kubernetes.io/component";
/// Label `app.kubernetes.io/part-of`.
pub const LABEL_APP_PART_OF: &str = "app.kubernetes.io/part-of";
/// Label `app.kubernetes.io/managed-by`.
pub const LABEL_APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_APP_MANAGED_BY`] on everything that the operator makes; watches filter by it.
pub const MANAGED_BY: &str = "althing-operator";
/// Value of [`LABEL_APP_NAME`] on nodes.
pub const APP_NAME: &str = "althing-node";

/// Annotation on any of the three kinds: `true` stops the operator from changing anything below it.
pub const ANNOTATION_PAUSE: &str = "althing.dev/pause";
/// Annotation of a ValidatorNode whose value is the UID of a claim that is lost: a person agrees that the node goes on with
/// another volume, the blocks of its peers and a new session key.
pub const ANNOTATION_REBUILD: &str = "althing.dev/rebuild-volume";
/// Annotation on a group or a node: a new value restarts its nodes one after the other. Those whose spec names no image
/// get the one that the operator brings now.
pub const ANNOTATION_RESTART: &str = "althing.dev/restart";
/// Annotation on a BlockchainNetwork: a new value replaces its certificate authority by another one, without a restart.
pub const ANNOTATION_ROLL: &str = "althing.dev/roll-authority";
/// Annotation on a BlockchainNetwork whose value is the hash of an authority. Of the next one: a person says that everybody
/// outside trusts it. Of the former one: that nobody outside needs it any more.
pub const ANNOTATION_CONFIRM: &str = "althing.dev/confirm-authority";
/// Annotation on a group's disruption budget: when the operator last had its pods counted again.
pub const ANNOTATION_RECOUNT: &str = "althing.dev/counted-again-at";
/// Annotation on the pod template: hash of what the node read when it started; a difference means restart.
pub const ANNOTATION_CONFIG_HASH: &str = "althing.dev/config-hash";
/// Annotation on what is made once: the genesis it belongs to, or will.
pub const ANNOTATION_GENESIS_HASH: &str = "althing.dev/genesis-hash";

/// Field manager for children of a BlockchainNetwork.
pub const MANAGER_NETWORK: &str = "althing-blockchainnetwork";
/// Field manager for children of a ConsensusGroup.
pub const MANAGER_GROUP: &str = "althing-consensusgroup";
/// Field manager for children of a ValidatorNode.
pub const MANAGER_NODE: &str = "althing-validatornode";

/// Port for other nodes (mTLS).
pub const PORT_P2P: u16 = 7100;
/// Port for clients and the operator (gRPC, mTLS).
pub const PORT_GRPC: u16 = 7200;
/// Port for `/metrics`, `/livez`, `/readyz`.
pub const PORT_HTTP: u16 = 7300;
/// Port of a gateway for its clients.
pub const PORT_GATEWAY: u16 = 8443;
/// Port of the operator's own `/metrics`, `/livez`, `/readyz`.
pub const PORT_OPERATOR_HTTP: u16 = 8080;
/// Name of [`PORT_P2P`] in pods and Services.
pub const PORT_NAME_P2P: &str = "p2p";
/// Name of [`PORT_GRPC`] in pods and Services.
pub const PORT_NAME_GRPC: &str = "grpc";
/// Name of [`PORT_HTTP`] in pods and Services.
pub const PORT_NAME_HTTP: &str = "http";
/// Name of [`PORT_GATEWAY`] in pods and Services; meshes go by it.
pub const PORT_NAME_GATEWAY: &str = "https-gateway";

/// Value of [`LABEL_APP_COMPONENT`] on a network's gateways.
pub const COMPONENT_GATEWAY: &str = "gateway";
/// Value of [`LABEL_APP_COMPONENT`] on a network's observers.
pub const COMPONENT_OBSERVERS: &str = "observers";

/// Folder of `node.yaml` in the pod.
pub const FOLDER_CONFIG: &str = "/etc/althing";
/// File that the node reads first.
pub const FILE_CONFIG: &str = "node.yaml";
/// Folder of `tls.crt`, `tls.key`, `ca.crt` in the pod.
pub const FOLDER_TLS: &str = "/etc/althing/tls";
/// Folder of [`FILE_IDENTITY`] in the pod.
pub const FOLDER_IDENTITY: &str = "/etc/althing/identity";
/// Key of an identity Secret (ed25519, PKCS#8 PEM).
pub const FILE_IDENTITY: &str = "identity.pem";
/// Key of a Secret with the hashes of API keys.
pub const FILE_API_KEYS: &str = "api-keys.yaml";
/// Key of the Secret that the operator makes with the API key itself.
pub const FILE_API_KEY: &str = "key";
/// Key of a genesis ConfigMap.
pub const FILE_GENESIS: &str = "genesis.json";
/// Entry with the certificate authorities of other members in a node's certificate Secret, and its file.
pub const FILE_MEMBERS: &str = "members.crt";
/// Key of a governance Secret (ed25519, PKCS#8 PEM).
pub const FILE_GOVERNANCE: &str = "governance.pem";
/// Folder of the volume in the pod.
pub const FOLDER_DATA: &str = "/var/lib/althing";
/// User and group that the node runs as.
pub const USER: i64 = 65_532;
/// Name of the node's container.
pub const CONTAINER: &str = "node";
/// Lease that the operator's leader holds.
pub const LEASE_OPERATOR: &str = "althing-operator";

/// Name of the ConsensusGroup that a network makes for its group: `<bcn>-<group>`.
#[must_use]
pub fn group(network: &str, group: &str) -> String {
    format!("{network}-{group}")
}

/// Name of the n-th ValidatorNode of a group: `<cgrp>-<n>`. Its StatefulSet, ConfigMap, ServiceAccount and
/// NetworkPolicy have the same name.
#[must_use]
pub fn node(group: &str, number: u32) -> String {
    format!("{group}-{number}")
}

/// The number of a node of this group, if its name is one that [`node`] makes.
#[must_use]
pub fn node_number(group: &str, node_name: &str) -> Option<u32> {
    let digits = node_name.strip_prefix(group)?.strip_prefix('-')?;
    let number = digits.parse().ok()?;
    (node(group, number) == node_name).then_some(number)
}

/// The pod of a node: `<vnode>-0`.
#[must_use]
pub fn pod(node: &str) -> String {
    format!("{node}-0")
}

/// The volume claim of a node: `<vnode>-data`.
#[must_use]
pub fn claim(node: &str) -> String {
    format!("{node}-data")
}

/// The headless Service by which other nodes find this one: `<vnode>-p2p`.
#[must_use]
pub fn p2p_service(node: &str) -> String {
    format!("{node}-p2p")
}

/// The Service by which nodes outside of the cluster reach this one: `<vnode>-p2p-external`.
#[must_use]
pub fn p2p_external_service(node: &str) -> String {
    format!("{node}-p2p-external")
}

/// Address that other nodes dial: `<vnode>-p2p.<namespace>.svc:7100`.
#[must_use]
pub fn p2p_address(node: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc:{PORT_P2P}", p2p_service(node))
}

/// The Service for clients of one node, or of all nodes of a group: `<vnode>-rpc`, `<cgrp>-rpc`.
#[must_use]
pub fn rpc_service(node_or_group: &str) -> String {
    format!("{node_or_group}-rpc")
}

/// The Secret with a node's identity that the operator makes: `<vnode>-identity`.
#[must_use]
pub fn identity_secret(node: &str) -> String {
    format!("{node}-identity")
}

/// The Secret with a node's certificate: `<vnode>-tls`.
#[must_use]
pub fn tls_secret(node: &str) -> String {
    format!("{node}-tls")
}

/// The Secret with a network's certificate authority: `<bcn>-ca`.
#[must_use]
pub fn ca_secret(network: &str) -> String {
    format!("{network}-ca")
}

/// The Secret with the operator's own certificates and what is trusted, where an issuer issues them: `<bcn>-operator`.
#[must_use]
pub fn operator_secret(network: &str) -> String {
    format!("{network}-operator")
}

/// The Secret with a client certificate for users: `<bcn>-client`.
#[must_use]
pub fn client_secret(network: &str) -> String {
    format!("{network}-client")
}

/// The Secret with a chain's governance key: `<cgrp>-governance`.
#[must_use]
pub fn governance_secret(group: &str) -> String {
    format!("{group}-governance")
}

/// The ConfigMap with a copy of a chain's genesis: `<cgrp>-genesis`.
#[must_use]
pub fn genesis_config_map(group: &str) -> String {
    format!("{group}-genesis")
}

/// The PodDisruptionBudget of a group: `<cgrp>`.
#[must_use]
pub fn disruption_budget(group: &str) -> String {
    group.to_string()
}

/// Everything of a network's observers: StatefulSet, headless Service, ConfigMap, Secret, ...: `<bcn>-observers`.
#[must_use]
pub fn observers(network: &str) -> String {
    format!("{network}-observers")
}

/// Everything of a network's gateway: Deployment, Service, ConfigMap, ...: `<bcn>-gateway`.
#[must_use]
pub fn gateway(network: &str) -> String {
    format!("{network}-gateway")
}

/// The headless Service by which gateways count each other: `<bcn>-gateway-pods`.
#[must_use]
pub fn gateway_pods_service(network: &str) -> String {
    format!("{network}-gateway-pods")
}

/// The headless Service by which gateways find the voters of their chain: `<bcn>-gateway-voters`.
#[must_use]
pub fn gateway_voters_service(network: &str) -> String {
    format!("{network}-gateway-voters")
}

/// The Secret with the gateway's certificate towards the nodes: `<bcn>-gateway-tls`.
#[must_use]
pub fn gateway_tls_secret(network: &str) -> String {
    tls_secret(&gateway(network))
}

/// The Secret with the certificate that the gateway's clients see, when the operator makes it: `<bcn>-gateway-edge`.
#[must_use]
pub fn gateway_edge_secret(network: &str) -> String {
    format!("{network}-gateway-edge")
}

/// The Secret with the API key that the operator makes: `<bcn>-gateway-api-keys`.
#[must_use]
pub fn gateway_api_keys_secret(network: &str) -> String {
    format!("{network}-gateway-api-keys")
}

/// The NetworkPolicy that denies everything to and from a network's pods: `<bcn>-default-deny`.
#[must_use]
pub fn default_deny_policy(network: &str) -> String {
    format!("{network}-default-deny")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_node_is_read_back_from_its_name() {
        assert_eq!(node_number("demo-main", &node("demo-main", 12)), Some(12));
        assert_eq!(node_number("demo-main", "demo-main-01"), None);
        assert_eq!(node_number("demo-main", "demo-main-x"), None);
        assert_eq!(node_number("demo", "demo-main-1"), None);
    }

    #[test]
    fn the_longest_names_still_fit_a_label() {
        let longest = "n".repeat(NODE_NAME_LENGTH_MAX);
        for name in [pod(&longest), identity_secret(&longest), p2p_service(&longest), claim(&longest)] {
            assert!(name.len() <= 63, "{name} has {} characters", name.len());
        }
    }
}
