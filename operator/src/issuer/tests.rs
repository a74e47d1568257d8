//! What is asked of an issuer, which of its answers are used, and what is said of the others.

use althing_crds::certificates::IssuerRef;
use althing_crds::{BlockchainNetwork, Reason, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use node_api::node_core::types::ChainId;
use node_api::pki::{Asked, Subject};
use node_api::roles::{Role, SpiffeId};
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use time::{Duration as Span, OffsetDateTime};

use super::obtain::{take, unmade};
use super::{Answer, Ask, Desk, Obtained, Said, Trust, Wanted, answer, request};
use crate::certificates::{self, NODE_S};
use crate::error::Error;
use crate::parts::secrets::CertificatePem;
use crate::refusal::Refusal;
use crate::rollover::{Authority, entries};

/// An authority as an issuer of cert-manager has it.
pub struct Signer(Issuer<'static, KeyPair>, pub String);

impl Signer {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("an authority").pem();
        Self(Issuer::new(parameters, key), pem)
    }

    pub fn hash(&self) -> String {
        certificates::hash(&self.1)
    }

    fn sign(&self, asked: &Asked, life_s: u64) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(asked.request_pem()).expect("a request");
        let now = OffsetDateTime::now_utc();
        let life = Span::seconds(i64::try_from(life_s).expect("small"));
        (request.params.not_before, request.params.not_after) = (now - Span::minutes(1), now + life);
        request.signed_by(&self.0).expect("a certificate").pem()
    }

    /// What the operator has of this issuer: its Secret, and with it the authority of the network.
    pub fn authority(&self, trusted: &str, former: &[String]) -> Authority {
        let asked = asked(Role::Operator);
        let [certificate, key] = entries(0);
        let mut all = Authority::named_entries(trusted, former);
        all.extend([(certificate, self.sign(&asked, NODE_S)), (key, asked.key_pem().to_string())]);
        let data = all.into_iter().map(|(entry, text)| (entry, k8s_openapi::ByteString(text.into_bytes())));
        let secret = k8s_openapi::api::core::v1::Secret { data: Some(data.collect()), ..Default::default() };
        Authority::named("demo", &secret).expect("an authority")
    }

    /// An answer to the operator's request, as it is kept.
    pub fn operator_pem(&self) -> CertificatePem {
        let asked = asked(Role::Operator);
        let certificate = self.sign(&asked, NODE_S);
        CertificatePem { certificate, key: asked.key_pem().to_string(), authorities: anchor(&self.1) }
    }
}

/// As it comes out of a bundle.
pub fn anchor(pem: &str) -> String {
    node_api::pki::blocks(pem).concat()
}

fn id(role: Role) -> SpiffeId {
    let chain = ChainId::new("demo-main").expect("a chain id");
    SpiffeId::new(
        &chain,
        role,
        if role.is_node() {
            "abababababababababababababababababababababababababababababababab"
        } else {
            "althing-operator"
        },
    )
    .expect("an id")
}

fn asked(role: Role) -> Asked {
    Asked::new(Subject::Id(id(role))).expect("a request")
}

fn wanted(role: Role) -> Wanted {
    Wanted { name: "demo-main-0-tls".to_string(), subject: Subject::Id(id(role)), life_s: NODE_S }
}

fn now_s() -> u64 {
    crate::validator::now_s()
}

#[test]
fn a_request_asks_for_exactly_what_the_certificate_shall_be() {
    let asked = asked(Role::Validator);
    let issuer: IssuerRef = serde_yaml::from_str("{name: company}").expect("an issuer");
    let metadata = ObjectMeta { name: Some("demo-main-0-tls".to_string()), ..ObjectMeta::default() };
    let object = request(metadata, &Ask { asked: &asked, issuer: &issuer, life_s: NODE_S });
    let object = serde_json::to_value(&object).expect("JSON");
    let csr = k8s_openapi::ByteString(asked.request_pem().as_bytes().to_vec());
    let expected = json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "CertificateRequest",
        "metadata": { "name": "demo-main-0-tls" },
        "spec": {
            "request": csr,
            "issuerRef": { "name": "company", "kind": "Issuer", "group": "cert-manager.io" },
            "duration": "2592000s",
            "usages": ["digital signature", "server auth", "client auth"],
            "isCA": false,
        },
    });
    assert_eq!(object, expected);
    assert!(!object.to_string().contains("PRIVATE"), "a key never leaves this process but into a Secret");
}

fn says(status: serde_json::Value) -> Answer {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest", "metadata": {"name": "a"}, "spec": {}, "status": status
    }))
    .expect("an object");
    answer(&object)
}

#[test]
fn what_cert_manager_says_is_understood() {
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({ "type": kind, "status": status, "reason": reason, "message": message });
    let approved = condition("Approved", "True", "cert-manager.io", "ok");
    let pending = |why: &str| Answer::Pending(why.to_string());
    assert_eq!(says(json!({})), pending("it is not approved yet"));
    assert_eq!(says(json!({ "conditions": [approved] })), pending("it is approved, and not issued yet"));
    let waits = condition("Ready", "False", "Pending", "Referenced \"Issuer\" not found");
    assert_eq!(says(json!({ "conditions": [approved, waits] })), pending("Referenced \"Issuer\" not found"));
    let denied = condition("Denied", "True", "policy", "no such names");
    let ready = condition("Ready", "False", "Denied", "The CertificateRequest was denied");
    assert_eq!(says(json!({ "conditions": [denied, ready] })), Answer::Denied("no such names".to_string()));
    assert_eq!(says(json!({ "conditions": [ready] })), Answer::Denied("The CertificateRequest was denied".to_string()));
    let failed = condition("Ready", "False", "Failed", "the signer is broken");
    assert_eq!(says(json!({ "conditions": [approved, failed] })), Answer::Failed("the signer is broken".to_string()));
    let invalid = condition("InvalidRequest", "True", "Usages", "no such use");
    assert_eq!(says(json!({ "conditions": [invalid] })), Answer::Failed("no such use".to_string()));
    let issued = condition("Ready", "True", "Issued", "done");
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    assert_eq!(
        says(json!({ "conditions": [issued], "certificate": bytes("leaf"), "ca": bytes("root") })),
        Answer::Issued { certificate: "leaf".to_string(), authority: "root".to_string() }
    );
    assert_eq!(
        says(json!({ "conditions": [issued], "certificate": bytes("leaf") })),
        Answer::Issued { certificate: "leaf".to_string(), authority: String::new() }
    );
    assert!(matches!(says(json!({ "conditions": 1 })), Answer::Failed(_)), "nonsense is no silence");
}

/// The reason for which this answer is not used, or the authorities of the certificate that is.
fn taken(asked: &Asked, answer: Answer, trust: &Trust) -> Result<Option<String>, Reason> {
    let wanted = Wanted { subject: asked.subject().clone(), ..wanted(Role::Validator) };
    let pem = take(asked, &wanted, answer, trust, now_s()).map_err(|refusal| refusal.reason)?;
    Ok(pem.map(|pem| {
        assert_eq!(pem.key, asked.key_pem(), "the key of the request");
        pem.authorities
    }))
}

fn issued(certificate: String, authority: &str) -> Answer {
    Answer::Issued { certificate, authority: authority.to_string() }
}

#[test]
fn a_certificate_is_used_when_it_is_what_was_asked_by_an_authority_that_everybody_trusts() {
    let (signer, other) = (Signer::new("a"), Signer::new("b"));
    let (node, stranger) = (asked(Role::Validator), asked(Role::Validator));
    let trusted = format!("{}{}", other.1, signer.1);
    let all = Trust::All(trusted.clone());
    assert_eq!(taken(&node, issued(signer.sign(&node, NODE_S), ""), &all), Ok(Some(trusted)));
    assert_eq!(taken(&node, Answer::Pending("it waits".to_string()), &all), Ok(None));
    let said = |answer| taken(&node, answer, &Trust::All(signer.1.clone()));
    assert_eq!(said(Answer::Denied("no".to_string())), Err(Reason::IssuerRefused));
    assert_eq!(said(Answer::Failed("no".to_string())), Err(Reason::IssuerRefused));
    assert_eq!(said(issued(signer.sign(&stranger, NODE_S), "")), Err(Reason::IssuedOtherwise), "another key");
    assert_eq!(said(issued(signer.sign(&node, 60), "")), Err(Reason::IssuedOtherwise), "it ends at once");
    assert_eq!(said(issued(signer.sign(&node, 400 * 86_400), "")), Err(Reason::IssuedOtherwise), "it lives too long");
    assert_eq!(said(issued(String::new(), "")), Err(Reason::IssuedOtherwise));
    assert_eq!(said(issued(other.sign(&node, NODE_S), "")), Err(Reason::IssuerChanged));
    let claims = said(issued(other.sign(&node, NODE_S), &other.1));
    assert_eq!(claims, Err(Reason::IssuerChanged), "what an answer claims to trust counts for nothing");
}

#[test]
fn the_first_authority_is_the_one_that_the_issuer_names_and_later_the_recorded_one() {
    let (signer, other) = (Signer::new("a"), Signer::new("b"));
    let operator = asked(Role::Operator);
    let leaf = || signer.sign(&operator, NODE_S);
    let learned = |known: &str, recorded: Option<String>| Trust::Learned { known: known.to_string(), recorded };
    let first = Ok(Some(anchor(&signer.1)));
    assert_eq!(taken(&operator, issued(leaf(), &signer.1), &learned("", None)), first);
    assert_eq!(taken(&operator, issued(leaf(), ""), &learned("", None)), Err(Reason::IssuerChanged), "it names none");
    assert_eq!(taken(&operator, issued(leaf(), &other.1), &learned("", None)), Err(Reason::IssuerChanged));
    assert_eq!(taken(&operator, issued(leaf(), ""), &learned(&signer.1, None)), first, "the spec names it");
    let recorded = |signer: &Signer| Some(certificates::hash(&anchor(&signer.1)));
    assert_eq!(
        taken(&operator, issued(leaf(), &signer.1), &learned("", recorded(&signer))),
        first,
        "the Secret was lost"
    );
    let another = taken(&operator, issued(leaf(), &signer.1), &learned(&other.1, recorded(&other)));
    assert_eq!(another, Err(Reason::IssuerChanged), "the issuer has another authority by now");
    let known = format!("{}{}", other.1, signer.1);
    assert_eq!(taken(&operator, issued(leaf(), &signer.1), &learned(&known, recorded(&other))), first);
}

#[test]
fn a_desk_gives_what_is_answered_and_writes_down_what_is_wanted() {
    let signer = Signer::new("a");
    let authority = signer.authority(&signer.1, &[]);
    let subject = || Subject::Id(id(Role::Validator));
    let mut answered = std::collections::BTreeMap::new();
    answered.insert("b".to_string(), signer.operator_pem());
    let mut desk = Desk::new(&authority, &answered, now_s());
    assert!(desk.issue("a", subject(), NODE_S).expect("no error").is_none());
    assert!(desk.issue("b", subject(), NODE_S).expect("no error").is_some());
    assert_eq!(desk.wanted, [Wanted { name: "a".to_string(), subject: subject(), life_s: NODE_S }]);
    assert_eq!(desk.taken, ["b"]);
    let own = Authority::settled(certificates::new_authority("demo", now_s()).expect("an authority"));
    let mut desk = Desk::new(&own, &answered, now_s());
    assert!(desk.issue("a", subject(), NODE_S).expect("no error").is_some(), "an own authority issues at once");
    assert!(desk.wanted.is_empty() && desk.taken.is_empty());
    let refused = certificates::issue_for(&authority, &subject(), now_s(), NODE_S);
    assert!(refused.is_err(), "in place of an issuer nobody issues");
}

#[test]
fn a_key_is_dropped_when_the_secret_with_its_certificate_is_written() {
    let secret = |name: &str| {
        let metadata = ObjectMeta { name: Some(name.to_string()), ..ObjectMeta::default() };
        k8s_openapi::api::core::v1::Secret { metadata, ..Default::default() }
    };
    let requests = ["demo-client-main", "demo-gateway-tls", "demo-observers-0"].map(str::to_string);
    let written = [secret("demo-gateway-tls"), secret("demo-client")];
    let taken = super::taken_by(written.iter(), requests.to_vec());
    assert_eq!(taken, ["demo-client-main", "demo-gateway-tls"], "the observers' Secret waits for the others");
}

#[test]
fn what_a_person_has_to_do_is_said_before_what_comes_by_itself() {
    let second = std::time::Duration::from_secs;
    let mut obtained = Obtained::default();
    obtained.lacks(Said::Awaited("first".to_string()), second(1));
    obtained.lacks(Said::Refused(Refusal::new(Reason::IssuerRefused, "no")), second(10));
    obtained.lacks(Said::Awaited("last".to_string()), second(5));
    let issuance = obtained.issuance.expect("something is said");
    assert_eq!(issuance.refusal().map(|refusal| refusal.reason), Some(Reason::IssuerRefused));
    assert_eq!((issuance.awaited(), issuance.again), (None, second(1)));
}

#[test]
fn a_request_that_nobody_takes_now_is_awaited_and_one_that_is_refused_is_for_a_person() {
    let name = "demo-main-0-tls";
    let failed = |verb: &'static str, code: u16| {
        let why = kube::core::Status::failure("the webhook does not answer", "no").with_code(code);
        let source = Box::new(kube::Error::Api(Box::new(why)));
        unmade(Error::Write { verb, what: format!("CertificateRequest demo/{name}"), source }, name).ok()
    };
    let said = |failed: Option<(Said, std::time::Duration)>| failed.map(|(said, _)| said);
    let away = |why: &str| Some(Said::Awaited(format!("CertificateRequest {name} cannot be made: {why}")));
    for code in [429, 500, 503] {
        assert_eq!(said(failed("create", code)), away("the webhook does not answer"), "{code}");
    }
    let late = Error::WriteTimeout { verb: "create", what: name.to_string() };
    assert_eq!(said(unmade(late, name).ok()), away("no answer in time"));
    assert!(matches!(said(failed("delete", 403)), Some(Said::Refused(_))), "no right to delete");
    let conflict = Error::Conflict { what: name.to_string() };
    assert!(unmade(conflict, name).is_err(), "another look will do");
}

#[test]
fn a_certificate_of_an_issuer_is_renewed_in_time_and_when_others_are_trusted() {
    let (signer, other) = (Signer::new("a"), Signer::new("b"));
    let authority = signer.authority(&anchor(&signer.1), &[]);
    let node = asked(Role::Validator);
    let pem = take(
        &node,
        &wanted(Role::Validator),
        issued(signer.sign(&node, 86_400), ""),
        &Trust::All(authority.trusted.clone()),
        now_s(),
    );
    let pem = pem.expect("good").expect("there");
    let data = [("tls.crt", &pem.certificate), ("tls.key", &pem.key), ("ca.crt", &pem.authorities)];
    let data = data.map(|(key, text)| (key.to_string(), k8s_openapi::ByteString(text.clone().into_bytes())));
    let secret = k8s_openapi::api::core::v1::Secret { data: Some(data.into()), ..Default::default() };
    let is_current =
        |authority: &Authority, at_s: u64| certificates::is_current(&secret, &id(Role::Validator), authority, at_s);
    assert!(is_current(&authority, now_s()));
    assert!(is_current(&authority, now_s() + 86_400 / 2));
    assert!(!is_current(&authority, now_s() + 86_400 * 7 / 10), "late in the life that the issuer gave");
    assert!(
        certificates::is_usable(&secret, &id(Role::Validator), now_s() + 86_400 * 7 / 10),
        "and good until its end"
    );
    assert!(!certificates::is_usable(&secret, &id(Role::Validator), now_s() + 86_401));
    assert!(!certificates::is_usable(&secret, &id(Role::Client), now_s()));
    let both = signer.authority(&format!("{}{}", anchor(&signer.1), anchor(&other.1)), &[]);
    assert!(!is_current(&both, now_s()), "it does not know the other one");
}

#[test]
fn the_operator_calls_with_what_the_issuer_gave_and_takes_up_another_certificate() {
    let signer = Signer::new("a");
    let [first, second] = [signer.authority(&signer.1, &[]), signer.authority(&signer.1, &[])];
    let chain = ChainId::new("demo-main").expect("a chain id");
    assert!(certificates::issue_own(&first, &chain, now_s()).is_ok());
    let other = ChainId::new("demo-side").expect("a chain id");
    assert!(certificates::issue_own(&first, &other, now_s()).is_err(), "nobody issues one in its place");
    assert_eq!(first.hash, certificates::hash(&anchor(&signer.1)));
    assert_ne!(first.mark(), second.mark());
    assert_eq!(first.own_ends_s().map(|ends| ends > now_s()), Some(true));
}

#[test]
fn the_names_of_a_network_lead_to_its_secret() {
    let network = |certificates: &str| -> BlockchainNetwork {
        serde_yaml::from_str(&format!(
            "{{apiVersion: althing.dev/v1alpha1, kind: BlockchainNetwork, metadata: {{name: demo}}, spec: {{groups: [{{name: main}}]{certificates}}}}}"
        ))
        .expect("a network")
    };
    let secret = |network: &BlockchainNetwork| crate::rollover::Source::of(network).secret("demo");
    assert_eq!(secret(&network("")), names::ca_secret("demo"));
    assert_eq!(secret(&network(", certificates: {issuerRef: {name: a}}")), names::operator_secret("demo"));
}
