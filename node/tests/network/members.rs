//! Voters that come and go: a node that follows the chain is voted in, signs, and is voted out again.

use std::{path::Path, process::Stdio};

use althing_node::{adapters::storage::verify_state_proof, devnet::accounts};
use node_api::{
    light::{Follower, PROOF_DELAY},
    proto,
};
use node_core::types::Height;
use tokio::io::AsyncWriteExt;

use super::{Ballot, Network, network_with_candidates, until};

/// Runs one command of the program: its exit code, what it printed, and what it said about it.
pub async fn run(arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_althing-node"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut stdin = process.stdin.take().expect("the input is a pipe");
    stdin.write_all(input.as_bytes()).await.expect("the program reads its input");
    drop(stdin);
    let output = process.wait_with_output().await.expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

impl Network {
    /// `althing-node tx governance <change> --key <governance key>`, then `tx submit`.
    pub async fn govern(&self, change: &[&str], input: &str) {
        let plan = self.devnet.plan();
        let endpoint = plan.nodes[1].listen.grpc.to_string();
        let connection = ["--endpoint", &endpoint, "--tls", path(&plan.client)];
        let mut make = [&["tx", "governance"], change, &connection].concat();
        let (code, unsigned, said) = run(&make, input).await;
        assert_eq!(code, 0, "{said}");
        let submit = [&["tx", "submit", "-", "--timeout", "30"], &connection[..]].concat();
        let (code, _, said) = run(&submit, &unsigned).await;
        assert_eq!(code, 6, "an unsigned transaction is refused: {said}");
        assert!(said.contains("0 of 1 needed keys have signed"), "{said}");

        make.extend(["--key", path(&plan.governance)]);
        let (code, signed, said) = run(&make, input).await;
        assert_eq!(code, 0, "{said}");
        let (code, end, said) = run(&submit, &signed).await;
        assert_eq!(code, 0, "{end}{said}");
    }

    async fn wait_voters(&self, number: usize, count: usize) {
        let what = format!("node {number} sees {count} voters");
        until(&what, || async {
            let voters = self.clients[number].validators().await.ok()?.voters.len();
            (voters == count).then_some(())
        })
        .await;
    }
}

/// From genesis over both changes of the voters to an account, which the node's answer proves; nothing forged is believed.
async fn a_light_client_follows_them(network: &Network) {
    let (client, account) = (&network.clients[1], accounts::account(0));
    let genesis = &network.genesis;
    let answer = client.account_with_proof(&account).await.expect("the account can be read");
    let proof = answer.proof.clone().expect("it has a proof");
    let header = Height::new(proof.height + PROOF_DELAY);
    network.wait_height(1, header.get()).await;

    let way = client.light_blocks(Height::ZERO, Some(header)).await.expect("the way can be read");
    assert_eq!(way.light_blocks.len(), 3, "two changes and the header itself");
    for number in 0..way.light_blocks.len() {
        for byte in [40, way.light_blocks[number].len() / 2, way.light_blocks[number].len() - 1] {
            let mut forged = way.clone();
            forged.light_blocks[number][byte] ^= 1;
            let mut follower = Follower::new(genesis).expect("the genesis is good");
            assert!(follower.believe(&forged, header).is_err(), "byte {byte} of light block {number} is forged");
        }
    }
    let mut follower = Follower::new(genesis).expect("the genesis is good");
    follower.follow(client, header).await.expect("the way is believed");
    assert_eq!(follower.height(), header);
    let proved = follower.certified(&account, &answer).expect("the root is certified");
    assert_eq!(proved.account.nonce.get(), 4);
    let verify = |value: Option<&[u8]>| verify_state_proof(&proved.key, value, &proved.proof, &proved.root);
    verify(proved.value.as_deref()).expect("the proof leads to the root");
    let mut richer = proved.value.clone().expect("it exists");
    *richer.last_mut().expect("it has bytes") ^= 1;
    assert!(verify(Some(&richer)).is_err() && verify(None).is_err());
    let lie = proto::GetAccountResponse { balance: answer.balance + 1, ..answer.clone() };
    assert!(follower.certified(&account, &lie).is_err());
    assert!(follower.certified(&accounts::account(1), &answer).is_err());
    let refused = client.light_blocks(header, Some(header)).await.expect_err("there is no way to where one is");
    assert_eq!(refused.code(), Some(tonic::Code::InvalidArgument));
}

/// The former key signs the change of keys, and nothing after it; what it had signed for later is worth nothing.
async fn the_governance_changes_hands(network: &Network) {
    let plan = network.devnet.plan();
    let endpoint = plan.nodes[1].listen.grpc.to_string();
    let connection = ["--endpoint", &endpoint, "--tls", path(&plan.client)];
    let governance = |arguments: &[&str]| [&["tx", "governance"], arguments, &connection].concat().join("\n");
    let call = async |arguments: String, input: &str| run(&arguments.split('\n').collect::<Vec<_>>(), input).await;
    let show = async || {
        let (code, shown, said) = call(governance(&["show", "--output", "json"]), "").await;
        assert_eq!(code, 0, "{said}");
        serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")
    };
    let (former, new) = (path(&plan.governance).to_string(), plan.governance.with_file_name("new.pem"));
    let (code, key, said) = run(&["keygen", path(&new)], "").await;
    assert_eq!(code, 0, "{said}");
    let (key, nonce) = (key.trim(), show().await["nonce"].as_u64().expect("a nonce"));
    let change = ["parameters", "--block-interval-ms", "250"];
    let later = (nonce + 1).to_string();
    let (code, signed_before, said) =
        call(governance(&[&change[..], &["--nonce", &later, "--key", &former]].concat()), "").await;
    assert_eq!(code, 0, "{said}");

    network.govern(&["keys", "--threshold", "1", "--governance-key", key], "").await;
    assert_eq!(show().await["keys"], serde_json::json!([key]));
    let submit = [&["tx", "submit", "-", "--timeout", "30"], &connection[..]].concat();
    let (code, _, said) = run(&submit, &signed_before).await;
    assert_eq!(code, 6, "signed before by the former key: {said}");
    let (code, _, said) = call(governance(&[&change[..], &["--key", &former]].concat()), "").await;
    assert_ne!(code, 0, "the former key signs nothing more: {said}");
    let (code, signed, said) = call(governance(&[&change[..], &["--key", path(&new)]].concat()), "").await;
    assert_eq!(code, 0, "{said}");
    let (code, end, said) = run(&submit, &signed).await;
    assert_eq!(code, 0, "{end}{said}");
    until("the new key's change counts", || async {
        (show().await["parameters"]["blockIntervalMs"] == 250).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_validator_is_voted_in_signs_and_is_voted_out_again() {
    let mut network = network_with_candidates(4, 1).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let ballot = Ballot::default();
    for watcher in &network.watchers[1..4] {
        ballot.watch(watcher).await;
    }
    let height = network.status(1).await.expect("node 1 answers").height;
    network.wait_height(4, height).await;
    let follows = network.status(4).await.expect("the fifth answers");
    assert!(!follows.signing_enabled);
    let identity = hex::encode(&follows.identity);

    let plan = network.devnet.plan();
    let endpoint = plan.nodes[4].listen.grpc.to_string();
    let ask = ["tx", "governance", "report", "--endpoint", &endpoint, "--tls", path(&plan.operator)];
    let (code, report, said) = run(&ask, "").await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(run(&ask, "").await.1, report, "the same key is reported again");
    network.govern(&["add", "--report", "-", "--power", "1"], &report).await;
    network.wait_signing(4).await;
    until("the others see its votes", || async { (ballot.count_of(&follows.identity) > 2).then_some(()) }).await;
    network.wait_voters(1, 5).await;

    // Four of five are needed now: without the first, nothing is decided without the fifth.
    network.devnet.kill_node(0).await.expect("the node can be killed");
    for nonce in 0..3 {
        network.send(1, 0, nonce).await;
    }
    network.devnet.start_node(0).expect("the node starts again");
    network.wait_signing(0).await;

    // It keeps its key over a restart.
    network.devnet.kill_node(4).await.expect("the node can be killed");
    network.devnet.start_node(4).expect("the node starts again");
    let back = network.wait_signing(4).await;
    assert_eq!(back.session.map(|session| session.epoch), Some(1));

    network.govern(&["remove", "--voter", &identity], "").await;
    until("it is no voter any more", || async {
        let status = network.status(4).await?;
        (status.session?.state() == proto::SessionState::NotAVoter && !status.signing_enabled).then_some(())
    })
    .await;
    network.wait_voters(1, 4).await;
    let height = network.status(1).await.expect("node 1 answers").height;
    network.wait_height(4, height + 2).await;
    network.devnet.kill_node(4).await.expect("the node can be killed");
    network.send(1, 0, 3).await;
    assert_eq!(ballot.conflicts(), vec![]);
    a_light_client_follows_them(&network).await;
    the_governance_changes_hands(&network).await;
    network.devnet.stop().await.expect("the nodes stop");
}
