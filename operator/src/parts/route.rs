//! The route of the Gateway API before a gateway, when the spec asks for one.

use althing_crds::gateway::{GatewayRoute, RouteParent};
use althing_crds::names;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use super::tiers::TierContext;

/// Group and version of the Gateway API.
pub const API_VERSION: &str = "gateway.networking.k8s.io/v1";
/// The kind of route.
pub const KIND: &str = "TLSRoute";

/// Where its routes are.
#[must_use]
pub fn resource() -> ApiResource {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, KIND), "tlsroutes")
}

/// Leads connections for the named hosts to the gateway's Service as they are: TLS ends at the gateway.
#[must_use]
pub fn route(tier: &TierContext, asked: &GatewayRoute) -> DynamicObject {
    let GatewayRoute { parent_refs, host_names } = asked;
    let backend = json!({ "name": tier.name, "port": names::PORT_GATEWAY });
    let spec = json!({
        "parentRefs": parent_refs.iter().map(parent).collect::<Vec<_>>(),
        "hostnames": host_names,
        "rules": [{ "backendRefs": [backend] }],
    });
    let route = DynamicObject::new(&tier.name, &resource()).data(json!({ "spec": spec }));
    DynamicObject { metadata: tier.metadata(&tier.name), ..route }
}

fn parent(parent: &RouteParent) -> Value {
    let RouteParent { name, namespace, section_name } = parent;
    let mut entry = json!({ "name": name });
    let options = [("namespace", namespace), ("sectionName", section_name)];
    if let Some(entry) = entry.as_object_mut() {
        entry.extend(options.into_iter().filter_map(|(key, value)| Some((key.to_string(), json!(value.as_ref()?)))));
    }
    entry
}
