//! Tiers of a network: who owns their numbers, when they are made, and what their state says about the chain.

use std::collections::BTreeMap;
use std::sync::Arc;

use althing_crds::conditions::{self, ConditionStatus, ConditionType};
use althing_crds::{BlockchainNetwork, ConsensusGroup, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};

use node_api::pki::{self, CertificateAuthority};
use node_api::roles::{Role, SpiffeId};
use node_api::tls::TlsReport;

use super::observe::{AuthorityRead, Observed};
use super::status::{self, Progress};
use super::tiers::{self, Tiers, Workload};
use super::{desired, desired_tiers, rolling, validate};
use crate::certificates;
use crate::issuer::Desk;
use crate::kinds::Kind;
use crate::parts::{Installation, PeerPlace, secrets};
use crate::pause::PAUSED;
use crate::rollover::{Authority, Stage, Step};

const NETWORK: &str = "
apiVersion: althing.dev/v1alpha1
kind: BlockchainNetwork
metadata: {name: demo, namespace: shop, uid: u, generation: 1}
spec:
  groups: [{name: main, replicas: 4}]
";

const GROUP: &str = "
apiVersion: althing.dev/v1alpha1
kind: ConsensusGroup
metadata: {name: demo-main, namespace: shop, uid: g, generation: 1}
spec: {network: demo}
status:
  observedGeneration: 1
  genesisHash: abababababababababababababababababababababababababababababababab
  conditions:
    - {type: Ready, status: 'True', reason: NodesReady, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}
    - {type: Reconciling, status: 'False', reason: UpToDate, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}
    - {type: Stalled, status: 'False', reason: NotStalled, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}
    - {type: Available, status: 'True', reason: QuorumSigning, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}
    - {type: QuorumAtRisk, status: 'False', reason: MarginLeft, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}
";

/// A network whose chain is well, with these tiers in its spec.
pub fn observed(tiers: &str) -> Observed {
    let network: BlockchainNetwork = serde_yaml::from_str(&format!("{NETWORK}{tiers}")).expect("a network");
    let group: ConsensusGroup = serde_yaml::from_str(GROUP).expect("a group");
    let identity = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".to_string();
    let peers = vec![PeerPlace { identity, address: "demo-main-0-p2p.shop.svc:7100".to_string() }];
    Observed {
        network,
        groups: vec![Some(group)],
        others: vec![],
        authority: AuthorityRead::Missing,
        rolling: None,
        bundle: Ok(String::new()),
        issuance: None,
        client: None,
        tiers: Tiers { peers, ..Tiers::default() },
        installation: Installation { operator_namespace: "system".to_string(), node_image: "node:1".to_string() },
        missing: vec![],
        children_hash: None,
    }
}

pub fn workload(replicas: i32, ready: i32) -> Option<Workload> {
    Some(Workload { replicas, ready, updated: replicas, ..Workload::default() })
}

/// `spec.replicas` of the workload of this kind, if it is made and if it is named.
fn replicas(observed: &Observed, kind: Kind) -> Option<Option<i64>> {
    let contexts = desired_tiers::contexts(observed).expect("contexts");
    let children = desired_tiers::children(observed, &contexts, &[]).expect("children");
    let child = children.into_iter().find(|child| child.kind == kind)?;
    Some(child.body.pointer("/spec/replicas").and_then(serde_json::Value::as_i64))
}

#[test]
fn an_autoscaler_alone_owns_the_number_and_when_it_goes_the_number_stays() {
    let mut scaled = observed("  gateway: {autoscaling: {minReplicas: 2, maxReplicas: 9}}");
    scaled.tiers.gateway = workload(7, 7);
    assert_eq!(replicas(&scaled, Kind::Deployment), Some(None));
    assert!(replicas(&scaled, Kind::HorizontalPodAutoscaler).is_some());
    let mut kept = observed("  gateway: {}");
    assert_eq!(replicas(&kept, Kind::Deployment), Some(Some(2)));
    kept.tiers.gateway = workload(7, 7);
    assert_eq!(replicas(&kept, Kind::Deployment), Some(Some(7)));
    assert!(replicas(&kept, Kind::HorizontalPodAutoscaler).is_none());
    let mut given = observed("  gateway: {replicas: 3}");
    given.tiers.gateway = workload(7, 7);
    assert_eq!(replicas(&given, Kind::Deployment), Some(Some(3)));
}

#[test]
fn a_number_is_handed_over_only_while_we_hold_it() {
    let held_by = |manager: &str, fields: &str| {
        let entry: ManagedFieldsEntry =
            serde_yaml::from_str(&format!("{{manager: {manager}, fieldsV1: {fields}}}")).expect("an entry");
        let mut workload = Workload::default();
        workload.metadata.managed_fields = Some(vec![entry]);
        tiers::holds_replicas(&workload.metadata)
    };
    let replicas = "{'f:spec': {'f:replicas': {}}}";
    assert!(held_by("althing-blockchainnetwork", replicas));
    assert!(!held_by("althing-blockchainnetwork", "{'f:spec': {'f:template': {}}}"));
    assert!(!held_by("kube-controller-manager", replicas));
}

#[test]
fn observers_wait_for_the_genesis_of_their_chain() {
    let mut early = observed("  observers: {replicas: 3}");
    for group in early.groups.iter_mut().flatten() {
        group.status = None;
    }
    assert_eq!(replicas(&early, Kind::StatefulSet), None);
    assert_eq!(replicas(&observed("  observers: {replicas: 3}"), Kind::StatefulSet), Some(Some(3)));
}

#[test]
fn a_gateway_reads_from_the_observers_of_its_own_chain_only() {
    let config = |tiers: &str| {
        let mut observed = observed(tiers);
        let side = serde_yaml::from_str("{name: side}").expect("a group");
        observed.network.spec.groups.push(side);
        let contexts = desired_tiers::contexts(&observed).expect("contexts");
        let children = desired_tiers::children(&observed, &contexts, &[]).expect("children");
        let child = children.into_iter().find(|child| child.kind == Kind::ConfigMap && child.name == "demo-gateway");
        child.expect("a configuration").body.to_string()
    };
    assert!(config("  gateway: {group: main}\n  observers: {group: main}").contains("demo-observers.shop.svc:7200"));
    assert!(!config("  gateway: {group: main}\n  observers: {group: side}").contains("demo-observers.shop.svc:7200"));
}

#[test]
fn a_route_is_there_when_asked_for_and_its_names_are_in_the_certificate() {
    let made = |tiers: &str| {
        let observed = observed(tiers);
        let contexts = desired_tiers::contexts(&observed).expect("contexts");
        let children = desired_tiers::children(&observed, &contexts, &[]).expect("children");
        let spec = observed.network.spec.gateway.as_ref().expect("a gateway");
        let hosts = crate::parts::gateway::host_names(contexts.gateway.as_ref().expect("a tier"), spec);
        (children.into_iter().find(|child| child.kind == Kind::TlsRoute), hosts.join(" "))
    };
    let (route, hosts) = made("  gateway: {}");
    assert!(route.is_none() && !hosts.contains("example"));
    let asked = "route: {parentRefs: [{name: public}], hostNames: [a.example, b.example]}";
    let (route, hosts) = made(&format!("  gateway: {{tls: {{hostNames: [a.example]}}, {asked}}}"));
    let route = route.expect("a route");
    assert_eq!(route.body["spec"]["hostnames"], serde_json::json!(["a.example", "b.example"]));
    assert_eq!(route.body["metadata"]["ownerReferences"][0]["controller"], true);
    assert!(hosts.ends_with("a.example b.example"), "{hosts}");
    assert_eq!(hosts.matches("a.example").count(), 1, "{hosts}");
}

#[test]
fn an_ingress_and_a_redis_are_there_when_asked_for() {
    let made = |tiers: &str| {
        let observed = observed(tiers);
        let contexts = desired_tiers::contexts(&observed).expect("contexts");
        let children = desired_tiers::children(&observed, &contexts, &[]).expect("children");
        let find = |kind| children.iter().find(|child| child.kind == kind && child.name == "demo-gateway");
        let text = |kind| find(kind).map(|child| child.body.to_string()).unwrap_or_default();
        (text(Kind::Ingress), text(Kind::ConfigMap), text(Kind::NetworkPolicy))
    };
    let (ingress, config, policy) = made("  gateway: {}");
    assert!(ingress.is_empty() && !config.contains("redis") && !policy.contains("6379"));
    let (ingress, config, policy) =
        made("  gateway: {ingress: {hosts: [a.example]}, limits: {redis: {url: 'redis://cache'}}}");
    assert!(ingress.contains("a.example") && config.contains("redis://cache") && policy.contains("6379"));
}

#[test]
fn what_the_gateway_would_refuse_is_refused_before_anything_is_written() {
    let refused = observed("  gateway: {limits: {timeoutMs: 60000, timeoutMsMax: 1000}}");
    let refusal = validate::validate(&refused).expect_err("contradicts itself");
    assert_eq!(refusal.reason.as_str(), "InvalidSpec");
    assert!(refusal.message.contains("timeoutMs"), "{refusal}");
    assert_eq!(validate::validate(&observed("  gateway: {}")), Ok(()));
}

#[test]
fn a_renamed_group_is_not_kept_from_being_made_by_its_former_self() {
    let mut renamed = observed("");
    for group in &mut renamed.network.spec.groups {
        (group.name, group.chain.id) = ("other".to_string(), Some("ledger".to_string()));
    }
    let mut former: ConsensusGroup = serde_yaml::from_str(GROUP).expect("a group");
    former.spec.chain.id = Some("ledger".to_string());
    (renamed.groups, renamed.others) = (vec![None], vec![former.clone()]);
    let refusal = validate::validate(&renamed).expect_err("a group that somebody else made has the id");
    assert_eq!(refusal.reason.as_str(), "ChainIdTaken");
    let owner = "{apiVersion: althing.dev/v1alpha1, kind: BlockchainNetwork, name: demo, uid: u, controller: true}";
    former.metadata.owner_references = Some(vec![serde_yaml::from_str(owner).expect("a reference")]);
    renamed.others = vec![former];
    assert_eq!(validate::validate(&renamed), Ok(()));
}

/// Ready, Reconciling, Available and what is said of the gateway.
fn said(observed: &Observed) -> (ConditionStatus, String, ConditionStatus, String) {
    let now = Time("2026-01-01T00:00:00Z".parse().expect("a time"));
    let status = status::next(observed, &Progress::Unchanged, &now);
    let find = |kind| conditions::find(&status.conditions, kind).expect("a condition").clone();
    let gateway = status.gateway.as_ref().map(|tier| format!("{}/{}", tier.ready, tier.desired)).unwrap_or_default();
    let reconciling = find(ConditionType::Reconciling);
    let reconciling = format!("{} {}", reconciling.reason, reconciling.message);
    (find(ConditionType::Ready).status, reconciling, find(ConditionType::Available).status, gateway)
}

#[test]
fn a_gateway_that_is_down_is_seen_and_the_chain_is_available() {
    let mut observed = observed("  gateway: {replicas: 2}");
    observed.tiers.gateway = workload(2, 0);
    let expected = "StartingTiers gateway: 0 of 2 are ready".to_string();
    assert_eq!(said(&observed), (ConditionStatus::False, expected, ConditionStatus::True, "0/2".to_string()));
    observed.tiers.gateway = workload(2, 2);
    let expected = "UpToDate all children are as the spec says".to_string();
    assert_eq!(said(&observed), (ConditionStatus::True, expected, ConditionStatus::True, "2/2".to_string()));
}

#[test]
fn an_autoscaled_gateway_that_grows_is_ready() {
    let mut observed = observed("  gateway: {autoscaling: {minReplicas: 1, maxReplicas: 5}}");
    observed.tiers.gateway = workload(5, 1);
    assert_eq!(said(&observed).0, ConditionStatus::True);
    observed.tiers.gateway = workload(5, 0);
    assert_eq!(said(&observed).0, ConditionStatus::False);
}

#[test]
fn a_paused_network_is_ready_only_while_its_groups_are_what_its_spec_says() {
    let pause = |change: fn(&mut Observed)| {
        let mut observed = observed("");
        change(&mut observed);
        let now = Time("2026-01-01T00:00:00Z".parse().expect("a time"));
        let conditions = status::next(&observed, &Progress::Paused, &now).conditions;
        let find = |kind| conditions::find(&conditions, kind).expect("a condition").clone();
        let (ready, reconciling) = (find(ConditionType::Ready), find(ConditionType::Reconciling));
        assert_eq!(reconciling.reason, "Paused");
        (ready.status, reconciling.status, reconciling.message.rsplit("; ").next().unwrap_or_default().to_string())
    };
    let rest = (ConditionStatus::True, ConditionStatus::False, PAUSED.to_string());
    let not = |why: &str| (ConditionStatus::False, ConditionStatus::True, why.to_string());
    assert_eq!(pause(|_| {}), rest);
    assert_eq!(
        pause(|seen| seen.network.spec.node.image = Some("a:2".to_string())),
        not("generation 1 is not carried out: these have a former spec: demo-main")
    );
    assert_eq!(
        pause(|seen| seen.network.spec.groups[0].replicas = Some(7)),
        not("generation 1 is not carried out: these have a former spec: demo-main")
    );
    let scaled = pause(|seen| {
        seen.network.spec.groups[0].replicas = None;
        seen.groups[0].as_mut().expect("there").spec.replicas = 7;
    });
    assert_eq!(scaled, rest, "that number belongs to whoever scales the group");
    assert_eq!(
        pause(|seen| seen.groups[0].as_mut().expect("there").metadata.generation = Some(2)),
        not("demo-main is about to change")
    );
}

/// A network that lives by this authority.
fn rolled(authority: Authority) -> Observed {
    let mut observed = observed("  gateway: {}");
    observed.authority = AuthorityRead::Present(authority);
    observed
}

const NOW_S: u64 = 1_800_000_000;

fn authority(second: u64) -> CertificateAuthority {
    certificates::new_authority("demo", NOW_S + second).expect("an authority")
}

#[test]
fn an_authority_gives_way_late_in_its_life_or_when_a_person_asks_anew() {
    let step = |served: Option<&str>, wish: Option<&str>, now_s: u64| {
        let authority = Authority { served: served.map(str::to_string), ..Authority::settled(authority(0)) };
        let mut observed = rolled(authority.clone());
        let wish = wish.map(|wish| [(names::ANNOTATION_ROLL.to_string(), wish.to_string())].into());
        observed.network.metadata.annotations = wish;
        rolling::decide(&observed, &authority, &[], now_s).0
    };
    let renew_at_s = authority(0).validity().renew_at_s();
    assert_eq!(step(None, None, NOW_S), Step::Rest);
    assert_eq!(step(None, None, renew_at_s - 1), Step::Rest);
    assert_eq!(step(None, None, renew_at_s), Step::Begin);
    assert_eq!(step(None, Some("a"), NOW_S), Step::Begin);
    assert_eq!(step(Some("a"), Some("a"), NOW_S), Step::Rest, "a wish is met once");
    assert_eq!(step(Some("a"), Some("b"), NOW_S), Step::Begin);
    assert_eq!(step(Some("a"), None, NOW_S), Step::Rest);
}

#[test]
fn a_stage_does_not_end_while_the_client_certificate_is_of_the_former_one() {
    let (old, new) = (authority(0), Arc::new(authority(1)));
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let settled = Authority::settled(old);
    let stage = Stage::Trusting { next: Arc::clone(&new), hash: "new".to_string() };
    let trusting = Authority { stage, trusted: both.clone(), ..settled.clone() };
    let new = CertificateAuthority::from_pem(new.certificate_pem(), new.key_pem()).expect("an authority");
    let stage = Stage::Signing { hash: settled.hash.clone() };
    let signing = Authority { stage, trusted: both, ..Authority::settled(new) };

    let chain = node_api::node_core::types::ChainId::new("demo-main").expect("a chain id");
    let id = SpiffeId::new(&chain, Role::Client, "client").expect("an id");
    let behind = |issued_by: Option<&Authority>, stage: &Authority| {
        let mut observed = rolled(stage.clone());
        let network = desired::network_context(&observed).expect("a context");
        let issue = |by| certificates::issue(by, &id, NOW_S, certificates::CLIENT_S).expect("a certificate");
        observed.client = issued_by.map(|by| secrets::client(&network, &issue(by)));
        let behind = desired::client_behind(&observed, stage, NOW_S).expect("ids");
        behind.map(|behind| behind.who)
    };
    let client = Some("Secret demo-client".to_string());
    assert_eq!(behind(Some(&settled), &trusting), client, "it does not trust the next one");
    assert_eq!(behind(Some(&trusting), &trusting), None);
    assert_eq!(behind(Some(&trusting), &signing), client, "it is of the one that goes");
    assert_eq!(behind(Some(&signing), &signing), None);
    assert_eq!(behind(None, &signing), client);
}

#[test]
fn a_gateway_counts_when_it_trusts_the_next_authority_and_later_when_it_shows_the_new_certificate() {
    let (old, new) = (authority(0), Arc::new(authority(1)));
    let fingerprint = |pem: &str| hex::encode(pki::fingerprint(pem).expect("a certificate"));
    let (old_print, new_print) = (fingerprint(old.certificate_pem()), fingerprint(new.certificate_pem()));
    let says = |certificate: &str, authorities: &[&String]| TlsReport {
        certificate: certificate.to_string(),
        authorities: authorities.iter().map(ToString::to_string).collect(),
    };
    let stage = Stage::Trusting { next: Arc::clone(&new), hash: "new".to_string() };
    let trusting = Authority { stage, ..Authority::settled(old) };
    let observed = rolled(trusting.clone());
    assert!(!rolling::has_taken(&observed, &trusting, &says("a", &[&old_print])));
    assert!(rolling::has_taken(&observed, &trusting, &says("a", &[&old_print, &new_print])));

    let now_s = crate::validator::now_s();
    let chain = node_api::node_core::types::ChainId::new("demo-main").expect("a chain id");
    let id = SpiffeId::new(&chain, Role::Gateway, "demo-gateway").expect("an id");
    let new = Authority::settled(certificates::new_authority("demo", now_s).expect("an authority"));
    let stage = Stage::Signing { hash: trusting.hash.clone() };
    let signing = Authority { stage, ..new };
    let mut observed = rolled(signing.clone());
    let contexts = desired_tiers::contexts(&observed).expect("contexts");
    let tier = contexts.gateway.as_ref().expect("a gateway");
    for (issuer, counts) in [(&trusting, false), (&signing, true)] {
        let pem = certificates::issue(issuer, &id, now_s, certificates::NODE_S).expect("a certificate");
        let leaf = fingerprint(&pem.certificate);
        let secret = crate::parts::gateway::tls(tier, &pem);
        let bytes = serde_json::to_value(&secret).expect("JSON");
        observed.tiers.secrets = vec![serde_json::from_value(bytes).expect("a Secret")];
        assert_eq!(rolling::has_taken(&observed, &signing, &says(&leaf, &[])), counts);
        assert!(!rolling::has_taken(&observed, &signing, &says("another", &[&new_print])));
    }
}

#[tokio::test]
async fn what_a_gateway_trusts_is_read_from_its_port_for_probes() {
    let said = TlsReport { certificate: "ab".to_string(), authorities: vec!["cd".to_string()] };
    let answer = said.clone();
    let good = axum::Router::new().route(TlsReport::PATH, axum::routing::get(|| async { axum::Json(answer) }));
    for (router, expected) in [(good, Some(said)), (axum::Router::new(), None)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        assert_eq!(rolling::read_report(&address).await.ok(), expected);
        server.abort();
    }
}

#[test]
fn an_authority_that_signs_since_a_moment_is_no_other_one_and_an_older_copy_is() {
    let mut observed = rolled(Authority::settled(authority(0)));
    let mut record = |hash: &str, stage: Stage| {
        if let AuthorityRead::Present(authority) = &mut observed.authority {
            (authority.hash, authority.stage) = ("new".to_string(), stage);
        }
        let certificate_authority_hash = Some(hash.to_string());
        observed.network.status =
            Some(althing_crds::BlockchainNetworkStatus { certificate_authority_hash, ..Default::default() });
        validate::validate(&observed).map_err(|refusal| refusal.reason.as_str())
    };
    let signing = || Stage::Signing { hash: "old".to_string() };
    assert_eq!(record("old", signing()), Ok(()), "the operator died before it wrote the record");
    assert_eq!(record("new", signing()), Ok(()));
    assert_eq!(record("new", Stage::Settled), Ok(()));
    assert_eq!(record("old", Stage::Settled), Err("CertificateAuthorityLost"));
    let next = Stage::Trusting { next: Arc::new(authority(1)), hash: "later".to_string() };
    assert_eq!(record("later", next), Err("CertificateAuthorityLost"), "a copy from before the step");
}

#[test]
fn a_group_takes_no_entry_of_another_in_the_secret_for_clients_whatever_it_is_called() {
    let mut observed = observed("");
    for name in ["side", "ca", "tls"] {
        let group = serde_yaml::from_str(&format!("{{name: {name}}}")).expect("a group");
        observed.network.spec.groups.push(group);
    }
    let now_s = crate::validator::now_s();
    let own = Authority::settled(certificates::new_authority("demo", now_s).expect("an authority"));
    let nothing = BTreeMap::new();
    let made = |observed: &Observed| desired::client(observed, &mut Desk::new(&own, &nothing, now_s));
    let secret = made(&observed).expect("no error").expect("it is issued");
    let data = secret.data.clone().expect("entries");
    assert_eq!(
        data.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "ca.crt",
            "ca.group.crt",
            "ca.group.key",
            "side.crt",
            "side.key",
            "tls.crt",
            "tls.group.crt",
            "tls.group.key",
            "tls.key"
        ]
    );
    assert_eq!(data.get("ca.crt").map(|bytes| bytes.0.as_slice()), Some(own.trusted.as_bytes()));
    observed.client = Some(secret);
    assert!(made(&observed).expect("no error").is_none(), "each chain has its certificate, and none is issued again");
}
