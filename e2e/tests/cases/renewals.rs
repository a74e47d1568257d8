//! A certificate is renewed at two thirds of its life. Its node shows the next one without a restart.

use althing_crds::names;
use althing_e2e::network::{Network, Voter, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use node_api::pki::{self, CertificateAuthority, LeafFacts, Validity};
use serde_json::json;

use super::authorities::hurry;

/// A kubelet brings new files within a minute or two, a process takes them within ten seconds.
pub(super) const TAKEN_S: u64 = 150;
const DAY_S: u64 = 24 * 60 * 60;

/// Gives a voter a certificate of this authority with a minute less than a third of its thirty days left: the operator renews
/// it, and the running process shows the next one, whose end the status tells.
pub(super) async fn a_late_certificate_is_renewed(
    network: &Network,
    watch: &Watch,
    authority: &CertificateAuthority,
) -> Result<()> {
    let voter = network.voters().await?.into_iter().last().context("a voter")?;
    let name = names::tls_secret(&voter.node);
    let LeafFacts { id, fingerprint: former, .. } = LeafFacts::from_pem(&network.secret_text(&name, "tls.crt").await?)?;
    let now = u64::try_from(Timestamp::now().as_second())?;
    let begun = now - 20 * DAY_S - 60;
    let late = authority.issue(&id, Validity::new(begun, begun + 30 * DAY_S)?)?;
    let text = json!({"stringData": {"tls.crt": late.certificate_pem, "tls.key": late.key_pem.as_str()}}).to_string();
    network.kubectl(&["patch", "secret", &name, "--type=merge", "-p", &text]).await?;
    shows_another(network, watch, &voter, &[former, late.facts.fingerprint]).await?;

    let renewed = pki::validity(&network.secret_text(&name, "tls.crt").await?)?.not_after_s();
    ensure!(renewed > now + 29 * DAY_S, "the next certificate ends at {renewed}, {} s from now", renewed - now);
    eventually("the status tells its end", 60, || async {
        let node = network.object("ValidatorNode", &voter.node).await?;
        let told = node.data.pointer("/status/certificateExpires").and_then(|value| value.as_str());
        let told = told.context("no expiry")?.parse::<Timestamp>()?.as_second();
        ensure!(u64::try_from(told)? == renewed, "it tells {told}");
        Ok(())
    })
    .await
}

/// The Secret of a voter has a certificate that is none of these, and its process shows it.
pub(super) async fn shows_another(network: &Network, watch: &Watch, voter: &Voter, former: &[[u8; 32]]) -> Result<()> {
    let name = names::tls_secret(&voter.node);
    eventually("the node shows another certificate", TAKEN_S, || async {
        hurry(network).await?;
        let kept = pki::fingerprint(&network.secret_text(&name, "tls.crt").await?)?;
        let shown = watch.access().shown_certificate(network, voter).await?;
        ensure!(!former.contains(&kept) && shown == kept, "it shows {}", hex::encode(shown));
        Ok(())
    })
    .await
}
