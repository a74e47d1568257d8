//! Real validator processes on loopback: they finalise, survive a kill, catch up, and never sign twice.

#![expect(clippy::indexing_slicing, reason = "a test may fail anywhere")]

mod network;

use althing_node::devnet::ports;
use network::{Ballot, Network, STEP_TIME_MAX, network, until};
use node_api::proto;
use node_core::types::Height;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The status code of one HTTP request.
async fn get(network: &Network, number: usize, path: &str) -> u16 {
    let address = network.devnet.plan().nodes[number].listen.http;
    let mut stream = TcpStream::connect(address).await.expect("the HTTP port is open");
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the request leaves");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the answer comes");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("the answer has a status code")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_finalises_survives_a_kill_and_never_signs_twice() {
    let mut network = network(4, 1).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    for nonce in 0..3 {
        let (id, done) = network.send(nonce as usize, 0, nonce).await;
        assert_eq!(done.receipt.as_ref().map(|receipt| receipt.outcome()), Some(proto::Outcome::Executed));
        for receipt in network.receipts(&id).await {
            assert_eq!(receipt, done);
        }
    }

    network.devnet.kill_node(3).await.expect("the node can be killed");
    let mut sent = Vec::new();
    for nonce in 0..3 {
        sent.push(network.send(nonce as usize, 10, nonce).await);
    }

    let before = network.status(0).await.expect("node 0 answers").height;
    network.devnet.start_node(3).expect("the node starts again");
    network.wait_height(3, before).await;
    let back = network.wait_signing(3).await;
    // The same key again: the same instance on the same boot decides alone, and needs no rotation.
    assert_eq!(back.session.as_ref().map(|session| session.epoch), Some(1));
    let identity = back.identity.clone();
    let voted = ballot.count_of(&identity);
    until("node 3 votes again", || async { (ballot.count_of(&identity) > voted).then_some(()) }).await;
    sent.push(network.send(3, 20, 0).await);
    for (id, done) in &sent {
        for receipt in network.receipts(id).await {
            assert_eq!(receipt, *done);
        }
    }

    // The observer has followed it all, and signs nothing.
    let synced = async || network.status(4).await.filter(|status| status.synced);
    let observer = until("the observer has caught up", synced).await;
    assert_eq!((observer.role.as_str(), observer.signing_enabled), ("observer", false));
    // A node that is a block behind at this moment is not ready.
    until("node 3 is ready", async || (get(&network, 3, "/readyz").await == 200).then_some(())).await;
    assert_eq!(get(&network, 4, "/livez").await, 200);
    assert_eq!(get(&network, 0, "/metrics").await, 200);
    assert_eq!(get(&network, 0, "/nothing").await, 404);

    let height = network.status(3).await.expect("node 3 answers").height;
    network.wait_height(4, height).await;
    for height in 1..=height {
        let mut hashes = Vec::new();
        for client in &network.clients {
            let block = client.block(Some(Height::new(height))).await.expect("the node answers");
            hashes.push(block.expect("the block is there").hash);
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "the nodes have different blocks of height {height}");
    }
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stopped_as_a_whole_goes_on_with_the_same_keys() {
    let mut network = network(4, 0).await;
    network.wait_signing(0).await;
    let (id, _) = network.send(0, 0, 0).await;
    for number in 0..4 {
        network.devnet.kill_node(number).await.expect("the node can be killed");
    }
    for number in 0..4 {
        network.devnet.start_node(number).expect("the node starts again");
    }
    let (second, done) = {
        for number in 0..4 {
            let status = network.wait_signing(number).await;
            assert_eq!(status.session.map(|session| session.epoch), Some(1));
        }
        network.send(1, 0, 1).await
    };
    assert_ne!(id, second);
    assert!(done.height > 1);
    network.devnet.stop().await.expect("the nodes stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_makes_blocks_and_stops_in_good_order() {
    let mut network = network(1, 0).await;
    let (_, done) = network.send(0, 0, 0).await;
    assert!(done.height >= 1);
    network.devnet.stop_node(0).await.expect("the node stops");
    network.devnet.start_node(0).expect("the node starts again");
    network.wait_signing(0).await;
    let (_, later) = network.send(0, 0, 1).await;
    assert!(later.height > done.height);
    network.devnet.stop().await.expect("the node stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_volume_never_gets_in() {
    let network = network(1, 0).await;
    network.wait_signing(0).await;
    let node = &network.devnet.plan().nodes[0];
    let config = std::fs::read_to_string(&node.config).expect("the configuration can be read");
    let listen = ports::free(1).expect("there are free ports")[0];
    let second = config
        .replace(&node.listen.p2p.port().to_string(), &listen.p2p.to_string())
        .replace(&node.listen.grpc.port().to_string(), &listen.grpc.to_string())
        .replace(&node.listen.http.port().to_string(), &listen.http.to_string());
    let path = network.directory.path().join("second.yaml");
    std::fs::write(&path, second).expect("the configuration can be written");
    let ended = tokio::process::Command::new(env!("CARGO_BIN_EXE_althing-node"))
        .args(["validator", "--config"])
        .arg(&path)
        .kill_on_drop(true)
        .stderr(std::process::Stdio::null())
        .status();
    let status = timeout(STEP_TIME_MAX, ended).await.expect("it gives up in time").expect("it can be started");
    assert_eq!(status.code(), Some(4));
    network.send(0, 0, 0).await;
    network.devnet.stop().await.expect("the node stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_level_changes_without_a_restart() {
    let network = network(1, 0).await;
    let before = network.wait_signing(0).await;
    let node = network.devnet.plan().nodes[0].clone();
    let config = std::fs::read_to_string(&node.config).expect("the configuration can be read");
    let has_debug = || {
        let log = std::fs::read_to_string(&node.log).expect("the log can be read");
        log.contains("\"level\":\"DEBUG\"")
    };
    assert!(!has_debug(), "it begins at info");
    // Half a file, as an editor may leave it for a moment, changes nothing.
    std::fs::write(&node.config, "logLevel: debug\n").expect("the configuration can be written");
    network.wait_height(0, before.height + 15).await;
    assert!(!has_debug(), "a file that is no configuration was taken");
    let talkative = config.replace("logLevel: info", "logLevel: debug");
    assert_ne!(talkative, config);
    std::fs::write(&node.config, talkative).expect("the configuration can be written");
    until("it logs more", || async { has_debug().then_some(()) }).await;
    let after = network.status(0).await.expect("the node answers");
    assert_eq!(after.instance, before.instance);
    assert!(after.uptime_ms > before.uptime_ms, "it was not restarted");
    network.devnet.stop().await.expect("the nodes stop");
}
