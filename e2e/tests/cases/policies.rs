//! NetworkPolicies: closed for strangers, shown open without them first.

use althing_e2e::network::{Network, eventually};
use althing_e2e::watch::Watch;
use anyhow::{Context, Result, bail, ensure};

use super::{alpha, manifest};
use crate::Scene;

/// A pod that is none of a network.
pub(super) const STRANGER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: shell
      image: docker.io/local/busybox:1
      imagePullPolicy: IfNotPresent
      command: [sleep, '3600']
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

/// A pod outside the policy reaches p2p and gRPC without policies and neither with them; the chain does not notice.
pub async fn only_peers_reach_the_p2p_port(scene: &Scene) -> Result<()> {
    let network = alpha(scene);
    network.apply(STRANGER).await?;
    let managed = manifest(scene, "alpha", 4);
    let unmanaged = managed.replace("spec:\n  node:", "spec:\n  networkPolicy: {mode: Unmanaged}\n  node:");
    ensure!(managed != unmanaged, "the manifest has changed its form");
    network.apply(&unmanaged).await?;
    network.wait_all_signing(4, 120).await?;
    network.kubectl(&["wait", "--for=condition=Ready", "pod/stranger", "--timeout=30s"]).await?;
    let watch = Watch::start(&network).await?;
    let address = network.voters().await?.into_iter().next().context("a voter exists")?.address;
    for port in ["7100", "7200"] {
        wait_reachable(&network, &address, port, true).await.context("without policies")?;
    }
    network.apply(&managed).await?;
    for port in ["7100", "7200"] {
        wait_reachable(&network, &address, port, false).await.context("with policies")?;
    }
    let height = watch.counts().heights;
    eventually("five more blocks under policies", 60, || async {
        ensure!(watch.counts().heights >= height + 5, "{:?}", watch.counts());
        Ok(())
    })
    .await?;
    watch.report(0).await?;
    Ok(())
}

/// Waits until the stranger reaches a port, or does not.
pub(super) async fn wait_reachable(network: &Network, address: &str, port: &str, expected: bool) -> Result<()> {
    eventually(&format!("{address}:{port} reachable={expected}"), 30, || async {
        // Debian's nc has no -z: it connects and runs a program that ends at once.
        let connect = ["exec", "stranger", "--", "nc", "-w", "2", address, port, "-e", "true"];
        let arguments = [["--namespace", network.namespace.as_str()].as_slice(), &connect].concat();
        let output = network.environment.kubectl_call(&arguments).within(15).output().await?;
        match (output.code == 0, expected) {
            (true, true) | (false, false) => Ok(()),
            (found, _) => bail!("reachable={found}: {}", output.stderr),
        }
    })
    .await
}
