//! The check of a peer's certificate: chain to a trusted authority, then the SPIFFE id. Nothing else in it counts.

use std::sync::Arc;

use node_core::types::{ChainId, Identity};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error as ThisError;

use super::TlsError;
use crate::{
    pki::LeafFacts,
    roles::{ROLES, Role, SpiffeId},
};

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    chain_id: ChainId,
    roles: &'static [Role],
    name: Option<String>,
    key: Option<[u8; 32]>,
}

/// The peer's certificate is good, and names somebody else than expected.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("the peer is {found}, expected {expected}")]
pub struct PeerMismatch {
    /// Whom the certificate names.
    pub found: SpiffeId,
    /// Who was expected, for people.
    pub expected: String,
}

/// The certificate is good, and its authority may not name somebody of this role.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("the authority of another member names {found}: it may name nodes only")]
pub struct MemberOverreach {
    /// Whom the certificate names.
    pub found: SpiffeId,
}

/// The certificate is good and names the right peer, with another key than that peer has signed for.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("the certificate of {peer} has another key than its peer record names")]
pub struct OtherKey {
    /// Whom the certificate names.
    pub peer: SpiffeId,
}

const NODES: &[Role] = &[Role::Validator, Role::Observer];
const SERVERS: &[Role] = &[Role::Validator, Role::Observer, Role::Gateway];

impl Expected {
    /// The node with this identity, whether it is a validator or an observer.
    pub fn node(chain_id: &ChainId, identity: &Identity) -> Self {
        Self { chain_id: chain_id.clone(), roles: NODES, name: Some(identity.to_string()), key: None }
    }

    /// Whichever node of the chain answers; never a gateway.
    pub fn any_node(chain_id: &ChainId) -> Self {
        Self { chain_id: chain_id.clone(), roles: NODES, name: None, key: None }
    }

    /// Whichever node or gateway of the chain answers.
    pub fn any_server(chain_id: &ChainId) -> Self {
        Self { chain_id: chain_id.clone(), roles: SERVERS, name: None, key: None }
    }

    /// The same, if the SHA-256 of the public key in the certificate is this one.
    #[must_use]
    pub fn with_key(self, key: [u8; 32]) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Anybody of the chain.
    pub(super) fn anybody(chain_id: &ChainId) -> Self {
        Self { chain_id: chain_id.clone(), roles: &ROLES, name: None, key: None }
    }

    /// Checks an id.
    pub fn check(&self, found: &SpiffeId) -> Result<(), PeerMismatch> {
        let named = self.name.as_deref().is_none_or(|name| name == found.name());
        if *found.chain_id() == self.chain_id && self.roles.contains(&found.role()) && named {
            return Ok(());
        }
        Err(PeerMismatch { found: found.clone(), expected: self.describe() })
    }

    fn check_key(&self, found: &LeafFacts) -> Result<(), OtherKey> {
        let named = self.key.is_none_or(|key| key == found.key);
        if named { Ok(()) } else { Err(OtherKey { peer: found.id.clone() }) }
    }

    fn describe(&self) -> String {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        format!("spiffe://{}/{}/{}", self.chain_id, roles.join("|"), self.name.as_deref().unwrap_or("*"))
    }
}

/// Checks certificates of servers and of clients.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    expected: Expected,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    members: Option<Members>,
    provider: Arc<CryptoProvider>,
    presence: Presence,
}

/// The authorities of other members of the chain. Their word counts for nodes alone: an operator or client that one of them
/// names is nobody here.
#[derive(Debug)]
struct Members {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// Whether a client must show a certificate. A certificate that is shown must be good in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

impl PeerVerifier {
    /// For a listener: anybody of the chain may connect; what they may call is decided by role.
    pub(super) fn for_clients(
        chain_id: &ChainId,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        Self::new(Expected::anybody(chain_id), roots, provider)
    }

    /// The same for a listener that also takes clients without a certificate.
    pub(super) fn optional(self) -> Self {
        Self { presence: Presence::Optional, ..self }
    }

    /// For a dialer.
    pub(super) fn new(
        expected: Expected,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            expected,
            roots: Arc::clone(roots),
            clients: client_verifier(roots, provider)?,
            members: None,
            provider: Arc::clone(provider),
            presence: Presence::Required,
        })
    }

    /// The same that also takes nodes which one of these authorities names.
    pub(super) fn with_members(self, roots: Option<&Arc<RootCertStore>>) -> Result<Self, TlsError> {
        let members = roots.map(|roots| {
            let clients = client_verifier(roots, &self.provider)?;
            Ok(Members { roots: Arc::clone(roots), clients })
        });
        Ok(Self { members: members.transpose()?, ..self })
    }

    /// Whether a client that has shown these certificates may connect.
    pub(super) fn admits_client(&self, shown: &[CertificateDer<'_>]) -> bool {
        let verify = |leaf, others| self.verify_client_cert(leaf, others, UnixTime::now());
        shown.split_first().is_some_and(|(leaf, others)| verify(leaf, others).is_ok())
    }

    /// Whether a server that has shown these certificates is the one expected. The name is not looked at.
    pub(super) fn admits_server(&self, shown: &[CertificateDer<'_>]) -> bool {
        shown.split_first().is_some_and(|(leaf, others)| self.check_server(leaf, others, UnixTime::now()).is_ok())
    }

    fn check_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verify = |roots| verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms);
        match self.members_after(verify(&self.roots))? {
            Asked::Own(()) => {}
            Asked::Members(members) => {
                verify(&members.roots)?;
                Self::check_is_node(leaf)?;
            }
        }
        self.check_id(leaf)
    }

    /// The members' authorities, if the own ones do not know who has issued the certificate.
    fn members_after<T>(&self, own: Result<T, Error>) -> Result<Asked<'_, T>, Error> {
        match (own, &self.members) {
            (Ok(verified), _) => Ok(Asked::Own(verified)),
            (Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)), Some(members)) => {
                Ok(Asked::Members(members))
            }
            (Err(error), Some(_) | None) => Err(error),
        }
    }

    fn check_is_node(certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let other = |error| Error::InvalidCertificate(CertificateError::Other(OtherError(error)));
        let found = LeafFacts::from_der(certificate).map_err(|error| other(Arc::new(error)))?.id;
        if found.role().is_node() { Ok(()) } else { Err(other(Arc::new(MemberOverreach { found }))) }
    }

    fn check_id(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let other = |error| Error::InvalidCertificate(CertificateError::Other(OtherError(error)));
        let facts = LeafFacts::from_der(certificate).map_err(|error| other(Arc::new(error)))?;
        self.expected.check(&facts.id).map_err(|error| other(Arc::new(error)))?;
        self.expected.check_key(&facts).map_err(|error| other(Arc::new(error)))
    }
}

/// Whose authorities decide about a certificate.
enum Asked<'a, T> {
    /// The own ones have.
    Own(T),
    /// Those of other members have to.
    Members(&'a Members),
}

fn client_verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
        .build()
        .map_err(|error| TlsError::Setup { source: Error::General(error.to_string()) })
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check_server(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.presence == Presence::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = match self.members_after(self.clients.verify_client_cert(end_entity, intermediates, now))? {
            Asked::Own(verified) => verified,
            Asked::Members(members) => {
                let verified = members.clients.verify_client_cert(end_entity, intermediates, now)?;
                Self::check_is_node(end_entity)?;
                verified
            }
        };
        self.check_id(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

/// Whether a leaf chains to one of the authorities at this time, directly or through the others.
pub(crate) fn chain_is_valid(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
) -> bool {
    let provider = rustls::crypto::ring::default_provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::new(provider)).build();
    verifier.is_ok_and(|verifier| verifier.verify_client_cert(leaf, others, now).is_ok())
}

/// The same for the certificate of a public entrance, which serves and is nobody's client.
pub(crate) fn entrance_is_valid(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    roots: &RootCertStore,
    name: &ServerName<'_>,
    now: UnixTime,
) -> bool {
    let provider = rustls::crypto::ring::default_provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::new(provider)).build();
    verifier.is_ok_and(|verifier| verifier.verify_server_cert(leaf, others, name, &[], now).is_ok())
}

/// Presents one certificate, whatever the other side asks for.
#[derive(Debug)]
pub(super) struct SingleKey(Arc<CertifiedKey>);

impl SingleKey {
    pub(super) const fn new(certified: Arc<CertifiedKey>) -> Self {
        Self(certified)
    }
}

impl ResolvesServerCert for SingleKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for SingleKey {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
