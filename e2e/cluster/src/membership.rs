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

/// Waits until Kubernetes calls the nodes ready.
///
/// # Errors
/// When one does not get there; the error names its kubelet's log.
pub fn wait_until_ready(checkout: &Checkout, nodes: &[Node]) -> Result<()> {
    let hint = format!("see kubelet-*.log and containerd-*.log in {}", checkout.log().display());
    let wait = Wait { what: "the readiness of all nodes", seconds_max: 90, every_ms: 200, hint: &hint };
    wait_for(wait, || {
        let path = r#"jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let table = kubectl(checkout, &["get", "nodes", "-o", path])?;
        let ready = |node: &Node| table.lines().any(|line| line == format!("{node}=True"));
        Ok(nodes.iter().all(ready).then_some(()))
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
