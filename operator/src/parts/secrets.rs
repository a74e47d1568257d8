//! Secrets: identities, certificates, the certificate authority and the governance key.
//!
//! The bytes are made elsewhere; here they get their name, type and labels. Only certificates have an owner: they can
//! be issued again, the others are made once.

use std::collections::BTreeMap;

use althing_crds::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::context::{GroupContext, NetworkContext, NodeContext};

/// A certificate with its key and the authorities to trust, each as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificatePem {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The authorities.
    pub authorities: String,
}

/// The identity of a node, made once.
#[must_use]
pub fn identity(node: &NodeContext, pem: &str) -> Secret {
    let name = names::identity_secret(&node.name);
    once(node.metadata_kept(&name), [(names::FILE_IDENTITY, pem)].into())
}

/// The certificate of a node, and the authorities of other members if there are any.
#[must_use]
pub fn node_tls(node: &NodeContext, certificate: &CertificatePem, members: &str) -> Secret {
    let mut secret = tls(node.metadata(&names::tls_secret(&node.name)), certificate);
    if !members.is_empty()
        && let Some(data) = secret.data.as_mut()
    {
        data.insert(names::FILE_MEMBERS.to_string(), ByteString(members.as_bytes().to_vec()));
    }
    secret
}

/// The client certificate for the users of a network.
#[must_use]
pub fn client(network: &NetworkContext, certificate: &CertificatePem) -> Secret {
    tls(network.metadata(&names::client_secret(&network.name)), certificate)
}

/// The certificate authority of a network, made once. It can be changed: the next authority is kept beside it. `wish` is
/// the wish for another authority that need not be met any more.
#[must_use]
pub fn certificate_authority(network: &NetworkContext, certificate: &str, key: &str, wish: Option<&str>) -> Secret {
    let name = names::ca_secret(&network.name);
    let annotations = wish.map(|wish| [(names::ANNOTATION_ROLL.to_string(), wish.to_string())].into());
    let metadata = ObjectMeta { annotations, ..network.metadata_kept(&name) };
    let data = [("tls.crt", certificate), ("tls.key", key), ("ca.crt", certificate)].into();
    Secret { immutable: None, type_: Some(TYPE_TLS.to_string()), ..once(metadata, data) }
}

/// The governance key of a chain, made once.
#[must_use]
pub fn governance(group: &GroupContext, pem: &str) -> Secret {
    let name = names::governance_secret(&group.name);
    once(group.metadata_kept(&name), [(names::FILE_GOVERNANCE, pem)].into())
}

/// Type of a Secret with a certificate.
pub const TYPE_TLS: &str = "kubernetes.io/tls";

/// A certificate, which may be issued again.
pub(super) fn tls(metadata: ObjectMeta, pem: &CertificatePem) -> Secret {
    let data =
        [("tls.crt", pem.certificate.as_str()), ("tls.key", pem.key.as_str()), ("ca.crt", pem.authorities.as_str())];
    Secret { immutable: None, type_: Some(TYPE_TLS.to_string()), ..once(metadata, data.into()) }
}

/// What is made once, and never changed.
pub(super) fn once(metadata: ObjectMeta, data: BTreeMap<&str, &str>) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata,
        type_: Some("Opaque".to_string()),
        immutable: Some(true),
        data: Some(data.into_iter().map(|(key, text)| (key.to_string(), bytes(text))).collect()),
        string_data: None,
    }
}
