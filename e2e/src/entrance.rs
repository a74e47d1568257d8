//! A client of a network's gateway: HTTPS from outside of the cluster, a new connection through the Service for each call.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use althing_crds::names;
use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{AUTHORIZATION, HeaderName};
use hyper_util::rt::TokioIo;
use node_api::tls::{Dialer, RelayDialer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::network::Network;

/// Longest time for one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// What the gateway said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// The limit that the call was counted by; empty if there is none.
    pub limit: String,
    /// The body; null if it is no JSON.
    pub body: Value,
}

/// The way to a gateway.
#[derive(Clone)]
pub struct Entrance {
    relay: PathBuf,
    target: String,
    host: String,
    credential: Option<(HeaderName, String)>,
    tls: Arc<ClientConfig>,
}

impl Entrance {
    /// The gateway of this network: its certificate is checked with the network's authority and the Service's name, as
    /// any program with that authority could. The Service is reached through the first node of the local cluster.
    ///
    /// # Errors
    /// When Service or authority cannot be read.
    pub async fn open(network: &Network) -> Result<Self> {
        let service = names::gateway(&network.name);
        let address = network.kubectl(&["get", "service", &service, "-o", "jsonpath={.spec.clusterIP}"]).await?;
        let authority = network.secret_text(&names::client_secret(&network.name), "ca.crt").await?;
        let target = format!("{}:{}", address.trim(), names::PORT_GATEWAY);
        Self::at(network, target, format!("{service}.{}.svc", network.namespace), &authority)
    }

    /// Another HTTPS server that the first node of the local cluster reaches, whose certificate is for `host` and comes
    /// from this authority.
    ///
    /// # Errors
    /// When the authority is no certificate.
    pub fn at(network: &Network, target: String, host: String, authority: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let relay = network.environment.relay("node1")?.to_path_buf();
        Ok(Self { relay, target, host, credential: None, tls: Arc::new(tls) })
    }

    /// The same, showing an API key.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { credential: Some((HeaderName::from_static("x-api-key"), key.to_string())), ..self.clone() }
    }

    /// The same, showing a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { credential: Some((AUTHORIZATION, format!("Bearer {token}"))), ..self.clone() }
    }

    /// The same, showing a name and a password (RFC 7617).
    #[must_use]
    pub fn with_password(&self, name: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{name}:{password}"));
        Self { credential: Some((AUTHORIZATION, format!("Basic {encoded}"))), ..self.clone() }
    }

    /// Reads.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        let request = Request::get(path).body(Full::default())?;
        timeout(CALL_TIME_MAX, self.call(request)).await.with_context(|| format!("no answer to {path}"))?
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Answer> {
        self.post_as(path, "application/octet-stream", body).await
    }

    /// Sends a body of this type.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post_as(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Answer> {
        let request = Request::post(path).header("content-type", content_type);
        let request = request.body(Full::new(Bytes::from(body)))?;
        timeout(CALL_TIME_MAX, self.call(request)).await.with_context(|| format!("no answer to {path}"))?
    }

    async fn call(&self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        request.headers_mut().insert("host", self.host.parse()?);
        if let Some((name, value)) = &self.credential {
            request.headers_mut().insert(name, value.parse()?);
        }
        let stream = RelayDialer::new(&self.relay, &self.target).dial().await.context("failed to dial")?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream =
            TlsConnector::from(self.tls.clone()).connect(name, stream).await.context("failed to shake hands")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.context("failed to send")?;
        let status = answer.status().as_u16();
        let limit = answer.headers().get("ratelimit-policy").and_then(|limit| limit.to_str().ok());
        let limit = limit.unwrap_or_default().to_string();
        let bytes = answer.into_body().collect().await.context("failed to read")?.to_bytes();
        connection.abort();
        Ok(Answer { status, limit, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }
}
