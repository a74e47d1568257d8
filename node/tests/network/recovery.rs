//! Two of four voters lose their volumes: the chain stands still, and a recovery manifest lets it go on.

use node_core::types::Incarnation;

use super::{
    Ballot, Network,
    members::{path, run},
    network, until,
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
    for number in 2..4 {
        network.devnet.kill_node(number).await.expect("the node can be killed");
        let data = network.directory.path().join(format!("node-{number}/data"));
        std::fs::remove_dir_all(data).expect("the volume can be removed");
        network.devnet.give_genesis(number);
        network.devnet.start_node(number).expect("the node starts again");
    }
    let height = network.standing_height().await;
    assert!(height >= before.height);

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

    for number in 0..4 {
        network.devnet.kill_node(number).await.expect("the ended process can be reaped");
        network.devnet.start_node(number).expect("the node starts again");
    }
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
