//! Clients outside of the cluster come in through the gateway, which outlives its backends and scales itself.

use std::time::Duration;

use althing_crds::names;
use althing_e2e::arrivals::Arrivals;
use althing_e2e::dial::Access;
use althing_e2e::entrance::Entrance;
use althing_e2e::load::{Sender, demo_account};
use althing_e2e::network::{Network, eventually};
use althing_e2e::regulars::Regulars;
use althing_e2e::submissions::Submissions;
use althing_e2e::tier::{backends_up, calls_to, pods};
use althing_e2e::watch::Watch;
use althing_node::adapters::storage::verify_state_proof;
use althing_node::devnet::accounts;
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use node_api::light::{Follower, PROOF_DELAY};
use node_api::{genesis, proto};
use node_core::codec::Encode;
use node_core::types::{AccountId, Height};
use serde_json::Value;
use tokio::time::{Instant, interval};

use super::{alpha, manifest};
use crate::Scene;

/// What every gateway answers that is there, also from memory.
const BLOCK: &str = "/api/v1/blocks/1";
/// Reads a second while a backend is killed.
const READS_PER_S: u32 = 20;
/// Who submits while a voter is killed, each with one transfer in flight.
const SENDERS: std::ops::Range<u32> = 1..9;
/// Calls that a backend has answered before it is killed; probes come every five seconds only.
const CALLS_BEFORE: u64 = 20;
/// Reads a second, each with a handshake of its own, that one gateway with its small request is not enough for.
const MANY_READS_PER_S: u32 = 30;

/// `examples/gateway.yaml` and `examples/archive.yaml`: submit with the operator's API key, await finality, read back; an
/// observer killed under load costs no read, a voter what is in flight to it, and nothing of it is lost or done twice.
pub async fn clients_come_in_through_the_gateway(scene: &Scene) -> Result<()> {
    let root = &scene.environment.root;
    let example = std::fs::read_to_string(root.join("examples/gateway.yaml")).context("failed to read the example")?;
    let network = Network::new(&scene.environment, &scene.client, &scene.namespace, "shop", "main");
    network.apply(&with_accounts(&example)?).await?;
    network.wait_all_signing(4, 150).await?;
    wait_tier(&network, "gateway", 2, 60).await?;
    wait_tier(&network, "observers", 2, 60).await?;
    network.wait_condition("BlockchainNetwork", "shop", "Ready=True", 30).await?;
    let watch = Watch::start(&network).await?;
    let anonymous = open(&network).await?;
    let key = network.secret_text(&names::gateway_api_keys_secret("shop"), names::FILE_API_KEY).await?;
    let entrance = anonymous.with_key(&key);
    submits_and_reads_back(scene, &network, &anonymous, &entrance).await?;

    a_killed_observer_costs_no_read(&network, &anonymous).await?;
    a_killed_voter_costs_what_is_in_flight_to_it(&network, &entrance).await?;
    let archive = std::fs::read_to_string(root.join("examples/archive.yaml")).context("failed to read the example")?;
    network.apply(&archive).await?;
    network.wait_condition("ValidatorNode", "shop-archive", "Ready=True", 90).await?;
    never_a_voter(&network).await?;
    watch.report(1).await?;
    Ok(())
}

/// The example, with something in the accounts of those who submit.
fn with_accounts(example: &str) -> Result<String> {
    let account = |number| format!("          - {{key: \"{}\", amount: 1000}}\n", accounts::account(number));
    let more: String = SENDERS.map(account).collect();
    let changed =
        example.replace("            amount: 1000000000\n", &format!("            amount: 1000000000\n{more}"));
    ensure!(changed != example, "the example has changed its form");
    Ok(changed)
}

/// The read of an account, which no gateway answers from memory.
pub(super) fn read_of(id: &AccountId) -> String {
    format!("/api/v1/accounts/{}", hex::encode(id.as_bytes()))
}

async fn a_killed_observer_costs_no_read(network: &Network, anonymous: &Entrance) -> Result<()> {
    let read = read_of(&accounts::account(0));
    wait_known(network, "read", 2).await?;
    let victim = pods(network, names::COMPONENT_OBSERVERS).await?.into_iter().next().context("an observer exists")?;
    let before = calls_to(network, &victim.address).await?;
    let reads = Arrivals::start(anonymous, &read, READS_PER_S);
    wait_called(network, &victim.address, before + CALLS_BEFORE).await?;
    network.kubectl(&["delete", "pod", &victim.name, "--grace-period=0", "--force", "--wait=false"]).await?;
    let begin = reads.tally().await.answered;
    wait_answered(&reads, begin + u64::from(READS_PER_S) * 10).await?;
    wait_tier(network, "observers", 2, 90).await?;
    let tally = reads.stop().await;
    ensure!(tally.failed.is_empty(), "a killed backend cost reads: {tally:?}");
    Ok(())
}

/// What is in flight to it is sent to another voter, and executed once, if that is found before the caller's time is up. Each
/// sender has one transfer in flight, so it may see one failure: a second one went to a voter that was known to be gone.
async fn a_killed_voter_costs_what_is_in_flight_to_it(network: &Network, entrance: &Entrance) -> Result<()> {
    let access = Access::operator(network).await?;
    let voters = network.voters().await?;
    let (Some(first), Some(victim)) = (voters.first(), voters.last()) else { bail!("there are voters") };
    wait_known(network, "submit", 4).await?;
    let direct = access.client(network, first)?;
    let before = calls_to(network, &victim.address).await?;
    let submissions = Submissions::start(entrance, &direct, SENDERS).await?;
    wait_called(network, &victim.address, before + CALLS_BEFORE).await?;
    network.kubectl(&["delete", "pod", &victim.pod, "--grace-period=0", "--force", "--wait=false"]).await?;
    let begin = submissions.executed();
    eventually("transfers go on", 60, || async {
        let executed = submissions.executed() - begin;
        ensure!(executed >= 40, "{executed} of 40");
        Ok(())
    })
    .await?;
    network.wait_all_signing(4, 90).await?;
    let sent = submissions.stop().await?;
    let executed: u64 = sent.iter().map(|sender| sender.executed).sum();
    let failed: usize = sent.iter().map(|sender| sender.failed.len()).sum();
    println!("    {executed} transfers through the gateway, {failed} without an answer when a voter was killed");
    ensure!(
        sent.iter().all(|sender| sender.failed.len() <= 1),
        "a killed voter cost more than was in flight: {sent:?}"
    );
    Ok(())
}

/// Waits until every gateway has found this many backends of a tier: one that knows the victim alone has nobody else to ask.
async fn wait_known(network: &Network, tier: &str, count: u64) -> Result<()> {
    eventually(&format!("every gateway knows {count} backends of {tier}"), 60, || async {
        let known = backends_up(network, tier).await?;
        ensure!(known >= count, "{known}");
        Ok(())
    })
    .await
}

/// Waits until the gateways have had so many answers of a backend.
async fn wait_called(network: &Network, address: &str, count: u64) -> Result<()> {
    eventually(&format!("{address} has answered {count} calls"), 60, || async {
        let calls = calls_to(network, address).await?;
        ensure!(calls >= count, "{calls}");
        Ok(())
    })
    .await
}

/// The way to a gateway that answers: the Service knows of it a moment after its status does.
pub(super) async fn open(network: &Network) -> Result<Entrance> {
    let entrance = Entrance::open(network).await?;
    eventually("the gateway answers", 30, || async {
        let answer = entrance.get(BLOCK).await?;
        ensure!(answer.status == 200 || answer.status == 401, "{answer:?}");
        Ok(())
    })
    .await?;
    Ok(entrance)
}

async fn submits_and_reads_back(
    scene: &Scene,
    network: &Network,
    anonymous: &Entrance,
    entrance: &Entrance,
) -> Result<()> {
    let access = Access::operator(network).await?;
    let voter = network.voters().await?.into_iter().next().context("a voter exists")?;
    let direct = access.client(network, &voter)?;
    let key = demo_account(&scene.environment.root)?;
    let transaction = Sender::new(&direct, key).await?.next(&direct).await?;
    let submit = "/api/v1/transactions?wait=final";
    let refused = anonymous.post(submit, transaction.encode()).await?;
    ensure!(refused.status == 401 || refused.status == 403, "without a key: {refused:?}");
    let wrong = anonymous.with_key("althing_operator_wrong").get(BLOCK).await?;
    ensure!(wrong.status == 401, "with a wrong key: {wrong:?}");
    let sent = entrance.post(submit, transaction.encode()).await?;
    let outcome = sent.body.pointer("/final/receipt/outcome").and_then(Value::as_str);
    ensure!(sent.status == 200 && outcome == Some("OUTCOME_EXECUTED"), "submitted: {sent:?}");
    let path = format!("/api/v1/transactions/{}", transaction.id());
    eventually("an observer has the receipt", 20, || async {
        let found = entrance.get(&path).await?;
        ensure!(found.status == 200 && found.body.get("final").is_some(), "{found:?}");
        Ok(())
    })
    .await?;
    account_is_proved(network, entrance, demo_account(&scene.environment.root)?.public()).await?;
    let document = anonymous.get("/api/v1/openapi.json").await?;
    ensure!(document.body.get("openapi").is_some(), "the document: {document:?}");
    Ok(())
}

/// Through the gateway a client that has nothing but the genesis follows the chain's certificates and proves an account.
pub(super) async fn account_is_proved(network: &Network, entrance: &Entrance, key: [u8; 32]) -> Result<()> {
    let map = names::genesis_config_map(&network.group);
    let path = format!("jsonpath={{.data['{}']}}", names::FILE_GENESIS.replace('.', "\\."));
    let text = network.kubectl(&["get", "configmap", &map, "-o", &path]).await?;
    let mut follower = Follower::new(&genesis::from_json(&text)?)?;
    let id = AccountId::new(key);
    let path = format!("{}?prove=true", read_of(&id));
    let account = eventually("the transaction is in the account", 20, || async {
        let answer = entrance.get(&path).await?;
        ensure!(answer.status == 200, "the account: {answer:?}");
        let account = account_of(&answer.body)?;
        ensure!(account.nonce > 0, "{account:?}");
        Ok(account)
    })
    .await?;
    let height = account.proof.as_ref().context("the answer has a proof")?.height + PROOF_DELAY;
    let path = format!("/api/v1/light-blocks?height={height}");
    // Each call may meet another observer, and one of them may be a block behind.
    let way = eventually("the header that certifies the root", 20, || async {
        let answer = entrance.get(&path).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer)
    })
    .await?;
    let blocks = way.body.pointer("/lightBlocks").and_then(Value::as_array).context("there are light blocks")?;
    let light_blocks = blocks.iter().map(bytes_of).collect::<Result<_>>()?;
    follower.believe(&proto::GetLightBlocksResponse { light_blocks }, Height::new(height))?;
    let proved = follower.certified(&id, &account)?;
    verify_state_proof(&proved.key, proved.value.as_deref(), &proved.proof, &proved.root)?;
    ensure!(proved.account.nonce.get() > 0, "the transaction is in the account: {:?}", proved.account);
    Ok(())
}

/// The gateway's JSON of an account as the message that it was.
fn account_of(body: &Value) -> Result<proto::GetAccountResponse> {
    let number = |path: &str| -> Result<u64> {
        let text = body.pointer(path).and_then(Value::as_str).unwrap_or("0");
        text.parse().with_context(|| format!("{path} is {text}"))
    };
    let bytes = |path: &str| body.pointer(path).map_or(Ok(Vec::new()), bytes_of);
    Ok(proto::GetAccountResponse {
        account: bytes("/account")?,
        exists: body.get("exists").and_then(Value::as_bool).unwrap_or(false),
        nonce: number("/nonce")?,
        balance: number("/balance")?,
        height: number("/height")?,
        proof: Some(proto::StateProof {
            height: number("/proof/height")?,
            state_root: bytes("/proof/stateRoot")?,
            key: bytes("/proof/key")?,
            value: bytes("/proof/value")?,
            proof: bytes("/proof/proof")?,
        }),
    })
}

fn bytes_of(value: &Value) -> Result<Vec<u8>> {
    Ok(STANDARD.decode(value.as_str().context("bytes are a text")?)?)
}

/// No observer counts as a voter: not in status, not in the chain's budget, not by its label.
async fn never_a_voter(network: &Network) -> Result<()> {
    let name = names::observers(&network.name);
    let budget = ["get", "poddisruptionbudget", &network.group, "-o", "jsonpath={.status.expectedPods}"];
    // The voter that was killed may still be on its way back.
    eventually("status and the chain's budget count the voters alone", 90, || async {
        let listed = network.kubectl(&["get", "bcn", &network.name, "-o", "jsonpath={.status.signing}"]).await?;
        let counted = network.kubectl(&budget).await?;
        ensure!(listed == "4/4" && counted == "4", "status says {listed}, the budget counts {counted}");
        Ok(())
    })
    .await?;
    let pods = ["get", "pods", "-l", "althing.dev/voter=true", "-o", "name"];
    ensure!(!network.kubectl(&pods).await?.contains(&name), "an observer is labelled as a voter");
    Ok(())
}

/// At a fixed arrival rate gateways become more, and fewer after it, and no client sees an error: not who comes anew each time,
/// not who keeps a connection, not who follows blocks.
pub async fn gateways_grow_under_load_and_shrink_after_it(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    let gateway = "  gateway:
    autoscaling:
      minReplicas: 1
      maxReplicas: 3
      targetCpuUtilization: 60
      scaleUp: {stabilizationWindowSeconds: 0}
      scaleDown: {stabilizationWindowSeconds: 10, podsMax: 2, periodSeconds: 10}
    pod: {resources: {cpu: 25m, memory: 128Mi}}
    authentication: {anonymousReads: true}
    limits: {ipPerMinute: 10000000, burstPercent: 100, connectionsPerAddressMax: 4096}
";
    network.apply(&format!("{}{gateway}", manifest(scene, "alpha", 4))).await?;
    network.wait_all_signing(4, 120).await?;
    wait_tier(&network, "gateway", 1, 60).await?;
    let watch = Watch::start(&network).await?;
    let entrance = open(&network).await?;
    let read = read_of(&accounts::account(0));
    let regulars = Regulars::start(&entrance, &read);
    let reads = Arrivals::start(&entrance, &read, MANY_READS_PER_S);
    let grown = wait_more_than_one(&network).await;
    let few = Arrivals::start(&entrance, &read, 1);
    let tally = reads.stop().await;
    grown.with_context(|| format!("{} reads were answered, {:?}", tally.answered, tally.failed.first()))?;
    // While it shrinks somebody still reads.
    wait_tier(&network, "gateway", 1, 240).await?;
    let rest = few.stop().await;
    ensure!(tally.failed.is_empty() && rest.failed.is_empty(), "clients saw errors: {tally:?} {rest:?}");
    let seen = regulars.stop().await;
    println!("    {seen:?}");
    ensure!(seen.failed.is_empty(), "clients that stay saw errors: {seen:?}");
    ensure!(seen.reads > 0 && seen.connections < seen.reads, "no connection was kept: {seen:?}");
    ensure!(seen.blocks >= 10, "no blocks were followed: {seen:?}");
    network.wait_condition("BlockchainNetwork", "alpha", "Available=True", 10).await?;
    watch.report(0).await?;
    Ok(())
}

async fn wait_more_than_one(network: &Network) -> Result<()> {
    eventually("more than one gateway serves", 240, || async {
        let (ready, desired) = tier(network, "gateway").await?;
        ensure!(ready > 1, "{ready} of {desired}");
        Ok(())
    })
    .await
}

/// Waits until the status of the network says that exactly so many of a tier are wanted and ready.
pub(super) async fn wait_tier(network: &Network, name: &str, count: i64, seconds: u64) -> Result<()> {
    eventually(&format!("{count} of {name} are ready"), seconds, || async {
        let found = tier(network, name).await?;
        ensure!(found == (count, count), "{found:?}");
        Ok(())
    })
    .await
}

/// Ready and desired pods of a tier, as the network's status says.
async fn tier(network: &Network, name: &str) -> Result<(i64, i64)> {
    let object = network.object("BlockchainNetwork", &network.name).await?;
    let number = |field: &str| object.data.pointer(&format!("/status/{name}/{field}")).and_then(Value::as_i64);
    Ok((number("ready").context("no status")?, number("desired").context("no status")?))
}

async fn wait_answered(reads: &Arrivals, count: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    let mut pace = interval(Duration::from_millis(250));
    loop {
        pace.tick().await;
        let tally = reads.tally().await;
        if tally.answered >= count {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{} of {count} reads were answered: {:?}", tally.answered, tally.failed.first());
    }
}
