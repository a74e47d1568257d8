//! Connections of clients that do not read, and of clients that stay for long.

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{GatewayProcess, certificate, until};

async fn gateway(directory: &TempDir, limits: &str) -> GatewayProcess {
    let section = format!(
        "  backends: {{submit: [{{address: '127.0.0.1:9'}}]}}\n  edge: {{plaintext: true}}\n  \
         authentication: {{anonymousRoles: [writer]}}\n  limits: {{ipPerMinute: 1000000, burstPercent: 100, {limits}}}\n"
    );
    GatewayProcess::start(directory.path(), &certificate(directory.path()), &section).await
}

/// An HTTP/2 connection whose client takes so many bytes of each answer before it reads it.
async fn connect(gateway: &GatewayProcess, window: u32) -> SendRequest<Full<Bytes>> {
    let tcp = TcpStream::connect(gateway.edge).await.expect("connects");
    let mut builder = Builder::new(TokioExecutor::new());
    let handshake = builder.initial_stream_window_size(window).handshake(TokioIo::new(tcp));
    let (sender, connection) = handshake.await.expect("shakes hands");
    tokio::spawn(connection);
    sender
}

fn get(gateway: &GatewayProcess, path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://{}{path}", gateway.edge)).body(Full::default()).expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_take_room_until_their_connection_is_cut() {
    const DOCUMENT: &str = "/api/v1/openapi.json";
    let directory = TempDir::new().expect("a directory");
    let gateway = gateway(&directory, "bodiesBytesMax: 1048576, sendTimeoutMs: 5000").await;
    let size = gateway.get(DOCUMENT).await.body.len();
    let mut sender = connect(&gateway, 1_024).await;
    let mut unread = Vec::new();
    let refused = loop {
        sender.ready().await.expect("the connection is open");
        let answer = sender.send_request(get(&gateway, DOCUMENT)).await.expect("an answer");
        if answer.status() != StatusCode::OK {
            break answer;
        }
        unread.push(answer);
        assert!(unread.len() * size <= 1 << 20, "{} answers of {size} bytes are held", unread.len());
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!((unread.len() + 2) * size >= 1 << 20, "turned away after {} answers of {size} bytes", unread.len());
    let shed = gateway.metric("althing_gateway_shed_total{reason=\"too many answers at one time\"}").await;
    assert_eq!(shed, Some(1.0));
    until("there is room again", || async { (gateway.get(DOCUMENT).await.status == StatusCode::OK).then_some(()) })
        .await;
    assert_eq!(gateway.metric("althing_gateway_unread_total").await, Some(1.0));
    assert!(unread.remove(0).into_body().collect().await.is_err(), "the connection is cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_with_age_and_what_runs_on_them_goes_on() {
    let directory = TempDir::new().expect("a directory");
    let gateway = gateway(&directory, "connectionAgeS: 1").await;
    let mut sender = connect(&gateway, 1 << 16).await;
    let stream = sender.send_request(get(&gateway, "/api/v1/stream/blocks")).await.expect("an answer");
    assert_eq!(stream.status(), StatusCode::OK);
    let mut answered = 0;
    while sender.send_request(get(&gateway, "/api")).await.is_ok() {
        answered += 1;
        assert!(answered < 1_000_000, "the connection does not end");
    }
    assert!(answered > 0, "the connection ended at once");
    assert!(stream.into_body().frame().now_or_never().is_none(), "the stream ended with it");

    let mut old = TcpStream::connect(gateway.edge).await.expect("connects");
    let mut answers = String::new();
    loop {
        let mut part = [0; 4096];
        let sent = old.write_all(b"GET /api HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let read = old.read(&mut part).await.unwrap_or(0);
        answers.push_str(&String::from_utf8_lossy(&part[..read]));
        if sent.is_err() || read == 0 {
            break;
        }
        assert!(answers.len() < 50_000_000, "the connection does not end");
    }
    assert!(answers.starts_with("HTTP/1.1 200"), "{answers}");
}
