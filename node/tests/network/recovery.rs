//! Two of four voters lose their volumes: the chain stands still, and a recovery manifest lets it go on.

use std::{fs, path::Path, time::Duration};

use node_core::types::{Incarnation, ParametersDraft};
use tokio::time::{Instant, interval, timeout};

use super::{
    Ballot, Network, STEP_TIME_MAX,
    members::{path, run},
    network, processes,
    states::{configure, log_of},
    until,
};

impl Network {
    /// The height of every node once all have the same and the chain stands.
    async fn standing_height(&self) -> u64 {
        until("all nodes stand at the same height", || async {
            let mut heights = Vec::new();
            for number in 0..4 {
                let status = self.status(number).await?;
                heights.push((status.block_age_ms > 10_500).then_some(status.height)?);
            }
            heights.dedup();
            (heights.len() == 1).then(|| heights[0])
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_lost_two_of_four_volumes_goes_on_with_a_manifest() {
    let mut network = network(4, 0).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let ballot = Ballot::default();
    ballot.watch(&network.watchers[0]).await;
    let (_, before) = network.send(0, 0, 0).await;
    lose_two(&mut network).await;
    let height = network.standing_height().await;
    assert!(height >= before.height);

    recover(&network).await;
    start_voters_again(&mut network).await;
    for number in 0..4 {
        let session = network.wait_signing(number).await.session.expect("a voter has a session");
        assert_eq!(session.epoch, 2, "node {number} signs with its fresh key");
    }
    let status = network.status(1).await.expect("node 1 answers");
    assert_ne!(status.incarnation, status.genesis_hash);
    network.incarnation = Incarnation::new(status.incarnation.try_into().expect("an incarnation has 32 bytes"));
    let (_, after) = network.send(1, 0, 1).await;
    assert!(after.height > height);
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}

/// The last two of four voters lose their volumes, and start on empty ones.
async fn lose_two(network: &mut Network) {
    for number in 2..4 {
        network.devnet.kill_node(number).await.expect("the node can be killed");
        let data = network.directory.path().join(format!("node-{number}/data"));
        fs::remove_dir_all(data).expect("the volume can be removed");
        network.devnet.give_genesis(number);
        network.devnet.start_node(number).expect("the node starts again");
    }
}

/// Collects a manifest of the four voters, has it signed, and lets every voter take it.
async fn recover(network: &Network) {
    let plan = network.devnet.plan();
    let grpc: Vec<String> = plan.nodes.iter().map(|node| node.listen.grpc.to_string()).collect();
    let nodes = [
        "--tls",
        path(&plan.operator),
        "--endpoint",
        &grpc[0],
        "--node",
        &grpc[1],
        "--node",
        &grpc[2],
        "--node",
        &grpc[3],
    ];
    let (code, manifest, said) = run(&[&["recover", "collect"], &nodes[..]].concat(), "").await;
    assert_eq!(code, 0, "{said}");
    let apply = [&["recover", "apply", "-"], &nodes[..]].concat();
    let (code, _, said) = run(&apply, &manifest).await;
    assert_eq!(code, 6, "without governance nothing is accepted: {said}");
    let (code, signed, said) = run(&["recover", "sign", "--key", path(&plan.governance), "-"], &manifest).await;
    assert_eq!(code, 0, "{said}");
    let check = ["recover", "check", "--tls", path(&plan.client), "--endpoint", &grpc[0], "-"];
    let (code, _, said) = run(&check, &signed).await;
    assert_eq!(code, 0, "{said}");
    let (code, _, said) = run(&apply, &signed).await;
    assert_eq!(code, 0, "{said}");
}

/// What has ended starts again, as in Kubernetes.
async fn start_voters_again(network: &mut Network) {
    for number in 0..4 {
        network.devnet.kill_node(number).await.expect("the ended process can be reaped");
        network.devnet.start_node(number).expect("the node starts again");
    }
}

/// The folders of a node that no proof is needed for, because they come from a node that is trusted.
const COPIED: [&str; 4] = ["state", "blocks", "light", "recovery"];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("its entries can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it is a file or a folder").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

/// An observer was away during the recovery, and all others have removed the blocks of that time. No state is proved over a
/// recovery, so it stays where it was until it is given the folders of a node that its owner trusts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_a_recovery_and_its_blocks_goes_on_with_the_folders_of_another() {
    let (mut devnet, directory) = processes(4, 0, 1);
    let parameters = ParametersDraft { block_interval_ms: 20, ..ParametersDraft::default() };
    let genesis = timeout(STEP_TIME_MAX, devnet.start_chain(parameters)).await;
    let genesis = genesis.expect("the ceremony ends in time").expect("the ceremony succeeds");
    let mut network = Network::of(devnet, directory, &genesis);
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    network.wait_height(4, 1).await;
    network.devnet.stop_node(4).await.expect("the node stops");
    lose_two(&mut network).await;
    let height = network.standing_height().await;
    recover(&network).await;
    for number in 0..4 {
        configure(network.directory.path(), number, "storage:\n  keepBlocks: 128\n");
    }
    start_voters_again(&mut network).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let status = network.status(1).await.expect("node 1 answers");
    network.incarnation = Incarnation::new(status.incarnation.try_into().expect("an incarnation has 32 bytes"));
    for number in 0..4 {
        for step in 1..=8 {
            network.wait_height(number, height + 320 * step / 8).await;
        }
        until("the blocks before the recovery are removed", || async {
            network.status(number).await.filter(|status| status.lowest_height > height)
        })
        .await;
    }

    network.devnet.start_node(4).expect("the node starts again");
    let deadline = Instant::now() + STEP_TIME_MAX;
    let mut ticks = interval(Duration::from_millis(100));
    while !network.devnet.ended().contains(&4) {
        assert!(Instant::now() < deadline, "node 4 does not ask for a state:\n{}", log_of(&network, 4));
        ticks.tick().await;
    }
    network.devnet.kill_node(4).await.expect("what has ended can be taken away");
    let log = log_of(&network, 4);
    assert!(log.contains("taking a state from the peers"), "{log}");

    network.devnet.stop_node(3).await.expect("the node stops");
    let home = network.directory.path().to_owned();
    let (from, to) = (home.join("node-3/data"), home.join("node-4/data"));
    let file = home.join("state.snapshot");
    let (code, _, said) = run(&["snapshot", "create", "--data", path(&from), path(&file)], "").await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("no proof leads over it"), "{said}");
    fs::remove_dir_all(&to).expect("the volume can be removed");
    for folder in COPIED {
        copy(&from.join(folder), &to.join(folder));
    }
    network.devnet.give_genesis(4);
    for number in [3, 4] {
        network.devnet.start_node(number).expect("the node starts again");
    }
    network.wait_signing(3).await;
    let target = network.status(0).await.expect("the node answers").height + 20;
    network.wait_height(4, target).await;
    let (id, done) = network.send(0, 0, 0).await;
    assert_eq!(network.receipts(&id).await, vec![done; 5]);
    network.devnet.stop().await.expect("the nodes stop");
}
