//! Certificates: a network's own authority, leaves that carry a SPIFFE id, and what can be read from them.
//!
//! Nothing here looks at a clock: the caller gives the times. Keys are ECDSA P-256 in PKCS#8 PEM.

mod asked;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

use crate::roles::{Role, SpiffeId, SpiffeIdError};

pub use asked::{Asked, Flaw, LIFE_S_MIN, Subject, are_same_hosts};

/// From when until when a certificate counts, in Unix seconds; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    not_before_s: u64,
    not_after_s: u64,
}

/// Why something about a certificate did not work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PkiError {
    /// The end is not after the beginning, or a time is beyond the year 9999.
    #[error("a certificate cannot be valid from {not_before_s} to {not_after_s} (Unix seconds)")]
    Validity {
        /// Beginning.
        not_before_s: u64,
        /// End.
        not_after_s: u64,
    },
    /// The certificate's PEM or DER cannot be read.
    #[error("not a certificate: {reason}")]
    Certificate {
        /// What the parser said.
        reason: String,
    },
    /// The key's PEM cannot be read.
    #[error("not a private key in PKCS#8 PEM: {reason}")]
    Key {
        /// What the parser said.
        reason: String,
    },
    /// The key is not the one of the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// A certificate could not be made.
    #[error("failed to make a certificate for {subject}: {reason}")]
    Issue {
        /// Whom it was for.
        subject: String,
        /// What the library said.
        reason: String,
    },
    /// A leaf without, or with more than one, URI name.
    #[error("the certificate has {count} URI names, one is needed: spiffe://<chain id>/<role>/<id>")]
    UriNames {
        /// How many it has.
        count: usize,
    },
    /// A leaf whose URI name is not an id of ours.
    #[error(transparent)]
    SpiffeId(#[from] SpiffeIdError),
}

/// What is written in a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafFacts {
    /// Who it names.
    pub id: SpiffeId,
    /// When it counts.
    pub validity: Validity,
    /// SHA-256 of its DER.
    pub fingerprint: [u8; 32],
    /// SHA-256 of its public key (SubjectPublicKeyInfo in DER): the same after a renewal with the same key.
    pub key: [u8; 32],
}

/// A certificate and its key, as they go into a Secret.
pub struct IssuedCertificate {
    /// `tls.crt`.
    pub certificate_pem: String,
    /// `tls.key`.
    pub key_pem: Zeroizing<String>,
    /// What the certificate says.
    pub facts: LeafFacts,
}

/// What is written in the certificate of a public entrance, which names no id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntranceFacts {
    /// Its DNS names, in the order of the certificate.
    pub names: Vec<String>,
    /// When it counts.
    pub validity: Validity,
}

/// The authority of one network.
pub struct CertificateAuthority {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    validity: Validity,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a new authority with a new key. `name` is for people and may be any text up to 64 characters.
    pub fn generate(name: &str, validity: Validity) -> Result<Self, PkiError> {
        let failed = |error: rcgen::Error| PkiError::Issue { subject: name.to_owned(), reason: error.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = parameters(name, validity)?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = parameters.self_signed(&key).map_err(failed)?.pem();
        let key_pem = Zeroizing::new(key.serialize_pem());
        Ok(Self { certificate_pem, key_pem, validity, issuer: Issuer::new(parameters, key) })
    }

    /// An authority that was made before. The first certificate of `certificate_pem` must belong to the key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let der = first_certificate(certificate_pem)?;
        let certificate = parse(&der)?;
        let validity = validity_of(&certificate)?;
        let key = KeyPair::from_pem(key_pem).map_err(|error| PkiError::Key { reason: error.to_string() })?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) != certificate.public_key().raw {
            return Err(PkiError::KeyMismatch);
        }
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|error| PkiError::Certificate { reason: error.to_string() })?;
        let key_pem = Zeroizing::new(key_pem.to_owned());
        Ok(Self { certificate_pem: certificate_pem.to_owned(), key_pem, validity, issuer })
    }

    /// The certificate, as it goes into `ca.crt`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, in PKCS#8 PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// When the authority counts.
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues a leaf with a new key. Nodes and gateways can listen with it and dial, the others only dial.
    pub fn issue(&self, id: &SpiffeId, validity: Validity) -> Result<IssuedCertificate, PkiError> {
        let failed = |error: rcgen::Error| PkiError::Issue { subject: id.to_string(), reason: error.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = parameters(&common_name(id), validity)?;
        parameters.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(failed)?)];
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = purposes(id.role());
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        let facts = LeafFacts::from_der(certificate.der())?;
        Ok(IssuedCertificate {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            facts,
        })
    }
}

impl CertificateAuthority {
    /// Issues a leaf with a new key for a public entrance: it names hosts, so that any client can check it, and no id,
    /// so that no node takes it for a member of the network. Answers certificate and key as PEM.
    pub fn issue_entrance(
        &self,
        names: &[String],
        validity: Validity,
    ) -> Result<(String, Zeroizing<String>), PkiError> {
        let subject = names.first().map_or("", String::as_str);
        let failed = |error: rcgen::Error| PkiError::Issue { subject: subject.to_owned(), reason: error.to_string() };
        let key = KeyPair::generate().map_err(failed)?;
        let mut parameters = parameters(&subject.chars().take(64).collect::<String>(), validity)?;
        for name in names {
            parameters.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
        }
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
    }
}

impl EntranceFacts {
    /// Reads the first certificate of a PEM text (`tls.crt`).
    pub fn from_pem(certificate_pem: &str) -> Result<Self, PkiError> {
        let der = first_certificate(certificate_pem)?;
        let certificate = parse(&der)?;
        let names = general_names(&certificate)?.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok(Self { names: names.collect(), validity: validity_of(&certificate)? })
    }
}

impl LeafFacts {
    /// Reads the first certificate of a PEM text (`tls.crt`).
    pub fn from_pem(certificate_pem: &str) -> Result<Self, PkiError> {
        Self::from_der(&first_certificate(certificate_pem)?)
    }

    /// Reads a certificate in DER.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let certificate = parse(der)?;
        Ok(Self {
            id: spiffe_id_of(&certificate)?,
            validity: validity_of(&certificate)?,
            fingerprint: Sha256::digest(der.as_ref()).into(),
            key: Sha256::digest(certificate.public_key().raw).into(),
        })
    }
}

/// SHA-256 of the DER of the first certificate of a PEM text.
pub fn fingerprint(certificate_pem: &str) -> Result<[u8; 32], PkiError> {
    Ok(Sha256::digest(first_certificate(certificate_pem)?).into())
}

/// When the first certificate of a PEM text counts.
pub fn validity(certificate_pem: &str) -> Result<Validity, PkiError> {
    validity_of(&parse(&first_certificate(certificate_pem)?)?)
}

/// The certificates of a PEM text one by one, as PEM; what stands between them is left out.
pub fn blocks(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let (mut found, mut rest) = (Vec::new(), pem);
    while let Some((_, begun)) = rest.split_once("-----BEGIN CERTIFICATE-----") {
        let Some((body, after)) = begun.split_once(END) else { break };
        found.push(format!("-----BEGIN CERTIFICATE-----\n{}\n{END}\n", body.trim()));
        rest = after;
    }
    found
}

/// Checks a bundle of authorities: it holds at least one certificate, and all of them parse.
pub fn check_authorities(authorities_pem: &str) -> Result<(), PkiError> {
    crate::tls::roots_from_pem(authorities_pem.as_bytes()).map(drop)
}

/// Whether the first certificate of `certificate_pem` was issued by one of the authorities in `authorities_pem`, perhaps
/// through those that follow it, and counts at `now_s` (Unix seconds).
pub fn is_issued_by(certificate_pem: &str, authorities_pem: &str, now_s: u64) -> Result<bool, PkiError> {
    let (leaf, others) = chain(certificate_pem)?;
    let roots = crate::tls::roots_from_pem(authorities_pem.as_bytes())?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
    Ok(crate::tls::chain_is_valid(&leaf, &others, &roots, now))
}

/// The same for the certificate of a public entrance: it serves under its first name and is nobody's client.
pub fn is_entrance_issued_by(certificate_pem: &str, authorities_pem: &str, now_s: u64) -> Result<bool, PkiError> {
    let (leaf, others) = chain(certificate_pem)?;
    let roots = crate::tls::roots_from_pem(authorities_pem.as_bytes())?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_s));
    let names = EntranceFacts::from_pem(certificate_pem)?.names;
    let name = names.into_iter().next().and_then(|name| ServerName::try_from(name).ok());
    Ok(name.is_some_and(|name| crate::tls::entrance_is_valid(&leaf, &others, &roots, &name, now)))
}

impl Validity {
    /// From two times in Unix seconds; the end must be later.
    pub fn new(not_before_s: u64, not_after_s: u64) -> Result<Self, PkiError> {
        let validity = Self { not_before_s, not_after_s };
        if not_before_s >= not_after_s || validity.times().is_none() {
            return Err(PkiError::Validity { not_before_s, not_after_s });
        }
        Ok(validity)
    }

    /// First second at which the certificate counts.
    pub const fn not_before_s(self) -> u64 {
        self.not_before_s
    }

    /// Last second at which the certificate counts.
    pub const fn not_after_s(self) -> u64 {
        self.not_after_s
    }

    /// When to renew: at two thirds of the life.
    pub const fn renew_at_s(self) -> u64 {
        self.not_before_s + (self.not_after_s - self.not_before_s) / 3 * 2
    }

    fn times(self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let time = |seconds| OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok();
        Some((time(self.not_before_s)?, time(self.not_after_s)?))
    }
}

fn parameters(common_name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let Validity { not_before_s, not_after_s } = validity;
    let (not_before, not_after) = validity.times().ok_or(PkiError::Validity { not_before_s, not_after_s })?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut parameters = CertificateParams::default();
    parameters.not_before = not_before;
    parameters.not_after = not_after;
    parameters.distinguished_name = name;
    Ok(parameters)
}

/// Nodes and gateways listen and dial, the others only dial.
fn purposes(role: Role) -> Vec<ExtendedKeyUsagePurpose> {
    match role {
        Role::Validator | Role::Observer | Role::Gateway => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        Role::Operator | Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
}

/// For people who look at a certificate; at most 64 characters, as X.509 wants.
fn common_name(id: &SpiffeId) -> String {
    format!("{} {}", id.role(), id.name()).chars().take(64).collect()
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| PkiError::Certificate { reason: error.to_string() })
}

/// A certificate and those that follow it.
fn chain(pem: &str) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), PkiError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let mut all = all.map_err(|error| PkiError::Certificate { reason: error.to_string() })?.into_iter();
    let none = || PkiError::Certificate { reason: "there is none".to_owned() };
    Ok((all.next().ok_or_else(none)?, all.collect()))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| PkiError::Certificate { reason: error.to_string() })?;
    if rest.is_empty() { Ok(certificate) } else { Err(PkiError::Certificate { reason: "trailing bytes".to_owned() }) }
}

fn validity_of(certificate: &X509Certificate<'_>) -> Result<Validity, PkiError> {
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    Validity::new(seconds(certificate.validity().not_before), seconds(certificate.validity().not_after))
}

fn general_names<'a>(certificate: &'a X509Certificate<'a>) -> Result<&'a [GeneralName<'a>], PkiError> {
    let extension =
        certificate.subject_alternative_name().map_err(|error| PkiError::Certificate { reason: error.to_string() })?;
    Ok(extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default())
}

fn spiffe_id_of(certificate: &X509Certificate<'_>) -> Result<SpiffeId, PkiError> {
    let uris: Vec<&str> = general_names(certificate)?
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        _ => Err(PkiError::UriNames { count: uris.len() }),
    }
}
