//! Volumes that are restored to an earlier state: what they hold is old, and must not sign again.

use std::path::Path;

use tokio::time::timeout;

use super::{Ballot, Network, STEP_TIME_MAX, network, parameters, processes, until};

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the entry can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the entry has a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_was_rolled_back_never_signs_with_its_key_again() {
    let mut network = network(4, 0).await;
    let before = network.wait_signing(3).await;
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    network.send(0, 0, 0).await;
    let data = network.directory.path().join("node-3/data");
    let kept = network.directory.path().join("kept");
    network.devnet.kill_node(3).await.expect("the node can be killed");
    copy(&data, &kept);
    network.devnet.start_node(3).expect("the node starts again");
    let signing = network.wait_signing(3).await;
    network.wait_height(3, signing.height + 5).await;

    network.devnet.kill_node(3).await.expect("the node can be killed");
    std::fs::remove_dir_all(&data).expect("the volume can be removed");
    std::fs::rename(&kept, &data).expect("the old volume can take its place");
    network.devnet.start_node(3).expect("the node starts again");
    // It signs again, but only with a new key that it asked the chain for.
    let back = network.wait_signing(3).await.session.expect("a voter has a session");
    assert_eq!(back.epoch, 2);
    assert_ne!(Some(back.session_key), before.session.map(|session| session.session_key));
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_restored_to_before_the_start_never_signs_with_its_key_again() {
    let (mut devnet, directory) = processes(4, 0, 0);
    let genesis = timeout(STEP_TIME_MAX, devnet.agree(parameters())).await;
    let genesis = genesis.expect("the ceremony ends in time").expect("the ceremony succeeds");
    // All restart between the making of their keys and the start: no process made its key, and no block can help.
    for number in 0..4 {
        devnet.kill_node(number).await.expect("the node can be killed");
    }
    let data = directory.path().join("node-3/data");
    let kept = directory.path().join("kept");
    copy(&data, &kept);
    for number in 0..4 {
        devnet.start_node(number).expect("the node starts again");
    }
    let started = timeout(STEP_TIME_MAX, devnet.start_agreed(&genesis)).await;
    started.expect("the nodes answer in time").expect("the chain starts");
    let mut network = Network::of(devnet, directory, &genesis);
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    for number in 0..4 {
        let session = network.wait_signing(number).await.session.expect("a voter has a session");
        assert_eq!(session.epoch, 1, "node {number} goes on with the key of genesis");
    }
    let before = network.wait_signing(3).await;
    network.wait_height(3, before.height + 5).await;

    network.devnet.kill_node(3).await.expect("the node can be killed");
    std::fs::remove_dir_all(&data).expect("the volume can be removed");
    std::fs::rename(&kept, &data).expect("the old volume can take its place");
    network.devnet.start_node(3).expect("the node starts again");
    let voted = ballot.count_of(&before.identity);
    // The volume does not know of the start, so it is told again, as the operator would.
    until("the node takes the start", || async { network.watchers[3].start_chain(&genesis.hash()).await.ok() }).await;
    let back = network.wait_signing(3).await.session.expect("a voter has a session");
    assert_eq!(back.epoch, 2, "it signs again, but only with a new key that it asked the chain for");
    assert_ne!(Some(back.session_key), before.session.map(|session| session.session_key));
    assert_eq!(ballot.conflicts(), vec![]);
    until("the new key votes", || async { (ballot.count_of(&before.identity) > voted).then_some(()) }).await;
    network.devnet.stop().await.expect("the nodes stop");
}
