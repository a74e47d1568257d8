//! Golden files: each builder's whole output as YAML, compared with `testdata/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use althing_crds::gateway::Gateway;
use althing_crds::network::NetworkAccess;
use althing_crds::observers::Observers;
use althing_crds::scaling::Autoscaling;
use althing_crds::{BlockchainNetwork, ConsensusGroup, NodeTemplate, ValidatorNode, names};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::secrets::CertificatePem;
use super::{
    GroupContext, Installation, NetworkContext, NodeContext, NodeSettings, PeerPlace, TierContext, autoscaler,
    configmaps, gateway, ingress, networkpolicies, observers, poddisruptionbudget, route, secrets, serviceaccount,
    services, statefulset, storage,
};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/parts/testdata").join(name)
}

fn input<T: DeserializeOwned>(name: &str) -> T {
    let path = testdata(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn node(name: &str) -> NodeContext {
    let installation =
        Installation { operator_namespace: "althing-system".to_string(), node_image: "althing/node:1.2.3".to_string() };
    let places = [
        ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "demo-main-0"),
        ("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "demo-main-1"),
    ];
    let peers = places
        .map(|(identity, name)| PeerPlace { identity: identity.to_string(), address: names::p2p_address(name, "demo") })
        .into();
    NodeContext::new(&input::<ValidatorNode>(name), peers, &installation).expect("placed")
}

fn group() -> GroupContext {
    GroupContext::new(&input::<ConsensusGroup>("group.in.yaml")).expect("placed")
}

fn network() -> NetworkContext {
    NetworkContext::new(&input::<BlockchainNetwork>("network.in.yaml")).expect("placed")
}

/// Compares the objects with the file; with ALTHING_BLESS set, writes the file instead.
fn compare<T: Serialize>(file: &str, objects: &[T]) {
    let documents: Vec<String> = objects.iter().map(|object| serde_yaml::to_string(object).expect("YAML")).collect();
    let actual = documents.join("---\n");
    let path = testdata(file);
    if std::env::var_os("ALTHING_BLESS").is_some() {
        fs::write(&path, &actual).expect("writable");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{file} differs: ALTHING_BLESS=1 cargo test -p althing-operator golden");
}

/// Two documents of different kinds in one file need one type.
fn value<T: Serialize>(object: &T) -> serde_json::Value {
    serde_json::to_value(object).expect("JSON")
}

fn children(node: &NodeContext) -> Vec<serde_json::Value> {
    let hash = configmaps::config_hash(node).expect("a configuration that a node takes");
    vec![
        value(&serviceaccount::service_account(node)),
        value(&configmaps::node_config(node).expect("a configuration that a node takes")),
        value(&services::p2p(node)),
        value(&services::node_rpc(node)),
        value(&networkpolicies::node(node)),
        value(&storage::claim(node)),
        value(&statefulset::statefulset(node, &hash)),
    ]
}

#[test]
fn a_log_level_restarts_nobody_and_other_settings_do() {
    let mut node = node("node-full.in.yaml");
    let before = configmaps::config_hash(&node).expect("a configuration");
    let file = configmaps::node_config(&node).expect("a configuration");
    node.settings.log_level = althing_crds::template::LogLevel::Error;
    assert_ne!(configmaps::node_config(&node).expect("a configuration"), file, "the node is told");
    assert_eq!(configmaps::config_hash(&node).expect("a configuration"), before);
    node.chain_id = "another".to_string();
    assert_ne!(configmaps::config_hash(&node).expect("a configuration"), before);
}

#[test]
fn the_smallest_node_gets_safe_defaults() {
    compare("node-smallest.out.yaml", &children(&node("node-smallest.in.yaml")));
}

#[test]
fn every_setting_of_a_node_reaches_its_children() {
    compare("node-full.out.yaml", &children(&node("node-full.in.yaml")));
}

#[test]
fn a_node_of_one_member_meets_those_of_the_others_and_trusts_their_authorities() {
    let mut node = node("node-smallest.in.yaml");
    node.p2p = input("node-member.in.yaml");
    let (identity, address) = ("ab".repeat(32), "node-0.home.example.org:31100".to_string());
    node.outside = vec![PeerPlace { identity, address }];
    node.advertised = Some("203.0.113.7:7100".to_string());
    let pem = CertificatePem { certificate: "CERT".into(), key: "KEY".into(), authorities: "CA".into() };
    let mut all = children(&node);
    all.push(value(&secrets::node_tls(&node, &pem, "MEMBERS")));
    all.push(value(&services::p2p_external(&node, node.p2p.expose.as_ref().expect("it asks for that"))));
    compare("node-member.out.yaml", &all);
}

#[test]
fn an_address_outside_restarts_the_node_that_has_to_tell_it() {
    let mut node = node("node-smallest.in.yaml");
    let before = configmaps::config_hash(&node).expect("a configuration");
    node.advertised = Some("203.0.113.7:7100".to_string());
    assert_ne!(configmaps::config_hash(&node).expect("a configuration"), before);
}

#[test]
fn the_address_of_a_load_balancer_is_a_name_or_a_number() {
    let service = |ingress: &str| {
        let text = format!("{{status: {{loadBalancer: {{ingress: [{ingress}]}}}}}}");
        services::external_address(&serde_yaml::from_str(&text).expect("a Service"))
    };
    assert_eq!(service("{ip: 203.0.113.7}").as_deref(), Some("203.0.113.7:7100"));
    assert_eq!(service("{ip: '2001:db8::7'}").as_deref(), Some("[2001:db8::7]:7100"));
    assert_eq!(service("{hostname: a.example.org}").as_deref(), Some("a.example.org:7100"));
    assert_eq!(service(""), None);
}

#[test]
fn a_group_has_a_budget_a_service_and_a_genesis() {
    let group = group();
    let hash = "ab".repeat(32);
    compare(
        "group.out.yaml",
        &[
            value(&services::group_rpc(&group)),
            value(&poddisruptionbudget::budget(&group, 3)),
            value(&configmaps::genesis(&group, "{}", &hash)),
            value(&secrets::governance(&group, "PEM")),
        ],
    );
}

#[test]
fn a_network_has_an_authority_a_client_and_a_closed_door() {
    let network = network();
    let pem = CertificatePem { certificate: "CERT".into(), key: "KEY".into(), authorities: "CA".into() };
    let node = node("node-smallest.in.yaml");
    compare(
        "network.out.yaml",
        &[
            value(&networkpolicies::default_deny(&network)),
            value(&secrets::certificate_authority(&network, "CA", "KEY", None)),
            value(&secrets::client(&network, &pem)),
            value(&secrets::identity(&node, "PEM")),
            value(&secrets::node_tls(&node, &pem, "")),
        ],
    );
}

fn tier(component: &'static str, settings: NodeSettings, autoscaling: Option<Autoscaling>) -> TierContext {
    let network = network();
    TierContext {
        name: format!("{}-{component}", network.name),
        component,
        group: "demo-main".to_string(),
        chain_id: "demo-main".to_string(),
        settings,
        replicas: autoscaling.is_none().then_some(2),
        autoscaling,
        access: NetworkAccess { client_cidrs: vec!["10.0.0.0/8".to_string()], ..NetworkAccess::default() },
        operator_namespace: "althing-system".to_string(),
        network,
    }
}

fn gateway_children(file: &str) -> Vec<serde_json::Value> {
    let spec: Gateway = input(file);
    let settings = NodeSettings::resolve_gateway(&spec.pod.over(&NodeTemplate::default()), "althing/node:1.2.3");
    let tier = tier(names::COMPONENT_GATEWAY, settings, spec.autoscaling.clone());
    let reads_from = tier.address("demo-observers", names::PORT_GRPC);
    let config = gateway::config(&tier, &spec, Some(&reads_from)).expect("a configuration that a gateway takes");
    let hash = gateway::config_hash(&tier, &spec, Some(&reads_from)).expect("a configuration that a gateway takes");
    let pem = CertificatePem { certificate: "CERT".into(), key: "KEY".into(), authorities: "CA".into() };
    let mut children = vec![
        value(&tier.service_account()),
        value(&config),
        value(&networkpolicies::gateway(&tier, &gateway::outside_ports(&spec))),
        value(&gateway::tls(&tier, &pem)),
        value(&gateway::edge(&tier, &pem)),
        value(&gateway::api_keys(&tier, "KEY", "HASHES")),
        value(&services::gateway(&tier, &spec.service)),
        value(&services::gateway_pods(&tier)),
        value(&services::gateway_voters(&tier)),
        value(&poddisruptionbudget::tier(&tier)),
        value(&gateway::deployment(&tier, &spec, &hash)),
    ];
    let bounds = tier.autoscaling.as_ref();
    children.extend(bounds.map(|bounds| value(&autoscaler::autoscaler(&tier, bounds, "Deployment"))));
    children.extend(spec.ingress.as_ref().map(|ingress| value(&ingress::ingress(&tier, ingress))));
    children.extend(spec.route.as_ref().map(|route| value(&route::route(&tier, route))));
    children
}

#[test]
fn the_smallest_gateway_is_complete_and_closed() {
    compare("gateway-smallest.out.yaml", &gateway_children("gateway-smallest.in.yaml"));
}

#[test]
fn a_gateway_that_is_reached_from_outside_sees_who_comes() {
    let tier = tier(names::COMPONENT_GATEWAY, NodeSettings::resolve(&NodeTemplate::default(), "a:1"), None);
    let policy = |kind: &str| {
        let exposed = serde_yaml::from_str(&format!("{{type: {kind}}}")).expect("a Service");
        services::gateway(&tier, &exposed).spec.and_then(|spec| spec.external_traffic_policy)
    };
    assert_eq!(policy("ClusterIP"), None, "the API server refuses one");
    assert_eq!(policy("NodePort").as_deref(), Some("Local"));
    assert_eq!(policy("LoadBalancer").as_deref(), Some("Local"));
}

#[test]
fn what_a_gateway_holds_fits_its_memory() {
    let held = |memory: &str, limits: &str| {
        let text = format!("{{pod: {{resources: {{cpu: 50m, memory: {memory}}}}}, limits: {limits}}}");
        let spec: Gateway = serde_yaml::from_str(&text).expect("a gateway");
        let settings = NodeSettings::resolve_gateway(&spec.pod.over(&NodeTemplate::default()), "a:1");
        let map = gateway::config(&tier(names::COMPONENT_GATEWAY, settings, None), &spec, None);
        let map = map.map_err(|error| error.to_string())?;
        let text = map.data.and_then(|data| data.get("node.yaml").cloned()).expect("a file");
        let limits = node_api::gateway::GatewayConfig::from_yaml(&text).expect("good").gateway.limits;
        Ok::<_, String>((limits.cache_bytes_max >> 20, limits.bodies_bytes_max >> 20))
    };
    assert_eq!(held("128Mi", "{}"), Ok((16, 16)));
    assert_eq!(held("64Mi", "{}"), Ok((8, 8)), "the least that there can be");
    assert_eq!(held("4Gi", "{}"), Ok((64, 64)), "more than the gateway's own defaults is for who asks for it");
    assert_eq!(held("4Gi", "{cacheBytesMax: 1073741824}"), Ok((1024, 64)));
    assert_eq!(held("192Mi", "{bodyBytesMax: 16777216, cacheBytesMax: 0}"), Ok((0, 24)));
    let refused = held("63Mi", "{}").expect_err("the newest blocks alone take half of it");
    assert!(refused.contains("pod.resources.memory"), "{refused}");
    assert!(held("128Mi", "{cacheBytesMax: 67108864}").is_err(), "a cache of half of it, and the newest blocks");
}

#[test]
fn roles_of_the_spec_stand_beside_the_usual_ones_and_an_unknown_one_is_refused() {
    let made = |text: &str| {
        let spec: Gateway = serde_yaml::from_str(text).expect("a gateway");
        let settings = NodeSettings::resolve_gateway(&spec.pod.over(&NodeTemplate::default()), "a:1");
        let map = gateway::config(&tier(names::COMPONENT_GATEWAY, settings, None), &spec, None);
        let text = map.map_err(|error| error.to_string())?.data.and_then(|data| data.get("node.yaml").cloned());
        Ok::<_, String>(node_api::gateway::GatewayConfig::from_yaml(&text.expect("a file")).expect("good").gateway)
    };
    let usual = made("{}").expect("good");
    assert_eq!(usual.roles, node_api::gateway::default_roles());
    assert_eq!(usual.authentication.certificate_roles, ["writer"]);
    let own =
        made("{roles: [{name: auditor, permissions: [status, read]}], authentication: {certificateRoles: [auditor]}}");
    let own = own.expect("good");
    assert_eq!(own.roles.keys().map(String::as_str).collect::<Vec<_>>(), ["auditor", "reader", "service", "writer"]);
    assert_eq!(own.roles.get("auditor").map(|role| role.permissions.len()), Some(2));
    assert_eq!(own.authentication.certificate_roles, ["auditor"]);
    assert!(
        made("{authentication: {certificateRoles: []}}").expect("good").authentication.certificate_roles.is_empty()
    );
    // The API server refuses the name; what is there counts all the same.
    let weaker = made("{roles: [{name: reader, permissions: [submit]}]}").expect("good");
    assert_eq!(weaker.roles, node_api::gateway::default_roles());
    let refused = made("{authentication: {certificateRoles: [auditor]}}").expect_err("nobody defined it");
    assert!(refused.contains("\"auditor\" is not in gateway.roles, which has reader, service, writer"), "{refused}");
}

#[test]
fn every_setting_of_a_gateway_reaches_its_children() {
    compare("gateway-full.out.yaml", &gateway_children("gateway-full.in.yaml"));
}

#[test]
fn observers_are_one_statefulset_with_an_identity_for_each_number() {
    let spec: Observers = input("observers.in.yaml");
    let settings = NodeSettings::resolve(&spec.node, "althing/node:1.2.3");
    let tier = tier(names::COMPONENT_OBSERVERS, settings, spec.autoscaling.clone());
    let peers = node("node-smallest.in.yaml").peers;
    let pem = CertificatePem { certificate: "CERT".into(), key: "KEY".into(), authorities: "CA".into() };
    let hash = observers::config_hash(&tier, &[]).expect("a configuration that a node takes");
    let mut children = vec![
        value(&tier.service_account()),
        value(&observers::config(&tier, &peers).expect("a configuration that a node takes")),
        value(&networkpolicies::observers(&tier)),
        value(&observers::identities(&tier, &[("PEM".to_string(), Some(pem))])),
        value(&services::observers(&tier)),
        value(&poddisruptionbudget::tier(&tier)),
        value(&observers::statefulset(&tier, &hash)),
    ];
    let bounds = tier.autoscaling.as_ref();
    children.extend(bounds.map(|bounds| value(&autoscaler::autoscaler(&tier, bounds, "StatefulSet"))));
    compare("observers.out.yaml", &children);
}

#[test]
fn a_log_level_restarts_no_tier_and_other_settings_do() {
    let observers_spec: Observers = input("observers.in.yaml");
    let mut observers = tier(
        names::COMPONENT_OBSERVERS,
        NodeSettings::resolve(&observers_spec.node, "althing/node:1.2.3"),
        observers_spec.autoscaling,
    );
    let spec: Gateway = input("gateway-full.in.yaml");
    let settings = NodeSettings::resolve_gateway(&spec.pod.over(&NodeTemplate::default()), "althing/node:1.2.3");
    let mut gateways = tier(names::COMPONENT_GATEWAY, settings, spec.autoscaling.clone());
    let made = |observers: &TierContext, gateways: &TierContext| {
        let files = (observers::config(observers, &[]), gateway::config(gateways, &spec, None));
        let hashes = (observers::config_hash(observers, &[]), gateway::config_hash(gateways, &spec, None));
        let set = observers::statefulset(observers, &hashes.0.expect("a configuration")).spec.map(|it| it.template);
        let deployment = gateway::deployment(gateways, &spec, &hashes.1.expect("a configuration"));
        (
            (files.0.expect("a configuration"), files.1.expect("a configuration")),
            (set, deployment.spec.map(|it| it.template)),
        )
    };
    let (files, pods) = made(&observers, &gateways);
    for tier in [&mut observers, &mut gateways] {
        tier.settings.log_level = althing_crds::template::LogLevel::Error;
    }
    let (files_now, pods_now) = made(&observers, &gateways);
    assert!(files_now.0 != files.0 && files_now.1 != files.1, "both are told");
    assert_eq!(pods_now, pods);
    for tier in [&mut observers, &mut gateways] {
        tier.chain_id = "another".to_string();
    }
    let (_, pods_now) = made(&observers, &gateways);
    assert!(pods_now.0 != pods.0 && pods_now.1 != pods.1);
}

#[test]
fn pods_of_tiers_are_no_backends_of_voters_and_no_voters() {
    let settings = NodeSettings::resolve(&NodeTemplate::default(), "althing/node:1.2.3");
    for component in [names::COMPONENT_GATEWAY, names::COMPONENT_OBSERVERS] {
        let labels = tier(component, settings.clone(), None).labels();
        for label in [names::LABEL_GROUP, names::LABEL_NODE, names::LABEL_VOTER] {
            assert!(!labels.contains_key(label), "{component} carries {label}");
        }
    }
}

#[test]
fn a_new_peer_or_a_new_client_restarts_nobody() {
    let before = node("node-full.in.yaml");
    let mut after = before.clone();
    after.peers.clear();
    after.access.client_cidrs.clear();
    let template = |node: &NodeContext| {
        let hash = configmaps::config_hash(node).expect("a configuration that a node takes");
        statefulset::statefulset(node, &hash).spec.map(|spec| spec.template)
    };
    assert_eq!(template(&before), template(&after));
}

#[test]
fn labels_of_the_user_never_replace_ours() {
    let mut node = node("node-full.in.yaml");
    node.settings.template.pod_labels = BTreeMap::from([("althing.dev/node".to_string(), "other".to_string())]);
    let template = statefulset::statefulset(&node, "hash").spec.expect("a spec").template;
    let labels = template.metadata.and_then(|metadata| metadata.labels).expect("labels");
    assert_eq!(labels.get("althing.dev/node"), Some(&node.name));
}
