//! What makes a node a Kubernetes node: containerd, kubelet, kube-proxy and the images.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::addons;
use crate::cgroups::{self, Part};
use crate::checkout::{Checkout, Node};
use crate::command::run;
use crate::daemon::{self, Daemon};
use crate::error::{Doing, Error, Result};
use crate::interrupt::{Wait, wait_for};
use crate::network::{DNS_ADDRESS, POD_RANGE, address};
use crate::{calico, sandbox};

const CONTAINERD: &str = include_str!("../node/containerd.toml");
const CONFIG: &str = "/run/althing/node/config";

/// Starts a node's daemons and gives containerd the images. A kubelet that comes before the API server just retries.
///
/// # Errors
/// When the node does not run, or containerd does not come up.
pub fn start(checkout: &Checkout, node: Node) -> Result<()> {
    let config = checkout.node(node).join("config");
    write(&config.join("containerd.toml"), CONTAINERD)?;
    write(&config.join("kubelet.json"), &kubelet_configuration(checkout, node).to_string())?;
    write(&config.join("kube-proxy.json"), &kube_proxy_configuration(node).to_string())?;
    let cni = config.join("cni");
    std::fs::create_dir_all(&cni).doing("create", &cni)?;
    write(&cni.join("10-calico.conflist"), &calico::cni_configuration(node).to_string())?;

    Daemon::new("containerd", [format!("--config={CONFIG}/containerd.toml")]).start(checkout, node)?;
    wait_for_containerd(checkout, node)?;
    for image in addons::images_of(checkout, node)? {
        import(checkout, node, &image)?;
    }
    kubelet(node).start(checkout, node)?;
    Daemon::new("kube-proxy", [format!("--config={CONFIG}/kube-proxy.json")]).start(checkout, node)
}

/// Does a node run with everything that makes it a Kubernetes node?
pub fn is_whole(checkout: &Checkout, node: Node) -> bool {
    let daemons = daemon::list(checkout, node);
    ["containerd", "kubelet", "kube-proxy", "calico-felix"]
        .iter()
        .all(|name| daemons.iter().any(|(daemon, alive)| daemon == name && *alive))
}

/// Imports an image into a node. `image` is the path as the node sees it.
///
/// # Errors
/// When containerd refuses it.
pub fn import(checkout: &Checkout, node: Node, image: &str) -> Result<()> {
    run(sandbox::inside(checkout, node)?.args(["ctr", "-n", "k8s.io", "images", "import", image])).map(drop)
}

/// Copies image files into the state folder and imports them into every node that runs; nodes that are added later
/// get them, too.
///
/// # Errors
/// When a file is no image.
pub fn load_images(checkout: &Checkout, nodes: &[Node], files: &[PathBuf]) -> Result<()> {
    let mut images = Vec::new();
    for file in files {
        let name = file.file_name().ok_or_else(|| Error::Refused(format!("{} is no file", file.display())))?;
        let copy = checkout.loaded_images().join(name);
        let partial = copy.with_extension("partial");
        std::fs::copy(file, &partial).doing("copy", file)?;
        std::fs::rename(&partial, &copy).doing("publish", &copy)?;
        images.push(format!("/run/althing/loaded/{}", name.to_string_lossy()));
    }
    on_each(nodes, |node| images.iter().try_for_each(|image| import(checkout, node, image)))
}

/// Does the same on several nodes at once; the first error counts.
///
/// # Errors
/// The first error of a node.
pub fn on_each(nodes: &[Node], work: impl Fn(Node) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || work(*node))).collect();
        let results: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::Refused("a thread died".into()))))
            .collect();
        results.into_iter().collect()
    })
}

fn wait_for_containerd(checkout: &Checkout, node: Node) -> Result<()> {
    let log = checkout.log().join(format!("containerd-{node}.log"));
    let (what, hint) = (format!("the start of containerd in {node}"), format!("see {}", log.display()));
    let wait = Wait { what: &what, seconds_max: 30, every_ms: 50, hint: &hint };
    wait_for(wait, || {
        Ok(run(sandbox::inside(checkout, node)?.args(["ctr", "version"])).ok()).map(|found| found.map(drop))
    })
}

fn kubelet(node: Node) -> Daemon {
    let number = node.number();
    Daemon::new(
        "kubelet",
        [
            format!("--config={CONFIG}/kubelet.json"),
            format!("--kubeconfig=/run/althing/pki/{node}.kubeconfig"),
            format!("--hostname-override={node}"),
            format!("--node-ip={}", address(node)),
            // Each node is a failure domain of its own.
            format!("--node-labels=topology.kubernetes.io/region=local,topology.kubernetes.io/zone=zone-{number}"),
            "--cert-dir=/var/lib/kubelet/pki".into(),
        ],
    )
}

fn kubelet_configuration(checkout: &Checkout, node: Node) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        // cgroup v1 is refused without this.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs", "cgroupsPerQOS": true, "cgroupRoot": cgroups::path(checkout, Part::Node(node)),
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/run/althing/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": format!("/run/althing/pki/{node}.crt"),
        "tlsPrivateKeyFile": format!("/run/althing/pki/{node}.key"),
        "clusterDNS": [DNS_ADDRESS], "clusterDomain": "cluster.local",
        "resolvConf": "/run/althing/node/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/plugins-exec",
        // With the controller manager's times: a lost node is noticed after 13 s.
        "nodeStatusUpdateFrequency": "2s", "nodeLeaseDurationSeconds": 8,
        // The nodes share one disk and one memory with the machine: no node may throw out pods or images for it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
    })
}

fn kube_proxy_configuration(node: Node) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "clusterCIDR": POD_RANGE, "hostnameOverride": node.to_string(),
        "clientConnection": {"kubeconfig": "/run/althing/pki/kube-proxy.kubeconfig"},
        // These sysctls belong to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).doing("write", path)
}
