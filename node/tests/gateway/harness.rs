//! A gateway process, a client for it, and a network of real nodes behind it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use althing_node::devnet::{Devnet, accounts, plan::PlanRequest, ports, processes::NodeProcess};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use node_api::{
    config::LogLevel,
    pki::{CertificateAuthority, Validity},
    roles::{Role, SpiffeId},
    transactions::{TransferTerms, transfer},
};
use node_core::{
    codec::Encode,
    mempool::TRANSFER_VALIDITY_BLOCKS_MAX,
    types::{Amount, Genesis, Height, Incarnation, Nonce, ParametersDraft, Transaction},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

pub const STEP_TIME_MAX: Duration = Duration::from_secs(90);

pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_althing-node"))
}

/// Asks again and again until the answer is there or time is up.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + STEP_TIME_MAX;
    let mut ticks = interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
    }
}

/// The metric that is 1 while calls of a tier go to a backend.
pub fn up(backend: SocketAddr, tier: &str) -> String {
    format!("althing_gateway_backend_up{{backend=\"{backend}\",tier=\"{tier}\"}}")
}

/// The metric of a backend's breaker.
pub fn breaker(backend: SocketAddr, tier: &str) -> String {
    format!("althing_gateway_backend_breaker{{backend=\"{backend}\",tier=\"{tier}\"}}")
}

/// The metric that counts the calls of a backend with this result.
pub fn calls(backend: SocketAddr, result: &str) -> String {
    format!("althing_gateway_backend_calls_total{{backend=\"{backend}\",result=\"{result}\"}}")
}

/// An answer that has arrived whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.headers)).to_str().expect("text")
    }
}

/// A gateway as its own process.
pub struct GatewayProcess {
    pub edge: SocketAddr,
    pub http: SocketAddr,
    pub log: PathBuf,
    client: Client<HttpConnector, Full<Bytes>>,
    process: NodeProcess,
}

impl GatewayProcess {
    /// Starts a gateway whose `gateway` section is `section`, with the certificate in `tls`.
    pub async fn start(directory: &Path, tls: &Path, section: &str) -> Self {
        let ports = ports::free(1).expect("free ports")[0];
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (edge, http) = (address(ports.grpc), address(ports.http));
        let text = format!(
            "configVersion: 1\nchainId: devnet\nrole: gateway\ntlsDirectory: {}\n\
             listen: {{edge: '{edge}', http: '{http}'}}\ngateway:\n{section}",
            tls.display()
        );
        let config = directory.join(format!("gateway-{}.yaml", ports.grpc));
        std::fs::write(&config, text).expect("the configuration is written");
        let log = directory.join(format!("gateway-{}.jsonl", ports.grpc));
        let arguments = ["gateway".into(), "--config".into(), config.into()];
        let process = NodeProcess::start(&program(), &arguments, &log).expect("the gateway starts");
        let client = Client::builder(TokioExecutor::new()).build_http();
        let gateway = Self { edge, http, log, client, process };
        until("the gateway listens", || async { tokio::net::TcpStream::connect(edge).await.ok() }).await;
        gateway
    }

    /// Waits until each tier has somebody to forward to.
    pub async fn ready_for_all(&self) {
        self.ready().await;
        until("both tiers are up", || async {
            let metrics = self.metrics().await;
            let up = |tier: &str| {
                let label = format!("tier=\"{tier}\"");
                let mut lines = metrics.lines().filter(|line| line.starts_with("althing_gateway_backend_up{"));
                lines.any(|line| line.contains(&label) && line.ends_with(" 1"))
            };
            (up("submit") && up("read")).then_some(())
        })
        .await;
    }

    /// Waits until it has somebody to forward to.
    pub async fn ready(&self) {
        let url = format!("http://{}/readyz", self.http);
        until("the gateway is ready", || async {
            let request = Request::get(&url).body(Full::default()).expect("a request");
            self.client.request(request).await.ok().filter(|answer| answer.status() == StatusCode::OK)
        })
        .await;
    }

    /// The head of an answer; its body is still to come.
    pub async fn open(&self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        self.client.request(request).await.expect("the gateway answers")
    }

    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.edge))
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = body.collect().await.expect("the body arrives").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).body(Full::default()).expect("a request")).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default()).expect("a request")).await
    }

    pub async fn post(&self, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", kind);
        self.send(request.body(Full::new(body.into())).expect("a request")).await
    }

    /// A gRPC call with one message over HTTP/1.1, which needs no client of its own; a refusal stands in the headers.
    pub async fn grpc(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> Answer {
        let mut request = self.request(Method::POST, path).header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        let body = [&[0], &length[..], message].concat();
        self.send(request.body(Full::new(body.into())).expect("a request")).await
    }

    /// A gRPC channel to a gateway without TLS.
    pub async fn channel(&self) -> tonic::transport::Channel {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.edge)).expect("an address");
        endpoint.connect().await.expect("connects")
    }

    /// The value of one metric; `series` is the name with its labels in order of their names.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    /// What `/readyz` says.
    pub async fn readiness(&self) -> Answer {
        let request = Request::get(format!("http://{}/readyz", self.http)).body(Full::default()).expect("a request");
        self.send(request).await
    }

    /// Asks the process to stop and waits until it has ended.
    pub async fn stop(self) {
        self.process.stop().await.expect("the gateway ends");
    }

    /// Which TLS files it uses towards the nodes.
    pub async fn tls(&self) -> node_api::tls::TlsReport {
        let url = format!("http://{}{}", self.http, node_api::tls::TlsReport::PATH);
        let answer = self.send(Request::get(url).body(Full::default()).expect("a request")).await;
        serde_json::from_slice(&answer.body).expect("a report")
    }

    pub async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.http);
        let request = Request::get(url).body(Full::default()).expect("a request");
        String::from_utf8(self.send(request).await.body.to_vec()).expect("text")
    }
}

/// An authority of the test chain, and the times of what it issues.
pub fn authority() -> (CertificateAuthority, Validity) {
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let validity = Validity::new(now_s - 300, now_s + 86_400).expect("times");
    (CertificateAuthority::generate("test", validity).expect("an authority"), validity)
}

/// A certificate directory of role gateway.
pub fn write_certificate(directory: &Path, authority: &CertificateAuthority, validity: Validity) -> PathBuf {
    let id = SpiffeId::new(&"devnet".parse().expect("a chain id"), Role::Gateway, "test").expect("an id");
    let issued = authority.issue(&id, validity).expect("a certificate");
    let tls = directory.join("tls");
    std::fs::create_dir_all(&tls).expect("a directory");
    std::fs::write(tls.join("tls.crt"), &issued.certificate_pem).expect("written");
    std::fs::write(tls.join("tls.key"), issued.key_pem.as_bytes()).expect("written");
    std::fs::write(tls.join("ca.crt"), authority.certificate_pem()).expect("written");
    tls
}

/// The same for tests without nodes.
pub fn certificate(directory: &Path) -> PathBuf {
    let (authority, validity) = authority();
    write_certificate(directory, &authority, validity)
}

/// Real nodes.
pub struct Network {
    pub devnet: Devnet,
    pub genesis: Genesis,
    pub incarnation: Incarnation,
    pub directory: TempDir,
}

impl Network {
    pub async fn start(validators: u16) -> Self {
        Self::start_nodes(validators, 0, LogLevel::Info).await
    }

    /// The same with another log of the nodes.
    pub async fn start_logging(validators: u16, log_level: LogLevel) -> Self {
        Self::start_nodes(validators, 0, log_level).await
    }

    /// With validators that genesis does not name.
    pub async fn start_with_candidates(validators: u16, candidates: u16) -> Self {
        Self::start_nodes(validators, candidates, LogLevel::Info).await
    }

    async fn start_nodes(validators: u16, candidates: u16, log_level: LogLevel) -> Self {
        let directory = TempDir::new().expect("a directory");
        let request = PlanRequest {
            directory: directory.path().to_owned(),
            chain_id: "devnet".parse().expect("a chain id"),
            ports: ports::free(validators + candidates).expect("free ports"),
            observers: 0,
            candidates: usize::from(candidates),
            log_level,
        };
        let mut devnet = Devnet::create(program(), &request).expect("the processes start");
        let parameters = ParametersDraft { block_interval_ms: 200, ..ParametersDraft::default() };
        let genesis = devnet.start_chain(parameters).await.expect("the ceremony succeeds");
        Self { devnet, incarnation: genesis.incarnation(), genesis, directory }
    }

    /// A gateway before all nodes. `more` is added to its section.
    pub async fn gateway(&self, more: &str) -> GatewayProcess {
        let plan = self.devnet.plan();
        let backend = |node: &althing_node::devnet::plan::PlannedNode| {
            format!("{{address: '{}', identity: {}}}", node.listen.grpc, node.identity)
        };
        let backends: Vec<String> = plan.nodes.iter().map(backend).collect();
        let section = format!("  backends: {{submit: [{}]}}\n{more}", backends.join(", "));
        let gateway = GatewayProcess::start(self.directory.path(), &plan.gateway, &section).await;
        gateway.ready_for_all().await;
        gateway
    }

    /// A transfer of a development account to its neighbour.
    pub fn transfer(&self, account: u32, nonce: u64) -> Transaction {
        let terms = TransferTerms {
            incarnation: self.incarnation,
            nonce: Nonce::new(nonce),
            valid_until: Height::new(TRANSFER_VALIDITY_BLOCKS_MAX),
            to: accounts::account(account + 1),
            amount: Amount::new(7),
        };
        transfer(&accounts::key(account), &terms)
    }

    pub fn transfer_bytes(&self, account: u32, nonce: u64) -> Vec<u8> {
        self.transfer(account, nonce).encode()
    }
}
