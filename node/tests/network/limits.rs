//! A node that has no room for more says so, with a hint when to come again.

use althing_node::devnet::accounts;
use node_api::{
    client::ClientError,
    proto::{Wait, stream_answer::Answer},
    transactions::{TransferTerms, transfer},
};
use node_core::{
    codec::Encode as _,
    mempool::{Limits, TRANSFER_VALIDITY_BLOCKS_MAX},
    types::{Amount, Height, Nonce, Transaction},
};
use tonic::Code;

use super::{Network, network};

const ACCOUNT: u32 = 5;
/// Transactions in one message.
const MESSAGE_MAX: usize = 1_000;

fn pay(network: &Network, nonce: u64) -> Transaction {
    let terms = TransferTerms {
        incarnation: network.incarnation,
        nonce: Nonce::new(nonce),
        valid_until: Height::new(TRANSFER_VALIDITY_BLOCKS_MAX),
        to: accounts::account(ACCOUNT + 1),
        amount: Amount::new(1),
    };
    transfer(&accounts::key(ACCOUNT), &terms)
}

/// The status of a refusal with the hint in it.
fn refusal(error: ClientError) -> (Code, Option<u32>) {
    let ClientError::Refused { status, .. } = error else { panic!("the node answers: {error:?}") };
    let hint = status.metadata().get("grpc-retry-pushback-ms");
    (status.code(), hint.and_then(|hint| hint.to_str().ok()?.parse().ok()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_full_refuses_with_a_hint_in_each_way_of_submitting() {
    let network = network(1, 0).await;
    network.wait_signing(0).await;
    let client = &network.clients[0];
    // As many as one sender may have waiting. The first one is missing, so that none of them can leave.
    let room = Limits::default().sender_transactions_max;
    let waiting: Vec<_> = (1..=room as u64).map(|nonce| pay(&network, nonce).encode().into()).collect();
    for some in waiting.chunks(MESSAGE_MAX) {
        let answers = client.submit_batch(some.to_vec(), Wait::Accepted).await.expect("the node answers").answers;
        for run in answers {
            assert!(matches!(run.answer, Some(Answer::Accepted(_))), "{run:?}");
        }
    }
    // The node may have put the first ones into a batch already, whose room is free then: at most as many again.
    let mut nonces = (room as u64 + 1..=2 * room as u64 + 1).map(|nonce| pay(&network, nonce));
    let (code, hint) = loop {
        let more = nonces.next().expect("the room has an end");
        if let Err(refused) = client.submit(&more, Wait::Accepted).await {
            break refusal(refused);
        }
    };
    assert_eq!(code, Code::ResourceExhausted);
    assert!(hint.is_some_and(|hint| hint > 0), "{hint:?}");
    let refused = loop {
        let more = nonces.next().expect("the room has an end");
        let answers =
            client.submit_batch(vec![more.encode().into()], Wait::Accepted).await.expect("the node answers").answers;
        if let Some(Answer::Refused(refused)) = answers.first().and_then(|run| run.answer.clone()) {
            break refused;
        }
    };
    assert_eq!((refused.code, Some(refused.retry_after_ms)), (Code::ResourceExhausted as i32, hint));
    // Others have their own room.
    network.send(0, 0, 0).await;
    network.devnet.stop().await.expect("the nodes stop");
}
