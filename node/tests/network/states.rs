//! Real processes on loopback: nodes that were away while everybody pruned take a state, and snapshots start a new node.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use node_core::{
    codec::Decode as _,
    types::{Block, Height, ParametersDraft, Timeout},
};
use tokio::{
    process::Command,
    time::{Instant, interval, timeout},
};

use super::{Ballot, Network, STEP_TIME_MAX, processes, until};

/// Appends keys to the configuration of a node.
pub fn configure(directory: &Path, number: usize, text: &str) {
    let file = fs::File::options().append(true).open(directory.join(format!("node-{number}/node.yaml")));
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the configuration can be written");
}

pub fn log_of(network: &Network, number: usize) -> String {
    fs::read_to_string(&network.devnet.plan().nodes[number].log).expect("the log can be read")
}

/// Runs a command of the program: its exit code and what it said.
async fn run(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_althing-node")).args(arguments).stdin(Stdio::null()).output().await;
    let output = output.expect("the program runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ends by itself"), String::from_utf8_lossy(&said).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// Waits until a node has ended by itself, and starts it again as Kubernetes would.
async fn start_again(network: &mut Network, number: usize) {
    let deadline = Instant::now() + STEP_TIME_MAX;
    let mut ticks = interval(Duration::from_millis(100));
    while !start_if_ended(network, number).await {
        assert!(Instant::now() < deadline, "node {number} does not end:\n{}", log_of(network, number));
        ticks.tick().await;
    }
}

async fn start_if_ended(network: &mut Network, number: usize) -> bool {
    let ended = network.devnet.ended().contains(&number);
    if ended {
        network.devnet.kill_node(number).await.expect("what has ended can be taken away");
        network.devnet.start_node(number).expect("the node starts again");
    }
    ended
}

/// Waits for a height. On a busy machine the blocks behind a state may be pruned before they are fetched: then the node
/// ends for a later state, as often as that happens.
async fn wait_height_after_states(network: &mut Network, number: usize, height: u64) {
    let deadline = Instant::now() + STEP_TIME_MAX;
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        start_if_ended(network, number).await;
        let reached = network.status(number).await.filter(|status| status.height >= height);
        if reached.is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "node {number} is not at height {height}:\n{}", log_of(network, number));
    }
}

async fn wait_pruned(network: &Network, number: usize, height: u64) {
    for step in 1..=8 {
        network.wait_height(number, height * step / 8).await;
    }
    until("the oldest blocks are removed", || async {
        network.status(number).await.filter(|status| status.lowest_height > 64)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_were_away_while_all_others_pruned_take_a_state_and_go_on() {
    let (mut devnet, directory) = processes(4, 0, 1);
    for number in 0..4 {
        devnet.stop_node(number).await.expect("the node stops");
        configure(directory.path(), number, "storage:\n  keepBlocks: 128\n");
        devnet.start_node(number).expect("the node starts again");
    }
    let parameters = ParametersDraft {
        block_interval_ms: 20,
        propose_timeout: Timeout { base_ms: 300, delta_ms: 200 },
        ..ParametersDraft::default()
    };
    let genesis = timeout(STEP_TIME_MAX, devnet.start_chain(parameters)).await;
    let genesis = genesis.expect("the ceremony ends in time").expect("the ceremony succeeds");
    let mut network = Network::of(devnet, directory, &genesis);
    let before = network.wait_signing(3).await;
    network.wait_height(4, 1).await;
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    network.send(0, 0, 0).await;

    let checkpoint = checkpoint(&network).await;
    // A voter goes away with its volume, an observer loses its own and is told which history is the right one.
    network.devnet.stop_node(3).await.expect("the node stops");
    network.devnet.stop_node(4).await.expect("the node stops");
    fs::remove_dir_all(network.directory.path().join("node-4/data")).expect("the volume can be removed");
    for number in 0..3 {
        wait_pruned(&network, number, 320).await;
    }
    let first = network.clients[0].block(Some(Height::new(1))).await.expect("the node answers");
    assert_eq!(first, None, "block 1 is removed");

    trusts_no_other_history(&mut network, &checkpoint).await;
    configure(network.directory.path(), 4, &checkpoint.yaml);
    for number in [3, 4] {
        network.devnet.start_node(number).expect("the node starts again");
    }
    for number in [3, 4] {
        start_again(&mut network, number).await;
    }
    let target = network.status(0).await.expect("the node answers").height + 20;
    for number in [3, 4] {
        wait_height_after_states(&mut network, number, target).await;
        let log = log_of(&network, number);
        assert!(log.contains("the state is in place"), "{log}");
        let status = network.status(number).await.expect("the node answers");
        assert!(status.lowest_height > 64, "{status:?}");
    }
    // The voter signs again, with the key of its volume, since its record says what it signed before.
    let back = network.wait_signing(3).await;
    let key = |status: node_api::proto::GetStatusResponse| status.session.map(|session| session.session_key);
    assert_eq!(key(back), key(before));
    let (id, done) = network.send(3, 1, 0).await;
    assert_eq!(network.receipts(&id).await, vec![done; 5]);
    assert_eq!(ballot.conflicts(), vec![]);

    snapshots_start_a_new_node(&mut network, &checkpoint).await;
    network.devnet.stop().await.expect("the nodes stop");
}

/// A late header, as a running node shows it.
struct Checkpoint {
    /// For the configuration of a node.
    yaml: String,
    hash: String,
}

/// `althing-node checkpoint`.
async fn checkpoint(network: &Network) -> Checkpoint {
    let (plan, file) = (network.devnet.plan(), network.directory.path().join("checkpoint.light"));
    let (endpoint, genesis) = (plan.nodes[0].listen.grpc.to_string(), plan.genesis.clone());
    network.wait_height(0, 5).await;
    let connection = ["--endpoint", &endpoint, "--tls", text(&plan.client)];
    let what = ["--genesis", text(&genesis), "--height", "5", "--file", text(&file), "--output", "json"];
    let (code, said) = run(&[&["checkpoint"], connection.as_slice(), what.as_slice()].concat()).await;
    assert_eq!(code, 0, "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("it is JSON");
    let hash = said.pointer("/stateSync/checkpoint/hash").and_then(serde_json::Value::as_str).expect("it has a hash");
    let block =
        network.clients[1].block(Some(Height::new(5))).await.expect("the node answers").expect("it has the block");
    let block = Block::decode(&block.block).expect("it is a block");
    assert_eq!(block.hash().to_string(), hash, "another node says the same");
    let path = text(&file);
    let yaml = format!("stateSync:\n  checkpoint:\n    height: 5\n    hash: {hash}\n    file: {path}\n");
    Checkpoint { yaml, hash: hash.to_owned() }
}

/// A node whose checkpoint is of another header than its file, or whose volume is of another history, does not start.
async fn trusts_no_other_history(network: &mut Network, checkpoint: &Checkpoint) {
    let path = network.directory.path().join("node-4/node.yaml");
    let before = fs::read_to_string(&path).expect("the configuration can be read");
    let other = checkpoint.yaml.replace(&checkpoint.hash, &"0".repeat(64));
    configure(network.directory.path(), 4, &other);
    network.devnet.start_node(4).expect("the process starts");
    let deadline = Instant::now() + STEP_TIME_MAX;
    let mut ticks = interval(Duration::from_millis(100));
    while !network.devnet.ended().contains(&4) {
        assert!(Instant::now() < deadline, "node 4 does not end:\n{}", log_of(network, 4));
        ticks.tick().await;
    }
    network.devnet.kill_node(4).await.expect("what has ended can be taken away");
    let log = log_of(network, 4);
    assert!(log.contains("is of block") && log.contains(&checkpoint.hash), "{log}");
    fs::write(&path, before).expect("the configuration can be written");
}

/// `althing-node snapshot` with the observer's volume.
async fn snapshots_start_a_new_node(network: &mut Network, checkpoint: &Checkpoint) {
    let home = network.directory.path().to_owned();
    let (data, file) = (home.join("node-4/data"), home.join("state.snapshot"));
    let genesis: PathBuf = network.devnet.plan().genesis.clone();
    let create = ["snapshot", "create", "--data", text(&data), text(&file)];
    let (code, said) = run(&create).await;
    assert_eq!(code, 4, "a running node holds the lock: {said}");
    network.devnet.stop_node(4).await.expect("the node stops");
    let (code, said) = run(&create).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = run(&["snapshot", "verify", "--genesis", text(&genesis), text(&file)]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("stateRoot: "), "{said}");
    let trusted = |hash: &str| {
        let (file, genesis) = (text(&file).to_owned(), text(&genesis).to_owned());
        let light = text(&home.join("checkpoint.light")).to_owned();
        let verify =
            ["snapshot", "verify", "--genesis", &genesis, "--checkpoint", &light, "--checkpoint-hash", hash, &file];
        let verify = verify.map(str::to_owned);
        async move { run(&verify.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let (code, said) = trusted(&checkpoint.hash).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = trusted(&"0".repeat(64)).await;
    assert_eq!(code, 3, "{said}");
    let restore = ["snapshot", "restore", "--genesis", text(&genesis), "--data", text(&data), text(&file)];
    let (code, said) = run(&restore).await;
    assert_eq!(code, 4, "the volume is not empty: {said}");

    let mut bytes = fs::read(&file).expect("the snapshot can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let wrong = home.join("wrong.snapshot");
    fs::write(&wrong, bytes).expect("the file can be written");
    let (code, said) = run(&["snapshot", "verify", "--genesis", text(&genesis), text(&wrong)]).await;
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("does not fit its checksum"), "{said}");

    fs::remove_dir_all(&data).expect("the volume can be removed");
    let (code, said) = run(&restore).await;
    assert_eq!(code, 0, "{said}");
    network.devnet.start_node(4).expect("the node starts again");
    let target = network.status(0).await.expect("the node answers").height;
    network.wait_height(4, target).await;
    let (id, done) = network.send(0, 2, 0).await;
    assert_eq!(network.receipts(&id).await, vec![done; 5]);
}
