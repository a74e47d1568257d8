//! Nodes that only pretend: each notes what reaches it and with how much time, and answers, fails, cuts or keeps silent as
//! it is told. Their probes are good unless they are told to be behind.

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use node_api::{
    pki::{CertificateAuthority, Validity},
    proto,
    roles::{Role, SpiffeId},
    tls::{AcceptLimits, TlsConnection, TlsPem, TlsStore, incoming},
    unsettled,
};
use prost::Message;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::harness::{GatewayProcess, authority, until, up, write_certificate};

/// What a node does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers them.
    Answers,
    /// Says that it cannot.
    Fails,
    /// Says that the call is wrong.
    Refuses,
    /// Says that it stops, whatever it has done.
    Stops,
    /// Cuts the connection once it has the whole call.
    Cuts,
    /// Takes them and never answers.
    KeepsSilent,
}

/// A call that arrived whole.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    /// The time that the caller said it had.
    pub time: Option<Duration>,
}

struct Shared {
    manner: Mutex<Manner>,
    behind: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    stop: CancellationToken,
}

/// One of them.
pub struct FakeNode {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

/// Their authority, and what a gateway before them shows.
pub struct FakeChain {
    pub directory: tempfile::TempDir,
    pub gateway: PathBuf,
    authority: CertificateAuthority,
    validity: Validity,
}

impl FakeChain {
    pub fn new() -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        let (authority, validity) = authority();
        let gateway = write_certificate(directory.path(), &authority, validity);
        Self { directory, gateway, authority, validity }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A gateway before these, for submits and for reads, that knows all of them.
    pub async fn gateway(&self, addresses: &[SocketAddr]) -> GatewayProcess {
        let backends: Vec<String> = addresses.iter().map(|address| format!("{{address: '{address}'}}")).collect();
        let section = format!(
            "  backends: {{submit: [{}]}}\n  edge: {{plaintext: true}}\n  authentication: {{anonymousRoles: [writer]}}\n  \
             limits: {{ipPerMinute: 1000000, burstPercent: 100}}\n",
            backends.join(", ")
        );
        let gateway = GatewayProcess::start(self.path(), &self.gateway, &section).await;
        gateway.ready().await;
        for series in addresses.iter().flat_map(|address| ["submit", "read"].map(|tier| up(*address, tier))) {
            until("the node is up", || async { gateway.metric(&series).await.filter(|up| *up == 1.0) }).await;
        }
        gateway
    }

    pub async fn node(&self, manner: Manner) -> FakeNode {
        let chain_id = "devnet".parse().expect("a chain id");
        let id = SpiffeId::new(&chain_id, Role::Validator, &"ab".repeat(32)).expect("an id");
        let issued = self.authority.issue(&id, self.validity).expect("a certificate");
        let tls = TlsStore::from_pem(&TlsPem::from_issued(&issued, self.authority.certificate_pem())).expect("is good");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            behind: AtomicBool::default(),
            seen: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let serving = tokio::spawn(serve(listener, tls, Arc::clone(&shared)));
        FakeNode { address, shared, serving }
    }
}

impl FakeNode {
    pub fn turn(&self, manner: Manner) {
        *self.shared.manner.lock().expect("lock") = manner;
    }

    /// Says from now on that it does not have the latest blocks; it answers calls as before.
    pub fn fall_behind(&self) {
        self.shared.behind.store(true, Ordering::Relaxed);
    }

    /// The calls to this method that arrived.
    pub fn seen(&self, method: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().expect("lock");
        seen.iter().filter(|seen| seen.path.ends_with(method)).cloned().collect()
    }

    /// Listens no more, and waits until the other ends have closed their connections too.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.serving.await.expect("the node ends");
    }
}

async fn serve(listener: TcpListener, tls: Arc<TlsStore>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut accepted = Box::pin(incoming(listener, tls, AcceptLimits::default()));
    loop {
        tokio::select! {
            connection = accepted.next() => {
                let connection = connection.expect("endless").expect("a connection");
                connections.spawn(run(connection, Arc::clone(&shared)));
            }
            () = shared.stop.cancelled() => break,
        }
    }
    drop(accepted);
    connections.join_all().await;
}

async fn run(connection: TlsConnection, shared: Arc<Shared>) {
    let cut = CancellationToken::new();
    let answering = (Arc::clone(&shared), cut.clone());
    let service = service_fn(move |request| answer(request, answering.clone()));
    let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service);
    tokio::pin!(serving);
    tokio::select! {
        _ = &mut serving => {}
        () = cut.cancelled() => {}
        () = shared.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    (shared, cut): (Arc<Shared>, CancellationToken),
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    if path.ends_with("/GetStatus") {
        shared.seen.lock().expect("lock").push(Seen { path, time: None });
        let behind = shared.behind.load(Ordering::Relaxed);
        let state = if behind { proto::NodeState::Syncing } else { proto::NodeState::Running };
        let status = proto::GetStatusResponse { state: state.into(), synced: !behind, ..Default::default() };
        return Ok(message(&status));
    }
    let time = request.headers().get("grpc-timeout").map(|value| timeout(value.to_str().expect("text")));
    let _ = request.into_body().collect().await;
    let manner = *shared.manner.lock().expect("lock");
    shared.seen.lock().expect("lock").push(Seen { path: path.clone(), time });
    // What the gateway follows on its own begins and then stays quiet.
    if path.ends_with("/GetBlock") {
        return Ok(message(&proto::Block { height: 1, ..Default::default() }));
    }
    if path.ends_with("/StreamBlocks") {
        let silence = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
        let silence = silence.take_until(shared.stop.clone().cancelled_owned());
        return Ok(grpc(BodyExt::boxed(http_body_util::StreamBody::new(silence))));
    }
    match manner {
        Manner::Answers if path.ends_with("/Submit") => {
            let answer = Some(proto::submit_response::Answer::Accepted(proto::Accepted {}));
            Ok(message(&proto::SubmitResponse { transaction_id: vec![7; 32], answer }))
        }
        Manner::Answers => Ok(message(&proto::GetAccountResponse::default())),
        Manner::Fails => Ok(status(Code::Unavailable)),
        Manner::Refuses => Ok(status(Code::FailedPrecondition)),
        Manner::Stops => Ok(status(unsettled::status("stops").code())),
        Manner::Cuts => {
            cut.cancel();
            std::future::pending().await
        }
        Manner::KeepsSilent => std::future::pending().await,
    }
}

fn grpc(body: BoxBody<Bytes, Infallible>) -> Answer {
    Response::builder().header("content-type", "application/grpc").body(body).expect("a response")
}

fn status(code: Code) -> Answer {
    let mut response = grpc(Full::default().boxed());
    response.headers_mut().insert("grpc-status", HeaderValue::from(i32::from(code)));
    response
}

fn message(message: &impl Message) -> Answer {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("short"));
    message.encode(&mut frame).expect("there is room");
    let trailers =
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    grpc(Full::new(frame.freeze()).with_trailers(async move { Some(Ok(trailers)) }).boxed())
}

fn timeout(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().expect("a number");
    match unit {
        "n" => Duration::from_nanos(number),
        "u" => Duration::from_micros(number),
        "m" => Duration::from_millis(number),
        "S" => Duration::from_secs(number),
        other => panic!("unexpected unit {other}"),
    }
}
