//! Certificates from an issuer of cert-manager, whose real controller runs beside the API server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use althing_crds::names;
use althing_e2e::dial::Access;
use althing_e2e::environment::Environment;
use althing_e2e::network::{Network, condition, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use node_api::pki::{self, CertificateAuthority, Validity};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::authorities::{answers, hurry};
use super::renewals::{TAKEN_S, a_late_certificate_is_renewed, shows_another};
use crate::Scene;

const EXAMPLE: &str = "examples/issuer.yaml";

/// `examples/issuer.yaml` waits for the Secret of its issuer and says so; then every certificate is of that authority, and the
/// operator has none of its own. A certificate that is lost or late in its life is asked for again, and its node takes it
/// without a restart. While the issuer is away nothing that works is taken away; when it is back, everybody trusts the authority
/// that the spec adds.
pub async fn certificates_come_from_an_issuer(scene: &Scene) -> Result<()> {
    let _controller = CertManager::start(&scene.environment).await?;
    let environment = &scene.environment;
    environment.install_operator_with(&scene.images, &scene.namespaces, &["certManager.enabled=true"]).await?;
    let outcome = with_issuer(scene).await;
    // The other cases count rights.
    environment.install_operator(&scene.images, &scene.namespaces).await?;
    outcome
}

async fn with_issuer(scene: &Scene) -> Result<()> {
    let network = Network::new(&scene.environment, &scene.client, &scene.namespace, "demo", "main");
    let path = scene.environment.root.join(EXAMPLE);
    let example = std::fs::read_to_string(path).context("failed to read the example")?;
    let company = authority("company")?;
    network.apply(&example).await?;
    awaits(&network, "does not have a Ready status condition").await.context("the issuer lacks its Secret")?;
    let pods = network.kubectl(&["get", "pods", "-o", "name"]).await?;
    ensure!(pods.trim().is_empty(), "something runs without a certificate: {pods}");

    network.apply(&company_secret(&company)).await?;
    network.wait_all_signing(4, 120).await?;
    network.wait_condition("BlockchainNetwork", &network.name, "Ready=True", 60).await?;
    all_are_of(&network, &company).await?;
    expiry_is_told(&network, &company).await?;
    let watch = Watch::start(&network).await?;
    let before = uids(&network).await?;
    ensure!(answers(&network, &Access::user(&network).await?).await? == 4, "the client certificate counts");

    a_lost_certificate_is_asked_for_again(&network, &watch).await?;
    a_late_certificate_is_renewed(&network, &watch, &company).await?;
    network.kubectl(&["delete", "issuer", "company"]).await?;
    let next = authority("next")?;
    network.apply(&bundle(&next)).await?;
    let trusts = r#"{"spec": {"certificates": {"trustedAuthorities": [{"configMap": "next"}]}}}"#;
    network.kubectl(&["patch", "bcn", &network.name, "--type=merge", "-p", trusts]).await?;
    awaits(&network, "not found").await.context("the issuer is away")?;
    network.wait_all_signing(4, 60).await?;
    all_are_of(&network, &company).await?;

    // What kubectl did not apply before it leaves alone: the authority that was added stays.
    network.apply(&example).await?;
    eventually("everybody trusts the next authority too", TAKEN_S, || async {
        hurry(&network).await?;
        for name in secrets(&network) {
            let trusted = pki::blocks(&network.secret_text(&name, "ca.crt").await?);
            ensure!(trusted.len() == 2, "{name} trusts {}", trusted.len());
        }
        Ok(())
    })
    .await?;
    network.wait_condition("BlockchainNetwork", &network.name, "Ready=True", 60).await?;
    all_are_of(&network, &company).await?;
    ensure!(uids(&network).await? == before, "somebody was restarted");
    watch.report(0).await?;
    Ok(())
}

fn authority(name: &str) -> Result<CertificateAuthority> {
    let now = u64::try_from(Timestamp::now().as_second())?;
    Ok(CertificateAuthority::generate(name, Validity::new(now - 60, now + 3_650 * 86_400)?)?)
}

/// The Secret that the issuer signs with.
fn company_secret(authority: &CertificateAuthority) -> String {
    let data = serde_json::json!({"tls.crt": authority.certificate_pem(), "tls.key": authority.key_pem()});
    serde_json::json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "company-ca"}, "stringData": data})
    .to_string()
}

fn bundle(authority: &CertificateAuthority) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "next"},
        "data": {"ca.crt": authority.certificate_pem()}})
    .to_string()
}

/// The network says that it waits, and in the words of cert-manager for what.
async fn awaits(network: &Network, why: &str) -> Result<()> {
    eventually("the network awaits its issuer", 90, || async {
        let said = condition(&network.object("BlockchainNetwork", &network.name).await?, "Reconciling");
        let tells = said.message.contains("Issuer.cert-manager.io company") && said.message.contains(why);
        ensure!(said.status == "True" && said.reason == "AwaitingIssuer" && tells, "it says {said:?}");
        Ok(())
    })
    .await
}

/// Every Secret with a certificate.
fn secrets(network: &Network) -> Vec<String> {
    let nodes = (0..4).map(|number| names::tls_secret(&names::node(&network.group, number)));
    nodes.chain([names::client_secret(&network.name), names::operator_secret(&network.name)]).collect()
}

async fn all_are_of(network: &Network, company: &CertificateAuthority) -> Result<()> {
    let now = u64::try_from(Timestamp::now().as_second())?;
    for name in secrets(network) {
        let certificate = network.secret_text(&name, "tls.crt").await?;
        ensure!(pki::is_issued_by(&certificate, company.certificate_pem(), now)?, "{name} is of another authority");
    }
    let own = names::ca_secret(&network.name);
    let found = network.kubectl(&["get", "secret", &own, "--ignore-not-found", "-o", "name"]).await?;
    ensure!(found.trim().is_empty(), "the operator has made an authority of its own: {found}");
    Ok(())
}

/// The status says when the authority, the operator's certificate and each node's end.
async fn expiry_is_told(network: &Network, company: &CertificateAuthority) -> Result<()> {
    let object = network.object("BlockchainNetwork", &network.name).await?;
    let status = object.data.get("status").context("a status")?;
    let at = |field: &str| -> Result<i64> {
        let text = status.get(field).and_then(Value::as_str).with_context(|| format!("no {field}"))?;
        Ok(text.parse::<Timestamp>()?.as_second())
    };
    let ends = i64::try_from(company.validity().not_after_s())?;
    ensure!(at("certificateAuthorityExpires")? == ends, "the authority ends at {ends}: {status}");
    let day = 24 * 60 * 60;
    let left = at("operatorCertificateExpires")? - Timestamp::now().as_second();
    ensure!((28 * day..=30 * day).contains(&left), "the operator's certificate has {left} s");
    let node = network.object("ValidatorNode", &names::node(&network.group, 0)).await?;
    let ends =
        node.data.pointer("/status/certificateExpires").and_then(Value::as_str).context("no expiry of a node")?;
    let left = ends.parse::<Timestamp>()?.as_second() - Timestamp::now().as_second();
    ensure!((28 * day..=30 * day).contains(&left), "a node's certificate has {left} s");
    Ok(())
}

/// The Secret of one node is deleted: it gets another certificate, which the running process shows.
async fn a_lost_certificate_is_asked_for_again(network: &Network, watch: &Watch) -> Result<()> {
    let voter = network.voters().await?.into_iter().next().context("a voter")?;
    let former = watch.access().shown_certificate(network, &voter).await?;
    network.kubectl(&["delete", "secret", &names::tls_secret(&voter.node)]).await?;
    shows_another(network, watch, &voter, &[former]).await
}

async fn uids(network: &Network) -> Result<Vec<String>> {
    Ok(network.voters().await?.into_iter().map(|voter| voter.uid).collect())
}

/// The controller's process; it ends with this value.
struct CertManager {
    _process: Child,
}

impl CertManager {
    /// Installs the definitions of cert-manager's kinds and starts its controller.
    async fn start(environment: &Environment) -> Result<Self> {
        let folder = folder(&environment.root).await?;
        let crds = folder.join("crds").display().to_string();
        environment.kubectl(&["apply", "--server-side", "-f", &crds]).await?;
        environment.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds]).await?;
        let log = std::fs::File::create(environment.root.join("target/cert-manager.log"))?;
        let mut process = Command::new(folder.join("cert-manager"))
            .arg(format!("--kubeconfig={}", environment.kubeconfig.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start cert-manager")?;
        let output = process.stdout.take().context("it has an output")?;
        let line = tokio::time::timeout(Duration::from_secs(60), BufReader::new(output).lines().next_line()).await;
        let line = line.context("cert-manager says nothing")??;
        ensure!(line.as_deref() == Some("running"), "cert-manager says {line:?}: see target/cert-manager.log");
        Ok(Self { _process: process })
    }
}

/// The program and the definitions in the cache; it is built the first time.
async fn folder(root: &Path) -> Result<PathBuf> {
    let output =
        Command::new(root.join("tools/companion")).arg("cert-manager").stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "tools/companion has no cert-manager");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
