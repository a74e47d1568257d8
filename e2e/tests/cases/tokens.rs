//! Clients with tokens of a real OpenID provider, which runs beside the cluster as a company's own would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use althing_e2e::arrivals::Arrivals;
use althing_e2e::dial::Access;
use althing_e2e::entrance::Entrance;
use althing_e2e::load::Sender;
use althing_e2e::network::{Network, eventually};
use althing_e2e::watch::Watch;
use althing_node::devnet::accounts;
use anyhow::{Context, Result, ensure};
use node_core::codec::Encode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, interval_at};

use super::gateway::{account_is_proved, open, read_of, wait_tier};
use super::{alpha, manifest};
use crate::Scene;

/// Address of node 1, in whose network the provider listens.
const HOST: &str = "192.168.99.1";
const USER_PER_MINUTE: u32 = 120;
/// Reads a second of one user: three times what the user may.
const READS_PER_S: u32 = 6;
const LOAD: Duration = Duration::from_secs(60);
/// Looks, a second apart, in which every gateway that answers counts three of them.
const LOOKS: u32 = 10;
/// What one user gets at most, in hundredths of the limit.
const PERCENT_MAX: u64 = 120;

/// A client outside of the cluster gets a token from its provider, submits, awaits finality and proves its account with the
/// genesis alone. Another user reads as fast as it can through three gateways, and gets what one user may.
pub async fn one_user_has_one_limit_through_three_gateways(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    let provider = Provider::start(&network).await?;
    let authority: String = provider.authority.lines().map(|line| format!("    {line}\n")).collect();
    let secret =
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: issuer}}\nstringData:\n  ca.crt: |\n{authority}");
    network.apply(&secret).await?;
    let gateway = format!(
        "  gateway:
    replicas: 3
    pod: {{resources: {{cpu: 25m, memory: 128Mi}}}}
    authentication: {{issuers: [{{url: '{}', audiences: [althing], caSecret: issuer}}]}}
    limits: {{userPerMinute: {USER_PER_MINUTE}, ipPerMinute: 10000000, connectionsPerAddressMax: 4096}}
",
        provider.url
    );
    network.apply(&format!("{}{gateway}", manifest(scene, "alpha", 4))).await?;
    network.wait_all_signing(4, 120).await?;
    wait_tier(&network, "gateway", 3, 60).await?;
    let watch = Watch::start(&network).await?;
    let anonymous = open(&network).await?;
    let read = read_of(&accounts::account(1));
    let nobody = anonymous.get(&read).await?;
    ensure!(nobody.status == 401, "without a token: {nobody:?}");
    eventually("a token is good", 30, || async {
        let answer = anonymous.with_token(&provider.token("writer").await?).get(&read).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await?;
    submits_and_proves(&network, &anonymous, &provider).await?;
    all_share(&anonymous.with_token(&provider.token("writer").await?), &read).await?;

    let reader = anonymous.with_token(&provider.token("reader").await?);
    let (begin, reads) = (Instant::now(), Arrivals::start(&reader, &read, READS_PER_S));
    let mut load = interval_at(begin + LOAD, LOAD);
    load.tick().await;
    let tally = reads.stop().await;
    let other = tally.failed.iter().find(|failure| !failure.starts_with("429"));
    ensure!(other.is_none(), "a read failed otherwise than by the limit: {other:?}");
    let due = u64::from(USER_PER_MINUTE) * begin.elapsed().as_secs() / 60;
    println!("    {} reads of one user in {} s, {due} are the limit", tally.answered, begin.elapsed().as_secs());
    ensure!(tally.answered * 100 <= due * PERCENT_MAX, "{} reads passed, the limit is {due}", tally.answered);
    ensure!(tally.answered * 2 >= due, "only {} reads passed, the limit is {due}", tally.answered);
    watch.report(0).await?;
    Ok(())
}

/// Each call is a new connection to any of the three; each of them counts the others every few seconds.
async fn all_share(entrance: &Entrance, read: &str) -> Result<()> {
    let share = format!("\"user\";q={};w=60", USER_PER_MINUTE / 3);
    let (begin, mut looks, mut pace) = (Instant::now(), 0, interval(Duration::from_secs(1)));
    while looks < LOOKS {
        pace.tick().await;
        let answer = entrance.get(read).await?;
        looks = if answer.limit == share { looks + 1 } else { 0 };
        ensure!(begin.elapsed() < Duration::from_secs(90), "not every gateway counts three: {answer:?}");
    }
    Ok(())
}

async fn submits_and_proves(network: &Network, anonymous: &Entrance, provider: &Provider) -> Result<()> {
    let access = Access::operator(network).await?;
    let voter = network.voters().await?.into_iter().next().context("a voter exists")?;
    let direct = access.client(network, &voter)?;
    let account = accounts::key(0).public();
    let mut sender = Sender::new(&direct, accounts::key(0)).await?;
    let transaction = sender.next(&direct).await?.encode();
    let submit = "/api/v1/transactions?wait=final";
    let reader = anonymous.with_token(&provider.token("reader").await?);
    let refused = reader.post(submit, transaction.clone()).await?;
    ensure!(refused.status == 403, "with the token of a reader: {refused:?}");
    let writer = anonymous.with_token(&provider.token("writer").await?);
    let sent = writer.post(submit, transaction).await?;
    let outcome = sent.body.pointer("/final/receipt/outcome").and_then(Value::as_str);
    ensure!(sent.status == 200 && outcome == Some("OUTCOME_EXECUTED"), "submitted: {sent:?}");
    account_is_proved(network, &writer, account).await
}

/// The provider's process; it ends with this value.
struct Provider {
    url: String,
    authority: String,
    way: Entrance,
    _process: Child,
    _directory: TempDir,
}

impl Provider {
    /// Starts it in the network of node 1, where pods reach it as they reach the API server.
    async fn start(network: &Network) -> Result<Self> {
        let root = &network.environment.root;
        let directory = TempDir::new()?;
        let pair = rcgen::generate_simple_self_signed(vec![HOST.to_string()])?;
        let [certificate, key] = ["issuer.crt", "issuer.key"].map(|name| directory.path().join(name));
        let authority = pair.cert.pem();
        std::fs::write(&certificate, &authority)?;
        std::fs::write(&key, pair.signing_key.serialize_pem())?;
        let runtime = network.environment.relay("node1")?.parent().context("the relay is in a folder")?.to_path_buf();
        let mut process = Command::new("nsenter")
            .arg(format!("--net={}", runtime.join("net/node1").display()))
            .args(["--", "node"])
            .arg(root.join("node/tests/companions/oidc-provider/provider.mjs"))
            .arg(folder(root).await?)
            .args([&certificate, &key])
            .arg(HOST)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the provider")?;
        let output = process.stdout.take().context("it has an output")?;
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
        let line = line.context("the provider says nothing")??;
        let places: Value = serde_json::from_str(&line.context("the provider has ended")?)?;
        let url = places.pointer("/known").and_then(Value::as_str).context("it says where it is")?.to_string();
        let target = url.trim_start_matches("https://").to_string();
        let way = Entrance::at(network, target, HOST.to_string(), &authority)?;
        Ok(Self { url, authority, way, _process: process, _directory: directory })
    }

    /// A token for one of its clients.
    async fn token(&self, client: &str) -> Result<String> {
        let form = "grant_type=client_credentials&resource=urn:test:es256".as_bytes().to_vec();
        let way = self.way.with_password(client, &format!("{client}-secret"));
        let answer = way.post_as("/token", "application/x-www-form-urlencoded", form).await?;
        let token = answer.body.pointer("/access_token").and_then(Value::as_str);
        Ok(token.with_context(|| format!("the provider answers {answer:?}"))?.to_string())
    }
}

/// The provider's modules in the cache.
async fn folder(root: &Path) -> Result<PathBuf> {
    let output =
        Command::new(root.join("tools/companion")).arg("oidc-provider").stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "tools/companion has no oidc-provider");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
