//! The Ingress of a gateway, when the spec asks for one.

use althing_crds::gateway::GatewayIngress;
use althing_crds::names;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

use super::tiers::TierContext;

/// Leads all paths of the named hosts to the gateway's Service, always over TLS.
#[must_use]
pub fn ingress(tier: &TierContext, asked: &GatewayIngress) -> Ingress {
    let GatewayIngress { class_name, hosts, tls_secret, annotations } = asked;
    let mut metadata = tier.metadata(&tier.name);
    metadata.annotations = (!annotations.is_empty()).then(|| annotations.clone());
    let tls = IngressTLS { hosts: Some(hosts.clone()), secret_name: tls_secret.clone() };
    let spec = IngressSpec {
        ingress_class_name: class_name.clone(),
        rules: Some(hosts.iter().map(|host| rule(tier, host)).collect()),
        tls: Some(vec![tls]),
        default_backend: None,
    };
    Ingress { metadata, spec: Some(spec), status: None }
}

fn rule(tier: &TierContext, host: &str) -> IngressRule {
    let port = ServiceBackendPort { name: Some(names::PORT_NAME_GATEWAY.to_string()), number: None };
    let service = IngressServiceBackend { name: tier.name.clone(), port: Some(port) };
    let path = HTTPIngressPath {
        path: Some("/".to_string()),
        path_type: "Prefix".to_string(),
        backend: IngressBackend { service: Some(service), resource: None },
    };
    IngressRule { host: Some(host.to_string()), http: Some(HTTPIngressRuleValue { paths: vec![path] }) }
}
