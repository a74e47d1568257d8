//! Connections to the nodes of a network: through the local cluster's relay, or through `kubectl port-forward`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use node_api::client::{Client, ClientOptions};
use node_api::pki::{CertificateAuthority, LeafFacts, Validity};
use node_api::roles::{Role, SpiffeId};
use node_api::tls::{Expected, RelayDialer, TcpDialer, TlsDialer, TlsPem, TlsStore};
use node_core::types::ChainId;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use zeroize::Zeroizing;

use crate::network::{Network, Voter};

const GRPC_PORT: u16 = althing_crds::names::PORT_GRPC;

/// Who we are towards the nodes of one chain.
#[derive(Clone)]
pub struct Access {
    chain_id: ChainId,
    store: Arc<TlsStore>,
}

/// A forwarded port; dropped, it ends.
pub struct Forward {
    /// `127.0.0.1:port`.
    pub address: String,
    _child: Child,
}

impl Access {
    /// As a watcher: a certificate of the operator's role, issued here from the network's authority, as only somebody
    /// who may read that Secret can.
    ///
    /// # Errors
    /// When the authority's Secret cannot be read.
    pub async fn operator(network: &Network) -> Result<Self> {
        let chain_id = ChainId::new(network.chain_id().await?)?;
        let store = TlsStore::from_pem(&issued(network, &chain_id).await?)?;
        Ok(Self { chain_id, store })
    }

    /// Takes another certificate of a watcher, from the authority that signs now, and trusts all that are trusted now: also
    /// for those who have got a copy of this.
    ///
    /// # Errors
    /// When the authority's Secret cannot be read.
    pub async fn renew(&self, network: &Network) -> Result<()> {
        self.store.replace(&issued(network, &self.chain_id).await?)?;
        Ok(())
    }

    /// As a user: the client certificate that the operator made for this network.
    ///
    /// # Errors
    /// When its Secret cannot be read.
    pub async fn user(network: &Network) -> Result<Self> {
        let pem = kept(network, &althing_crds::names::client_secret(&network.name)).await?;
        Ok(Self { chain_id: ChainId::new(network.chain_id().await?)?, store: TlsStore::from_pem(&pem)? })
    }

    /// A client of the node behind `host:port` of this machine.
    pub fn client_at(&self, address: &str) -> Client {
        let expected = Expected::any_server(&self.chain_id);
        Client::lazy(TlsDialer::new(TcpDialer::new(address), self.store.clone(), expected), ClientOptions::default())
    }

    /// A client of a voter's pod inside the local cluster.
    ///
    /// # Errors
    /// When the pod has no address yet, or the cluster is not the local one.
    pub fn client(&self, network: &Network, voter: &Voter) -> Result<Client> {
        Ok(Client::lazy(self.dialer(network, voter)?, ClientOptions::default()))
    }

    /// SHA-256 of the certificate that a voter's pod shows to who connects now.
    ///
    /// # Errors
    /// When it does not let us in.
    pub async fn shown_certificate(&self, network: &Network, voter: &Voter) -> Result<[u8; 32]> {
        let stream = self.dialer(network, voter)?.connect().await?;
        let certificates = stream.get_ref().get_ref().1.peer_certificates().unwrap_or_default();
        Ok(LeafFacts::from_der(certificates.first().context("a server shows a certificate")?)?.fingerprint)
    }

    fn dialer(&self, network: &Network, voter: &Voter) -> Result<TlsDialer<RelayDialer>> {
        ensure!(!voter.address.is_empty(), "pod {} has no address yet", voter.pod);
        let relay = network.environment.relay(&voter.host)?;
        let dialer = RelayDialer::new(relay, format!("{}:{GRPC_PORT}", voter.address));
        Ok(TlsDialer::new(dialer, self.store.clone(), Expected::any_server(&self.chain_id)))
    }
}

/// What lies in a Secret.
async fn kept(network: &Network, name: &str) -> Result<TlsPem> {
    Ok(TlsPem {
        certificate: network.secret_text(name, "tls.crt").await?.into_bytes(),
        key: Zeroizing::new(network.secret_text(name, "tls.key").await?.into_bytes()),
        authorities: network.secret_text(name, "ca.crt").await?.into_bytes(),
        members: Vec::new(),
    })
}

/// A watcher's certificate.
async fn issued(network: &Network, chain_id: &ChainId) -> Result<TlsPem> {
    let object = network.object("BlockchainNetwork", &network.name).await?;
    if object.data.pointer("/spec/certificates").is_some() {
        // Nobody here can issue: the watcher shows what the operator shows.
        return kept(network, &althing_crds::names::operator_secret(&network.name)).await;
    }
    let name = althing_crds::names::ca_secret(&network.name);
    let certificate = network.secret_text(&name, "tls.crt").await?;
    let key = network.secret_text(&name, "tls.key").await?;
    let authorities = network.secret_text(&name, "ca.crt").await?;
    let authority = CertificateAuthority::from_pem(&certificate, &key)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let id = SpiffeId::new(chain_id, Role::Operator, "watcher")?;
    Ok(TlsPem::from_issued(&authority.issue(&id, Validity::new(now - 60, now + 86_400)?)?, &authorities))
}

impl Forward {
    /// Forwards a free local port to the gRPC port of a pod or Service (`pod/x`, `svc/y`).
    ///
    /// # Errors
    /// When kubectl cannot forward.
    pub async fn open(network: &Network, target: &str) -> Result<Self> {
        let port = format!(":{GRPC_PORT}");
        let arguments = ["--namespace", network.namespace.as_str(), "port-forward", target, &port];
        let mut command = network.environment.kubectl_call(&arguments).into_command();
        let mut child = command.stdout(Stdio::piped()).spawn().context("failed to start kubectl port-forward")?;
        let stdout = child.stdout.take().context("kubectl has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(std::time::Duration::from_secs(20), lines.next_line()).await;
        let line = first.context("kubectl port-forward says nothing")??.context("kubectl port-forward ended")?;
        let address = line
            .strip_prefix("Forwarding from ")
            .and_then(|rest| rest.split(' ').next())
            .with_context(|| format!("kubectl port-forward says: {line}"))?;
        let forward = Self { address: address.to_string(), _child: child };
        // kubectl must not block on a full pipe while it goes on to report connections.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(forward)
    }
}
