//! A client outside that has nothing but genesis: it proves an account through the gateway after the voters changed.

use std::process::Stdio;

use althing_node::{adapters::storage::verify_state_proof, devnet::accounts};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use node_api::{
    light::{CertifiedProof, Follower, PROOF_DELAY},
    proto::{
        GetAccountRequest, GetAccountResponse, GetLightBlocksRequest, GetLightBlocksResponse, GetValidatorsRequest,
        accounts_client::AccountsClient, blocks_client::BlocksClient, validators_client::ValidatorsClient,
    },
};
use node_core::types::{AccountId, Height};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tonic::transport::Channel;

use crate::harness::{GatewayProcess, Network, program, until};

const OPEN: &str = "  edge: {plaintext: true}\n  authentication: {anonymousRoles: [reader]}\n";
/// Voters of genesis.
const VOTERS: u16 = 4;

/// Runs one command of the node's program and answers what it printed, or what it said of its failure.
async fn run(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn().expect("the program starts");
    let mut stdin = process.stdin.take().expect("the input is a pipe");
    stdin.write_all(input.as_bytes()).await.expect("the program reads its input");
    drop(stdin);
    let output = process.wait_with_output().await.expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The governance gives the node that follows the chain a vote.
async fn vote_in_the_candidate(network: &Network) {
    let plan = network.devnet.plan();
    let [client, operator, key] =
        [&plan.client, &plan.operator, &plan.governance].map(|path| path.to_str().expect("text"));
    let [voter, candidate] = [0, usize::from(VOTERS)].map(|number| plan.nodes[number].listen.grpc.to_string());
    let ask = ["tx", "governance", "report", "--endpoint", &candidate, "--tls", operator];
    let report = until("the candidate follows the chain", || async { run(&ask, "").await.ok() }).await;
    let connection = ["--endpoint", voter.as_str(), "--tls", client];
    let add = ["tx", "governance", "add", "--report", "-", "--power", "1", "--key", key];
    let signed = run(&[&add[..], &connection].concat(), &report).await.expect("the change is signed");
    let submit = [&["tx", "submit", "-", "--timeout", "30"], &connection[..]].concat();
    run(&submit, &signed).await.expect("the change is decided");
}

/// The account over gRPC once its proof is of this height or a later one, and the header that certifies it exists.
async fn proved_over_grpc(channel: &Channel, account: &AccountId, height: u64) -> GetAccountResponse {
    let request = GetAccountRequest { account: account.as_bytes().to_vec(), prove: true };
    until("the account is proved by the new voters", || async {
        let answer = AccountsClient::new(channel.clone()).get_account(request.clone()).await.ok()?.into_inner();
        (answer.proof.as_ref()?.height >= height).then_some(answer)
    })
    .await
}

async fn way_over_grpc(channel: &Channel, to_height: u64) -> GetLightBlocksResponse {
    until("the header that certifies the root exists", || async {
        let request = GetLightBlocksRequest { trusted_height: 0, to_height };
        BlocksClient::new(channel.clone()).get_light_blocks(request).await.ok().map(tonic::Response::into_inner)
    })
    .await
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().expect("bytes are a text")).expect("base64")
}

async fn way_over_rest(gateway: &GatewayProcess, height: u64) -> GetLightBlocksResponse {
    let answer = gateway.get(&format!("/api/v1/light-blocks?height={height}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let way = answer.json();
    let light_blocks = way["lightBlocks"].as_array().expect("a list").iter().map(bytes).collect();
    GetLightBlocksResponse { light_blocks }
}

fn check(proved: &CertifiedProof, value: Option<&[u8]>) -> bool {
    verify_state_proof(&proved.key, value, &proved.proof, &proved.root).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_genesis_over_a_change_of_voters_an_account_is_proved_through_the_gateway_alone() {
    let network = Network::start_with_candidates(VOTERS, 1).await;
    let gateway = network.gateway(OPEN).await;
    let channel = gateway.channel().await;
    vote_in_the_candidate(&network).await;
    let changed = until("the gateway tells of the new voter", || async {
        let request = GetValidatorsRequest::default();
        let voters = ValidatorsClient::new(channel.clone()).get_validators(request).await.ok()?.into_inner();
        (voters.voters.len() == usize::from(VOTERS) + 1).then_some(voters.height)
    })
    .await;

    let account = accounts::account(0);
    let answer = proved_over_grpc(&channel, &account, changed).await;
    let height = answer.proof.as_ref().expect("it has a proof").height + PROOF_DELAY;
    let way = way_over_grpc(&channel, height).await;
    assert_eq!(way.light_blocks.len(), 2, "the change and the header itself");

    let follower = || Follower::new(&network.genesis).expect("the genesis is good");
    let wanted = Height::new(height);
    // Of another voter perhaps, whose certificates have other signatures.
    follower().believe(&way_over_rest(&gateway, height).await, wanted).expect("the way over REST is believed");
    let mut honest = follower();
    honest.believe(&way, wanted).expect("the way is believed");
    let proved = honest.certified(&account, &answer).expect("the root is certified");
    let value = proved.value.clone().expect("the account exists");
    assert!(check(&proved, Some(&value)), "the proof leads to the root");
    let mut richer = value.clone();
    *richer.last_mut().expect("it has bytes") ^= 1;
    assert!(!check(&proved, Some(&richer)) && !check(&proved, None), "another value is not proved");

    // A step of the way with another bit anywhere is not believed.
    for number in 0..way.light_blocks.len() {
        let mut forged = way.clone();
        let middle = forged.light_blocks[number].len() / 2;
        forged.light_blocks[number][middle] ^= 1;
        assert!(follower().believe(&forged, wanted).is_err(), "light block {number} is forged");
    }
    gateway.stop().await;
}
