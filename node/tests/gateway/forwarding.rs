//! Submits, reads and streams through a gateway to real nodes, and what a killed node costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use althing_node::devnet::accounts;
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use node_api::{
    client::{Client, ClientOptions},
    config::LogLevel,
    proto::{Wait, get_transaction_response, submit_response::Answer as Submitted},
    tls::{Expected, TlsStore},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{GatewayProcess, Network, STEP_TIME_MAX, until, up};

const OPEN: &str = "  edge: {plaintext: true}\n  authentication: {anonymousRoles: [writer]}\n  \
    limits: {ipPerMinute: 1000000, burstPercent: 100}\n";

/// The next event with data of an open SSE body.
struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    async fn open(gateway: &GatewayProcess, path: &str, last: Option<&str>) -> Self {
        let mut request = gateway.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = gateway.open(request.body(Full::default()).expect("a request")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// Id, kind and data.
    async fn next(&mut self) -> (String, String, Value) {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
                let (id, kind, data) = (field("id: "), field("event: "), field("data: "));
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return (id, kind, serde_json::from_str(&data).expect("JSON"));
                }
            }
            let frame = timeout(STEP_TIME_MAX, self.body.frame()).await.expect("in time");
            let frame = frame.expect("the stream goes on").expect("a frame");
            self.text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_submits_reads_and_follows_the_chain_through_the_gateway() {
    let network = Network::start_logging(1, LogLevel::Debug).await;
    let gateway = network.gateway(OPEN).await;
    let account = accounts::account(0).to_string();
    let mut events = Events::open(&gateway, &format!("/api/v1/stream/transactions?account={account}"), None).await;

    // One transaction as bytes, one as JSON, many at once.
    let first = network.transfer(0, 0);
    let sent =
        gateway.post("/api/v1/transactions?wait=final", "application/octet-stream", network.transfer_bytes(0, 0)).await;
    assert_eq!(sent.status, StatusCode::OK, "{:?}", sent.body);
    let sent = sent.json();
    assert_eq!(sent["final"]["receipt"]["outcome"], "OUTCOME_EXECUTED", "{sent}");
    assert_eq!(sent["transactionId"], STANDARD.encode(first.id().as_bytes()));
    let body = json!({"transaction": STANDARD.encode(network.transfer_bytes(0, 1)), "wait": "WAIT_FINAL"});
    let second = gateway.post("/api/v1/transactions", "application/json", body.to_string()).await;
    assert_eq!(second.status, StatusCode::OK, "{:?}", second.body);
    let many: Vec<String> = (2..12).map(|nonce| STANDARD.encode(network.transfer_bytes(0, nonce))).collect();
    let body = json!({"transactions": many, "wait": "WAIT_FINAL"}).to_string();
    let many = gateway.post("/api/v1/transactions/batch", "application/json", body).await.json();
    let results = many["results"].as_array().expect("a list");
    assert!(results.iter().all(|result| result["final"]["height"].is_string()), "{many}");

    // The same bytes again change nothing; a used nonce is a conflict that says so.
    let again = gateway.post("/api/v1/transactions", "application/octet-stream", network.transfer_bytes(0, 0)).await;
    assert!(matches!(again.status, StatusCode::OK | StatusCode::CONFLICT), "{:?}", again.body);
    let bad = gateway.post("/api/v1/transactions", "application/octet-stream", vec![1, 2, 3]).await;
    assert_eq!(
        (bad.status, bad.json()["type"].as_str()),
        (StatusCode::BAD_REQUEST, Some("urn:althing:problem:invalid-request"))
    );

    // What became of it, kept for ever; the account; its proof.
    let path = format!("/api/v1/transactions/{}?wait=final", first.id());
    let found = gateway.get(&path).await;
    assert_eq!(found.json()["final"]["height"], sent["final"]["height"]);
    assert!(found.header("cache-control").contains("immutable"));
    let etag = found.header("etag").to_owned();
    assert_eq!(gateway.get_with(&path, &[("if-none-match", &etag)]).await.status, StatusCode::NOT_MODIFIED);
    let state = gateway.get(&format!("/api/v1/accounts/{account}?prove=true")).await.json();
    assert_eq!((state["nonce"].as_str(), state["proof"]["proof"].is_string()), (Some("12"), true));
    let pending = gateway.get(&format!("/api/v1/transactions/{}?wait=final&timeoutMs=300", "ab".repeat(32))).await;
    assert!(pending.json()["unknown"].is_object(), "{:?}", pending.body);

    // The stream told all of them, in order, and goes on after any of them.
    let mut ids = Vec::new();
    for nonce in 0..12 {
        let (id, kind, data) = events.next().await;
        assert_eq!(
            (kind.as_str(), &data["transactionId"]),
            ("transaction", &json!(network.transfer(0, nonce).id().to_string()))
        );
        ids.push(id);
    }
    let path = format!("/api/v1/stream/transactions?account={account}");
    let mut resumed = Events::open(&gateway, &path, Some(&ids[4])).await;
    assert_eq!(resumed.next().await.0, ids[5]);

    follows_blocks(&gateway).await;
    asks_over_grpc(&network).await;
    leaves_traces(&network, &gateway).await;
}

async fn follows_blocks(gateway: &GatewayProcess) {
    // Pages go on where the last one ended.
    let page = gateway.get("/api/v1/blocks?limit=2&after=h0").await.json();
    assert_eq!((page["blocks"][0]["height"].as_str(), page["blocks"][1]["height"].as_str()), (Some("1"), Some("2")));
    let next = page["next"].as_str().expect("a cursor");
    let page = gateway.get(&format!("/api/v1/blocks?limit=1&after={next}")).await.json();
    assert_eq!(page["blocks"][0]["height"], "3");
    let block = gateway.get("/api/v1/blocks/2").await;
    assert!(block.header("cache-control").contains("immutable"));
    assert!(block.json()["certificate"].as_str().is_some_and(|text| !text.is_empty()));
    // The voters change now and then: the second answer is the first one again, and says for how long.
    let hits = async || gateway.metric("althing_gateway_cache_total{result=\"hit\"}").await.unwrap_or_default();
    let (before, first) = (hits().await, gateway.get("/api/v1/validators").await);
    assert_eq!(first.header("cache-control"), "public, max-age=60");
    let (second, after) = (gateway.get("/api/v1/validators").await, hits().await);
    assert_eq!((&second.body, after), (&first.body, before + 1.0));
    let left = second.header("cache-control").strip_prefix("public, max-age=").expect("a time");
    assert!(left.parse::<u64>().expect("seconds") <= 60);

    let mut events = Events::open(gateway, "/api/v1/stream/blocks?from=1", None).await;
    for height in 1..=4_u64 {
        let (id, kind, data) = events.next().await;
        assert_eq!(
            (id, kind.as_str(), data["height"].as_str()),
            (height.to_string(), "block", Some(&*height.to_string()))
        );
    }
    let url = format!("ws://{}/api/v1/socket?from=2", gateway.edge);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("the upgrade succeeds");
    for height in 2..=4_u64 {
        let message = timeout(STEP_TIME_MAX, socket.next()).await.expect("in time").expect("open").expect("a message");
        let Message::Text(text) = message else { panic!("no text: {message:?}") };
        let event: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((event["event"].as_str(), event["id"].as_str()), (Some("block"), Some(&*height.to_string())));
    }
    socket.send(Message::Close(None)).await.expect("closes");
}

/// The typed client of the nodes works against a gateway with TLS and a client certificate, and finds nothing else there.
async fn asks_over_grpc(network: &Network) {
    let gateway = network.gateway("").await;
    let plan = network.devnet.plan();
    let tls = TlsStore::from_directory(&plan.client).expect("a certificate");
    let expected = Expected::any_server(&plan.chain_id);
    let options = ClientOptions { deadline: Duration::from_secs(30), ..ClientOptions::default() };
    let client = Client::connect_tcp(&gateway.edge.to_string(), tls, expected, options).await.expect("connects");
    let transaction = network.transfer(3, 0);
    let answer = client.submit(&transaction, Wait::Final).await.expect("is taken");
    assert!(matches!(answer.answer, Some(Submitted::Final(_))), "{answer:?}");
    let found = client.transaction(&transaction.id()).await.expect("answers");
    assert!(matches!(found.status, Some(get_transaction_response::Status::Final(_))));
    let mut blocks = client.blocks(None).await.expect("a stream");
    let heights = [blocks.next().await, blocks.next().await].map(|block| block.expect("open").expect("a block").height);
    assert_eq!(heights[0] + 1, heights[1]);
    let refused = client.votes().await.expect_err("watching votes is not for clients");
    assert_eq!(refused.code(), Some(tonic::Code::Unimplemented), "{refused}");
    let audited = audited(&gateway, "Submit");
    assert_eq!(audited["transaction"], transaction.id().to_string());
    assert!(audited["principal"].as_str().is_some_and(|name| name.starts_with("cert:spiffe://devnet/")), "{audited}");
    // Without a certificate nobody is let in here.
    let channel = client.channel();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service: String::new() }).await.expect("answers");
    assert_eq!(answer.into_inner().status, 1);
}

/// The first line of the audit log about this operation.
fn audited(gateway: &GatewayProcess, operation: &str) -> Value {
    let log = std::fs::read_to_string(&gateway.log).expect("the log");
    let lines = log.lines().filter(|line| line.contains("\"target\":\"audit\""));
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.find(|line| line["operation"] == operation).unwrap_or_else(|| panic!("no line about {operation}: {log}"))
}

/// The trace of the caller is in the logs of the gateway and of the node, and the change is in the audit log.
async fn leaves_traces(network: &Network, gateway: &GatewayProcess) {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = gateway.get_with("/api/v1/status", &[("traceparent", trace), ("x-request-id", "my-request")]).await;
    assert_eq!((answer.status, answer.header("x-request-id")), (StatusCode::OK, "my-request"));
    let log = || std::fs::read_to_string(&gateway.log).expect("the log");
    until("the log has the request", || async { log().contains("my-request").then_some(()) }).await;
    let log = log();
    let line = log.lines().find(|line| line.contains("my-request")).expect("a line");
    let access: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((access["route"].as_str(), access["status"].as_str()), (Some("getStatus"), Some("200")));
    assert_eq!(access["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let node = &network.devnet.plan().nodes[0].log;
    let call: Value = until("the log of the node has the call", || async {
        let log = std::fs::read_to_string(node).expect("the log");
        let line = log.lines().find(|line| line.contains("my-request")).map(str::to_owned);
        line.and_then(|line| serde_json::from_str(&line).ok())
    })
    .await;
    let span = &call["span"];
    assert_eq!(
        (span["path"].as_str(), span["trace_id"].as_str(), span["request_id"].as_str()),
        (Some("/althing.v1.Node/GetStatus"), access["trace_id"].as_str(), Some("my-request")),
        "{call}"
    );
    let audit = audited(gateway, "Submit");
    assert_eq!(audit["transaction"], network.transfer(0, 0).id().to_string());
    assert_eq!((&audit["principal"], &audit["result"]), (&json!("anonymous"), &json!("taken")));
    let batch = audited(gateway, "SubmitBatch");
    assert_eq!(
        (&batch["transactions"], &batch["transaction"]),
        (&json!(10), &json!(network.transfer(0, 2).id().to_string()))
    );
    let metrics = gateway.metrics().await;
    for name in ["althing_gateway_requests_total{", "althing_gateway_backend_up{", "althing_gateway_cache_total{"] {
        assert!(metrics.contains(name), "{name} is not shown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_under_load_costs_no_read() {
    let mut network = Network::start(4).await;
    let gateway = Arc::new(network.gateway(OPEN).await);
    // One that knows only the killed has nobody to ask.
    for node in &network.devnet.plan().nodes {
        let series = up(node.listen.grpc, "read");
        until("the node is up", || async { gateway.metric(&series).await.filter(|up| *up == 1.0) }).await;
    }
    let path = format!("/api/v1/accounts/{}", accounts::account(0));
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (gateway, stop, reads, path) =
                (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&reads), path.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = gateway.get(&path).await;
                    reads.fetch_add(1, Ordering::Relaxed);
                    if answer.status != StatusCode::OK {
                        failed.push((answer.status, answer.body));
                    }
                }
                failed
            })
        })
        .collect();
    let more = |count: usize| {
        let (reads, goal) = (Arc::clone(&reads), reads.load(Ordering::Relaxed) + count);
        async move { until("reads go on", || async { (reads.load(Ordering::Relaxed) >= goal).then_some(()) }).await }
    };
    more(200).await;
    network.devnet.kill_node(0).await.expect("the node is killed");
    more(500).await;
    network.devnet.kill_node(1).await.expect("the node is killed");
    more(500).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let failed = reader.await.expect("the reader ends");
        assert!(
            failed.is_empty(),
            "{} of {} reads failed: {:?}",
            failed.len(),
            reads.load(Ordering::Relaxed),
            failed.first()
        );
    }
    let metrics = gateway.metrics().await;
    let retries = metrics.lines().find(|line| line.starts_with("althing_gateway_retries_total"));
    assert!(retries.is_some_and(|line| !line.ends_with(" 0")), "no call was made again: {retries:?}");
}
