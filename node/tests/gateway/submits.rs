//! What a submit is answered with, for every wait, one transaction or many, over REST and gRPC.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use node_api::proto::{
    SubmitBatchRequest, SubmitStreamRequest, Wait, stream_answer, transactions_client::TransactionsClient,
};
use serde_json::{Value, json};

use crate::harness::{GatewayProcess, Network};

const OPEN: &str = "  edge: {plaintext: true}\n  authentication: {anonymousRoles: [writer]}\n";
const WAITS: [(Wait, &str, &str); 3] = [
    (Wait::Accepted, "WAIT_ACCEPTED", "accepted"),
    (Wait::Durable, "WAIT_DURABLE", "durable"),
    (Wait::Final, "WAIT_FINAL", "final"),
];
/// Transactions of each batch.
const MANY: u64 = 3;

/// Which answer it is.
fn kind(result: &Value) -> String {
    let names = ["accepted", "durable", "final", "expired", "problem"];
    names.into_iter().filter(|name| result.get(*name).is_some()).collect::<Vec<_>>().join(" and ")
}

async fn many_over_rest(gateway: &GatewayProcess, transactions: &[Vec<u8>], wait: &str, query: &str) -> Vec<String> {
    let transactions: Vec<String> = transactions.iter().map(|bytes| STANDARD.encode(bytes)).collect();
    let body = json!({"transactions": transactions, "wait": wait}).to_string();
    let answer = gateway.post(&format!("/api/v1/transactions/batch{query}"), "application/json", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.json()["results"].as_array().expect("a list").iter().map(kind).collect()
}

/// The answers in order, each with its count.
async fn many_over_grpc(gateway: &GatewayProcess, transactions: Vec<Vec<u8>>, wait: Wait, time_s: u64) -> Vec<String> {
    let transactions = transactions.into_iter().map(Into::into).collect();
    let mut request = tonic::Request::new(SubmitBatchRequest { transactions, wait: wait.into() });
    request.set_timeout(std::time::Duration::from_secs(time_s));
    let mut client = TransactionsClient::new(gateway.channel().await);
    let answers = client.submit_batch(request).await.expect("is answered").into_inner().answers;
    let kinds = answers.iter().flat_map(|run| {
        let kind = match run.answer {
            Some(stream_answer::Answer::Accepted(_)) => "accepted",
            Some(stream_answer::Answer::Durable(_)) => "durable",
            Some(stream_answer::Answer::Final(_)) => "final",
            Some(stream_answer::Answer::Expired(_) | stream_answer::Answer::Refused(_)) | None => "something else",
        };
        std::iter::repeat_n(kind.to_owned(), run.count as usize)
    });
    kinds.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_submit_is_answered_with_what_its_caller_waits_for() {
    let network = Network::start(1).await;
    let gateway = network.gateway(OPEN).await;
    let mut nonces = 0..;
    let mut some = |count: u64| -> Vec<Vec<u8>> {
        nonces.by_ref().take(count as usize).map(|nonce| network.transfer_bytes(0, nonce)).collect()
    };
    for (wait, name, expected) in WAITS {
        let path = format!("/api/v1/transactions?wait={expected}");
        let one = gateway.post(&path, "application/octet-stream", some(1).remove(0)).await;
        assert_eq!((one.status, kind(&one.json()).as_str()), (StatusCode::OK, expected), "one, {name}");
        let all = vec![expected.to_owned(); MANY as usize];
        assert_eq!(many_over_rest(&gateway, &some(MANY), name, "").await, all, "many over REST, {name}");
        assert_eq!(many_over_grpc(&gateway, some(MANY), wait, 60).await, all, "many over gRPC, {name}");
    }

    // The second one waits for a nonce that never comes: when time is up, the first has come further.
    let gap = |account: u32| vec![network.transfer_bytes(account, 0), network.transfer_bytes(account, 1_000_000)];
    let far = ["final", "accepted"];
    assert_eq!(many_over_rest(&gateway, &gap(1), "WAIT_FINAL", "?timeoutMs=8000").await, far);
    assert_eq!(many_over_grpc(&gateway, gap(2), Wait::Final, 8).await, far);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_transactions_may_be_longer_than_one_body() {
    let network = Network::start(1).await;
    let gateway = network.gateway(&format!("{OPEN}  limits: {{bodyBytesMax: 1024, ipPerMinute: 1000000}}\n")).await;
    let requests: Vec<SubmitStreamRequest> = (0..20)
        .map(|nonce| SubmitStreamRequest {
            transactions: vec![network.transfer_bytes(0, nonce).into()],
            wait: Wait::Accepted.into(),
        })
        .collect();
    let mut client = TransactionsClient::new(gateway.channel().await);
    let answers = client.submit_stream(futures::stream::iter(requests)).await.expect("is answered");
    let (mut answers, mut accepted) = (answers.into_inner(), 0);
    while let Some(message) = answers.message().await.expect("no error") {
        for run in message.answers {
            assert!(matches!(run.answer, Some(stream_answer::Answer::Accepted(_))), "{run:?}");
            accepted += run.count;
        }
    }
    assert_eq!(accepted, 20);
}
