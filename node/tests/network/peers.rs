//! Nodes learn of each other by signed records, and a node that sends garbage is refused while the chain goes on.

use std::{fs, sync::Arc};

use node_api::{
    pki::{CertificateAuthority, Validity},
    proto::{Frame, peer_client::PeerClient},
    roles::{Role, SpiffeId},
    tls::{Expected, TcpDialer, TlsDialer, TlsPem, TlsStore},
};
use node_core::{crypto::KeyPair, types::Identity};
use tonic::{Code, Status, Streaming, transport::Endpoint};

use super::{Network, network, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_know_only_a_third_one_learn_of_each_other_and_connect() {
    let mut network = network(1, 2).await;
    network.wait_signing(0).await;
    let connected = async |network: &Network, number: usize, peers: u32| {
        let what = format!("node {number} is connected to {peers} peers");
        until(&what, || async { network.status(number).await.filter(|status| status.peers_connected >= peers) }).await;
    };
    for number in 1..=2 {
        connected(&network, number, 2).await;
    }
    for (number, other) in [(1, 2), (2, 1)] {
        let status = network.status(number).await.expect("the observer answers");
        assert_eq!(status.peers_configured, 1, "it was told of the voter only");
        let log = || fs::read_to_string(&network.devnet.plan().nodes[number].log).expect("the log can be read");
        let identity = network.devnet.plan().nodes[other].identity;
        let learned =
            |line: &str| line.contains("learned where a peer is reached") && line.contains(&identity.to_string());
        // The record is the first frame after the connection, which may be the other's.
        until("it has learned of the other", async || log().lines().any(learned).then_some(())).await;
    }
    // One that was away learns of the other again, and the other dials it at the new process.
    network.devnet.kill_node(1).await.expect("the node can be killed");
    network.devnet.start_node(1).expect("the node starts again");
    connected(&network, 1, 2).await;
    network.send(0, 0, 0).await;
    network.devnet.stop().await.expect("the nodes stop");
}

/// A node of this chain that the tests hold by its strings: its certificate is good, what it says is not.
pub struct Rogue {
    tls: Arc<TlsStore>,
    identity: Identity,
}

impl Rogue {
    pub fn new(network: &Network) -> Self {
        let read = |name: &str| fs::read_to_string(network.directory.path().join(name)).expect("devnet wrote it");
        let (ca_pem, ca_key) = (read("ca.crt"), read("ca.key"));
        let authority = CertificateAuthority::from_pem(&ca_pem, &ca_key).expect("the authority is read");
        let validity: Validity = authority.validity();
        let identity = Identity::new(KeyPair::from_seed([66; 32]).public());
        let id = SpiffeId::new(&network.devnet.plan().chain_id, Role::Observer, &identity.to_string()).expect("an id");
        let leaf = authority.issue(&id, validity).expect("a certificate");
        let pem = TlsPem {
            certificate: leaf.certificate_pem.clone().into_bytes(),
            key: leaf.key_pem.as_bytes().to_vec().into(),
            authorities: ca_pem.into_bytes(),
            members: Vec::new(),
        };
        Self { tls: TlsStore::from_pem(&pem).expect("it fits together"), identity }
    }

    /// Connects to a node, sends these frames, and waits for the end of the answer.
    async fn say(&self, network: &Network, number: usize, frames: Vec<Frame>) -> Result<(), Status> {
        let mut answers = self.open(network, number, frames).await?;
        while answers.message().await?.is_some() {}
        Ok(())
    }

    /// Connects to a node and sends these frames: what the node sends.
    pub async fn open(&self, network: &Network, number: usize, frames: Vec<Frame>) -> Result<Streaming<Frame>, Status> {
        let plan = network.devnet.plan();
        let node = &plan.nodes[number];
        let expected = Expected::node(&plan.chain_id, &node.identity);
        let dialer = TlsDialer::new(TcpDialer::new(node.listen.p2p.to_string()), Arc::clone(&self.tls), expected);
        let channel = Endpoint::from_static("http://peer.invalid").connect_with_connector(dialer).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        // The stream stays open: the node must be the one that ends it.
        let outgoing = futures::StreamExt::chain(futures::stream::iter(frames), futures::stream::pending());
        Ok(PeerClient::new(channel).connect(outgoing).await?.into_inner())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sends_garbage_is_refused_and_the_chain_goes_on() {
    let network = network(4, 0).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let rogue = Rogue::new(&network);
    let garbage = || vec![Frame { body: vec![0xff; 100].into() }];
    for number in 0..4 {
        // The connection ends by the node, with whatever status.
        let _ = rogue.say(&network, number, garbage()).await;
        let refused = rogue.say(&network, number, Vec::new()).await.expect_err("it is refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        assert!(refused.message().contains("the peer is refused for"), "{refused:?}");
        let log = fs::read_to_string(&network.devnet.plan().nodes[number].log).expect("the log can be read");
        let said = |line: &str| line.contains("breaks the rules") && line.contains(&rogue.identity.to_string());
        assert!(log.lines().any(said), "the log says who was refused");
    }
    let before = network.status(0).await.expect("node 0 answers").height;
    network.send(1, 0, 0).await;
    for number in 0..4 {
        network.wait_height(number, before + 3).await;
        let status = network.status(number).await.expect("the node answers");
        assert_eq!(status.peers_connected, 3, "the voters have lost nobody");
    }
    network.devnet.stop().await.expect("the nodes stop");
}
