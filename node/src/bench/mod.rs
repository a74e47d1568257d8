//! Measures a network: an open-loop load of signed transactions, and what of it became final, when, and at which cost.
//!
//! *Open loop*: every transaction has the time at which it should leave; latency counts from that time, whatever the
//! generator or the node was doing then. *Final*: its block was fetched, and every node that is measured showed the same
//! header with a certificate that verifies against the voters. *Executed*: the certified results two headers later name
//! exactly the receipts that the rule of the nonces gives for the order in which blocks name the transactions: each is executed
//! once, where its turn comes, and a second copy of it has no effect. Nothing here trusts what a node says of itself.

pub mod comeback;
pub mod corpus;
pub mod follow;
pub mod judge;
pub mod load;
pub mod loss;
pub mod machine;
pub mod network;
pub mod percentiles;
pub mod report;
pub mod search;
pub mod trial;

use std::{io, path::PathBuf};

use node_api::{client::ClientError, tls::TlsError};
use thiserror::Error;

use crate::devnet::DevnetError;

/// Why a measurement could not be made.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The local processes could not be started or stopped.
    #[error("failed to run the local network")]
    Devnet(#[from] DevnetError),
    /// A node did not answer.
    #[error("failed to ask a node")]
    Client(#[from] ClientError),
    /// The certificate could not be read.
    #[error("failed to read the client certificate")]
    Tls(#[from] TlsError),
    /// A file could not be used.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The endpoints are not nodes of one chain, or not as many as asked for.
    #[error("the endpoints cannot be measured: {0}")]
    Endpoints(String),
    /// A node showed something that its chain could not have decided.
    #[error("node {node} contradicts the chain at height {height}: {problem}")]
    Contradiction {
        /// The number of the node.
        node: usize,
        /// The height.
        height: u64,
        /// What is wrong.
        problem: String,
    },
    /// A stream of a node ended.
    #[error("node {node} ended its stream of {what}: {reason}")]
    Stream {
        /// The number of the node.
        node: usize,
        /// Of what.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl BenchError {
    /// For `map_err` on file operations.
    pub fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}
