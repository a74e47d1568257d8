//! A client of a network's gateway: HTTPS from outside of the cluster, through the Service; a new connection for each call, one
//! that is kept, or one that a stream has for itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use althing_crds::names;
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use node_api::tls::{Dialer, RelayDialer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::task::JoinHandle;
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
    /// from one of these authorities.
    ///
    /// # Errors
    /// When the authority is no certificate.
    pub fn at(network: &Network, target: String, host: String, authorities: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            roots.add(certificate?)?;
        }
        ensure!(!roots.is_empty(), "there is no certificate");
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

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        self.connect().await?.call(self, request).await
    }

    /// Opens a stream of server-sent events.
    ///
    /// # Errors
    /// When there is none.
    pub async fn follow(&self, path: &str) -> Result<Events> {
        let open = async {
            let mut connection = self.connect().await?;
            let response = connection.send(self, Request::get(path).body(Full::default())?).await?;
            ensure!(response.status() == 200, "the stream is answered with {}", response.status());
            Ok(Events { body: response.into_body(), rest: String::new(), _connection: connection })
        };
        timeout(CALL_TIME_MAX, open).await.with_context(|| format!("no answer to {path}"))?
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = RelayDialer::new(&self.relay, &self.target).dial().await.context("failed to dial")?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream =
            TlsConnector::from(self.tls.clone()).connect(name, stream).await.context("failed to shake hands")?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, task })
    }
}

/// One connection; it ends with this value.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    async fn send(&mut self, from: &Entrance, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        request.headers_mut().insert("host", from.host.parse()?);
        if let Some((name, value)) = &from.credential {
            request.headers_mut().insert(name, value.parse()?);
        }
        self.sender.send_request(request).await.context("failed to send")
    }

    async fn call(&mut self, from: &Entrance, request: Request<Full<Bytes>>) -> Result<Answer> {
        let answer = self.send(from, request).await?;
        let status = answer.status().as_u16();
        let limit = answer.headers().get("ratelimit-policy").and_then(|limit| limit.to_str().ok());
        let limit = limit.unwrap_or_default().to_string();
        let bytes = answer.into_body().collect().await.context("failed to read")?.to_bytes();
        Ok(Answer { status, limit, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }
}

/// A client that keeps its connection for as long as the gateway does.
pub struct Regular {
    entrance: Entrance,
    kept: Option<Connection>,
    /// Connections that it opened so far.
    pub connections: u64,
}

impl Regular {
    /// One that has no connection yet.
    #[must_use]
    pub fn new(entrance: &Entrance) -> Self {
        Self { entrance: entrance.clone(), kept: None, connections: 0 }
    }

    /// Reads. A server may close a kept connection at any time, so what fails on one is asked once more on a new one (RFC 9112,
    /// 9.3.1).
    ///
    /// # Errors
    /// When a new connection brings no answer.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        let request = || Request::get(path).body(Full::default());
        let kept = self.kept.take().filter(|connection| !connection.sender.is_closed());
        if let Some(mut connection) = kept
            && let Ok(Ok(answer)) = timeout(CALL_TIME_MAX, connection.call(&self.entrance, request()?)).await
        {
            self.kept = Some(connection);
            return Ok(answer);
        }
        self.connections += 1;
        let anew = async {
            let mut connection = self.entrance.connect().await?;
            let answer = connection.call(&self.entrance, request()?).await?;
            Ok::<_, anyhow::Error>((connection, answer))
        };
        let (connection, answer) =
            timeout(CALL_TIME_MAX, anew).await.with_context(|| format!("no answer to {path}"))??;
        self.kept = Some(connection);
        Ok(answer)
    }
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Where a stream goes on after it.
    pub id: String,
    /// What happened; empty if nothing did up to its id.
    pub kind: String,
}

/// An open stream of events.
pub struct Events {
    body: Incoming,
    rest: String,
    _connection: Connection,
}

impl Events {
    /// The next event; none when the stream has ended. Comments are signs of life and no events.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for too long.
    pub async fn next(&mut self) -> Result<Option<Told>> {
        loop {
            while let Some((block, rest)) = self.rest.split_once("\n\n") {
                let told = told(block);
                self.rest = rest.to_string();
                if told.is_some() {
                    return Ok(told);
                }
            }
            let frame = timeout(CALL_TIME_MAX, self.body.frame()).await.context("the stream says nothing")?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.context("the stream broke")?;
            if let Some(bytes) = frame.data_ref() {
                self.rest.push_str(std::str::from_utf8(bytes).context("events are UTF-8")?);
            }
        }
    }
}

/// The event of these lines, unless they are a comment.
fn told(block: &str) -> Option<Told> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_string);
    let (id, kind) = (field("id: "), field("event: "));
    if id.is_none() && kind.is_none() {
        return None;
    }
    Some(Told { id: id.unwrap_or_default(), kind: kind.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events_and_comments_do_not() {
        let event = |id: &str, kind: &str| Some(Told { id: id.to_string(), kind: kind.to_string() });
        assert_eq!(told("id: 7\nevent: block\ndata: {\"id: 8\":1}"), event("7", "block"));
        assert_eq!(told("id: 7"), event("7", ""));
        assert_eq!(told("event: broken\ndata: {}"), event("", "broken"));
        assert_eq!(told(": alive"), None);
    }
}
