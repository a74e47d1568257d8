//! Real processes on loopback: observers serve the events of the chain, the same bytes, over a kill.

use node_api::proto::{self, EventGroup, EventType, StreamEventsRequest, event::Payload};
use prost::Message as _;
use tonic::Code;

use super::{
    Network,
    members::{path, run},
    network, until,
};

const OBSERVER: usize = 4;
const OTHER: usize = 5;

fn id(event: &proto::Event) -> (u64, u32) {
    event.id.map(|id| (id.height, id.index)).expect("an event has an id")
}

fn request(from: Option<(u64, u32)>) -> StreamEventsRequest {
    StreamEventsRequest {
        from: from.map(|(height, index)| proto::EventId { height, index }),
        groups: Vec::new(),
        until_newest: false,
    }
}

impl Network {
    /// All events of a node from an id on, up to a height and including it.
    async fn events(&self, number: usize, from: Option<(u64, u32)>, until: u64) -> Vec<proto::Event> {
        self.wait_height(number, until + 1).await;
        let mut stream = self.clients[number].events(request(from)).await.expect("the node keeps events");
        let mut events = Vec::new();
        loop {
            let message = stream.message().await.expect("the stream goes on").expect("it has no end");
            for event in message.events {
                if id(&event).0 > until {
                    return events;
                }
                events.push(event);
            }
        }
    }

    async fn refused(&self, number: usize, request: StreamEventsRequest) -> Code {
        let answer = self.clients[number].events(request).await;
        answer.expect_err("it is refused").code().expect("the node answers")
    }
}

/// Every id follows the one before: no gap, nothing twice.
fn assert_contiguous(events: &[proto::Event], mut expected: (u64, u32)) {
    for event in events {
        let found = id(event);
        if found != expected {
            expected = (expected.0 + 1, 0);
        }
        assert_eq!(found, expected);
        expected.1 += 1;
    }
}

fn bytes(events: &[proto::Event]) -> Vec<Vec<u8>> {
    events.iter().map(proto::Event::encode_to_vec).collect()
}

fn types(events: &[proto::Event], transaction: &[u8]) -> Vec<EventType> {
    events.iter().filter(|event| event.transaction_id == transaction).map(proto::Event::r#type).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_serve_the_same_events_and_go_on_after_a_kill_without_gap_or_duplicate() {
    let mut network = network(4, 2).await;
    for number in 0..4 {
        network.wait_signing(number).await;
    }
    let mut follower = {
        network.wait_height(OBSERVER, 1).await;
        network.clients[OBSERVER].events(request(None)).await.expect("the observer keeps events")
    };
    let (paid, _) = network.send(0, 0, 0).await;
    let voter = network.status(3).await.expect("node 3 answers").identity;
    network.govern(&["power", "--voter", &hex::encode(&voter), "--power", "2"], "").await;
    let height = network.status(1).await.expect("node 1 answers").height;

    let events = network.events(OBSERVER, None, height).await;
    assert_contiguous(&events, (1, 0));
    assert_eq!(bytes(&network.events(OTHER, Some((1, 0)), height).await), bytes(&events));
    let of_paid = types(&events, paid.as_bytes());
    assert_eq!(of_paid, [EventType::TransactionSubmitted, EventType::TransactionExecuted]);
    let changed = events.iter().find(|event| event.r#type() == EventType::ValidatorPowerChanged);
    let changed = changed.expect("the change is told");
    let Some(Payload::ValidatorPowerChanged(change)) = &changed.payload else { panic!("{changed:?}") };
    assert_eq!(change.after.as_ref().map(|after| (after.identity.clone(), after.power)), Some((voter, 2)));
    assert_eq!(change.effective_height, id(changed).0 + 3);
    assert_eq!(types(&events, &changed.transaction_id).len(), 3, "submitted, executed, changed");
    for event in events.iter().filter(|event| event.r#type() == EventType::BlockFinalised) {
        let Some(Payload::BlockFinalised(block)) = &event.payload else { panic!("{event:?}") };
        let known = network.clients[0].block(Some(node_core::types::Height::new(id(event).0))).await;
        assert_eq!(known.expect("node 0 answers").map(|known| known.hash), Some(block.block_hash.clone()));
    }
    questions_have_clear_answers(&network, changed).await;

    // The follower has taken some when the observer is killed, and goes on with the next one.
    let mut taken = Vec::new();
    while taken.last().is_none_or(|event| id(event).0 < 3) {
        taken.extend(follower.message().await.expect("it goes on").expect("it has no end").events);
    }
    network.devnet.kill_node(OBSERVER).await.expect("the node can be killed");
    while let Ok(Some(message)) = follower.message().await {
        taken.extend(message.events);
    }
    let (later, _) = network.send(1, 0, 1).await;
    network.devnet.start_node(OBSERVER).expect("the node starts again");
    let height = network.status(1).await.expect("node 1 answers").height;
    let (last_height, last_index) = id(taken.last().expect("some were taken"));
    until("the observer is back", || async { network.status(OBSERVER).await.filter(|status| status.height >= height) })
        .await;
    taken.extend(network.events(OBSERVER, Some((last_height, last_index + 1)), height).await);
    assert_contiguous(&taken, (1, 0));
    assert_eq!(types(&taken, later.as_bytes()).len(), 2);
    assert_eq!(bytes(&network.events(OTHER, None, height).await), bytes(&taken));
    the_program_prints_and_verifies(&mut network).await;
    network.devnet.stop().await.expect("the nodes stop");
}

async fn questions_have_clear_answers(network: &Network, changed: &proto::Event) {
    // Validators keep no events unless they are told to.
    assert_eq!(network.refused(0, request(None)).await, Code::FailedPrecondition);
    assert_eq!(network.refused(OBSERVER, request(Some((0, 0)))).await, Code::InvalidArgument);
    let only = StreamEventsRequest { groups: vec![EventGroup::Network.into()], until_newest: true, ..request(None) };
    let mut stream = network.clients[OBSERVER].events(only).await.expect("the observer keeps events");
    let mut found = Vec::new();
    while let Some(message) = stream.message().await.expect("the stream ends in good order") {
        found.extend(message.events);
    }
    assert_eq!(found, std::slice::from_ref(changed));
}

/// `althing-node events`, of a running observer and of the volume of a stopped one.
async fn the_program_prints_and_verifies(network: &mut Network) {
    let plan = network.devnet.plan();
    let endpoint = plan.nodes[OBSERVER].listen.grpc.to_string();
    let connection = ["--endpoint", &endpoint, "--tls", path(&plan.client)];
    let (code, printed, said) =
        run(&[&["events", "--from", "2:1", "--group", "block"], &connection[..]].concat(), "").await;
    assert_eq!(code, 0, "{said}");
    let first = printed.lines().next().expect("there are lines");
    let first: serde_json::Value = serde_json::from_str(first).expect("a line is a document");
    assert_eq!((&first["type"], &first["group"]), (&"block_finalised".into(), &"block".into()));
    assert!(first["id"].as_str().is_some_and(|id| id.starts_with("2:")), "{first}");
    assert_eq!(first["payload"]["blockHash"].as_str().map(str::len), Some(64), "{first}");

    let data = network.directory.path().join(format!("node-{OBSERVER}/data"));
    let verify = ["events", "verify", "--output", "json", "--data", path(&data)];
    let (code, _, said) = run(&verify, "").await;
    assert_eq!(code, 4, "a running node holds the lock: {said}");
    network.devnet.stop_node(OBSERVER).await.expect("the node stops");
    let (code, printed, said) = run(&verify, "").await;
    assert_eq!(code, 0, "{said}");
    let answer: serde_json::Value = serde_json::from_str(&printed).expect("one document");
    assert_eq!((&answer["oldest"], &answer["equal"]), (&1.into(), &true.into()));

    // Without its events the observer makes them again, the same as before.
    std::fs::remove_dir_all(data.join("events")).expect("the folder can be removed");
    network.devnet.start_node(OBSERVER).expect("the node starts again");
    let height = answer["newest"].as_u64().expect("a height");
    let again = network.events(OBSERVER, None, height).await;
    assert_eq!(bytes(&again), bytes(&network.events(OTHER, None, height).await));
}
