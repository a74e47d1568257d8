//! What a node costs its callers that is gone or behind, and who is asked meanwhile.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use node_api::proto;
use prost::Message;
use tokio::{sync::watch, task::JoinSet, time::interval};

use crate::{
    fake::{FakeChain, FakeNode, Manner},
    harness::{Answer, GatewayProcess, breaker, calls, until, up},
    strait::Strait,
};

/// Who submits, each one transaction at a time: fewer than open a breaker.
const SENDERS: u64 = 4;
/// Time from one transaction of a sender to the next: together about fifty a second.
const PACE: Duration = Duration::from_millis(80);
/// Transactions that all have sent when nothing has gone wrong for a while.
const WHILE: u64 = 100;

/// A gateway before these ways, all of which lead to a node.
async fn gateway(chain: &FakeChain, ways: &[&Strait]) -> GatewayProcess {
    let addresses: Vec<_> = ways.iter().map(|way| way.address).collect();
    chain.gateway(&addresses).await
}

/// One transaction that waits for as long as a caller may.
async fn submit(gateway: &GatewayProcess) -> Answer {
    gateway.post("/api/v1/transactions?timeoutMs=60000", "application/octet-stream", vec![1; 100]).await
}

/// A batch, which is sent to another node only when it certainly never left.
async fn submit_batch(gateway: &GatewayProcess) -> Answer {
    let batch = proto::SubmitBatchRequest { transactions: vec![vec![1; 100].into()], wait: 0 }.encode_to_vec();
    gateway.grpc("/althing.v1.Transactions/SubmitBatch", &[("grpc-timeout", "60S")], &batch).await
}

async fn is_up(gateway: &GatewayProcess, way: &Strait, expected: f64) {
    until("the backend is up or down", || async {
        gateway.metric(&up(way.address, "submit")).await.filter(|up| *up == expected)
    })
    .await;
}

async fn failed(gateway: &GatewayProcess, way: &Strait) -> f64 {
    gateway.metric(&calls(way.address, "failed")).await.unwrap_or(0.0)
}

fn submitted(nodes: &[FakeNode]) -> u64 {
    nodes.iter().map(|node| node.seen("/Submit").len() as u64).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_whose_packets_vanish_costs_each_sender_one_delay_and_none_an_answer() {
    let chain = FakeChain::new();
    let (mut nodes, mut ways) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let node = chain.node(Manner::Answers).await;
        ways.push(Strait::to(node.address).await);
        nodes.push(node);
    }
    let gateway = gateway(&chain, &ways.iter().collect::<Vec<_>>()).await;
    let (stop, stopped) = watch::channel(false);
    let sending = async {
        let senders = (0..SENDERS).map(|_| async {
            let mut pace = interval(PACE);
            while !*stopped.borrow() {
                pace.tick().await;
                let answer = submit(&gateway).await;
                assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
            }
        });
        futures::future::join_all(senders).await;
    };
    let watching = async {
        until("all are called", || async { nodes.iter().all(|node| node.seen("/Submit").len() > 10).then_some(()) })
            .await;
        ways[3].swallow();
        is_up(&gateway, &ways[3], 0.0).await;
        let before = submitted(&nodes);
        until("the others are called", || async { (submitted(&nodes) > before + WHILE).then_some(()) }).await;
        // What was in flight to it was cut, once, and nobody has waited for it since.
        let cut = failed(&gateway, &ways[3]).await;
        assert!((1.0..=SENDERS as f64).contains(&cut), "{cut} calls failed at the node that is gone");
        assert_eq!(gateway.metric(&breaker(ways[3].address, "submit")).await, Some(0.0));
        ways[3].open();
        let before = nodes[3].seen("/Submit").len();
        until("it is called again", || async { (nodes[3].seen("/Submit").len() > before + 10).then_some(()) }).await;
        stop.send_replace(true);
    };
    tokio::join!(sending, watching);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_cannot_be_reached_is_not_asked_while_another_serves() {
    let chain = FakeChain::new();
    let (gone, stays) = (chain.node(Manner::Answers).await, chain.node(Manner::Answers).await);
    let (way, other) = (Strait::to(gone.address).await, Strait::to(stays.address).await);
    let gateway = gateway(&chain, &[&way, &other]).await;
    way.close();
    is_up(&gateway, &way, 0.0).await;
    for _ in 0..20 {
        // A refusal would stand in the headers.
        assert_eq!(submit_batch(&gateway).await.headers.get("grpc-status"), None);
    }
    assert_eq!((stays.seen("/SubmitBatch").len(), failed(&gateway, &way).await), (20, 0.0));
    way.open();
    is_up(&gateway, &way, 1.0).await;
    until("it is called again", || async {
        submit(&gateway).await;
        (!gone.seen("/Submit").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_are_lost_calls_wait_for_one_try_of_each_and_never_for_each_other() {
    let chain = FakeChain::new();
    let nodes = [chain.node(Manner::Answers).await, chain.node(Manner::Answers).await];
    let ways = [Strait::to(nodes[0].address).await, Strait::to(nodes[1].address).await];
    let gateway = gateway(&chain, &[&ways[0], &ways[1]]).await;
    for way in &ways {
        way.close();
        is_up(&gateway, way, 0.0).await;
    }
    // More than could be answered one after the other within their time.
    let many = futures::future::join_all((0..50).map(|_| submit_batch(&gateway))).await;
    for answer in many {
        assert_eq!(answer.header("grpc-status"), "14", "{:?}", answer.headers);
        assert!(!answer.header("grpc-message").contains("may"), "it never left: {:?}", answer.headers);
    }
    let retries = gateway.metric("althing_gateway_retries_total").await;
    assert!(
        retries.is_some_and(|retries| retries >= 100.0),
        "a batch that never left goes to the next node: {retries:?}"
    );
    for way in &ways {
        assert_eq!(gateway.metric(&breaker(way.address, "submit")).await, Some(0.0), "the probes decide");
        way.open();
    }
    until("they are back", || async { (submit(&gateway).await.status == StatusCode::OK).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_backend_is_asked_also_when_it_is_lost() {
    let chain = FakeChain::new();
    let node = chain.node(Manner::KeepsSilent).await;
    let way = Strait::to(node.address).await;
    let gateway = gateway(&chain, &[&way]).await;
    // More calls in flight than a breaker has patience with; they are lost together.
    let mut lost = JoinSet::new();
    let gateway = Arc::new(gateway);
    for _ in 0..8 {
        let gateway = Arc::clone(&gateway);
        lost.spawn(async move { submit(&gateway).await.status });
    }
    until("all are in flight", || async { (node.seen("/Submit").len() == 8).then_some(()) }).await;
    node.turn(Manner::Answers);
    way.close();
    assert_eq!(lost.join_all().await, [StatusCode::SERVICE_UNAVAILABLE; 8]);
    assert_eq!(gateway.metric(&breaker(way.address, "submit")).await, Some(0.0), "it is one failure");
    is_up(&gateway, &way, 0.0).await;
    let waiting = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { submit(&gateway).await }
    });
    // A call that nobody is asked for is answered sooner than these.
    for _ in 0..20 {
        gateway.metrics().await;
    }
    way.open();
    let answer = waiting.await.expect("no panic");
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_behind_is_asked_for_a_time_when_no_other_serves() {
    let chain = FakeChain::new();
    let nodes = [chain.node(Manner::Answers).await, chain.node(Manner::Answers).await];
    let gateway = chain.gateway(&nodes.each_ref().map(|node| node.address)).await;
    let falls_behind = async |node: &FakeNode| {
        node.fall_behind();
        until("it is found behind", || async {
            gateway.metric(&up(node.address, "submit")).await.filter(|up| *up == 0.0)
        })
        .await;
    };
    falls_behind(&nodes[0]).await;
    let before = nodes[0].seen("/Submit").len();
    for _ in 0..20 {
        assert_eq!(submit(&gateway).await.status, StatusCode::OK);
    }
    assert_eq!(nodes[0].seen("/Submit").len(), before, "another one serves");

    falls_behind(&nodes[1]).await;
    // Several probes find the same.
    let probes = nodes[1].seen("/GetStatus").len();
    until("it is found behind again", || async {
        assert_eq!(submit(&gateway).await.status, StatusCode::OK);
        (nodes[1].seen("/GetStatus").len() > probes + 6).then_some(())
    })
    .await;
    assert!(nodes[0].seen("/Submit").len() > before, "both are asked");
    until("they are out", || async {
        (submit(&gateway).await.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
}
