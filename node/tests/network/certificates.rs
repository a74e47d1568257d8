//! An authority is replaced under a running network: nodes reconnect by themselves, and who has only the old one is cut off.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use node_api::{
    config::NodeRole,
    pki::CertificateAuthority,
    roles::{Role, SpiffeId},
    tls::TlsPem,
};
use tokio::time::timeout;

use super::{Network, STEP_TIME_MAX, connect, network, peers::Rogue, until};

/// A node looks at its files every 10 s, and draws up to 30 s for each connection.
const RENEWED_TIME_MAX: Duration = Duration::from_secs(300);

/// Swaps a generation of files as the kubelet does: files in a new directory, then one link to it.
fn swap(mount: &Path, generation: &str, pem: &TlsPem) {
    let directory = mount.join(generation);
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("tls.crt"), &pem.certificate).expect("written");
    fs::write(directory.join("tls.key"), &*pem.key).expect("written");
    fs::write(directory.join("ca.crt"), &pem.authorities).expect("written");
    let link = mount.join("..data_tmp");
    symlink(generation, &link).expect("a link");
    fs::rename(link, mount.join("..data")).expect("swapped");
}

fn tls_of(network: &Network, number: usize) -> PathBuf {
    network.directory.path().join(format!("node-{number}/tls"))
}

fn id_of(network: &Network, number: usize) -> SpiffeId {
    let (plan, role) = (network.devnet.plan(), NodeRole::Validator);
    SpiffeId::node(&plan.chain_id, role, &plan.nodes[number].identity)
}

/// How many lines of a node's log say this.
fn said(network: &Network, number: usize, what: &str) -> usize {
    let log = fs::read_to_string(&network.devnet.plan().nodes[number].log).expect("the log can be read");
    log.lines().filter(|line| line.contains(what)).count()
}

async fn wait_taken(network: &Network, times: usize) {
    for number in 0..4 {
        let what = format!("node {number} has taken the certificates {times} times");
        until(&what, async || (said(network, number, "took the new certificate") >= times).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_replaced_in_the_running_network_and_the_old_one_lets_nobody_stay() {
    let mut network = network(4, 0).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    network.send(0, 0, 0).await;
    // A peer whose certificate is good until the old authority is withdrawn.
    let rogue = Rogue::new(&network);
    let mut held = Vec::new();
    for number in 0..4 {
        let mut frames = rogue.open(&network, number, Vec::new()).await.expect("the certificate is good");
        held.push(tokio::spawn(async move { while let Ok(Some(_)) = frames.message().await {} }));
    }

    // 1. Everybody trusts both; certificates are still of the old authority.
    let read = |name: &str| fs::read_to_string(network.directory.path().join(name)).expect("devnet wrote it");
    let old = CertificateAuthority::from_pem(&read("ca.crt"), &read("ca.key")).expect("the authority is read");
    let new = CertificateAuthority::generate("the new authority", old.validity()).expect("an authority");
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    let issue = |id: &SpiffeId| new.issue(id, new.validity()).expect("a certificate");
    for number in 0..4 {
        let mount = tls_of(&network, number);
        let leaf = TlsPem::read(&mount).expect("devnet wrote it");
        swap(&mount, "..bundle", &TlsPem { authorities: both.clone().into_bytes(), ..leaf });
    }
    wait_taken(&network, 1).await;

    // 2. Certificates are of the new authority. Each node opens each of its connections anew.
    let leaves: Vec<_> = (0..4).map(|number| issue(&id_of(&network, number))).collect();
    for (number, leaf) in leaves.iter().enumerate() {
        swap(&tls_of(&network, number), "..leaf", &TlsPem::from_issued(leaf, &both));
    }
    let plan = network.devnet.plan().clone();
    for (directory, role) in [(&plan.client, Role::Client), (&plan.operator, Role::Operator)] {
        let id = SpiffeId::new(&plan.chain_id, role, "devnet").expect("an id");
        swap(directory, "..leaf", &TlsPem::from_issued(&issue(&id), &both));
    }
    wait_taken(&network, 2).await;
    network.clients = connect(&plan, &plan.client);
    let renewed = async {
        for number in 0..4 {
            loop {
                let closed = said(&network, number, "it is opened anew with the new certificates");
                if closed >= 3 && said(&network, number, "connected to a peer") >= 3 + closed {
                    break;
                }
                tokio::task::yield_now().await;
                let height = network.status(number).await.expect("the node answers").height;
                network.wait_height(number, height + 1).await;
            }
        }
    };
    timeout(RENEWED_TIME_MAX, renewed).await.expect("every connection is opened anew");
    network.send(1, 0, 1).await;
    for (number, stream) in held.iter().enumerate() {
        assert!(!stream.is_finished(), "node {number} still trusts the old authority");
    }

    // 3. The old authority is withdrawn.
    for (number, leaf) in leaves.iter().enumerate() {
        swap(&tls_of(&network, number), "..alone", &TlsPem::from_issued(leaf, new.certificate_pem()));
    }
    for (number, stream) in held.into_iter().enumerate() {
        let ended = timeout(STEP_TIME_MAX, stream).await;
        ended.unwrap_or_else(|_| panic!("node {number} keeps the stream")).expect("it is read to its end");
        rogue.open(&network, number, Vec::new()).await.expect_err("it gets no other");
    }
    // The voters have lost nobody, and the chain goes on.
    network.send(2, 0, 2).await;
    for number in 0..4 {
        let what = format!("node {number} is connected to all");
        until(&what, || async { network.status(number).await.filter(|status| status.peers_connected == 3) }).await;
    }
    network.devnet.stop().await.expect("the nodes stop");
}
