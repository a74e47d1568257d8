//! A CertificateRequest of cert-manager: how it is built, and what its status says. Pure.

use althing_crds::certificates::IssuerRef;
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use node_api::pki::Asked;
use serde::Deserialize;
use serde_json::json;

/// Name of the kind.
pub const KIND: &str = "CertificateRequest";

/// Where requests are.
pub fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("cert-manager.io", "v1", KIND);
    ApiResource::from_gvk_with_plural(&kind, "certificaterequests")
}

/// What is asked, and of whom.
pub struct Ask<'a> {
    /// The request with its key.
    pub asked: &'a Asked,
    /// The issuer.
    pub issuer: &'a IssuerRef,
    /// Life in seconds.
    pub life_s: u64,
}

/// The object that asks.
pub fn request(metadata: ObjectMeta, ask: &Ask<'_>) -> DynamicObject {
    let Ask { asked, issuer, life_s } = ask;
    let IssuerRef { name, kind, group } = issuer;
    let spec = json!({
        "request": ByteString(asked.request_pem().as_bytes().to_vec()),
        "issuerRef": { "name": name, "kind": kind, "group": group },
        "duration": format!("{life_s}s"),
        "usages": asked.subject().usages(),
        "isCA": false,
    });
    let object = DynamicObject::new("", &resource()).data(json!({ "spec": spec }));
    DynamicObject { metadata, ..object }
}

/// What a request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing final; in the words of cert-manager.
    Pending(String),
    /// Whoever approves has refused it.
    Denied(String),
    /// The issuer does not take it, or failed.
    Failed(String),
    /// A certificate with those between, and the authority if it is known.
    Issued {
        /// PEM.
        certificate: String,
        /// PEM, or nothing.
        authority: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
    certificate: Option<ByteString>,
    ca: Option<ByteString>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// What the status of a request says. One that nobody has looked at says that it waits.
pub fn answer(request: &DynamicObject) -> Answer {
    let status = request.data.get("status").cloned().unwrap_or_default();
    let status: Status = match serde_json::from_value(status) {
        Ok(status) => status,
        Err(_) if request.data.get("status").is_none() => Status::default(),
        Err(error) => return Answer::Failed(format!("its status cannot be read: {error}")),
    };
    let Status { conditions, certificate, ca } = status;
    let find = |kind: &str| conditions.iter().find(|condition| condition.kind == kind);
    let holds = |kind: &str| find(kind).filter(|condition| condition.status == "True");
    let words = |condition: &Condition| match condition.message.trim() {
        "" => condition.reason.clone(),
        message => message.to_string(),
    };
    if let Some(denied) = holds("Denied") {
        return Answer::Denied(words(denied));
    }
    if let Some(invalid) = holds("InvalidRequest") {
        return Answer::Failed(words(invalid));
    }
    let ready = find("Ready");
    match ready.map(|ready| (ready.status.as_str(), ready.reason.as_str())) {
        Some(("True", _)) => {}
        Some((_, "Failed")) => return Answer::Failed(ready.map(words).unwrap_or_default()),
        Some((_, "Denied")) => return Answer::Denied(ready.map(words).unwrap_or_default()),
        Some(_) => return Answer::Pending(ready.map(words).unwrap_or_default()),
        None if holds("Approved").is_some() => {
            return Answer::Pending("it is approved, and not issued yet".to_string());
        }
        None => return Answer::Pending("it is not approved yet".to_string()),
    }
    let text = |bytes: Option<ByteString>| bytes.and_then(|bytes| String::from_utf8(bytes.0).ok()).unwrap_or_default();
    Answer::Issued { certificate: text(certificate), authority: text(ca) }
}
