//! The documented policies for meshes have the form that the API server takes, and select the gateways of the example.

use std::fs;
use std::path::Path;

use althing_crds::names;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

fn document(path: &str) -> Value {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path));
    let text = text.expect("readable");
    serde_yaml::from_str(text.split("\n---\n").last().unwrap_or_default()).expect("YAML")
}

#[test]
fn the_policies_for_meshes_let_the_gateways_of_the_example_out_and_no_other_pod() {
    let network = document("gateway.yaml");
    let gateways = json!({
        names::LABEL_NETWORK: network["metadata"]["name"],
        names::LABEL_APP_COMPONENT: names::COMPONENT_GATEWAY,
    });
    for file in ["mesh/istio.yaml", "mesh/linkerd.yaml"] {
        let found = document(file);
        let policy: NetworkPolicy = serde_json::from_value(found.clone()).expect(file);
        assert_eq!(serde_json::to_value(&policy).expect(file), found, "{file} has a field that nobody knows");
        assert_eq!(found["metadata"]["namespace"], network["metadata"]["namespace"], "{file}");
        assert_eq!(found["spec"]["podSelector"], json!({ "matchLabels": gateways }), "{file}");
        let spec = policy.spec.expect(file);
        assert_eq!(spec.policy_types.expect(file), ["Ingress", "Egress"], "{file}");
        let mut ways_out = spec.egress.into_iter().flatten();
        assert!(ways_out.all(|rule| rule.to.is_some() && rule.ports.is_some()), "{file} opens the way to everywhere");
    }
}
