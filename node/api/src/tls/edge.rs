//! The TLS of a public entrance: a certificate that any client can check, client certificates only by choice.

use std::{io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use super::{
    Reload, TlsError, TlsMaterial, TlsStore, Watched,
    material::{certificates, read},
    verify::{PeerVerifier, SingleKey},
    watched::shown,
};
use crate::pki::PkiError;

/// What clients of the entrance may speak inside TLS.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether clients are asked for a certificate of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Asked for, not needed. One that is shown must be good, or the handshake fails.
    Asked,
    /// Not asked for.
    NotAsked,
}

/// What the entrance presents and trusts now: its own files, and the authorities of the chain.
#[derive(Debug)]
pub struct EdgeStore {
    chain: Arc<TlsStore>,
    directory: Option<PathBuf>,
    clients: ClientCertificates,
    current: ArcSwap<Edge>,
}

#[derive(Debug)]
struct Edge {
    digest: [u8; 32],
    server: Arc<ServerConfig>,
}

impl EdgeStore {
    /// Presents `tls.crt` and `tls.key` of `directory`, or what `chain` presents, and checks client certificates with
    /// the authorities of `chain`.
    pub fn new(
        chain: Arc<TlsStore>,
        directory: Option<PathBuf>,
        clients: ClientCertificates,
    ) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(load(&chain.current(), directory.as_ref(), clients)?);
        Ok(Arc::new(Self { chain, directory, clients, current }))
    }

    /// Shakes hands over `tcp`. The connection ends when the chain's newest authorities do not vouch for the certificate that the
    /// client has shown; one without a certificate stays.
    ///
    /// # Errors
    /// When the handshake fails, or what is trusted changed during it and the certificate does not count any more.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<Watched<TlsStream<TcpStream>>> {
        let changes = self.chain.changes();
        let stream = TlsAcceptor::from(self.current()).accept(tcp).await?;
        let shown = shown(stream.get_ref().1.peer_certificates());
        let counts = move |chain: &TlsMaterial| shown.is_empty() || chain.server.verifier.admits_client(&shown);
        // The chain's files are replaced before those of the entrance, which the handshake used.
        if !counts(&self.chain.current()) {
            return Err(io::Error::other("the certificate of the client does not count any more"));
        }
        Ok(Watched::new(stream, Arc::clone(&self.chain), changes, counts))
    }

    /// What the next handshake uses.
    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// Takes what the files and the chain's store hold now. On an error the old files stay in use.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        let edge = load(&self.chain.current(), self.directory.as_ref(), self.clients)?;
        if edge.digest == self.current.load().digest {
            return Ok(Reload::Unchanged);
        }
        self.current.store(Arc::new(edge));
        Ok(Reload::Replaced)
    }
}

fn load(chain: &TlsMaterial, directory: Option<&PathBuf>, clients: ClientCertificates) -> Result<Edge, TlsError> {
    let setup = |source| TlsError::Setup { source };
    let mut digest = Sha256::new();
    digest.update(chain.digest());
    let certified = match directory {
        None => Arc::clone(&chain.certified),
        Some(directory) => {
            // One generation of files, as the kubelet swaps them.
            let generation = std::fs::canonicalize(directory.join("..data")).unwrap_or_else(|_| directory.clone());
            let certificate = read(&generation.join("tls.crt"))?;
            let key = Zeroizing::new(read(&generation.join("tls.key"))?);
            digest.update(Sha256::digest(&certificate));
            digest.update(Sha256::digest(&key));
            certified_key(chain, &certificate, &key)?
        }
    };
    let versions = ServerConfig::builder_with_provider(Arc::clone(&chain.provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(setup)?;
    let verifier = match clients {
        ClientCertificates::Asked => {
            Arc::new(PeerVerifier::for_clients(chain.facts().id.chain_id(), &chain.roots, &chain.provider)?.optional())
        }
        ClientCertificates::NotAsked => WebPkiClientVerifier::no_client_auth(),
    };
    let mut server =
        versions.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(SingleKey::new(certified)));
    server.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Edge { digest: digest.finalize().into(), server: Arc::new(server) })
}

fn certified_key(chain: &TlsMaterial, certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let form = |file| move |source| TlsError::Form { file, source };
    let certificates = certificates(certificate).map_err(form("tls.crt"))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| PkiError::Key { reason: error.to_string() })
        .map_err(form("tls.key"))?;
    CertifiedKey::from_der(certificates, key, &chain.provider).map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Form { file: "tls.key", source: PkiError::KeyMismatch },
        other => TlsError::Setup { source: other },
    })
}
