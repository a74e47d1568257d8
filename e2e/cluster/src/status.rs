//! `cluster status`: what runs, what does not, and what Kubernetes says.

use crate::checkout::{Checkout, Node};
use crate::network::Cable;
use crate::{control_plane, daemon, network, sandbox, up};

/// How the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Every node that was asked for runs with all its daemons, and the API server answers.
    Good,
    /// It runs, but something is missing or partitioned.
    Partial,
    /// No cluster runs.
    Down,
}

/// Prints the state of the cluster and tells its health.
pub fn status(checkout: &Checkout) -> Health {
    let Some(environment) = up::running(checkout) else {
        println!("no cluster runs for {}; start one with `cluster up`", checkout.root().display());
        return Health::Down;
    };
    println!("{}\n", up::describe(checkout, &environment));
    let mut health = Health::Good;
    for node in Node::first(environment.nodes.max(1)) {
        let line = describe(checkout, node);
        if line != RUNS {
            health = Health::Partial;
        }
        println!("{node}  {line}");
    }
    if control_plane::is_ready(checkout) {
        println!("\n{}", up::nodes_table(checkout).unwrap_or_else(|error| error.to_string()).trim_end());
    } else {
        println!("\nthe API server does not answer");
        health = Health::Partial;
    }
    health
}

const RUNS: &str = "runs";

fn describe(checkout: &Checkout, node: Node) -> String {
    if sandbox::first_process(checkout, node).is_none() {
        return format!("does not run; `cluster node add {}` starts it", node.number());
    }
    let daemons = daemon::list(checkout, node);
    let dead: Vec<&str> = daemons.iter().filter(|(_, alive)| !alive).map(|(name, _)| name.as_str()).collect();
    if let Some(first) = dead.first() {
        return format!("runs, without {}; `cluster restart {node} {first}` starts it", dead.join(", "));
    }
    match network::cable(checkout, node) {
        Cable::Plugged => RUNS.into(),
        Cable::Pulled => format!("is partitioned; `cluster node heal {}` ends it", node.number()),
    }
}
