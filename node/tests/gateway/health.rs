//! What a gateway says of itself: ready with one tier of two, healthy service by service, its interface by reflection.

use futures::StreamExt;
use http::StatusCode;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    fake::{FakeChain, Manner},
    harness::{GatewayProcess, until},
};

const SERVICES: [&str; 6] = [
    "",
    "althing.v1.Transactions",
    "althing.v1.Accounts",
    "althing.v1.Blocks",
    "althing.v1.Validators",
    "althing.v1.Node",
];

async fn start(chain: &FakeChain, submit: &str, read: &str) -> GatewayProcess {
    let section = format!(
        "  backends: {{submit: [{{address: '{submit}'}}], read: [{{address: '{read}'}}]}}\n  edge: {{plaintext: true}}\n  \
         authentication: {{anonymousRoles: [writer]}}\n  limits: {{ipPerMinute: 1000000, burstPercent: 100}}\n"
    );
    GatewayProcess::start(chain.path(), &chain.gateway, &section).await
}

/// Whether each of [`SERVICES`] is served.
async fn health(gateway: &GatewayProcess) -> Vec<bool> {
    let mut client = HealthClient::new(gateway.channel().await);
    let mut serving = Vec::new();
    for service in SERVICES {
        let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await;
        serving.push(answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving));
    }
    serving
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_observers_still_takes_transactions() {
    let chain = FakeChain::new();
    let node = chain.node(Manner::Answers).await;
    let gateway = start(&chain, &node.address.to_string(), "127.0.0.1:9").await;
    gateway.ready().await;
    let submitted = gateway.post("/api/v1/transactions", "application/octet-stream", vec![1; 100]).await;
    assert_eq!(submitted.status, StatusCode::OK, "{:?}", submitted.body);
    let read = gateway.get(&format!("/api/v1/accounts/{}", "ab".repeat(32))).await;
    assert_eq!(
        (read.status, read.json()["type"].as_str(), read.header("retry-after")),
        (StatusCode::SERVICE_UNAVAILABLE, Some("urn:althing:problem:unavailable"), "1")
    );
    until("health tells the services apart", || async {
        (health(&gateway).await == [true, true, false, false, false, false]).then_some(())
    })
    .await;

    let mut client = ServerReflectionClient::new(gateway.channel().await);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let answers = client.server_reflection_info(futures::stream::iter([request])).await.expect("answers");
    let answer = answers.into_inner().next().await.expect("an answer").expect("a message");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("{answer:?}") };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let mut expected = [&SERVICES[1..], &["grpc.health.v1.Health"]].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_nodes_is_not_healthy_and_one_that_stops_says_so() {
    let chain = FakeChain::new();
    let lonely = start(&chain, "127.0.0.1:9", "127.0.0.1:9").await;
    let unready = lonely.readiness().await;
    assert_eq!((unready.status, &*unready.body), (StatusCode::SERVICE_UNAVAILABLE, &b"no node to forward to\n"[..]));
    assert_eq!(health(&lonely).await, [false; 6]);

    let node = chain.node(Manner::Answers).await;
    let address = node.address.to_string();
    let gateway = start(&chain, &address, &address).await;
    until("all is served", || async { (health(&gateway).await == [true; 6]).then_some(()) }).await;
    let mut client = HealthClient::new(gateway.channel().await);
    let unknown = client.check(HealthCheckRequest { service: "althing.v1.Votes".to_owned() }).await;
    assert_eq!(unknown.expect_err("is not offered").code(), tonic::Code::NotFound);
    let watch = client.watch(HealthCheckRequest { service: String::new() }).await.expect("a stream");
    let mut watch = watch.into_inner();
    let first = watch.next().await.expect("open").expect("a message");
    assert_eq!(first.status(), ServingStatus::Serving);
    let stopping = tokio::spawn(gateway.stop());
    let last = watch.next().await.expect("open").expect("a message");
    assert_eq!(last.status(), ServingStatus::NotServing);
    drop((watch, client));
    stopping.await.expect("the gateway ends");
}
