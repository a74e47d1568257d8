//! Volumes that are restored to an earlier state: what they hold is old, and must not sign again. And one that is full.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use node_api::proto::NodeState;
use node_core::types::CeremonyNonce;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{BINARY, Ballot, Network, STEP_TIME_MAX, network, parameters, processes, processes_of, start, until};

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

/// As the operator brings back a voter whose volume is lost: it asks for a report of the ceremony before it knows, then has
/// the node join the chain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_on_an_empty_volume_joins_its_chain_again_with_a_new_key() {
    let mut network = network(4, 0).await;
    let before = network.wait_signing(3).await;
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    network.wait_height(3, 5).await;
    network.devnet.kill_node(3).await.expect("the node can be killed");
    std::fs::remove_dir_all(network.directory.path().join("node-3/data")).expect("the volume can be removed");
    network.devnet.start_node(3).expect("the node starts again");
    let nonce = CeremonyNonce::new([7; 32]);
    let report = until("the node reports", || async { network.watchers[3].genesis_report(&nonce).await.ok() }).await;
    assert!(report.accepted_genesis_hash.is_empty(), "it knows of no genesis");
    let genesis = std::fs::read_to_string(&network.devnet.plan().genesis).expect("the genesis is in a file");
    let genesis = node_api::genesis::from_json(&genesis).expect("it is a genesis");
    network.watchers[3].join_chain(&genesis).await.expect("it takes the genesis");
    let report = network.watchers[3].genesis_report(&nonce).await.expect("it still reports");
    assert_eq!(report.accepted_genesis_hash, genesis.hash().as_bytes());
    network.watchers[3].start_chain(&genesis.hash()).await.expect("it follows the chain");
    let back = network.wait_signing(3).await.session.expect("a voter has a session");
    assert!(back.epoch > 1, "it signs with a key that it asked the chain for");
    assert_ne!(Some(back.session_key), before.session.map(|session| session.session_key));
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}

/// A small file system under one folder, in a mount namespace that ends with the process that holds it.
struct SmallVolume {
    holder: Child,
}

impl SmallVolume {
    const BYTES: u64 = 256 << 20;
    const LIFE_S: u64 = 300;

    fn under(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let (folder, size, life) = (folder.display(), Self::BYTES, Self::LIFE_S);
        let script = format!(
            "mount -t tmpfs -o size={size},mode=700 althing-test '{folder}' && echo ready && exec sleep {life}"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the namespace can be made");
        let mut line = String::new();
        let said = holder.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut line).expect("the holder says something");
        assert_eq!(line.trim(), "ready", "mounting needs root");
        Self { holder }
    }

    /// A program that runs the node where the volume is mounted.
    fn node(&self, at: &Path) -> PathBuf {
        let path = at.join("node-on-small-volume");
        let namespace = format!("/proc/{}/ns/mnt", self.holder.id());
        let script = format!("#!/bin/sh\nexec nsenter --mount={namespace} -- {BINARY} \"$@\"\n");
        std::fs::write(&path, script).expect("the program can be written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it can be made executable");
        path
    }

    /// The path as this process sees it.
    fn path(&self, inside: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(inside.strip_prefix("/").expect("the path is absolute"))
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_volume_stops_signing_and_signs_again_when_there_is_space() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let data = directory.path().join("node-3/data");
    let volume = SmallVolume::under(&data);
    let program = volume.node(directory.path());
    let mut network = start(processes_of(program, directory, (4, 0, 0))).await;
    let before = network.wait_signing(3).await;
    assert_eq!(before.volume_size_bytes, SmallVolume::BYTES);
    let ballot = Ballot::default();
    for watcher in &network.watchers[..3] {
        ballot.watch(watcher).await;
    }
    let ballast = volume.path(&data).join("ballast");
    let left = 50 << 20;
    let size = usize::try_from(before.volume_available_bytes - left).expect("it fits");
    std::fs::write(&ballast, vec![1_u8; size]).expect("there is space");
    let full = until("the node stops", || async {
        network.status(3).await.filter(|status| status.state() == NodeState::Halted)
    })
    .await;
    assert!(full.state_reason.contains("the volume is full") && !full.signing_enabled, "{}", full.state_reason);
    assert!(full.volume_available_bytes < 64 << 20, "{}", full.volume_available_bytes);
    network.wait_height(0, full.height + 5).await;
    let votes = ballot.count_of(&before.identity);
    network.wait_height(0, full.height + 10).await;
    assert_eq!(ballot.count_of(&before.identity), votes, "it votes although its volume is full");

    std::fs::remove_file(&ballast).expect("the ballast can be removed");
    until("the process ends by itself", || async { network.status(3).await.is_none().then_some(()) }).await;
    network.devnet.kill_node(3).await.expect("what is left can be cleared");
    network.devnet.start_node(3).expect("the node starts again");
    let back = network.wait_signing(3).await.session.expect("a voter has a session");
    assert_eq!(back.epoch, 1, "its volume was never in doubt");
    until("it votes again", || async { (ballot.count_of(&before.identity) > votes).then_some(()) }).await;
    assert_eq!(ballot.conflicts(), vec![]);
    network.devnet.stop().await.expect("the nodes stop");
}
