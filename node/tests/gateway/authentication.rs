//! Tokens of an issuer with real keys, and API keys: what is let in, and every way to be refused.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use node_api::gateway::api_keys::NewKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::harness::{GatewayProcess, certificate, until};

const RSA: &str = include_str!("../../testdata/jwt-rsa.pem");

/// A key with its id.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Key {
    fn rsa(id: &'static str) -> Self {
        Self { id, algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_pem(RSA.as_bytes()).expect("a key") }
    }

    fn ec(id: &'static str) -> Self {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        Self { id, algorithm: Algorithm::ES256, key: EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key") }
    }

    fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        jwk.common.key_id = Some(self.id.to_owned());
        jwk
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).expect("a token")
    }
}

/// An issuer that serves discovery and whatever keys it is given.
struct Issuer {
    url: String,
    keys: Arc<Mutex<JwkSet>>,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let url = format!("http://{address}");
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let set = Arc::new(Mutex::new(JwkSet { keys: keys.iter().map(|key| key.jwk()).collect() }));
        let served = Arc::clone(&set);
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(move || async move { discovery.to_string() }))
            .route(
                "/keys",
                get(move || async move { serde_json::to_string(&*served.lock().expect("lock")).expect("JSON") }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, keys: set }
    }

    fn claims(&self) -> Value {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        json!({"iss": self.url, "aud": "althing", "sub": "alice", "exp": now_s + 300, "nbf": now_s - 5, "roles": ["writer"]})
    }

    fn section(&self) -> String {
        format!(
            "  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n  edge: {{plaintext: true}}\n  limits: {{ipPerMinute: 100000}}\n  \
             authentication: {{issuers: [{{url: '{}', audiences: [althing, other], insecureHttp: true, clockSkewS: 60}}]}}\n",
            self.url
        )
    }
}

/// Nobody is behind this gateway: whoever is let in hears that no node can answer.
const LET_IN: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

async fn ask(gateway: &GatewayProcess, token: &str) -> (StatusCode, String) {
    let header = format!("Bearer {token}");
    let answer = gateway.get_with("/api/v1/blocks/1", &[("authorization", &header)]).await;
    (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_checked_in_every_part() {
    let (rsa, ec, stranger) = (Key::rsa("rsa"), Key::ec("ec"), Key::ec("ec"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let directory = TempDir::new().expect("a directory");
    let gateway = GatewayProcess::start(directory.path(), &certificate(directory.path()), &issuer.section()).await;
    until("the keys are fetched", || async {
        (ask(&gateway, &rsa.sign(&issuer.claims())).await.0 == LET_IN).then_some(())
    })
    .await;
    assert_eq!(ask(&gateway, &ec.sign(&issuer.claims())).await.0, LET_IN);

    let now_s = issuer.claims()["exp"].as_u64().expect("a time") - 300;
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[name] = value;
        rsa.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = issuer.claims();
        claims.as_object_mut().expect("an object").remove(name);
        rsa.sign(&claims)
    };
    // Within the skew of the clocks.
    assert_eq!(ask(&gateway, &with("exp", json!(now_s - 2))).await.0, LET_IN);
    let public = serde_json::to_vec(&rsa.jwk()).expect("JSON");
    let confused = encode(
        &Header { kid: Some("rsa".to_owned()), ..Header::new(Algorithm::HS256) },
        &issuer.claims(),
        &EncodingKey::from_secret(&public),
    );
    let pem = encode(
        &Header { kid: Some("ec".to_owned()), ..Header::new(Algorithm::HS256) },
        &issuer.claims(),
        &EncodingKey::from_secret(RSA.as_bytes()),
    );
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let unsigned = format!("{}.{}.", part(r#"{"alg":"none","kid":"rsa"}"#), part(&issuer.claims().to_string()));
    let good = rsa.sign(&issuer.claims());
    let signature = good.rsplit_once('.').expect("three parts").1;
    let forged = format!(
        "{}.{}.{signature}",
        part(r#"{"alg":"RS256","kid":"rsa"}"#),
        part(&issuer.claims().to_string().replace("alice", "admin"))
    );
    let cases = [
        ("expired", with("exp", json!(now_s - 120)), "the token has expired"),
        ("not yet", with("nbf", json!(now_s + 300)), "the token is not valid yet"),
        ("wrong audience", with("aud", json!("somebody")), "the token is for another audience"),
        ("wrong issuer", with("iss", json!("https://elsewhere.example")), "tokens of this issuer are not accepted"),
        ("no audience", without("aud"), "the token lacks"),
        ("no expiry", without("exp"), "the token lacks"),
        ("no subject", without("sub"), "the token lacks"),
        (
            "unknown key",
            Key { id: "other", ..Key::ec("x") }.sign(&issuer.claims()),
            "the key of the token is not known",
        ),
        ("same id, other key", stranger.sign(&issuer.claims()), "the token is not valid"),
        ("alg none", unsigned, "the token is not a signed"),
        ("public key as secret", confused.expect("a token"), "an algorithm that its key is not for"),
        ("pem as secret", pem.expect("a token"), "an algorithm that its key is not for"),
        ("other claims", forged, "the token is not valid"),
        ("rubbish", "a.b.c".to_owned(), "the token is not a signed"),
    ];
    for (name, token, expected) in cases {
        let (status, detail) = ask(&gateway, &token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}: {detail}");
        assert!(detail.starts_with(expected) || detail.contains(expected), "{name}: {detail}");
    }
    // A role that may only read may not submit.
    let reader = with("roles", json!(["reader"]));
    let header = format!("Bearer {reader}");
    let request = gateway.request(http::Method::POST, "/api/v1/transactions").header("authorization", header);
    let answer = gateway.send(request.body(Default::default()).expect("a request")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(ask(&gateway, &with("roles", json!(["nobody"]))).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_counts_with_its_first_token_and_a_removed_one_no_longer() {
    let (old, new) = (Key::ec("old"), Key::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let directory = TempDir::new().expect("a directory");
    let gateway = GatewayProcess::start(directory.path(), &certificate(directory.path()), &issuer.section()).await;
    until("the keys are fetched", || async {
        (ask(&gateway, &old.sign(&issuer.claims())).await.0 == LET_IN).then_some(())
    })
    .await;
    issuer.keys.lock().expect("lock").keys = vec![new.jwk()];
    // The first token with the new key makes the gateway look; a look within the pause after another is not made.
    until("the new key counts", || async {
        (ask(&gateway, &new.sign(&issuer.claims())).await.0 == LET_IN).then_some(())
    })
    .await;
    assert_eq!(ask(&gateway, &old.sign(&issuer.claims())).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_keys_are_let_in_by_their_hash_and_their_file_may_change() {
    let directory = TempDir::new().expect("a directory");
    let (first, second) =
        (NewKey::generate("first", vec!["writer".to_owned()]), NewKey::generate("second", vec!["service".to_owned()]));
    let (first, second) = (first.expect("a key"), second.expect("a key"));
    let file = directory.path().join("keys.yaml");
    std::fs::write(&file, first.file().expect("text")).expect("written");
    let section = format!(
        "  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n  edge: {{plaintext: true}}\n  limits: {{ipPerMinute: 100000}}\n  \
         authentication: {{apiKeysFile: {}}}\n",
        file.display()
    );
    let gateway = GatewayProcess::start(directory.path(), &certificate(directory.path()), &section).await;
    let ask = async |key: &str| gateway.get_with("/api/v1/blocks/1", &[("x-api-key", key)]).await;
    let answer = ask(&first.key).await;
    assert_eq!((answer.status, answer.header("ratelimit-policy")), (LET_IN, "\"user\";q=1000;w=60"));
    assert_eq!(ask(&second.key).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gateway.get("/api/v1/blocks/1").await.status, StatusCode::UNAUTHORIZED);
    std::fs::write(&file, second.file().expect("text")).expect("written");
    until("the new file counts", || async { (ask(&second.key).await.status == LET_IN).then_some(()) }).await;
    assert_eq!(ask(&second.key).await.header("ratelimit-policy"), "\"service\";q=10000;w=60");
    assert_eq!(ask(&first.key).await.status, StatusCode::UNAUTHORIZED);
}
