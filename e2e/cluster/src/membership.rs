//! `cluster node ...`: nodes that lose their cable, their power, or both come back.

use crate::checkout::{Checkout, Node};
use crate::error::{Error, Result};
use crate::interrupt::{Wait, wait_for};
use crate::kubectl::kubectl;
use crate::network::{self, Cable};
use crate::state::Environment;
use crate::{sandbox, up};

/// The cluster, which must run.
///
/// # Errors
/// When it does not.
pub fn expect_running(checkout: &Checkout) -> Result<Environment> {
    up::running(checkout).ok_or_else(|| Error::Refused("the cluster does not run; start it with `cluster up`".into()))
}

/// Pulls the cable of a node: it and its pods go on, but no packet goes in or out. `NotReady` follows after 13 s.
///
/// # Errors
/// When the node does not run.
pub fn partition(checkout: &Checkout, node: Node) -> Result<()> {
    expect_member(checkout, node)?;
    network::set_cable(checkout, node, Cable::Pulled)
}

/// Plugs the cable in again. Without effect on a node that was not partitioned.
///
/// # Errors
/// When the node does not run.
pub fn heal(checkout: &Checkout, node: Node) -> Result<()> {
    expect_member(checkout, node)?;
    network::set_cable(checkout, node, Cable::Plugged)
}

/// Pulls the power: every process of the node ends at once, its memory is lost, its disk stays. `node add` is the
/// power button.
///
/// # Errors
/// When the node does not run, or does not go away.
pub fn crash(checkout: &Checkout, node: Node) -> Result<()> {
    expect_member(checkout, node)?;
    sandbox::remove(checkout, node)
}

/// When each node was last heard of, and whether Kubernetes calls it ready.
#[derive(Debug, Default)]
pub struct Heartbeats(String);

impl Heartbeats {
    /// Asks for them.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn now(checkout: &Checkout) -> Result<Self> {
        let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        let path = format!(
            "jsonpath={{range .items[*]}}{{.kind}} {{.metadata.name}} {{.spec.renewTime}}{ready}{{\"\\n\"}}{{end}}"
        );
        let arguments = ["-n", "kube-node-lease", "get", "nodes,leases", "-o", &path];
        kubectl(checkout, &arguments).map(Self)
    }

    /// Is the node ready, and heard of since `before`? A node that crashed is called ready until its loss is noticed.
    fn is_ready_since(&self, node: Node, before: &Self) -> bool {
        let lease = format!("Lease {node} ");
        let heard = |line: &str| line.starts_with(&lease) && !before.0.lines().any(|earlier| earlier == line);
        self.0.lines().any(|line| line == format!("Node {node} True")) && self.0.lines().any(heard)
    }
}

/// Waits until Kubernetes has heard of the nodes since `before` and calls them ready.
///
/// # Errors
/// When one does not get there; the error says where the logs are.
pub fn wait_until_ready(checkout: &Checkout, nodes: &[Node], before: &Heartbeats) -> Result<()> {
    let hint = format!("see kubelet-*.log and containerd-*.log in {}", checkout.log().display());
    let wait = Wait { what: "the readiness of all nodes", seconds_max: 90, every_ms: 200, hint: &hint };
    wait_for(wait, || {
        let now = Heartbeats::now(checkout)?;
        Ok(nodes.iter().all(|node| now.is_ready_since(*node, before)).then_some(()))
    })
}

/// The nodes that run.
pub fn alive(checkout: &Checkout, environment: &Environment) -> Vec<Node> {
    Node::first(environment.nodes).filter(|node| sandbox::first_process(checkout, *node).is_some()).collect()
}

fn expect_member(checkout: &Checkout, node: Node) -> Result<()> {
    expect_running(checkout)?;
    if node == Node::FIRST {
        return Err(Error::Refused(
            "node1 carries the control plane and the switch: it can be neither partitioned nor crashed alone".into(),
        ));
    }
    if sandbox::first_process(checkout, node).is_none() {
        return Err(Error::Refused(format!("{node} does not run; `cluster node add {}` starts it", node.number())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_came_back_counts_only_once_it_was_heard_of_again() {
        let before = Heartbeats("Node node2 True\nLease node2 10:00:00\n".into());
        let same = Heartbeats("Node node2 True\nLease node2 10:00:00\n".into());
        let heard = Heartbeats("Node node2 True\nLease node2 10:00:07\n".into());
        let lost = Heartbeats("Node node2 Unknown\nLease node2 10:00:07\n".into());
        assert!(!same.is_ready_since(Node::all().nth(1).unwrap(), &before));
        assert!(heard.is_ready_since(Node::all().nth(1).unwrap(), &before));
        assert!(!lost.is_ready_since(Node::all().nth(1).unwrap(), &before));
        assert!(heard.is_ready_since(Node::all().nth(1).unwrap(), &Heartbeats::default()));
    }
}
