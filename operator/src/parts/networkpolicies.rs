//! NetworkPolicies: everything is denied, then each node gets exactly the paths that it needs.

use std::collections::BTreeMap;

use althing_crds::names;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::context::{NetworkContext, NodeContext};
use super::labels::{self, matching};

/// Label that every namespace carries with its own name.
const LABEL_NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Namespace of the cluster's DNS.
const NAMESPACE_DNS: &str = "kube-system";
/// Where node-local DNS caches listen.
const LINK_LOCAL: &str = "169.254.0.0/16";
const PORT_DNS: u16 = 53;

/// Denies everything to and from the pods of a network. Policies add up, so each path that is open is open by name.
#[must_use]
pub fn default_deny(network: &NetworkContext) -> NetworkPolicy {
    NetworkPolicy {
        metadata: network.metadata(&names::default_deny_policy(&network.name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(labels::network_selector(&network.name))),
            policy_types: Some(vec!["Ingress".to_string(), "Egress".to_string()]),
            ingress: None,
            egress: None,
        }),
    }
}

/// The paths of one node. In: p2p from the nodes of its chain; gRPC from the operator, from pods of the network, from
/// pods that say they are clients and from the addresses that the spec names; HTTP from the operator and from whoever
/// says that it monitors. Out: DNS, and p2p to the nodes of its chain. There is no way to the API server.
#[must_use]
pub fn node(node: &NodeContext) -> NetworkPolicy {
    NetworkPolicy {
        metadata: node.metadata(&node.name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(labels::node_selector(&node.name))),
            policy_types: Some(vec!["Ingress".to_string(), "Egress".to_string()]),
            ingress: Some(ingress(node)),
            egress: Some(egress(node)),
        }),
    }
}

fn ingress(node: &NodeContext) -> Vec<NetworkPolicyIngressRule> {
    let from = |peers: Vec<NetworkPolicyPeer>, port: u16| NetworkPolicyIngressRule {
        from: Some(peers),
        ports: Some(vec![tcp(port)]),
    };
    let mut clients = vec![
        operator(node),
        pods(labels::network_selector(&node.network)),
        pods([(names::LABEL_CLIENT.to_string(), "true".to_string())].into()),
    ];
    clients.extend(node.access.client_cidrs.iter().map(|range| addresses(range)));
    let monitoring: BTreeMap<String, String> = [(names::LABEL_MONITORING.to_string(), "true".to_string())].into();
    let monitors = vec![operator(node), pods(monitoring.clone()), namespaces(monitoring)];
    vec![
        from(vec![pods(labels::group_selector(&node.group))], names::PORT_P2P),
        from(clients, names::PORT_GRPC),
        from(monitors, names::PORT_HTTP),
    ]
}

fn egress(node: &NodeContext) -> Vec<NetworkPolicyEgressRule> {
    let dns = [(LABEL_NAMESPACE_NAME.to_string(), NAMESPACE_DNS.to_string())].into();
    vec![
        NetworkPolicyEgressRule {
            to: Some(vec![namespaces(dns), addresses(LINK_LOCAL)]),
            ports: Some(vec![port("UDP", PORT_DNS), port("TCP", PORT_DNS)]),
        },
        NetworkPolicyEgressRule {
            to: Some(vec![pods(labels::group_selector(&node.group))]),
            ports: Some(vec![tcp(names::PORT_P2P)]),
        },
    ]
}

/// The operator's pods: in its namespace and with its label, so that a neighbour there gets nothing.
fn operator(node: &NodeContext) -> NetworkPolicyPeer {
    let namespace = [(LABEL_NAMESPACE_NAME.to_string(), node.operator_namespace.clone())].into();
    let label = [(names::LABEL_APP_NAME.to_string(), names::MANAGED_BY.to_string())].into();
    NetworkPolicyPeer { pod_selector: Some(matching(label)), ..namespaces(namespace) }
}

fn pods(labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(matching(labels)), namespace_selector: None, ip_block: None }
}

fn namespaces(labels: BTreeMap<String, String>) -> NetworkPolicyPeer {
    let selector: LabelSelector = matching(labels);
    NetworkPolicyPeer { namespace_selector: Some(selector), pod_selector: None, ip_block: None }
}

fn addresses(range: &str) -> NetworkPolicyPeer {
    let block = IPBlock { cidr: range.to_string(), except: None };
    NetworkPolicyPeer { ip_block: Some(block), namespace_selector: None, pod_selector: None }
}

fn tcp(number: u16) -> NetworkPolicyPort {
    port("TCP", number)
}

fn port(protocol: &str, number: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_string()),
        port: Some(IntOrString::Int(i32::from(number))),
        end_port: None,
    }
}
