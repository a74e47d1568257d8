//! The TLS of a public entrance: any client may check it, a client certificate counts when it is shown, and files are
//! replaced while it runs.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use node_api::{
    pki::{CertificateAuthority, EntranceFacts, LeafFacts, Validity},
    roles::{Role, SpiffeId},
    tls::{ClientCertificates, EdgeStore, Reload, TlsPem, TlsStore},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const NAME: &str = "gateway.example";

fn validity() -> Validity {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    Validity::new(now_s - 300, now_s + 3_600).expect("times")
}

fn leaf(authority: &CertificateAuthority, role: Role) -> TlsPem {
    let id = SpiffeId::new(&"demo".parse().expect("a chain id"), role, "test").expect("an id");
    let issued = authority.issue(&id, validity()).expect("a certificate");
    TlsPem::from_issued(&issued, authority.certificate_pem())
}

/// Writes a certificate for [`NAME`] that its own authority signs, and answers that authority.
fn write_public(directory: &Path) -> CertificateDer<'static> {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::new(vec![]).expect("parameters");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = root.self_signed(&root_key).expect("an authority").der().clone();
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).expect("a certificate");
    std::fs::write(directory.join("tls.crt"), leaf.pem()).expect("written");
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).expect("written");
    authority
}

/// Connects as a browser would, with or without a client certificate, and answers whom the server saw.
async fn connect(
    store: &Arc<EdgeStore>,
    root: &CertificateDer<'static>,
    client: Option<&TlsPem>,
) -> std::io::Result<Option<SpiffeId>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Arc::clone(store);
    let serving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut stream = server.accept(tcp).await?;
        let seen = stream
            .get_ref()
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|leaf| LeafFacts::from_der(leaf));
        stream.write_all(b"!").await?;
        Ok::<_, std::io::Error>(seen.map(|facts| facts.expect("a leaf of ours").id))
    });
    let mut stream = dial(address, root, client).await?;
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).await?;
    serving.await.expect("the server ends")
}

/// The client's end of a connection.
async fn dial(
    address: SocketAddr,
    root: &CertificateDer<'static>,
    client: Option<&TlsPem>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(&pem.certificate).collect::<Result<_, _>>().expect("a chain");
            let key = PrivateKeyDer::from_pem_slice(&pem.key).expect("a key");
            config.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).expect("a name"), tcp).await
}

/// Serves one connection: sends every byte back.
async fn echo(store: Arc<EdgeStore>, tcp: TcpStream) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(store.accept(tcp).await?);
    tokio::io::copy(&mut reader, &mut writer).await.map(drop)
}

/// Whether the connection still carries a byte there and back.
async fn carries(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut answer = [0; 1];
    let there = stream.write_all(b"!").await.is_ok() && stream.flush().await.is_ok();
    there && stream.read_exact(&mut answer).await.is_ok()
}

#[tokio::test]
async fn a_client_certificate_is_optional_and_must_be_good_when_it_is_shown() {
    let directory = TempDir::new().expect("a directory");
    let root = write_public(directory.path());
    let authority = CertificateAuthority::generate("chain", validity()).expect("an authority");
    let chain = TlsStore::from_pem(&leaf(&authority, Role::Gateway)).expect("files");
    let edge = |clients| EdgeStore::new(Arc::clone(&chain), Some(directory.path().to_owned()), clients).expect("files");
    let asked = edge(ClientCertificates::Asked);
    assert_eq!(connect(&asked, &root, None).await.expect("is let in"), None);
    let good = leaf(&authority, Role::Client);
    let seen = connect(&asked, &root, Some(&good)).await.expect("is let in").expect("is seen");
    assert_eq!((seen.role(), seen.name()), (Role::Client, "test"));
    let stranger = CertificateAuthority::generate("other", validity()).expect("an authority");
    assert!(connect(&asked, &root, Some(&leaf(&stranger, Role::Client))).await.is_err());
    let not_asked = edge(ClientCertificates::NotAsked);
    assert_eq!(connect(&not_asked, &root, Some(&good)).await.expect("is let in"), None);
}

#[tokio::test]
async fn new_files_count_for_the_next_connection_and_broken_ones_do_not() {
    let directory = TempDir::new().expect("a directory");
    let old = write_public(directory.path());
    let authority = CertificateAuthority::generate("chain", validity()).expect("an authority");
    let chain = TlsStore::from_pem(&leaf(&authority, Role::Gateway)).expect("files");
    let store = EdgeStore::new(chain, Some(directory.path().to_owned()), ClientCertificates::Asked).expect("files");
    assert_eq!(store.reload().expect("reads"), Reload::Unchanged);
    std::fs::write(directory.path().join("tls.crt"), "broken").expect("written");
    assert!(store.reload().is_err());
    assert!(connect(&store, &old, None).await.is_ok());
    let new = write_public(directory.path());
    assert_eq!(store.reload().expect("reads"), Reload::Replaced);
    assert!(connect(&store, &new, None).await.is_ok());
    assert!(connect(&store, &old, None).await.is_err());
}

#[tokio::test]
async fn a_network_issues_its_entrance_a_certificate_that_any_client_can_check() {
    let directory = TempDir::new().expect("a directory");
    let authority = CertificateAuthority::generate("chain", validity()).expect("an authority");
    let (names, life) = (vec![NAME.to_owned(), "localhost".to_owned()], validity());
    let (certificate, key) = authority.issue_entrance(&names, life).expect("a certificate");
    let facts = EntranceFacts::from_pem(&certificate).expect("readable");
    assert_eq!((facts.names, facts.validity), (names, life));
    assert!(LeafFacts::from_pem(&certificate).is_err(), "it names a member of the network");
    std::fs::write(directory.path().join("tls.crt"), certificate).expect("written");
    std::fs::write(directory.path().join("tls.key"), key.as_bytes()).expect("written");
    let chain = TlsStore::from_pem(&leaf(&authority, Role::Gateway)).expect("files");
    let store = EdgeStore::new(chain, Some(directory.path().to_owned()), ClientCertificates::Asked).expect("files");
    let root = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).expect("a certificate");
    assert!(connect(&store, &root, None).await.is_ok());
}

#[tokio::test]
async fn connections_end_with_the_trust_in_their_client_certificate_and_others_stay() {
    let directory = TempDir::new().expect("a directory");
    let root = write_public(directory.path());
    let [old, new] = ["old", "new"].map(|name| CertificateAuthority::generate(name, validity()).expect("an authority"));
    let chain = TlsStore::from_pem(&leaf(&old, Role::Gateway)).expect("files");
    let path = Some(directory.path().to_owned());
    let store = EdgeStore::new(Arc::clone(&chain), path, ClientCertificates::Asked).expect("files");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    let accepting = Arc::clone(&store);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(echo(Arc::clone(&accepting), tcp));
        }
    });
    let certificate = leaf(&old, Role::Client);
    let mut known = dial(address, &root, Some(&certificate)).await.expect("is let in");
    let mut anonymous = dial(address, &root, None).await.expect("is let in");
    assert!(carries(&mut known).await && carries(&mut anonymous).await);

    // While both authorities are trusted nobody is sent away.
    let both = [old.certificate_pem(), new.certificate_pem()].concat();
    let between = TlsPem { authorities: both.into_bytes(), ..leaf(&new, Role::Gateway) };
    assert_eq!(chain.replace(&between).expect("is taken"), Reload::Replaced);
    assert_eq!(store.reload().expect("is taken"), Reload::Replaced);
    assert!(carries(&mut known).await && carries(&mut anonymous).await);

    assert_eq!(chain.replace(&leaf(&new, Role::Gateway)).expect("is taken"), Reload::Replaced);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), known.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection goes on although nothing vouches for its client");
    assert!(carries(&mut anonymous).await);
    // The entrance has not looked at its files yet: its handshake still takes the old authority.
    let mut late = dial(address, &root, Some(&certificate)).await.expect("the handshake of the client ends");
    assert!(!carries(&mut late).await, "the certificate does not count any more");
    assert_eq!(store.reload().expect("is taken"), Reload::Replaced);
    let mut renewed = dial(address, &root, Some(&leaf(&new, Role::Client))).await.expect("is let in");
    assert!(carries(&mut renewed).await);
}
