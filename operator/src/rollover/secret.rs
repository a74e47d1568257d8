//! The authorities in their Secret: how they are read, and what each step changes of it.

use std::sync::Arc;

use althing_crds::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use node_api::pki::CertificateAuthority;
use serde_json::{Value, json};

use super::{Authority, Signer, Stage};
use crate::certificates;
use crate::error::Error;

/// Entries of the authority that comes, and of the one that went: certificate and key.
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const FORMER: [&str; 2] = ["former.crt", "former.key"];

impl Authority {
    /// The only authority.
    pub fn settled(issuer: CertificateAuthority) -> Self {
        let (hash, trusted) = (certificates::hash(issuer.certificate_pem()), issuer.certificate_pem().to_string());
        Self { issuer: Signer::Own(Arc::new(issuer)), hash, trusted, stage: Stage::Settled, served: None }
    }

    /// What a Secret holds. More than two authorities are an error, and so is one without its key that shall sign.
    pub fn read(network: &str, secret: &Secret) -> Result<Self, Error> {
        let failed = |message: &str| Error::Certificates { what: network.to_string(), message: message.to_string() };
        let served = secret.annotations().get(names::ANNOTATION_ROLL).cloned();
        let settled = Self { served, ..Self::settled(pair(network, secret, ["tls.crt", "tls.key"])?) };
        let held = |[certificate, _]: [&str; 2]| certificates::text(secret, certificate);
        match (held(NEXT), held(FORMER)) {
            (None, None) => Ok(settled),
            (Some(_), Some(_)) => Err(failed("there is a next and a former authority beside the one that signs")),
            (Some(certificate), None) => {
                let (next, hash) = (Arc::new(pair(network, secret, NEXT)?), certificates::hash(&certificate));
                let trusted = both(settled.issuer.certificate_pem(), &certificate);
                Ok(Self { trusted, stage: Stage::Trusting { next, hash }, ..settled })
            }
            (None, Some(certificate)) => {
                node_api::pki::check_authorities(&certificate).map_err(|error| failed(&error.to_string()))?;
                let (hash, trusted) =
                    (certificates::hash(&certificate), both(settled.issuer.certificate_pem(), &certificate));
                Ok(Self { trusted, stage: Stage::Signing { hash }, ..settled })
            }
        }
    }
}

fn pair(network: &str, secret: &Secret, [certificate, key]: [&str; 2]) -> Result<CertificateAuthority, Error> {
    let [certificate, key] = [certificate, key].map(|entry| certificates::text(secret, entry).unwrap_or_default());
    CertificateAuthority::from_pem(&certificate, &key)
        .map_err(|error| Error::Certificates { what: network.to_string(), message: error.to_string() })
}

fn both(first: &str, second: &str) -> String {
    format!("{}\n{}\n", first.trim(), second.trim())
}

/// The change by which the next authority is kept and trusted, and the wish for it is met. It is written before anything
/// is made of it, and over this very Secret alone: of two that are made, one is kept.
pub fn begun(secret: &Secret, next: &CertificateAuthority, wish: Option<&str>) -> Value {
    let signs = certificates::text(secret, "tls.crt").unwrap_or_default();
    let mut patch = patch(
        secret,
        &[
            (NEXT[0], Some(next.certificate_pem())),
            (NEXT[1], Some(next.key_pem())),
            ("ca.crt", Some(&both(&signs, next.certificate_pem()))),
        ],
    );
    if let (Some(wish), Some(metadata)) = (wish, patch.get_mut("metadata").and_then(Value::as_object_mut)) {
        metadata.insert("annotations".to_string(), json!({ names::ANNOTATION_ROLL: wish }));
    }
    patch
}

/// The change by which the next authority signs, and the one that did is kept as the former one.
pub fn signed(secret: &Secret) -> Value {
    let text = |key: &str| certificates::text(secret, key).unwrap_or_default();
    let [next, next_key] = NEXT.map(text);
    let [signs, signs_key] = ["tls.crt", "tls.key"].map(text);
    patch(
        secret,
        &[
            ("tls.crt", Some(&next)),
            ("tls.key", Some(&next_key)),
            (FORMER[0], Some(&signs)),
            (FORMER[1], Some(&signs_key)),
            (NEXT[0], None),
            (NEXT[1], None),
            ("ca.crt", Some(&both(&next, &signs))),
        ],
    )
}

/// The change by which the former authority goes, with its key.
pub fn withdrawn(secret: &Secret) -> Value {
    let signs = certificates::text(secret, "tls.crt").unwrap_or_default();
    patch(secret, &[(FORMER[0], None), (FORMER[1], None), ("ca.crt", Some(&signs))])
}

/// A merge of these entries into exactly this version of the Secret; those without a text are removed.
fn patch(secret: &Secret, entries: &[(&str, Option<&str>)]) -> Value {
    let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    let data: serde_json::Map<String, Value> =
        entries.iter().map(|(key, text)| ((*key).to_string(), text.map_or(Value::Null, bytes))).collect();
    json!({ "metadata": { "resourceVersion": secret.metadata.resource_version }, "data": data })
}
