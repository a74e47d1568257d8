//! Tokens of a certified OpenID provider, issued over HTTPS to clients with a secret: what the gateway takes of them.

use std::{path::PathBuf, sync::Arc};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    companion::{self, Companion},
    harness::{GatewayProcess, Network, certificate, until},
};

/// Nobody is behind this gateway: whoever is let in hears that no node can answer.
const LET_IN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// The providers, and a client that trusts them.
struct Providers {
    process: Companion,
    authorities: PathBuf,
    known: String,
    stranger: String,
    impostor: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    _directory: TempDir,
}

impl Providers {
    async fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let pair = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let [authorities, key] = ["issuer.crt", "issuer.key"].map(|name| directory.path().join(name));
        std::fs::write(&authorities, pair.cert.pem()).expect("written");
        std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
        let mut command = Command::new("node");
        command.arg(companion::source("oidc-provider/provider.mjs")).arg(companion::folder("oidc-provider").await);
        let mut process = Companion::start(command.arg(&authorities).arg(&key));
        let places: Value = serde_json::from_str(&process.answer().await).expect("JSON");
        let place = |name: &str| places[name].as_str().expect("a URL").to_owned();
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).expect("an authority");
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Self {
            known: place("known"),
            stranger: place("stranger"),
            impostor: place("impostor"),
            client: Client::builder(TokioExecutor::new()).build(connector),
            process,
            authorities,
            _directory: directory,
        }
    }

    /// A token of the provider at `place` for one of its resources.
    async fn token(&self, place: &str, client: &str, resource: &str) -> String {
        let secret = STANDARD.encode(format!("{client}:{client}-secret"));
        let request = Request::post(format!("{place}/token"))
            .header(header::AUTHORIZATION, format!("Basic {secret}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(format!("grant_type=client_credentials&resource=urn:test:{resource}")));
        let answer = self.client.request(request.expect("a request")).await.expect("the provider answers");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(status, StatusCode::OK, "{body:?}");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        body["access_token"].as_str().expect("a token").to_owned()
    }

    /// The gateway's `authentication`, with nothing but the place and the audience.
    fn section(&self) -> String {
        format!(
            "  edge: {{plaintext: true}}\n  limits: {{ipPerMinute: 100000, userPerMinute: 100000}}\n  \
             authentication: {{issuers: [{{url: '{}', audiences: [althing], caFile: '{}', clockSkewS: 0}}]}}\n",
            self.known,
            self.authorities.display()
        )
    }

    /// A gateway with nobody behind it that has the provider's keys.
    async fn gateway(&self, directory: &TempDir) -> GatewayProcess {
        let section = format!("  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n{}", self.section());
        let gateway = GatewayProcess::start(directory.path(), &certificate(directory.path()), &section).await;
        until("the keys are fetched", || async {
            (ask(&gateway, &self.token(&self.known, "writer", "rs256").await).await.0 == LET_IN).then_some(())
        })
        .await;
        gateway
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn ask(gateway: &GatewayProcess, token: &str) -> (StatusCode, String) {
    let answer = gateway.get_with("/api/v1/blocks/1", &[("authorization", &bearer(token))]).await;
    (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
}

/// One of the parts of a token, as JSON.
fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("a part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_certified_provider_are_taken_and_all_others_refused() {
    let mut providers = Providers::start().await;
    let directory = TempDir::new().expect("a directory");
    let gateway = providers.gateway(&directory).await;
    let known = async |resource: &str| providers.token(&providers.known, "writer", resource).await;
    let (rs256, es256) = (known("rs256").await, known("es256").await);
    assert_eq!((part(&rs256, 0)["alg"].as_str(), part(&es256, 0)["alg"].as_str()), (Some("RS256"), Some("ES256")));
    for token in [&rs256, &es256] {
        assert_eq!(ask(&gateway, token).await.0, LET_IN);
    }

    // Good for a second.
    let short = known("short").await;
    let expired = until("the token expires", || async {
        let (status, detail) = ask(&gateway, &short).await;
        (status != LET_IN).then_some((status, detail))
    })
    .await;
    assert_eq!(expired, (StatusCode::UNAUTHORIZED, "the token has expired".to_owned()));

    let unsigned = {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": part(&rs256, 0)["kid"]}).to_string());
        format!("{header}.{}.", rs256.split('.').nth(1).expect("claims"))
    };
    let stranger = providers.token(&providers.stranger, "writer", "rs256").await;
    let impostor = providers.token(&providers.impostor, "writer", "rs256").await;
    assert_eq!(part(&impostor, 1)["iss"], part(&rs256, 1)["iss"]);
    assert_eq!(part(&impostor, 0), part(&rs256, 0));
    let other = known("other").await;
    providers.process.order("disguise").await;
    let unknown = providers.token(&providers.impostor, "writer", "rs256").await;
    let cases = [
        ("wrong audience", other, "the token is for another audience"),
        ("wrong issuer", stranger, "tokens of this issuer are not accepted"),
        ("another key under a known id", impostor, "the token is not valid"),
        ("unknown id of a key", unknown, "the key of the token is not known"),
        ("alg none", unsigned, "the token is not a signed"),
    ];
    for (name, token, expected) in cases {
        let (status, detail) = ask(&gateway, &token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}: {detail}");
        assert!(detail.starts_with(expected), "{name}: {detail}");
    }
    assert_eq!(ask(&gateway, &rs256).await.0, LET_IN, "a good one is good after the others too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_may_rotate_its_keys() {
    let mut providers = Providers::start().await;
    let directory = TempDir::new().expect("a directory");
    let gateway = providers.gateway(&directory).await;
    let old = providers.token(&providers.known, "writer", "rs256").await;
    providers.process.order("rotate").await;
    let new = providers.token(&providers.known, "writer", "rs256").await;
    assert_eq!((part(&old, 0)["kid"].as_str(), part(&new, 0)["kid"].as_str()), (Some("old-rsa"), Some("new-rsa")));
    until("the new key counts", || async { (ask(&gateway, &new).await.0 == LET_IN).then_some(()) }).await;
    assert_eq!(ask(&gateway, &old).await.0, LET_IN, "the old key is still published");
    providers.process.order("retire").await;
    // A gateway that starts now has never heard of the old key; one that runs forgets it with its next look.
    let late = TempDir::new().expect("a directory");
    let late = providers.gateway(&late).await;
    assert_eq!(ask(&late, &old).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&late, &new).await.0, LET_IN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_final_with_the_token_of_a_writer_and_forbidden_to_a_reader() {
    let providers = Providers::start().await;
    let network = Network::start(1).await;
    let gateway = network.gateway(&providers.section()).await;
    let submit = async |client: &str| {
        let token = providers.token(&providers.known, client, "es256").await;
        let request = gateway
            .request(Method::POST, "/api/v1/transactions?wait=final")
            .header("authorization", bearer(&token))
            .header("content-type", "application/octet-stream");
        gateway.send(request.body(Full::from(network.transfer_bytes(0, 0))).expect("a request")).await
    };
    let sent = until("the keys are fetched", || async {
        let sent = submit("writer").await;
        (sent.status != StatusCode::UNAUTHORIZED).then_some(sent)
    })
    .await;
    assert_eq!(sent.status, StatusCode::OK, "{:?}", sent.body);
    assert_eq!(sent.json()["final"]["receipt"]["outcome"], "OUTCOME_EXECUTED");
    assert_eq!(submit("reader").await.status, StatusCode::FORBIDDEN);
}
