//! Observers and gateways as a network's own tiers: closed to strangers, larger within seconds, led to by a route.

use althing_crds::names;
use althing_e2e::arrivals::Arrivals;
use althing_e2e::measured;
use althing_e2e::network::{Network, eventually};
use althing_e2e::tier::{calls_to, pods};
use althing_e2e::trial::ROUTES;
use althing_e2e::watch::Watch;
use althing_node::devnet::accounts;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::gateway::{open, read_of, wait_tier};
use super::policies::{STRANGER, wait_reachable};
use super::{alpha, manifest};
use crate::Scene;

/// The chain is longer than an observer that comes late may execute.
const HEIGHT: u64 = 80;
const TIERS: &str = "  observers:
    replicas: 2
    node: {resources: {cpu: 100m, memory: 192Mi}, stateSync: {afterBlocks: 32}}
  gateway:
    replicas: 1
    pod: {resources: {cpu: 25m, memory: 128Mi}}
    authentication: {anonymousReads: true}
    limits: {ipPerMinute: 6000}
";

/// A pod outside of the policies reaches clients' port only; a third observer serves within seconds; a route comes, comes back
/// and goes.
pub async fn tiers_grow_in_seconds_and_are_closed_to_strangers(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    network.apply(STRANGER).await?;
    network.apply(&format!("{}{TIERS}", manifest(scene, "alpha", 4))).await?;
    network.wait_all_signing(4, 120).await?;
    wait_tier(&network, "gateway", 1, 60).await?;
    wait_tier(&network, "observers", 2, 60).await?;
    let watch = Watch::start(&network).await?;
    strangers_are_kept_out(&network).await?;
    watch.wait_height(HEIGHT, 120).await?;
    a_third_observer_serves(&network).await?;
    scene.environment.kubectl_call(&["apply", "-f", "-"]).input(ROUTES).stdout().await?;
    let routed = a_route_comes_and_goes(&network).await;
    // Other cases need a cluster without the kind.
    scene.environment.kubectl_call(&["delete", "-f", "-"]).input(ROUTES).stdout().await?;
    routed?;
    network.wait_condition("BlockchainNetwork", "alpha", "Ready=True", 30).await?;
    watch.report(0).await?;
    Ok(())
}

async fn patch(network: &Network, spec: &Value) -> Result<()> {
    let text = json!({ "spec": spec }).to_string();
    network.kubectl(&["patch", "bcn", &network.name, "--type=merge", "-p", &text]).await?;
    Ok(())
}

async fn strangers_are_kept_out(network: &Network) -> Result<()> {
    network.kubectl(&["wait", "--for=condition=Ready", "pod/stranger", "--timeout=30s"]).await?;
    let first = |found: Vec<althing_e2e::tier::TierPod>| found.into_iter().next().context("a pod exists");
    let observer = first(pods(network, names::COMPONENT_OBSERVERS).await?)?.address;
    let gateway = first(pods(network, names::COMPONENT_GATEWAY).await?)?.address;
    let closed = [(&observer, "7200"), (&observer, "7300"), (&gateway, "7300")];
    for is_open in [false, true, false] {
        let mode = if is_open { "Unmanaged" } else { "Managed" };
        patch(network, &json!({ "networkPolicy": { "mode": mode } })).await?;
        for (address, port) in closed {
            wait_reachable(network, address, port, is_open).await.with_context(|| format!("policies are {mode}"))?;
        }
        wait_reachable(network, &gateway, "8443", true).await.context("clients may come from anywhere")?;
    }
    Ok(())
}

async fn a_third_observer_serves(network: &Network) -> Result<()> {
    let entrance = open(network).await?;
    let reads = Arrivals::start(&entrance, &read_of(&accounts::account(0)), 10);
    let (begin, name) = (Instant::now(), format!("{}-2", names::observers(&network.name)));
    patch(network, &json!({ "observers": { "replicas": 3 } })).await?;
    eventually("the third observer answers reads", 90, || async {
        let found = pods(network, names::COMPONENT_OBSERVERS).await?.into_iter().find(|pod| pod.name == name);
        let calls = calls_to(network, &found.context("it has no address")?.address).await?;
        ensure!(calls > 0, "nobody has asked it");
        Ok(())
    })
    .await?;
    measured::note("observer_serves_s", begin.elapsed().as_secs_f64());
    let log = network.kubectl(&["logs", &name, "--tail=-1"]).await?;
    ensure!(log.contains("the state is in place"), "it has executed the chain: {log}");
    let tally = reads.stop().await;
    ensure!(tally.failed.is_empty(), "a newcomer cost reads: {tally:?}");
    wait_tier(network, "observers", 3, 60).await
}

async fn a_route_comes_and_goes(network: &Network) -> Result<()> {
    let kind = "crd/tlsroutes.gateway.networking.k8s.io";
    network.environment.kubectl(&["wait", "--for=condition=Established", kind, "--timeout=30s"]).await?;
    let route = json!({ "parentRefs": [{ "name": "public" }], "hostNames": ["chain.example.org"] });
    patch(network, &json!({ "gateway": { "route": route } })).await?;
    let first = wait_route(network, "").await?;
    network.kubectl(&["delete", "tlsroute", &names::gateway(&network.name)]).await?;
    wait_route(network, &first).await.context("it comes back")?;
    patch(network, &json!({ "gateway": { "route": null } })).await?;
    eventually("the route is pruned", 90, || async {
        let left = network.kubectl(&["get", "tlsroutes", "-o", "name"]).await?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
    .await
}

/// Waits until the route is there, and is another one than `before`; answers its UID.
async fn wait_route(network: &Network, before: &str) -> Result<String> {
    let name = names::gateway(&network.name);
    let path = "jsonpath={.spec.hostnames[0]} {.spec.rules[0].backendRefs[0].name} {.metadata.uid}";
    eventually("there is a route", 60, || async {
        let found = network.kubectl(&["get", "tlsroute", &name, "-o", path]).await?;
        let words: Vec<&str> = found.split_whitespace().collect();
        let [host, backend, uid] = words.as_slice() else { anyhow::bail!("{found}") };
        ensure!(*host == "chain.example.org" && *backend == name && *uid != before, "{found}");
        Ok((*uid).to_string())
    })
    .await
}
