//! A network's certificate authority gives way to another one under load.

use althing_crds::names;
use althing_e2e::arrivals::Arrivals;
use althing_e2e::dial::Access;
use althing_e2e::load::Load;
use althing_e2e::network::{Network, condition, eventually};
use althing_e2e::watch::Watch;
use althing_node::devnet::accounts;
use anyhow::{Context, Result, ensure};
use node_api::pki::CertificateAuthority;
use serde_json::Value;

use super::gateway::{open, read_of, wait_tier};
use super::renewals::{TAKEN_S, a_late_certificate_is_renewed};
use super::{alpha, manifest};
use crate::Scene;

const TIERS: &str = "  observers: {replicas: 1, node: {resources: {cpu: 100m, memory: 192Mi}}}
  gateway:
    replicas: 1
    pod: {resources: {cpu: 25m, memory: 128Mi}}
    authentication: {anonymousReads: true}
    limits: {ipPerMinute: 6000}
";
/// A certificate late in its life is renewed. Then another authority takes over: nobody is restarted and nothing is lost, neither transfers to the voters nor reads through the gateway. Between the steps
/// the operator waits for a person, because clients of the gateway know the authority. At the end a certificate of the former
/// authority is refused.
pub async fn an_authority_gives_way_to_another_without_a_restart(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    network.apply(&format!("{}{TIERS}", manifest(scene, "alpha", 4))).await?;
    network.wait_all_signing(4, 120).await?;
    wait_tier(&network, "gateway", 1, 60).await?;
    wait_tier(&network, "observers", 1, 60).await?;
    let watch = Watch::start(&network).await?;
    let load = Load::start(&network, watch.access(), 0);
    load.wait_more(20, 60).await?;
    let (pods, first) = (pods(&network).await?, hash(&network, "certificateAuthorityHash").await?);
    a_late_certificate_is_renewed(&network, &watch, &own_authority(&network).await?).await?;
    annotate(&network, &["confirm-authority=ask", "roll-authority=once"]).await?;

    let next = waits(&network, "nextCertificateAuthorityHash", "AwaitingConfirmation").await?;
    let former_client = Access::user(&network).await?;
    let entrance = open(&network).await?;
    let reads = Arrivals::start(&entrance, &read_of(&accounts::account(0)), 5);
    watch.access().renew(&network).await?;
    load.wait_more(20, 60).await.context("everybody trusts both")?;
    annotate(&network, &[&format!("confirm-authority={next}")]).await?;

    let former = waits(&network, "formerCertificateAuthorityHash", "UpToDate").await?;
    ensure!(former == first, "{former} is former, {first} was there");
    ensure!(hash(&network, "certificateAuthorityHash").await? == next, "another one signs");
    ensure!(answers(&network, &former_client).await? == 4, "the former authority still counts");
    watch.access().renew(&network).await?;
    load.wait_more(20, 60).await.context("certificates are of the new authority")?;
    annotate(&network, &[&format!("confirm-authority={former}")]).await?;

    eventually("a certificate of the former authority is refused by all", TAKEN_S, || async {
        hurry(&network).await?;
        let admitted = answers(&network, &former_client).await?;
        ensure!(admitted == 0, "{admitted} let it in");
        Ok(())
    })
    .await?;
    ensure!(answers(&network, &Access::user(&network).await?).await? == 4, "the new client certificate counts");
    let secret = network.kubectl(&["get", "secret", &names::ca_secret(&network.name), "-o", "json"]).await?;
    let secret: Value = serde_json::from_str(&secret)?;
    let entries: Vec<&String> =
        secret.get("data").and_then(Value::as_object).context("it has entries")?.keys().collect();
    ensure!(entries == ["ca.crt", "tls.crt", "tls.key"], "something is left: {entries:?}");
    let events = network.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await?;
    for reason in ["AuthorityComes", "AuthoritySigns", "AuthorityWithdrawn"] {
        ensure!(events.contains(reason), "no event {reason}: {events}");
    }

    load.wait_more(20, 60).await.context("the chain goes on")?;
    let tally = reads.stop().await;
    ensure!(tally.failed.is_empty(), "reads were lost: {tally:?}");
    ensure!(self::pods(&network).await? == pods, "somebody was restarted");
    network.wait_condition("BlockchainNetwork", &network.name, "Ready=True", 60).await?;
    watch.acknowledged(&load.stop().await);
    watch.report(0).await?;
    Ok(())
}

/// Sets annotations of the network, all at once.
async fn annotate(network: &Network, words: &[&str]) -> Result<()> {
    let words: Vec<String> = words.iter().map(|word| format!("althing.dev/{word}")).collect();
    let mut arguments = vec!["annotate", "bcn", &network.name, "--overwrite"];
    arguments.extend(words.iter().map(String::as_str));
    network.kubectl(&arguments).await?;
    Ok(())
}

/// Waits until this authority is there, everybody has taken it up, and the network says so; answers its hash.
async fn waits(network: &Network, field: &str, reason: &str) -> Result<String> {
    eventually(&format!("{field} is taken up"), TAKEN_S, || async {
        hurry(network).await?;
        let found = hash(network, field).await?;
        let said = condition(&network.object("BlockchainNetwork", &network.name).await?, "Reconciling");
        ensure!(said.reason == reason && said.message.contains(&found), "it says {said:?}");
        Ok(found)
    })
    .await
}

async fn hash(network: &Network, field: &str) -> Result<String> {
    let object = network.object("BlockchainNetwork", &network.name).await?;
    let found = object.data.pointer(&format!("/status/{field}")).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {field}"))?.to_string())
}

/// The authority that signs now, with its key.
async fn own_authority(network: &Network) -> Result<CertificateAuthority> {
    let name = names::ca_secret(&network.name);
    let (certificate, key) =
        (network.secret_text(&name, "tls.crt").await?, network.secret_text(&name, "tls.key").await?);
    Ok(CertificateAuthority::from_pem(&certificate, &key)?)
}

/// A kubelet looks at the Secrets of a pod at once when the pod itself changes, else once in a minute.
pub(super) async fn hurry(network: &Network) -> Result<()> {
    let selector = format!("{}={}", names::LABEL_NETWORK, network.name);
    let word = word_of_now();
    network.kubectl(&["annotate", "pods", "-l", &selector, "--overwrite", &format!("example.org/look={word}")]).await?;
    Ok(())
}

/// Another word each time.
fn word_of_now() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos())
}

/// How many voters let a new connection in.
pub(super) async fn answers(network: &Network, access: &Access) -> Result<usize> {
    let mut admitted = 0;
    for voter in network.voters().await? {
        admitted += usize::from(access.client(network, &voter)?.status().await.is_ok());
    }
    Ok(admitted)
}

/// Every pod of the network: its UID, and how often its container was started again.
async fn pods(network: &Network) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let selector = format!("{}={}", names::LABEL_NETWORK, network.name);
    let listed = network.kubectl(&["get", "pods", "-l", &selector, "-o", path]).await?;
    let mut lines: Vec<String> = listed.lines().map(str::to_string).collect();
    lines.sort_unstable();
    ensure!(lines.len() == 6, "four voters, an observer and a gateway: {lines:?}");
    Ok(lines)
}
