//! What one process presents and trusts, read from PEM files and checked before it is used.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::verify::{PeerVerifier, SingleKey};
use crate::{
    pki::{IssuedCertificate, LeafFacts, PkiError},
    roles::SpiffeId,
};

/// Largest of the three files that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What the two sides speak inside TLS.
pub(super) const ALPN: &[u8] = b"h2";

/// The files: `tls.crt`, `tls.key`, `ca.crt`, and `members.crt` where there are other members.
#[derive(Clone)]
pub struct TlsPem {
    /// The leaf, followed by intermediates if there are any.
    pub certificate: Vec<u8>,
    /// The leaf's key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
    /// Every authority that is trusted; more than one while an authority is replaced.
    pub authorities: Vec<u8>,
    /// The authorities of other members of the chain, whose word counts for nodes alone; empty where there are none.
    pub members: Vec<u8>,
}

/// Why TLS files cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key has a wrong form.
    #[error("failed to use {file}: {source}")]
    Form {
        /// `tls.crt`, `tls.key`, `ca.crt` or `members.crt`.
        file: &'static str,
        /// What is wrong.
        source: PkiError,
    },
    /// The TLS library refuses the files.
    #[error("failed to set up TLS: {source}")]
    Setup {
        /// What it said.
        source: rustls::Error,
    },
    /// After a change the files name somebody else.
    #[error("the new certificate names {found}, this process is {expected}")]
    OtherIdentity {
        /// Who this process is.
        expected: SpiffeId,
        /// Whom the new files name.
        found: SpiffeId,
    },
}

/// One checked set of files, ready to be presented and to check others with.
#[derive(Debug)]
pub struct TlsMaterial {
    facts: LeafFacts,
    digest: [u8; 32],
    authorities: Vec<[u8; 32]>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) members: Option<Arc<RootCertStore>>,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) provider: Arc<CryptoProvider>,
    /// For calls: whom the own authorities name.
    pub(super) server: Listening,
    /// For peers: also nodes that other members name.
    pub(super) peer_server: Listening,
}

/// What a listener uses.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    pub(super) config: Arc<ServerConfig>,
    /// Says who may connect, and who may stay.
    pub(super) verifier: Arc<PeerVerifier>,
}

impl TlsPem {
    /// Reads the files of a directory. Where the kubelet swaps a whole generation of files by one link (`..data`), all
    /// come from the same generation.
    pub fn read(directory: &Path) -> Result<Self, TlsError> {
        let generation = fs::canonicalize(directory.join("..data")).unwrap_or_else(|_| directory.to_owned());
        Ok(Self {
            certificate: read(&generation.join("tls.crt"))?,
            key: Zeroizing::new(read(&generation.join("tls.key"))?),
            authorities: read(&generation.join("ca.crt"))?,
            members: read_if_there(&generation.join("members.crt"))?,
        })
    }

    /// A certificate that was just issued, with the authorities to trust.
    pub fn from_issued(issued: &IssuedCertificate, authorities_pem: &str) -> Self {
        Self {
            certificate: issued.certificate_pem.clone().into_bytes(),
            key: Zeroizing::new(issued.key_pem.as_bytes().to_vec()),
            authorities: authorities_pem.as_bytes().to_vec(),
            members: Vec::new(),
        }
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let mut state = Sha256::new();
        for part in [&self.certificate, &*self.key, &self.authorities, &self.members] {
            state.update(Sha256::digest(part));
        }
        state.finalize().into()
    }
}

impl TlsMaterial {
    /// Checks the files: they parse, the key belongs to the certificate, the certificate carries one SPIFFE id, and
    /// at least one authority is trusted. Whether the certificate has expired is for the peers to say.
    pub fn from_pem(pem: &TlsPem) -> Result<Self, TlsError> {
        let form = |file| move |source| TlsError::Form { file, source };
        let chain = certificates(&pem.certificate).map_err(form("tls.crt"))?;
        let leaf = chain.first().ok_or(PkiError::Certificate { reason: "no certificate in the file".to_owned() });
        let facts = leaf.and_then(LeafFacts::from_der).map_err(form("tls.crt"))?;
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|error| PkiError::Key { reason: error.to_string() })
            .map_err(form("tls.key"))?;
        let roots = Arc::new(roots_from_pem(&pem.authorities).map_err(form("ca.crt"))?);
        let authorities = certificates(&pem.authorities).map_err(form("ca.crt"))?;
        let authorities = authorities.iter().map(|authority| Sha256::digest(authority).into()).collect();
        let provider = Arc::new(ring::default_provider());
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Form { file: "tls.key", source: PkiError::KeyMismatch },
            other => TlsError::Setup { source: other },
        })?;
        let certified = Arc::new(certified);
        let members = (!pem.members.is_empty()).then(|| roots_from_pem(&pem.members).map(Arc::new));
        let members = members.transpose().map_err(form("members.crt"))?;
        let verifier = || PeerVerifier::for_clients(facts.id.chain_id(), &roots, &provider);
        let server = listening(verifier()?, &certified, &provider)?;
        let peer_server = match &members {
            None => server.clone(),
            Some(_) => listening(verifier()?.with_members(members.as_ref())?, &certified, &provider)?,
        };
        let digest = pem.digest();
        Ok(Self { digest, facts, authorities, roots, members, certified, provider, server, peer_server })
    }

    /// Who this process is, until when the certificate counts, and its fingerprint.
    pub const fn facts(&self) -> &LeafFacts {
        &self.facts
    }

    /// SHA-256 of the DER of each authority that is trusted, without those of other members.
    pub fn authorities(&self) -> &[[u8; 32]] {
        &self.authorities
    }

    pub(super) const fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn listening(
    verifier: PeerVerifier,
    certified: &Arc<CertifiedKey>,
    provider: &Arc<CryptoProvider>,
) -> Result<Listening, TlsError> {
    let verifier = Arc::new(verifier);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| TlsError::Setup { source })?
        .with_client_cert_verifier(Arc::<PeerVerifier>::clone(&verifier))
        .with_cert_resolver(Arc::new(SingleKey::new(Arc::clone(certified))));
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Listening { config: Arc::new(server), verifier })
}

/// Trust anchors from a bundle of PEM certificates; at least one.
pub(crate) fn roots_from_pem(pem: &[u8]) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| PkiError::Certificate { reason: error.to_string() })?;
    }
    if roots.is_empty() {
        return Err(PkiError::Certificate { reason: "no certificate in the file".to_owned() });
    }
    Ok(roots)
}

pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| PkiError::Certificate { reason: error.to_string() })
}

fn read_if_there(path: &Path) -> Result<Vec<u8>, TlsError> {
    match read(path) {
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    fs::read(path).map_err(failed)
}
