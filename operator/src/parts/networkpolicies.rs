//! NetworkPolicies: everything is denied, then each node gets exactly the paths that it needs.

use std::collections::{BTreeMap, BTreeSet};

use althing_crds::names;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::context::{NetworkContext, NodeContext};
use super::labels::{self, matching};
use super::tiers::TierContext;

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

/// The paths of one node. In: p2p from the nodes of its chain, those of other members that the spec lets in, and from observers, whom it never dials; gRPC from the operator, from pods of the network, from
/// pods that say they are clients and from the addresses that the spec names; HTTP from the operator and from whoever
/// says that it monitors. Out: DNS, and p2p to the nodes of its chain, also to those of other members. There is no way to
/// the API server.
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

/// The paths of an observer. In: gRPC from the network's gateways and from whom its nodes let in, HTTP from monitors.
/// Out: DNS, and p2p to the nodes of its chain. Nobody dials it for p2p.
#[must_use]
pub fn observers(tier: &TierContext) -> NetworkPolicy {
    let gateways = labels::tier_selector(&tier.network.name, names::COMPONENT_GATEWAY);
    let mut clients = vec![operator(&tier.operator_namespace), pods(gateways), pods(marked(names::LABEL_CLIENT))];
    clients.extend(tier.access.client_cidrs.iter().map(|range| addresses(range)));
    let ingress = vec![from(clients, names::PORT_GRPC), from(monitors(&tier.operator_namespace), names::PORT_HTTP)];
    let nodes = vec![pods(labels::group_selector(&tier.group))];
    of_tier(tier, ingress, vec![dns(), to(nodes, names::PORT_P2P)])
}

/// The paths of a gateway. In: clients from anywhere, HTTP from monitors. Out: DNS, gRPC to the nodes of its chain and to
/// observers, and the ports of the issuers and of the Redis, wherever those are.
#[must_use]
pub fn gateway(tier: &TierContext, outside_ports: &[u16]) -> NetworkPolicy {
    let clients = NetworkPolicyIngressRule { from: None, ports: Some(vec![tcp(names::PORT_GATEWAY)]) };
    let observers = labels::tier_selector(&tier.network.name, names::COMPONENT_OBSERVERS);
    let nodes = vec![pods(labels::group_selector(&tier.group)), pods(observers)];
    let mut egress = vec![dns(), to(nodes, names::PORT_GRPC)];
    if !outside_ports.is_empty() {
        let ports = outside_ports.iter().map(|number| tcp(*number)).collect();
        egress.push(NetworkPolicyEgressRule { to: None, ports: Some(ports) });
    }
    of_tier(tier, vec![clients, from(monitors(&tier.operator_namespace), names::PORT_HTTP)], egress)
}

fn of_tier(
    tier: &TierContext,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    NetworkPolicy {
        metadata: tier.metadata(&tier.name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(tier.selector())),
            policy_types: Some(vec!["Ingress".to_string(), "Egress".to_string()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

fn ingress(node: &NodeContext) -> Vec<NetworkPolicyIngressRule> {
    let mut clients = vec![
        operator(&node.operator_namespace),
        pods(labels::network_selector(&node.network)),
        pods(marked(names::LABEL_CLIENT)),
    ];
    clients.extend(node.access.client_cidrs.iter().map(|range| addresses(range)));
    let observers = labels::tier_selector(&node.network, names::COMPONENT_OBSERVERS);
    let mut peers = vec![pods(labels::group_selector(&node.group)), pods(observers)];
    peers.extend(members(node));
    if !node.p2p.allowed_namespaces.is_empty() {
        // For a member in the same cluster it asks here what the voters see.
        peers.push(operator(&node.operator_namespace));
    }
    vec![
        from(peers, names::PORT_P2P),
        from(clients, names::PORT_GRPC),
        from(monitors(&node.operator_namespace), names::PORT_HTTP),
    ]
}

fn egress(node: &NodeContext) -> Vec<NetworkPolicyEgressRule> {
    let mut nodes = vec![pods(labels::group_selector(&node.group))];
    nodes.extend(members(node).into_iter().filter(|member| member.ip_block.is_none()));
    let mut egress = vec![dns(), to(nodes, names::PORT_P2P)];
    // Behind an address outside there may be any port.
    let ranges: Vec<NetworkPolicyPeer> = node.p2p.allowed_cidrs.iter().map(|range| addresses(range)).collect();
    if !ranges.is_empty() {
        egress.push(NetworkPolicyEgressRule { to: Some(ranges), ports: None });
    }
    // Names of peers may lead anywhere.
    let ports: BTreeSet<u16> = node.outside.iter().filter_map(|peer| peer.port()).collect();
    if !ports.is_empty() {
        let ports = ports.into_iter().chain([names::PORT_P2P]).collect::<BTreeSet<u16>>();
        egress.push(NetworkPolicyEgressRule { to: None, ports: Some(ports.into_iter().map(tcp).collect()) });
    }
    egress
}

/// Nodes of other members: those of the named namespaces, and whatever is behind the named addresses.
fn members(node: &NodeContext) -> Vec<NetworkPolicyPeer> {
    let nodes = |namespace: &String| {
        let place = [(LABEL_NAMESPACE_NAME.to_string(), namespace.clone())].into();
        let label = [(names::LABEL_APP_NAME.to_string(), names::APP_NAME.to_string())].into();
        NetworkPolicyPeer { pod_selector: Some(matching(label)), ..namespaces(place) }
    };
    let ranges = node.p2p.allowed_cidrs.iter().map(|range| addresses(range));
    node.p2p.allowed_namespaces.iter().map(nodes).chain(ranges).collect()
}

fn from(peers: Vec<NetworkPolicyPeer>, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: Some(peers), ports: Some(vec![tcp(port)]) }
}

fn to(peers: Vec<NetworkPolicyPeer>, port: u16) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(peers), ports: Some(vec![tcp(port)]) }
}

fn dns() -> NetworkPolicyEgressRule {
    let dns = [(LABEL_NAMESPACE_NAME.to_string(), NAMESPACE_DNS.to_string())].into();
    NetworkPolicyEgressRule {
        to: Some(vec![namespaces(dns), addresses(LINK_LOCAL)]),
        ports: Some(vec![port("UDP", PORT_DNS), port("TCP", PORT_DNS)]),
    }
}

fn monitors(operator_namespace: &str) -> Vec<NetworkPolicyPeer> {
    let monitoring = marked(names::LABEL_MONITORING);
    vec![operator(operator_namespace), pods(monitoring.clone()), namespaces(monitoring)]
}

fn marked(label: &str) -> BTreeMap<String, String> {
    [(label.to_string(), "true".to_string())].into()
}

/// The operator's pods: in its namespace and with its label, so that a neighbour there gets nothing.
fn operator(operator_namespace: &str) -> NetworkPolicyPeer {
    let namespace = [(LABEL_NAMESPACE_NAME.to_string(), operator_namespace.to_string())].into();
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
