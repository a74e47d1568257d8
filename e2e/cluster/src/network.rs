//! Addresses of the cluster and the wiring of its nodes; the same numbers in every cluster, since none sees another.

use std::process::Command;

use crate::checkout::{Checkout, Node};
use crate::command::{command, run, run_with_input};
use crate::error::{Doing, Result};

/// Virtual addresses of Services.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// Addresses of all pods; node n has `10.244.(n-1).0/24`.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The Service `default/kubernetes`.
pub const API_SERVICE_ADDRESS: &str = "10.96.0.1";
/// The cluster's DNS.
pub const DNS_ADDRESS: &str = "10.96.0.10";
/// Port of the API server on node 1.
pub const API_PORT: u16 = 6443;

/// Calico's gateway for pods. Without this route, in a network without a default route, the proxy ARP of a pod's
/// interface stays silent and every pod is mute.
const CALICO_GATEWAY: &str = "169.254.1.1/32";

/// Address of a node.
pub fn address(node: Node) -> String {
    format!("192.168.99.{}", node.number())
}

/// Addresses of a node's pods.
pub fn pod_range(node: Node) -> String {
    format!("10.244.{}.0/24", node.number() - 1)
}

/// A command in the network namespace of a node, with everything else as on the host.
pub fn inside(checkout: &Checkout, node: Node) -> Command {
    let mut nsenter = command("nsenter");
    nsenter.arg(format!("--net={}", checkout.network_namespace(node).display())).arg("--");
    nsenter
}

/// Makes the network namespace of a node. Node 1 gets a bridge, which is its own interface and the switch for the
/// others (this kernel need not have dummy devices); every other node hangs on it by a veth pair.
///
/// # Errors
/// When the system refuses.
pub fn make(checkout: &Checkout, node: Node) -> Result<()> {
    let file = checkout.network_namespace(node);
    let folder = checkout.runtime().join("net");
    std::fs::create_dir_all(&folder).doing("create", &folder)?;
    std::fs::File::create_new(&file).doing("create", &file)?;
    run(command("unshare").arg(format!("--net={}", file.display())).arg("true"))?;

    if node == Node::FIRST {
        ip(checkout, node, "link add node0 type bridge")?;
    } else {
        let port = port(node);
        let pair = format!("link add {port} type veth peer name node0 netns {}", file.display());
        ip(checkout, Node::FIRST, &format!("{pair}\nlink set {port} master node0 up"))?;
    }
    // Processes of the node itself reach Services only with a route; kube-proxy rewrites the address afterwards.
    let mut lines = format!(
        "link set lo up\naddress add {}/24 dev node0\nlink set node0 up\n\
         route add {SERVICE_RANGE} dev node0\nroute add {CALICO_GATEWAY} dev node0\n",
        address(node)
    );
    for other in Node::all().filter(|other| *other != node) {
        lines.push_str(&format!("route add {} via {}\n", pod_range(other), address(other)));
    }
    ip(checkout, node, &lines)?;
    run(inside(checkout, node).args(["sysctl", "-qw", "net.ipv4.ip_forward=1"]))?;
    // The bridge is a switch, not a place to filter other nodes' packets. Absent without the bridge netfilter module.
    let _ = run(inside(checkout, node).args(["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"]));
    Ok(())
}

/// Ends the namespace and the cable to it.
///
/// # Errors
/// When the system refuses.
pub fn remove(checkout: &Checkout, node: Node) -> Result<()> {
    let file = checkout.network_namespace(node);
    if node != Node::FIRST && checkout.network_namespace(Node::FIRST).exists() {
        // Gone with the namespace already, most times.
        let _ = ip(checkout, Node::FIRST, &format!("link delete {}", port(node)));
    }
    if !file.exists() {
        return Ok(());
    }
    // Not a mount any more after a failed `make` or a reboot.
    let _ = run(command("umount").arg("--lazy").arg(&file));
    std::fs::remove_file(&file).doing("remove", &file)
}

/// Pulls or plugs the cable of a node.
///
/// # Errors
/// When the node does not exist.
pub fn set_cable(checkout: &Checkout, node: Node, cable: Cable) -> Result<()> {
    let state = match cable {
        Cable::Plugged => "up",
        Cable::Pulled => "down",
    };
    ip(checkout, Node::FIRST, &format!("link set {} {state}", port(node)))
}

/// Is the cable of a node plugged in? Node 1 carries the switch and has no cable.
pub fn cable(checkout: &Checkout, node: Node) -> Cable {
    if node == Node::FIRST {
        return Cable::Plugged;
    }
    match run(inside(checkout, Node::FIRST).args(["ip", "-o", "link", "show", "up", "dev", &port(node)])) {
        Ok(line) if !line.trim().is_empty() => Cable::Plugged,
        _ => Cable::Pulled,
    }
}

/// Whether a node is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cable {
    /// It is.
    Plugged,
    /// It is partitioned.
    Pulled,
}

/// Name of a node's port at the switch.
fn port(node: Node) -> String {
    format!("port{}", node.number())
}

/// Runs lines of `ip` commands in a node's network namespace.
fn ip(checkout: &Checkout, node: Node, lines: &str) -> Result<()> {
    run_with_input(inside(checkout, node).args(["ip", "-batch", "-"]), lines).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nodes_and_pods_do_not_meet() {
        let nodes: Vec<String> = Node::all().map(address).collect();
        assert_eq!(nodes, ["192.168.99.1", "192.168.99.2", "192.168.99.3", "192.168.99.4"]);
        let pods: Vec<String> = Node::all().map(pod_range).collect();
        assert_eq!(pods, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]);
    }
}
