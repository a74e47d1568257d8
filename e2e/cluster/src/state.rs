//! `.cluster/env.json`: written as the last act of `up`, read by tests and by the other commands.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::checkout::{Checkout, Node};
use crate::error::{Doing, Error, Result};

/// What a program needs to know to work with the cluster.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Environment {
    /// Administrator's kubeconfig; its server is on 127.0.0.1.
    pub kubeconfig: PathBuf,
    /// Unix socket of the relay in node 1.
    pub relay: PathBuf,
    /// The same for every node, node 1 first: a partitioned node is reached only through its own.
    pub relays: Vec<PathBuf>,
    /// Folder with kubectl and helm.
    pub bin: PathBuf,
    /// Port of the API server on 127.0.0.1.
    pub api_port: u16,
    /// How many nodes were asked for.
    pub nodes: u8,
    /// Where the nodes' volumes lie, seen from the host; node 1 first.
    pub volumes: Vec<PathBuf>,
    /// What others than the cluster's own parts asked of the API server, a JSON object a line.
    pub audit_log: PathBuf,
}

impl Environment {
    /// Describes a cluster with so many nodes.
    pub fn new(checkout: &Checkout, nodes: u8, api_port: u16) -> Self {
        Self {
            kubeconfig: checkout.kubeconfig(),
            relay: checkout.relay(Node::FIRST),
            relays: Node::first(nodes).map(|node| checkout.relay(node)).collect(),
            bin: checkout.state().join("bin"),
            api_port,
            nodes,
            volumes: Node::first(nodes).map(|node| checkout.volumes(node)).collect(),
            audit_log: checkout.log().join("audit.log"),
        }
    }

    /// Reads it; `None` when no `up` has come to its end.
    pub fn read(checkout: &Checkout) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file(checkout)).ok()?).ok()
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When the state folder cannot be written.
    pub fn write(&self, checkout: &Checkout) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::Json { action: "write env.json".into(), source })?;
        let (path, partial) = (file(checkout), checkout.state().join("env.json.partial"));
        std::fs::write(&partial, text + "\n").doing("write", &partial)?;
        std::fs::rename(&partial, &path).doing("publish", &path)
    }
}

fn file(checkout: &Checkout) -> PathBuf {
    checkout.state().join("env.json")
}
