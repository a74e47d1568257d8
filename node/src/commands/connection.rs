//! How the client commands reach a node: where it is, with which certificate, and who must answer.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use node_api::{
    client::{Client, ClientError, ClientOptions},
    tls::{Expected, RelayDialer, TcpDialer, TlsDialer, TlsStore},
};
use node_core::types::Identity;

use super::CommandError;

/// Options of every command that asks a node.
#[derive(Args, Clone, Debug)]
pub struct Connection {
    /// The node's gRPC address, host:port.
    ///
    /// In Kubernetes use `<node>-rpc.<namespace>.svc:7200`, or a port-forward to it: the certificate is checked by chain
    /// id, role and identity, never by name, so any way there works.
    #[arg(long, env = "ALTHING_ENDPOINT", default_value = "127.0.0.1:7200", value_name = "HOST:PORT")]
    pub endpoint: String,
    /// Directory with tls.crt, tls.key and ca.crt of role client (or operator).
    ///
    /// The operator keeps one in the Secret `<network>-client`; `devnet` writes one into its directory.
    #[arg(long, env = "ALTHING_TLS", default_value = "/etc/althing/tls", value_name = "DIRECTORY")]
    pub tls: PathBuf,
    /// Identity that must answer, 64 hex digits; without it any node of the chain may.
    #[arg(long, value_name = "IDENTITY")]
    pub expect: Option<Identity>,
    /// Unix socket of a relay that dials the endpoint from elsewhere.
    #[arg(long, value_name = "SOCKET")]
    pub relay: Option<PathBuf>,
    /// Longest wait for one answer, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    pub timeout: u64,
}

impl Connection {
    /// Connects. The chain is the one that the own certificate names.
    pub async fn open(&self) -> Result<Client, CommandError> {
        let store = TlsStore::from_directory(&self.tls).map_err(|error| {
            CommandError::configuration(format!("failed to load the certificate in {}", self.tls.display()), error)
        })?;
        let chain_id = store.current().facts().id.chain_id().clone();
        let expected = match &self.expect {
            Some(identity) => Expected::node(&chain_id, identity),
            None => Expected::any_server(&chain_id),
        };
        let deadline = Duration::from_secs(self.timeout);
        let options = ClientOptions { connect_timeout: deadline, deadline, ..ClientOptions::default() };
        let connected = match &self.relay {
            Some(socket) => {
                Client::connect(TlsDialer::new(RelayDialer::new(socket, &self.endpoint), store, expected), options)
                    .await
            }
            None => Client::connect(TlsDialer::new(TcpDialer::new(&self.endpoint), store, expected), options).await,
        };
        connected.map_err(failed("failed to reach the node"))
    }
}

/// The command's error for a call's error: exit code 6 when the node refused, 5 when there was no answer.
pub fn failed(step: &str) -> impl FnOnce(ClientError) -> CommandError {
    move |error| match error {
        ClientError::Refused { .. } => CommandError::refused(step, error),
        ClientError::Connect { .. } | ClientError::Deadline { .. } | ClientError::Unavailable { .. } => {
            CommandError::unavailable(step, error)
        }
    }
}
