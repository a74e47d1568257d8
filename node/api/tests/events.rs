//! The bytes of events, frozen: followers of an older release read what a newer one keeps.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use node_api::{
    events::{decode, encode},
    proto::EventType,
};
use node_core::{
    events::{Event, EventId, EventPayload, TraceId},
    types::{
        AccountId, Amount, ChainId, Epoch, FailureReason, Governance, GovernanceChange, GovernanceKey, Hash, Height,
        Identity, Incarnation, KeepSession, Nonce, Payload, Power, ReceiptStatus, Results, RotateSession, Round,
        SessionKey, Signature, TimeMs, TransactionBody, TransactionId, Transfer, VoterEntry,
    },
};

fn hash(seed: u8) -> Hash {
    Hash::new([seed; 32])
}

fn voter(seed: u8, power: u64, epoch: u64) -> VoterEntry {
    VoterEntry {
        identity: Identity::new([seed; 32]),
        power: Power::new(power),
        session_key: SessionKey::new([seed + u8::try_from(epoch).expect("small"); 32]),
        epoch: Epoch::new(epoch),
    }
}

fn submitted(payload: Payload) -> EventPayload {
    let body = TransactionBody {
        incarnation: Incarnation::new([1; 32]),
        sender: AccountId::new([2; 32]),
        nonce: Nonce::new(3),
        valid_until: Height::new(400),
        payload,
    };
    EventPayload::TransactionSubmitted { body }
}

fn actions() -> Vec<EventPayload> {
    let (identity, key) = (Identity::new([10; 32]), SessionKey::new([20; 32]));
    vec![
        submitted(Payload::Transfer(Transfer { to: AccountId::new([4; 32]), amount: Amount::new(500) })),
        submitted(Payload::RotateSession(RotateSession {
            identity,
            epoch: Epoch::new(2),
            new_key: key,
            possession: Signature::new([5; 64]),
            co_signature: Some(Signature::new([6; 64])),
        })),
        submitted(Payload::KeepSession(KeepSession {
            identity,
            voided_epoch: Epoch::new(2),
            voided_key: key,
            signature: Signature::new([5; 64]),
        })),
        submitted(Payload::Governance(GovernanceChange::RemoveVoter { identity })),
    ]
}

fn results() -> Vec<EventPayload> {
    let executed = |position, status| EventPayload::TransactionExecuted { position, status };
    vec![
        executed(0, ReceiptStatus::Executed),
        executed(1, ReceiptStatus::Failed(FailureReason::BalanceTooSmall)),
        executed(2, ReceiptStatus::Expired),
        executed(3, ReceiptStatus::Deferred),
    ]
}

/// Every type, and every form that one has.
fn payloads() -> Vec<EventPayload> {
    let counts_from = Height::new(10);
    let mut payloads = vec![
        EventPayload::BlockCreated {
            block: hash(1),
            parent: hash(2),
            proposer: Identity::new([3; 32]),
            round: Round::new(1),
            transactions: 4,
        },
        EventPayload::ChainRecovered { number: 1, incarnation: Incarnation::new([9; 32]) },
    ];
    payloads.extend(actions());
    payloads.push(EventPayload::BlockValidated {
        block: hash(1),
        voters_hash: hash(5),
        parameters_hash: hash(6),
        results: Results::NONE,
    });
    payloads.push(EventPayload::ConsensusReached {
        block: hash(1),
        voters: 4,
        total_power: Power::new(40),
        quorum: Power::new(27),
    });
    payloads.extend(results());
    payloads.extend([
        EventPayload::ValidatorRegistered { voter: voter(30, 1, 1), counts_from },
        EventPayload::ValidatorRemoved { voter: voter(40, 1, 1), counts_from },
        EventPayload::ValidatorRotated { before: voter(50, 1, 1), after: voter(50, 1, 2), counts_from },
        EventPayload::ValidatorPowerChanged { before: voter(60, 1, 1), after: voter(60, 2, 1), counts_from },
        EventPayload::ParameterChanged { name: "block_interval_ms", before: 1_000, after: 500, counts_from },
        EventPayload::GovernanceKeysChanged {
            governance: Governance { threshold: 1, keys: vec![GovernanceKey::new([7; 32])] },
        },
        EventPayload::BlockFinalised { block: hash(1), receipts_root: hash(8), executed: 1, without_effect: 3 },
    ]);
    payloads
}

fn events() -> Vec<Event> {
    let event = |(index, payload): (u32, EventPayload)| {
        let about =
            matches!(payload, EventPayload::TransactionSubmitted { .. } | EventPayload::TransactionExecuted { .. });
        let transaction = about.then(|| TransactionId::new([index.to_be_bytes()[3] + 100; 32]));
        let trace = transaction.as_ref().map_or_else(|| TraceId::of_block(&hash(1)), TraceId::of_transaction);
        let id = EventId { height: Height::new(7), index };
        Event { id, time: TimeMs::new(1_790_000_000_000), transaction, trace, payload }
    };
    (0..).zip(payloads()).map(event).collect()
}

fn chain_id() -> ChainId {
    ChainId::new("demo-main").expect("a chain id")
}

#[test]
fn the_bytes_of_every_event_are_frozen() {
    let mut found = String::new();
    for event in events() {
        let bytes = encode(&chain_id(), std::slice::from_ref(&event));
        let kind = decode(&bytes).expect("it decodes")[0].r#type().as_str_name();
        writeln!(found, "{kind} {}", hex::encode(bytes)).expect("a text takes all");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/events.txt");
    if std::env::var_os("ALTHING_BLESS").is_some() {
        fs::write(&path, &found).expect("the file can be written");
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), found, "the form of events has changed");
}

#[test]
fn every_type_of_event_is_among_the_frozen_ones() {
    let decoded = decode(&encode(&chain_id(), &events())).expect("they decode");
    let found: BTreeSet<EventType> = decoded.iter().map(|event| event.r#type()).collect();
    let all = (1..).map_while(|number| EventType::try_from(number).ok());
    assert_eq!(found, all.collect());
    assert_eq!(decoded.len(), events().len());
}

/// The largest block is full of the smallest transactions: a transfer with one signature takes this many bytes or more.
const TRANSACTION_BYTES_MIN: usize = 230;

#[test]
fn the_events_of_the_largest_block_fit_their_record() {
    let chain_id = ChainId::new("a".repeat(63)).expect("the longest chain id");
    let body = TransactionBody {
        incarnation: Incarnation::new([1; 32]),
        sender: AccountId::new([2; 32]),
        nonce: Nonce::new(u64::MAX),
        valid_until: Height::new(u64::MAX),
        payload: Payload::Transfer(Transfer { to: AccountId::new([4; 32]), amount: Amount::new(u64::MAX) }),
    };
    let transaction = TransactionId::new([9; 32]);
    let (height, index) = (Height::new(u64::MAX), u32::MAX);
    let event = |payload| Event {
        id: EventId { height, index },
        time: TimeMs::new(u64::MAX),
        transaction: Some(transaction),
        trace: TraceId::of_transaction(&transaction),
        payload,
    };
    let status = ReceiptStatus::Failed(FailureReason::NothingChanges);
    let pair = [
        event(EventPayload::TransactionSubmitted { body }),
        event(EventPayload::TransactionExecuted { position: u32::MAX, status }),
    ];
    let bytes = encode(&chain_id, &pair).len();
    let transactions = node_core::types::BLOCK_BYTES_CEILING / TRANSACTION_BYTES_MIN;
    assert!(bytes * transactions < 56 << 20, "{bytes} bytes for a transaction");
}
