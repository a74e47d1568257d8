//! Requests that schemathesis makes from the OpenAPI document, good and bad ones, to a gateway before real nodes.

use std::{path::Path, process::Stdio};

use althing_node::devnet::accounts;
use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    companion,
    harness::{GatewayProcess, Network},
};

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
/// Examples for each operation, when `ALTHING_SCHEMATHESIS_EXAMPLES` says nothing.
const EXAMPLES: &str = "20";
/// A stream does not end; its requests are in `forwarding.rs`.
const ENDLESS: &str = "/(stream|socket)";
const SECTION: &str = "  edge: {plaintext: true}\n  authentication: {anonymousRoles: [writer]}\n  \
    limits: {ipPerMinute: 100000000, burstPercent: 100}\n";

/// Runs it over the operations whose paths match; `parameters` are values that are not generated.
async fn run(gateway: &GatewayProcess, paths: &str, parameters: &str) {
    let directory = TempDir::new().expect("a directory");
    let config = directory.path().join("schemathesis.toml");
    std::fs::write(&config, format!("workers = 1\nparameters = {{ {parameters} }}\n")).expect("written");
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let output = Command::new(companion::folder("schemathesis").await.join("bin/schemathesis"))
        .arg("--config-file")
        .arg(&config)
        .arg("run")
        .arg(document)
        .args(["--url", &format!("http://{}", gateway.edge)])
        .args(["--include-path-regex", paths, "--exclude-path-regex", ENDLESS])
        // No text fits the bytes of a transaction that was not signed, so most bodies of the right form are refused.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
        .args(["--max-examples", &variable("ALTHING_SCHEMATHESIS_EXAMPLES", EXAMPLES)])
        .args(["--seed", &variable("ALTHING_SCHEMATHESIS_SEED", "1")])
        .args(["--no-color", "--continue-on-failure"])
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("schemathesis runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
}

/// Route and status of every request that the gateway counted.
async fn counted(gateway: &GatewayProcess) -> Vec<(String, String)> {
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).expect("the label");
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    let metrics = gateway.metrics().await;
    let lines = metrics.lines().filter(|line| line.starts_with("althing_gateway_requests_total{"));
    lines.map(|line| (label(line, "route"), label(line, "status"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_that_the_document_allows_or_forbids_is_answered_with_an_error_of_the_server() {
    let network = Network::start(4).await;
    let gateway = network.gateway(SECTION).await;
    // How long a caller waits is its own choice: with a very short time the answer is 504, as it asked.
    run(&gateway, ".", "\"query.timeoutMs\" = 3000").await;
    // With an account and a transaction that there are, the answers hold more.
    let path = "/api/v1/transactions?wait=final";
    let sent = gateway.post(path, "application/octet-stream", network.transfer_bytes(0, 0)).await;
    assert_eq!(sent.status, StatusCode::OK, "{:?}", sent.body);
    let (account, id) = (accounts::account(0), network.transfer(0, 0).id());
    let present = format!("\"query.timeoutMs\" = 3000, \"path.account\" = \"{account}\", \"path.id\" = \"{id}\"");
    run(&gateway, r"\{(account|id)\}", &present).await;

    let counted = counted(&gateway).await;
    let failed: Vec<_> = counted.iter().filter(|(_, status)| status.starts_with('5')).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").iter();
    let finite = paths.filter(|(path, _)| !path.contains("/stream") && !path.contains("/socket"));
    for operation in finite.flat_map(|(_, operations)| operations.as_object().expect("operations").values()) {
        let name = operation["operationId"].as_str().expect("a name");
        let statuses = counted.iter().filter(|(route, _)| route == name).map(|(_, status)| &**status);
        let statuses: Vec<&str> = statuses.collect();
        assert!(statuses.contains(&"200") || name.starts_with("submit"), "{name} was never answered: {statuses:?}");
        assert!(!statuses.is_empty(), "{name} was never asked for");
    }
}
