//! What is called again and what is not, how long backends are given, and when one is left alone.

use std::time::Duration;

use http::StatusCode;
use node_api::proto;
use prost::Message;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    fake::{FakeChain, FakeNode, Manner},
    harness::{Answer, GatewayProcess, breaker, calls, until},
};

const ACCOUNT: &str = "/althing.v1.Accounts/GetAccount";

/// A gateway before these, for submits and for reads, whose own following of blocks has begun.
async fn gateway(chain: &FakeChain, nodes: &[&FakeNode]) -> GatewayProcess {
    let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
    let gateway = chain.gateway(&addresses).await;
    until("blocks are followed", || async {
        nodes.iter().any(|node| !node.seen("/StreamBlocks").is_empty()).then_some(())
    })
    .await;
    gateway
}

fn account_path() -> String {
    format!("/api/v1/accounts/{}", "ab".repeat(32))
}

fn account_request() -> Vec<u8> {
    proto::GetAccountRequest { account: vec![7; 32], prove: false }.encode_to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_caller_can_make_a_backend_look_bad() {
    let chain = FakeChain::new();
    let node = chain.node(Manner::KeepsSilent).await;
    let gateway = gateway(&chain, &[&node]).await;
    // Deadlines that nobody could meet.
    for number in 0..100 {
        let time = if number % 10 == 0 { "20m" } else { "1n" };
        let answer = gateway.grpc(ACCOUNT, &[("grpc-timeout", time)], &account_request()).await;
        assert_eq!(answer.header("grpc-status"), "4", "{time}");
    }
    // Messages that nobody could read, of a call that nobody else makes here.
    for _ in 0..10 {
        let answer = gateway.grpc("/althing.v1.Validators/GetValidators", &[], &[0xff; 9]).await;
        assert_eq!(answer.header("grpc-status"), "3", "{:?}", answer.headers);
    }
    assert_eq!(node.seen("/GetValidators").len(), 0, "a message that cannot be read is not handed on");
    // A caller who leaves.
    let mut leaving = TcpStream::connect(gateway.edge).await.expect("connects");
    let head = format!("GET /api/v1/transactions/{} HTTP/1.1\r\nHost: h\r\n\r\n", "ab".repeat(32));
    leaving.write_all(head.as_bytes()).await.expect("the head leaves");
    until("the call arrived", || async { (!node.seen("/GetTransaction").is_empty()).then_some(()) }).await;
    drop(leaving);
    until("it is counted", || async {
        gateway.metric(&calls(node.address, "abandoned")).await.filter(|calls| *calls >= 101.0)
    })
    .await;

    node.turn(Manner::Answers);
    let answered = gateway.metric(&calls(node.address, "answered")).await.expect("some");
    gateway.grpc("/althing.v1.Transactions/SubmitStream", &[], &[]).await;
    assert_eq!(gateway.metric(&calls(node.address, "answered")).await, Some(answered + 1.0), "a stream is a call too");
    assert_eq!(gateway.get(&account_path()).await.status, StatusCode::OK);
    assert_eq!(gateway.metric(&breaker(node.address, "read")).await, Some(0.0));
    assert_eq!(gateway.metric(&calls(node.address, "failed")).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_cut_is_made_again_and_a_batch_is_not() {
    let chain = FakeChain::new();
    let nodes = [chain.node(Manner::Cuts).await, chain.node(Manner::Cuts).await];
    let gateway = gateway(&chain, &[&nodes[0], &nodes[1]]).await;
    let seen = |method: &str| nodes.iter().map(|node| node.seen(method).len()).sum::<usize>();
    let batch = json!({"transactions": ["AAAA"]}).to_string();
    let batch = gateway.post("/api/v1/transactions/batch", "application/json", batch).await;
    assert_eq!((batch.status, seen("/SubmitBatch")), (StatusCode::SERVICE_UNAVAILABLE, 1));
    assert!(
        batch.json()["detail"].as_str().is_some_and(|detail| detail.contains("may have taken")),
        "{:?}",
        batch.body
    );
    let submitted = submit_one(&gateway).await;
    assert_eq!((submitted.status, seen("/Submit")), (StatusCode::SERVICE_UNAVAILABLE, 2));
    let read = gateway.get(&account_path()).await;
    assert_eq!((read.status, seen("/GetAccount")), (StatusCode::SERVICE_UNAVAILABLE, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_node_was_lost_is_answered_by_another_that_cannot_speak_for_the_first() {
    for (lost, other, expected) in [
        (Manner::Cuts, Manner::Answers, StatusCode::OK),
        (Manner::Stops, Manner::Answers, StatusCode::OK),
        // The first node may have taken it.
        (Manner::Cuts, Manner::Refuses, StatusCode::SERVICE_UNAVAILABLE),
        (Manner::Stops, Manner::Refuses, StatusCode::SERVICE_UNAVAILABLE),
        // It said that it did not.
        (Manner::Fails, Manner::Refuses, StatusCode::CONFLICT),
    ] {
        let chain = FakeChain::new();
        let (lost, other) = (chain.node(lost).await, chain.node(other).await);
        let gateway = gateway(&chain, &[&lost, &other]).await;
        // Two calls in turns: one of them meets the lost node first.
        for _ in 0..2 {
            let before = lost.seen("/Submit").len();
            let answer = submit_one(&gateway).await;
            if lost.seen("/Submit").len() > before {
                assert_eq!(answer.status, expected, "{:?}", answer.body);
            }
        }
        assert!(!lost.seen("/Submit").is_empty(), "the lost node was never asked");
        assert_eq!(other.seen("/Submit").len(), 2, "the other was asked each time");
    }
}

/// One transaction; the nodes here do not look into it.
async fn submit_one(gateway: &GatewayProcess) -> Answer {
    gateway.post("/api/v1/transactions", "application/octet-stream", vec![1; 100]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_stopped_is_not_asked() {
    let chain = FakeChain::new();
    let (gone, stays) = (chain.node(Manner::Answers).await, chain.node(Manner::Answers).await);
    let address = gone.address;
    let gateway = gateway(&chain, &[&gone, &stays]).await;
    // When this returns the gateway has closed its connections, and the next one is refused.
    gone.stop().await;
    for _ in 0..4 {
        let answer = submit_one(&gateway).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    }
    assert_eq!(stays.seen("/Submit").len(), 4);
    assert_eq!(gateway.metric(&calls(address, "failed")).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_failures_in_a_row_leave_a_backend_alone() {
    let chain = FakeChain::new();
    let node = chain.node(Manner::Fails).await;
    let gateway = gateway(&chain, &[&node]).await;
    for failures in 1..=5 {
        assert_eq!(gateway.metric(&breaker(node.address, "read")).await, Some(0.0), "before failure {failures}");
        assert_eq!(gateway.get(&account_path()).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(gateway.metric(&breaker(node.address, "read")).await, Some(2.0));
    assert_eq!(gateway.get(&account_path()).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(node.seen("/GetAccount").len(), 5, "an open breaker lets nothing through");
    assert_eq!(gateway.metric(&calls(node.address, "failed")).await, Some(5.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_the_caller_reaches_the_node_and_has_become_less() {
    let chain = FakeChain::new();
    let node = chain.node(Manner::Answers).await;
    let gateway = gateway(&chain, &[&node]).await;
    let time = |method: &str| {
        let seen = node.seen(method);
        seen.last().and_then(|seen| seen.time).unwrap_or_else(|| panic!("no time: {seen:?}"))
    };
    let within = |time: Duration, least_s: u64, most_s: u64| {
        assert!(time > Duration::from_secs(least_s) && time < Duration::from_secs(most_s), "{time:?}");
    };
    // A look at a transaction may take a second beyond the time that is waited for it.
    gateway.get(&format!("/api/v1/transactions/{}?timeoutMs=500", "ab".repeat(32))).await;
    within(time("/GetTransaction"), 0, 2);
    gateway.grpc(ACCOUNT, &[("grpc-timeout", "2S")], &account_request()).await;
    within(time("/GetAccount"), 0, 2);
    // A read moves on to another node after a while; a submit waits for as long as its caller does.
    gateway.get(&account_path()).await;
    within(time("/GetAccount"), 2, 4);
    gateway.post("/api/v1/transactions?timeoutMs=45000", "application/octet-stream", vec![1; 100]).await;
    within(time("/Submit"), 10, 45);
    let submit = proto::SubmitRequest { transaction: vec![1; 100].into(), wait: 0 }.encode_to_vec();
    gateway.grpc("/althing.v1.Transactions/Submit", &[("grpc-timeout", "30S")], &submit).await;
    within(time("/Submit"), 10, 30);
    // Whoever names none has the time of the gateway.
    submit_one(&gateway).await;
    within(time("/Submit"), 3, 10);
}
