//! Services: how nodes find each other, and how clients find one node or all nodes of a chain.

use std::collections::BTreeMap;

use althing_crds::gateway::{GatewayService, ServiceType};
use althing_crds::names;
use althing_crds::peers::Expose;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::context::{GroupContext, NodeContext};
use super::labels;
use super::tiers::TierContext;

/// The Service by which other nodes find this one. It leads to a pod that is not ready, too: nodes must meet before any of
/// them can be ready. Its address is there before the pod and outlives it, so no name server remembers that there is none,
/// or a former one (ADR 29).
#[must_use]
pub fn p2p(node: &NodeContext) -> Service {
    let spec = ServiceSpec {
        publish_not_ready_addresses: Some(true),
        ..spec(labels::node_selector(&node.name), vec![port(names::PORT_NAME_P2P, names::PORT_P2P)])
    };
    service(node.metadata(&names::p2p_service(&node.name)), spec)
}

/// The Service by which nodes outside of the cluster reach this one, ready or not. Addresses of callers are kept, because
/// the policy goes by them.
#[must_use]
pub fn p2p_external(node: &NodeContext, expose: &Expose) -> Service {
    let spec = ServiceSpec {
        type_: Some(expose.kind.as_str().to_string()),
        external_traffic_policy: Some("Local".to_string()),
        publish_not_ready_addresses: Some(true),
        ..spec(labels::node_selector(&node.name), vec![port(names::PORT_NAME_P2P, names::PORT_P2P)])
    };
    let mut metadata = node.metadata(&names::p2p_external_service(&node.name));
    metadata.annotations = (!expose.annotations.is_empty()).then(|| expose.annotations.clone());
    service(metadata, spec)
}

/// The address that a load balancer has given to such a Service.
#[must_use]
pub fn external_address(service: &Service) -> Option<String> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    let host = ingress.hostname.clone().or_else(|| {
        let ip = ingress.ip.as_ref()?;
        Some(if ip.contains(':') { format!("[{ip}]") } else { ip.clone() })
    })?;
    Some(format!("{host}:{}", names::PORT_P2P))
}

/// The Service for clients of this node.
#[must_use]
pub fn node_rpc(node: &NodeContext) -> Service {
    let spec = spec(labels::node_selector(&node.name), vec![port(names::PORT_NAME_GRPC, names::PORT_GRPC)]);
    service(node.metadata(&names::rpc_service(&node.name)), spec)
}

/// The Service for clients of a chain: any of its nodes that is ready.
#[must_use]
pub fn group_rpc(group: &GroupContext) -> Service {
    let spec = spec(labels::group_selector(&group.name), vec![port(names::PORT_NAME_GRPC, names::PORT_GRPC)]);
    service(group.metadata(&names::rpc_service(&group.name)), spec)
}

/// The headless Service of observers: each address is one that is ready.
#[must_use]
pub fn observers(tier: &TierContext) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_string()),
        ..spec(tier.selector(), vec![port(names::PORT_NAME_GRPC, names::PORT_GRPC)])
    };
    service(tier.metadata(&tier.name), spec)
}

/// The Service for a network's clients. Where they come from outside, their addresses are kept: limits go by them, and all
/// clients behind one machine would else be one.
#[must_use]
pub fn gateway(tier: &TierContext, exposed: &GatewayService) -> Service {
    let kind = exposed.kind.unwrap_or_default();
    let external_traffic_policy = match kind {
        ServiceType::ClusterIP => None,
        ServiceType::NodePort | ServiceType::LoadBalancer => Some("Local".to_string()),
    };
    let spec = ServiceSpec {
        type_: Some(kind.as_str().to_string()),
        external_traffic_policy,
        ..spec(tier.selector(), vec![port(names::PORT_NAME_GATEWAY, names::PORT_GATEWAY)])
    };
    let mut metadata = tier.metadata(&tier.name);
    metadata.annotations = (!exposed.annotations.is_empty()).then(|| exposed.annotations.clone());
    service(metadata, spec)
}

/// The headless Service by which gateways count each other, to share the limits.
#[must_use]
pub fn gateway_pods(tier: &TierContext) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_string()),
        ..spec(tier.selector(), vec![port(names::PORT_NAME_GATEWAY, names::PORT_GATEWAY)])
    };
    service(tier.metadata(&names::gateway_pods_service(&tier.network.name)), spec)
}

/// The headless Service by which gateways find the voters of their chain: each one is a backend of its own, with its own
/// health and its own breaker.
#[must_use]
pub fn gateway_voters(tier: &TierContext) -> Service {
    let voters = labels::group_voters_selector(&tier.group);
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_string()),
        ..spec(voters, vec![port(names::PORT_NAME_GRPC, names::PORT_GRPC)])
    };
    service(tier.metadata(&names::gateway_voters_service(&tier.network.name)), spec)
}

fn service(metadata: ObjectMeta, spec: ServiceSpec) -> Service {
    Service { metadata, spec: Some(spec), status: None }
}

fn spec(selector: BTreeMap<String, String>, ports: Vec<ServicePort>) -> ServiceSpec {
    ServiceSpec {
        type_: Some("ClusterIP".to_string()),
        selector: Some(selector),
        ports: Some(ports),
        ..ServiceSpec::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_string()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_string())),
        protocol: Some("TCP".to_string()),
        ..ServicePort::default()
    }
}
