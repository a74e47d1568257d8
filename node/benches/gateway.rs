//! What the gateway adds: the same calls made directly and through it, in the same run, against one real observer, whose
//! reads wait for no disk; batches go through it to the validator.
//!
//! Writes `target/bench/gateway.json`. Times depend on the machine, and the nodes, the gateway and this program share it;
//! the two ways are measured in turns, so that a disturbance meets both.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "a benchmark may fail anywhere")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use althing_node::devnet::{Devnet, accounts, plan::PlanRequest, ports, processes::NodeProcess};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use node_api::{
    client::{Client, ClientOptions},
    config::LogLevel,
    tls::{Expected, TlsStore, secure},
    transactions::{TransferTerms, transfer},
};
use node_core::{
    codec::Encode,
    mempool::TRANSFER_VALIDITY_BLOCKS_MAX,
    types::{Amount, Height, Incarnation, Nonce, ParametersDraft},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    task::spawn_blocking,
    time::{Instant, interval},
};

/// Requests in progress when the capacity is measured.
const CALLERS: usize = 32;
const CAPACITY_TIME: Duration = Duration::from_secs(5);
/// What is sustained is looked for in steps of so many calls a second.
const STEP: f64 = 500.0;
const STEP_TIME: Duration = Duration::from_secs(2);
/// Beyond it calls wait for each other.
const SUSTAINED_P50_MAX_MS: f64 = 10.0;
/// Turns at 60 % of what is sustained, each way.
const TURNS: usize = 4;
const TURN_TIME: Duration = Duration::from_secs(4);
const BATCH: u64 = 500;
/// Clients that send batches, each one after the other over a connection of its own, from accounts of its own.
const SENDERS: u32 = 4;
const ACCOUNTS_EACH: u32 = accounts::FUNDED / SENDERS;
/// Batches that each of them has ready, enough for the whole time at twice the goal.
const BATCHES_EACH: u64 = 200;
const BATCHES_TIME: Duration = Duration::from_secs(12);

struct Bench {
    direct: Client,
    through: Client,
    incarnation: Incarnation,
    edge: SocketAddr,
    tls: Arc<TlsStore>,
    _process: NodeProcess,
    devnet: Devnet,
    _directory: tempfile::TempDir,
}

#[tokio::main]
async fn main() {
    let bench = Bench::start().await;
    // Warm both ways.
    closed_loop(&bench.direct, CALLERS, Duration::from_secs(1)).await;
    closed_loop(&bench.through, CALLERS, Duration::from_secs(1)).await;
    let direct_alone_ms = 1_000.0 / closed_loop(&bench.direct, 1, CAPACITY_TIME).await;
    let gateway_alone_ms = 1_000.0 / closed_loop(&bench.through, 1, CAPACITY_TIME).await;
    println!("one call at a time: {direct_alone_ms:.2} ms direct, {gateway_alone_ms:.2} ms through the gateway");
    let direct_per_s = closed_loop(&bench.direct, CALLERS, CAPACITY_TIME).await;
    let requests_per_s = closed_loop(&bench.through, CALLERS, CAPACITY_TIME).await;
    let sustained = sustained_rate(&bench.through).await;
    let rate = sustained * 0.6;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        for (name, client, times) in
            [("direct", &bench.direct, &mut direct), ("through the gateway", &bench.through, &mut through)]
        {
            let mut more = open_loop(client, rate, TURN_TIME).await;
            let (p50, p99) = percentiles(&mut more);
            println!("{rate:.0} calls a second {name}: P50 {p50:.2} ms, P99 {p99:.2} ms");
            times.extend(more);
        }
    }
    let (direct_p50, direct_p99) = percentiles(&mut direct);
    let (through_p50, through_p99) = percentiles(&mut through);
    let submit_batch_tps = bench.submit_batches().await;
    let report = json!({
        "requests_per_s": requests_per_s.round(),
        "direct_requests_per_s": direct_per_s.round(),
        "sustained_requests_per_s": sustained.round(),
        "rate_per_s": rate.round(),
        "direct_p50_ms": direct_p50,
        "direct_p99_ms": direct_p99,
        "gateway_p50_ms": through_p50,
        "gateway_p99_ms": through_p99,
        "added_p50_ms": through_p50 - direct_p50,
        "added_p99_ms": through_p99 - direct_p99,
        "submit_batch_tps": submit_batch_tps.round(),
        "profile": if cfg!(debug_assertions) { "ci" } else { "release" },
    });
    let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"));
    std::fs::create_dir_all(&target).expect("the directory is made");
    std::fs::write(target.join("gateway.json"), format!("{report:#}\n")).expect("the report is written");
    println!("{report:#}");
    bench.devnet.stop().await.expect("the node stops");
}

impl Bench {
    async fn start() -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_althing-node"));
        let request = PlanRequest {
            directory: directory.path().to_owned(),
            chain_id: "devnet".parse().expect("a chain id"),
            ports: ports::free(2).expect("free ports"),
            observers: 1,
            candidates: 0,
            log_level: LogLevel::Warn,
        };
        let mut devnet = Devnet::create(program.clone(), &request).expect("the node starts");
        let genesis = devnet.start_chain(ParametersDraft::default()).await.expect("the chain starts");
        let plan = devnet.plan();
        let (validator, observer) = (&plan.nodes[0].listen, &plan.nodes[1].listen);
        let port = ports::free(1).expect("free ports")[0];
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (edge, http) = (address(port.grpc), address(port.http));
        let text = format!(
            "configVersion: 1\nchainId: devnet\nrole: gateway\ntlsDirectory: {}\nlogLevel: warn\n\
             listen: {{edge: '{edge}', http: '{http}'}}\ngateway:\n  \
             backends: {{submit: [{{address: '{}'}}], read: [{{address: '{}'}}]}}\n  \
             limits: {{userPerMinute: 100000000, burstPercent: 100, connectionAgeS: 86400}}\n",
            plan.gateway.display(),
            validator.grpc,
            observer.grpc
        );
        let config = directory.path().join("gateway.yaml");
        std::fs::write(&config, text).expect("written");
        let arguments = ["gateway".into(), "--config".into(), config.into()];
        let log = directory.path().join("gateway.jsonl");
        let process = NodeProcess::start(&program, &arguments, &log).expect("the gateway starts");
        let tls = TlsStore::from_directory(&plan.client).expect("a certificate");
        let connect = async |address: SocketAddr| {
            let mut ticks = interval(Duration::from_millis(100));
            for _ in 0..300 {
                ticks.tick().await;
                let expected = Expected::any_server(&plan.chain_id);
                let client =
                    Client::connect_tcp(&address.to_string(), Arc::clone(&tls), expected, ClientOptions::default())
                        .await;
                if let Ok(client) = client
                    && client.account(&accounts::account(0)).await.is_ok()
                {
                    return client;
                }
            }
            panic!("{address} does not answer");
        };
        let (direct, through) = (connect(observer.grpc).await, connect(edge).await);
        let incarnation = genesis.incarnation();
        Self { direct, through, incarnation, edge, tls, _process: process, devnet, _directory: directory }
    }

    /// Transactions a second that batches over REST and TLS are answered with, without waiting for finality.
    async fn submit_batches(&self) -> f64 {
        let signing = (0..SENDERS).map(|sender| {
            let incarnation = self.incarnation;
            spawn_blocking(move || (0..BATCHES_EACH).map(|number| batch(incarnation, sender, number)).collect())
        });
        let mut ready: Vec<(SendRequest<Full<Bytes>>, Vec<Bytes>)> = Vec::new();
        for bodies in futures::future::join_all(signing).await {
            ready.push((self.rest().await, bodies.expect("the batches are signed")));
        }
        let (taken, sent) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let begin = Instant::now();
        let send = async |(mut connection, bodies): (SendRequest<Full<Bytes>>, Vec<Bytes>)| {
            for body in bodies {
                if begin.elapsed() >= BATCHES_TIME {
                    return;
                }
                let url = format!("https://{}/api/v1/transactions/batch", self.edge);
                let request = Request::post(url).header("content-type", "application/json").body(Full::new(body));
                connection.ready().await.expect("the connection is open");
                let answer = connection.send_request(request.expect("a request")).await.expect("an answer");
                let body = answer.into_body().collect().await.expect("a body").to_bytes();
                let answer: Value = serde_json::from_slice(&body).expect("JSON");
                let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
                let accepted = results.iter().filter(|result| result["accepted"].is_object()).count();
                taken.fetch_add(accepted, Ordering::Relaxed);
                sent.fetch_add(results.len(), Ordering::Relaxed);
            }
        };
        futures::future::join_all(ready.into_iter().map(send)).await;
        let time = begin.elapsed().as_secs_f64();
        let (taken, sent) = (taken.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
        println!("batches: {taken} of {sent} transactions taken in {time:.2} s");
        taken as f64 / time
    }

    /// A connection for REST, with TLS and the certificate of a client.
    async fn rest(&self) -> SendRequest<Full<Bytes>> {
        let tcp = TcpStream::connect(self.edge).await.expect("connects");
        let expected = Expected::any_server(&self.devnet.plan().chain_id);
        let stream = secure(tcp, &self.tls.current(), expected).await.expect("shakes hands");
        let (connection, serving) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(serving);
        connection
    }
}

/// Signed transfers; the batches of one sender go round its accounts.
fn batch(incarnation: Incarnation, sender: u32, number: u64) -> Bytes {
    let account = sender * ACCOUNTS_EACH + u32::try_from(number).expect("few batches") % ACCOUNTS_EACH;
    let first = number / u64::from(ACCOUNTS_EACH) * BATCH;
    let key = accounts::key(account);
    let transactions = (first..first + BATCH).map(|nonce| {
        let terms = TransferTerms {
            incarnation,
            nonce: Nonce::new(nonce),
            valid_until: Height::new(TRANSFER_VALIDITY_BLOCKS_MAX),
            to: accounts::account(account + 1),
            amount: Amount::new(1),
        };
        STANDARD.encode(transfer(&key, &terms).encode())
    });
    json!({"transactions": transactions.collect::<Vec<String>>()}).to_string().into()
}

/// Calls a second with a fixed number of callers.
async fn closed_loop(client: &Client, callers: usize, time: Duration) -> f64 {
    let end = Instant::now() + time;
    let callers = (0..callers).map(|number| {
        let client = client.clone();
        let account = accounts::account(u32::try_from(number).expect("few callers"));
        tokio::spawn(async move {
            let mut calls = 0_u64;
            while Instant::now() < end {
                client.account(&account).await.expect("the call is answered");
                calls += 1;
            }
            calls
        })
    });
    let counts = futures::future::join_all(callers).await;
    counts.into_iter().map(|calls| calls.expect("the caller ends")).sum::<u64>() as f64 / time.as_secs_f64()
}

/// The highest rate at which calls that begin at a fixed rate are answered in time. It is lower than what a fixed number of
/// callers reach: the less often something waits, the more is woken for it alone.
async fn sustained_rate(client: &Client) -> f64 {
    let mut sustained = 0.0;
    for step in 1..=40 {
        let rate = f64::from(step) * STEP;
        let (p50, p99) = percentiles(&mut open_loop(client, rate, STEP_TIME).await);
        println!("{rate:.0} calls a second through the gateway: P50 {p50:.2} ms, P99 {p99:.2} ms");
        if p50 > SUSTAINED_P50_MAX_MS {
            break;
        }
        sustained = rate;
    }
    sustained
}

/// Milliseconds of calls that begin at a fixed rate, counted from when each should have begun. A thread of its own begins
/// them: timers of the runtime are exact to a millisecond, and all calls of one would begin at once.
async fn open_loop(client: &Client, rate: f64, time: Duration) -> Vec<f64> {
    let (client, runtime) = (client.clone(), Handle::current());
    let begin_calls = move || {
        let begin = Instant::now();
        let count = (time.as_secs_f64() * rate) as u32;
        let calls = (0..count).map(|number| {
            let due = begin + Duration::from_secs_f64(f64::from(number) / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let client = client.clone();
            runtime.spawn(async move {
                client.account(&accounts::account(number % 50)).await.expect("the call is answered");
                due.elapsed().as_secs_f64() * 1_000.0
            })
        });
        calls.collect::<Vec<_>>()
    };
    let calls = spawn_blocking(begin_calls).await.expect("the calls begin");
    futures::future::join_all(calls).await.into_iter().map(|time| time.expect("the call ends")).collect()
}

fn percentiles(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    (at(0.5), at(0.99))
}
