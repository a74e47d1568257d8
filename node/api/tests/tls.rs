//! Mutual TLS on loopback sockets: who is let in, who is refused, and why.

mod loopback;

use std::sync::Arc;

use loopback::{TestServer, authority, chain, current, future, id, identity, past, pem, pem_with, store, validator};
use node_api::{
    client::ClientError,
    pki::CertificateAuthority,
    roles::{Role, SpiffeId},
    tls::{AcceptLimits, Expected, TlsPem},
};
use rustls::{ClientConfig, RootCertStore, client::danger::ServerCertVerifier};
use tonic::Code;

/// The result of a call in short.
async fn outcome(server: &TestServer, client: &TlsPem) -> String {
    let client = match server.client(store(client)).await {
        Ok(client) => client,
        Err(error) => return short(&error),
    };
    match client.status().await {
        Ok(status) => format!("seen as {}", status.state_reason),
        Err(error) => short(&error),
    }
}

/// Connections that TLS refuses fail at the dial or, as TLS 1.3 lets a client finish first, at the first call.
fn short(error: &ClientError) -> String {
    match error {
        ClientError::Connect { reason, .. } | ClientError::Unavailable { reason, .. } => {
            let words = ["alert", "the peer is", "UnknownIssuer", "expired", "not valid yet", "extended key usage"];
            let cause = words.into_iter().find(|word| reason.contains(word));
            match cause {
                Some("alert") => "refused by the server".to_owned(),
                Some("the peer is") => reason.get(reason.find("the peer is").unwrap_or(0)..).unwrap_or("").to_owned(),
                Some(word) => format!("refused by the client: {}", word.to_lowercase()),
                // The server closed the connection before its alert was read.
                None if ["broken pipe", "connection reset", "closed"]
                    .iter()
                    .any(|word| reason.to_lowercase().contains(word)) =>
                {
                    "refused by the server".to_owned()
                }
                None => reason.clone(),
            }
        }
        other => other.to_string(),
    }
}

#[tokio::test]
async fn the_right_certificates_connect_and_the_server_knows_the_caller() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let operator = pem(&issuer, &id("demo", Role::Operator, "operator"));
    assert_eq!(outcome(&server, &operator).await, "seen as spiffe://demo/operator/operator");
    let user = pem(&issuer, &id("demo", Role::Client, "user"));
    assert_eq!(outcome(&server, &user).await, "seen as spiffe://demo/client/user");
}

#[tokio::test]
async fn a_role_that_may_not_make_the_call_is_refused_by_the_table() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let peer = server.client(store(&pem(&issuer, &validator("demo", 2)))).await.expect("connects");
    let error = peer.status().await.expect_err("refused");
    assert_eq!(error.code(), Some(Code::PermissionDenied));
    let user = server.client(store(&pem(&issuer, &id("demo", Role::Client, "user")))).await.expect("connects");
    let error = user.votes().await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        format!(
            "{} refused Votes.StreamVotes: {}: role client may not call /althing.v1.Votes/StreamVotes",
            server.address,
            Code::PermissionDenied
        )
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (authority("demo"), authority("other"));
    let server = TestServer::start(store(&pem(&ours, &validator("demo", 1)))).await;
    let user = id("demo", Role::Client, "user");
    // The stranger trusts us, we do not trust the stranger.
    let stranger = pem_with(&theirs, &user, current(), ours.certificate_pem());
    assert_eq!(outcome(&server, &stranger).await, "refused by the server");
    // We would be let in, and do not trust the server.
    let careful = pem_with(&ours, &user, current(), theirs.certificate_pem());
    assert_eq!(outcome(&server, &careful).await, "refused by the client: unknownissuer");
}

/// What a node of `ours` uses that trusts the nodes of `theirs`.
fn with_members(ours: &CertificateAuthority, id: &SpiffeId, theirs: &CertificateAuthority) -> TlsPem {
    TlsPem { members: theirs.certificate_pem().as_bytes().to_vec(), ..pem(ours, id) }
}

#[tokio::test]
async fn another_member_names_nodes_and_nobody_else() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let home = with_members(&ours, &validator("demo", 1), &theirs);
    let server = TestServer::start_for_peers(store(&home)).await;
    let observer = id("demo", Role::Observer, &identity(9).to_string());
    let member = |id: &SpiffeId| with_members(&theirs, id, &ours);
    assert_eq!(outcome(&server, &member(&observer)).await, format!("seen as {observer}"));
    for role in [Role::Operator, Role::Client, Role::Gateway] {
        assert_eq!(outcome(&server, &member(&id("demo", role, "somebody"))).await, "refused by the server", "{role}");
    }
    // The own authority names everybody, as before.
    let operator = id("demo", Role::Operator, "operator");
    assert_eq!(outcome(&server, &pem(&ours, &operator)).await, format!("seen as {operator}"));
    // A node of another chain is no node of this one, and a third authority is nobody's.
    let stranger = with_members(&authority("third"), &observer, &ours);
    assert_eq!(outcome(&server, &stranger).await, "refused by the server");
    let elsewhere = member(&id("other", Role::Observer, &identity(9).to_string()));
    assert_eq!(outcome(&server, &elsewhere).await, "refused by the server");
}

#[tokio::test]
async fn calls_are_for_those_whom_the_own_authority_names() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let server = TestServer::start(store(&with_members(&ours, &validator("demo", 1), &theirs))).await;
    let observer = id("demo", Role::Observer, &identity(9).to_string());
    assert_eq!(outcome(&server, &with_members(&theirs, &observer, &ours)).await, "refused by the server");
    assert_eq!(outcome(&server, &pem(&ours, &observer)).await, format!("seen as {observer}"));
}

#[tokio::test]
async fn a_leaf_that_signs_another_leaf_is_no_authority() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let leaf = issuer.issue(&id("demo", Role::Client, "user"), current()).expect("a certificate");
    let forger = CertificateAuthority::from_pem(&leaf.certificate_pem, &leaf.key_pem).expect("reads");
    let mut forged = pem_with(&forger, &id("demo", Role::Operator, "forged"), current(), issuer.certificate_pem());
    forged.certificate.extend_from_slice(leaf.certificate_pem.as_bytes());
    assert_eq!(outcome(&server, &forged).await, "refused by the server");
}

#[tokio::test]
async fn a_certificate_of_another_chain_is_refused_on_both_sides() {
    let issuer = authority("shared");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let foreigner = pem(&issuer, &id("other", Role::Operator, "operator"));
    assert_eq!(outcome(&server, &foreigner).await, "refused by the server");

    let foreign_server = TestServer::start(store(&pem(&issuer, &validator("other", 1)))).await;
    let user = pem(&issuer, &id("demo", Role::Client, "user"));
    let one = identity(1);
    assert_eq!(
        outcome(&foreign_server, &user).await,
        format!("the peer is spiffe://other/validator/{one}, expected spiffe://demo/validator|observer/{one}")
    );
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused_by_the_client() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 2)))).await;
    let user = pem(&issuer, &id("demo", Role::Client, "user"));
    assert_eq!(
        outcome(&server, &user).await,
        format!(
            "the peer is spiffe://demo/validator/{}, expected spiffe://demo/validator|observer/{}",
            identity(2),
            identity(1)
        )
    );
    let any = server.client_expecting(store(&user), Expected::any_server(&chain("demo"))).await.expect("connects");
    any.status().await.expect("answers");
}

#[tokio::test]
async fn a_role_that_never_listens_cannot_stand_for_a_node() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &id("demo", Role::Client, "user")))).await;
    let user = pem(&issuer, &id("demo", Role::Client, "user"));
    assert_eq!(outcome(&server, &user).await, "refused by the client: extended key usage");
}

#[tokio::test]
async fn a_certificate_outside_its_time_is_refused_on_both_sides() {
    let issuer = authority("demo");
    let trusted = issuer.certificate_pem();
    let user = id("demo", Role::Client, "user");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    for validity in [past(), future()] {
        let late = pem_with(&issuer, &user, validity, trusted);
        assert_eq!(outcome(&server, &late).await, "refused by the server");
    }
    let expired = TestServer::start(store(&pem_with(&issuer, &validator("demo", 1), past(), trusted))).await;
    assert_eq!(outcome(&expired, &pem(&issuer, &user)).await, "refused by the client: expired");
    let early = TestServer::start(store(&pem_with(&issuer, &validator("demo", 1), future(), trusted))).await;
    assert_eq!(outcome(&early, &pem(&issuer, &user)).await, "refused by the client: not valid yet");
}

#[tokio::test]
async fn a_caller_without_certificate_is_refused() {
    let issuer = authority("demo");
    let server = TestServer::start(store(&pem(&issuer, &validator("demo", 1)))).await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(TrustsAnybody(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.dangerous().set_certificate_verifier(verifier);
    let tcp = tokio::net::TcpStream::connect(server.address).await.expect("connects");
    let name = rustls_pki_types::ServerName::try_from("any.invalid").expect("a name");
    let mut stream =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("finishes its side");
    let error = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await.expect_err("refused");
    assert_eq!(error.to_string(), "received fatal alert: CertificateRequired");
}

#[tokio::test]
async fn one_connection_more_than_the_limit_is_closed() {
    let issuer = authority("demo");
    let limits = AcceptLimits { connections_max: 1, ..AcceptLimits::default() };
    let server = TestServer::start_with(store(&pem(&issuer, &validator("demo", 1))), limits).await;
    let user = pem(&issuer, &id("demo", Role::Client, "user"));
    let first = server.client(store(&user)).await.expect("connects");
    first.status().await.expect("answers");
    assert_eq!(outcome(&server, &user).await, "refused by the server");
    first.status().await.expect("still answers");
}

#[derive(Debug)]
struct TrustsAnybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_right_name_with_another_key_than_its_record_says_is_not_dialed() {
    let issuer = authority("demo");
    let (signed_for, made_up) =
        (store(&pem(&issuer, &validator("demo", 1))), store(&pem(&issuer, &validator("demo", 1))));
    let user = || store(&pem(&issuer, &id("demo", Role::Client, "user")));
    let key = signed_for.current().facts().key;
    let expected = Expected::node(&chain("demo"), &identity(1)).with_key(key);
    let honest = TestServer::start(Arc::clone(&signed_for)).await;
    let client = honest.client_expecting(user(), expected.clone()).await.expect("connects");
    client.status().await.expect("answers");
    // The authority alone made the other certificate.
    let other = TestServer::start(made_up).await;
    let refused = match other.client_expecting(user(), expected).await {
        Ok(client) => client.status().await.expect_err("is refused"),
        Err(error) => error,
    };
    assert!(refused.to_string().contains("has another key than its peer record names"), "{refused}");
}
