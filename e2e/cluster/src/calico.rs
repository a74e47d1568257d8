//! Calico as the enforcer of NetworkPolicy: its CNI plugin and its agent felix, without BGP, overlay or typha.

use serde_json::{Value, json};

use crate::checkout::{Checkout, Node};
use crate::daemon::Daemon;
use crate::error::{Doing, Result};
use crate::kubectl::{apply, kubectl};
use crate::network::pod_range;

const KUBECONFIG: &str = "/run/althing/pki/calico.kubeconfig";
const DATASTORE: &str = include_str!("../manifests/calico.yaml");

/// Calico's resource definitions and the two objects that say "the datastore is ready". Before the first pod: an
/// address asked for earlier is refused, and kubelet asks again only 12 s later.
///
/// # Errors
/// When the API server refuses them.
pub fn prepare_datastore(checkout: &Checkout) -> Result<()> {
    let path = checkout.bin().join("calico-crds.yaml");
    apply(checkout, &std::fs::read_to_string(&path).doing("read", &path)?)?;
    kubectl(
        checkout,
        &[
            "wait",
            "--for=condition=Established",
            "crd/clusterinformations.crd.projectcalico.org",
            "crd/felixconfigurations.crd.projectcalico.org",
            "--timeout=30s",
        ],
    )?;
    apply(checkout, DATASTORE)
}

/// Starts felix in a node. It drops what a policy does not allow: a client sees a timeout, not a refusal.
///
/// # Errors
/// When the node does not run.
pub fn start_felix(checkout: &Checkout, node: Node) -> Result<()> {
    let mut felix = Daemon::new("calico-felix", [] as [String; 0]);
    felix.environment = [
        format!("KUBECONFIG={KUBECONFIG}"),
        format!("FELIX_FELIXHOSTNAME={node}"),
        "FELIX_DATASTORETYPE=kubernetes".into(),
        "FELIX_IPTABLESBACKEND=nft".into(),
        "FELIX_IPV6SUPPORT=false".into(),
        "FELIX_BPFENABLED=false".into(),
        "FELIX_XDPENABLED=false".into(),
        "FELIX_USAGEREPORTINGENABLED=false".into(),
        "FELIX_IGNORELOOSERPF=true".into(),
        // An interface that stays as it is: felix ends when the host's MTU changes, as it does with the cable pulled. The
        // MTU of pods stands in the plugin's configuration.
        "FELIX_MTUIFACEPATTERN=^lo$".into(),
        "FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT".into(),
        "FELIX_LOGFILEPATH=none".into(),
        "FELIX_LOGSEVERITYFILE=none".into(),
        "FELIX_LOGSEVERITYSYS=none".into(),
        "FELIX_LOGSEVERITYSCREEN=Warning".into(),
    ]
    .into();
    felix.start(checkout, node)
}

/// What containerd hands to the CNI plugins for each pod of a node.
pub fn cni_configuration(node: Node) -> Value {
    json!({
        "cniVersion": "0.3.1", "name": "k8s-pod-network",
        "plugins": [
            {
                "type": "calico", "log_level": "info", "log_file_path": "/var/log/calico-cni.log",
                "datastore_type": "kubernetes", "nodename": node.to_string(),
                // No calico-node container writes /var/lib/calico/nodename here.
                "nodename_file_optional": true,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local", "dataDir": "/run/cni-ipam",
                    "ranges": [[{"subnet": pod_range(node)}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
                "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": KUBECONFIG},
            },
            {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
        ],
    })
}
