//! Events as they are stored and sent. The bytes are the same on every node, and frozen.

use node_core::{
    codec::Encode as _,
    events::{Event, EventGroup, EventId, EventPayload},
    types::{
        ChainId, Height, KeepSession, Payload, ReceiptStatus, RotateSession, TransactionBody, Transfer, VoterEntry,
    },
};
use prost::Message as _;

use crate::proto::{self, event::Payload as Content, transaction_submitted::Action};

/// The version of the form of events.
pub const SCHEMA_VERSION: u32 = 1;
/// Events in one message of a stream.
pub const EVENTS_PER_MESSAGE_MAX: usize = 1_000;

/// The events of one height as they are stored: a message whose `events` are all of them.
#[must_use]
pub fn encode(chain_id: &ChainId, events: &[Event]) -> Vec<u8> {
    let events = events.iter().map(|event| to_proto(chain_id, event)).collect();
    proto::StreamEventsResponse { events }.encode_to_vec()
}

/// The events that [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Vec<proto::Event>, prost::DecodeError> {
    proto::StreamEventsResponse::decode(bytes).map(|stored| stored.events)
}

/// One event as it is stored and sent.
#[must_use]
pub fn to_proto(chain_id: &ChainId, event: &Event) -> proto::Event {
    let Event { id, time, transaction, trace, payload } = event;
    let content = content(id.height, payload);
    proto::Event {
        id: Some(id_to_proto(*id)),
        r#type: kind(&content).into(),
        schema_version: SCHEMA_VERSION,
        chain_id: chain_id.to_string(),
        time_ms: time.get(),
        transaction_id: transaction.map(|id| id.as_bytes().to_vec()).unwrap_or_default(),
        trace_id: trace.as_bytes().to_vec(),
        group: group_to_proto(payload.group()).into(),
        payload: Some(content),
    }
}

/// A place in the chain.
#[must_use]
pub fn id_to_proto(id: EventId) -> proto::EventId {
    proto::EventId { height: id.height.get(), index: id.index }
}

/// The same back.
#[must_use]
pub fn id_from_proto(id: proto::EventId) -> EventId {
    EventId { height: Height::new(id.height), index: id.index }
}

/// A group.
#[must_use]
pub fn group_to_proto(group: EventGroup) -> proto::EventGroup {
    match group {
        EventGroup::Validation => proto::EventGroup::Validation,
        EventGroup::Consensus => proto::EventGroup::Consensus,
        EventGroup::Block => proto::EventGroup::Block,
        EventGroup::Transaction => proto::EventGroup::Transaction,
        EventGroup::Network => proto::EventGroup::Network,
    }
}

fn kind(content: &Content) -> proto::EventType {
    match content {
        Content::BlockCreated(_) => proto::EventType::BlockCreated,
        Content::BlockValidated(_) => proto::EventType::BlockValidated,
        Content::BlockFinalised(_) => proto::EventType::BlockFinalised,
        Content::ConsensusReached(_) => proto::EventType::ConsensusReached,
        Content::TransactionSubmitted(_) => proto::EventType::TransactionSubmitted,
        Content::TransactionExecuted(_) => proto::EventType::TransactionExecuted,
        Content::ValidatorRegistered(_) => proto::EventType::ValidatorRegistered,
        Content::ValidatorRemoved(_) => proto::EventType::ValidatorRemoved,
        Content::ValidatorRotated(_) => proto::EventType::ValidatorRotated,
        Content::ValidatorPowerChanged(_) => proto::EventType::ValidatorPowerChanged,
        Content::ParameterChanged(_) => proto::EventType::ParameterChanged,
        Content::GovernanceKeysChanged(_) => proto::EventType::GovernanceKeysChanged,
        Content::ChainRecovered(_) => proto::EventType::ChainRecovered,
    }
}

fn content(height: Height, payload: &EventPayload) -> Content {
    match payload {
        EventPayload::BlockCreated { block, parent, proposer, round, transactions } => {
            Content::BlockCreated(proto::BlockCreated {
                block_hash: raw(block.as_bytes()),
                parent: raw(parent.as_bytes()),
                proposer: raw(proposer.as_bytes()),
                round: round.get(),
                transactions: *transactions,
            })
        }
        EventPayload::BlockValidated { block, voters_hash, parameters_hash, results } => {
            Content::BlockValidated(proto::BlockValidated {
                block_hash: raw(block.as_bytes()),
                voters_hash: raw(voters_hash.as_bytes()),
                parameters_hash: raw(parameters_hash.as_bytes()),
                results_height: height.get().saturating_sub(2),
                state_root: raw(results.roots.state_root.as_bytes()),
                receipts_root: raw(results.receipts_root.as_bytes()),
            })
        }
        EventPayload::BlockFinalised { block, receipts_root, executed, without_effect } => {
            Content::BlockFinalised(proto::BlockFinalised {
                block_hash: raw(block.as_bytes()),
                receipts_root: raw(receipts_root.as_bytes()),
                executed: *executed,
                without_effect: *without_effect,
            })
        }
        EventPayload::ConsensusReached { block, voters, total_power, quorum } => {
            let (block_hash, voters) = (raw(block.as_bytes()), *voters);
            let (total_power, quorum) = (total_power.get(), quorum.get());
            Content::ConsensusReached(proto::ConsensusReached { block_hash, voters, total_power, quorum })
        }
        EventPayload::TransactionSubmitted { body } => Content::TransactionSubmitted(submitted(body)),
        EventPayload::TransactionExecuted { position, status } => {
            Content::TransactionExecuted(executed(*position, *status))
        }
        EventPayload::ValidatorRegistered { voter: entry, counts_from } => {
            let (voter, effective_height) = (Some(voter(entry)), counts_from.get());
            Content::ValidatorRegistered(proto::ValidatorRegistered { voter, effective_height })
        }
        EventPayload::ValidatorRemoved { voter: entry, counts_from } => {
            let (voter, effective_height) = (Some(voter(entry)), counts_from.get());
            Content::ValidatorRemoved(proto::ValidatorRemoved { voter, effective_height })
        }
        EventPayload::ValidatorRotated { before, after, counts_from } => {
            let (before, after, effective_height) = (Some(voter(before)), Some(voter(after)), counts_from.get());
            Content::ValidatorRotated(proto::ValidatorRotated { before, after, effective_height })
        }
        EventPayload::ValidatorPowerChanged { before, after, counts_from } => {
            let (before, after, effective_height) = (Some(voter(before)), Some(voter(after)), counts_from.get());
            Content::ValidatorPowerChanged(proto::ValidatorPowerChanged { before, after, effective_height })
        }
        EventPayload::ParameterChanged { name, before, after, counts_from } => {
            let (name, effective_height) = ((*name).to_owned(), counts_from.get());
            let (before, after) = (*before, *after);
            Content::ParameterChanged(proto::ParameterChanged { name, before, after, effective_height })
        }
        EventPayload::GovernanceKeysChanged { governance } => {
            let keys = governance.keys.iter().map(|key| raw(key.as_bytes())).collect();
            let threshold = governance.threshold;
            Content::GovernanceKeysChanged(proto::GovernanceKeysChanged { threshold, keys })
        }
        EventPayload::ChainRecovered { number, incarnation } => {
            let (number, incarnation) = (*number, raw(incarnation.as_bytes()));
            Content::ChainRecovered(proto::ChainRecovered { number, incarnation })
        }
    }
}

fn submitted(body: &TransactionBody) -> proto::TransactionSubmitted {
    let TransactionBody { incarnation: _, sender, nonce, valid_until, payload } = body;
    let action = match payload {
        Payload::Transfer(Transfer { to, amount }) => {
            Action::Transfer(proto::EventTransfer { to: raw(to.as_bytes()), amount: amount.get() })
        }
        Payload::RotateSession(RotateSession { identity, epoch, new_key, possession: _, co_signature }) => {
            Action::Rotation(proto::EventRotation {
                identity: raw(identity.as_bytes()),
                epoch: epoch.get(),
                session_key: raw(new_key.as_bytes()),
                co_signed: co_signature.is_some(),
            })
        }
        Payload::KeepSession(KeepSession { identity, voided_epoch, voided_key, signature: _ }) => {
            Action::Objection(proto::EventObjection {
                identity: raw(identity.as_bytes()),
                epoch: voided_epoch.get(),
                session_key: raw(voided_key.as_bytes()),
            })
        }
        Payload::Governance(change) => Action::Governance(change.encode()),
    };
    proto::TransactionSubmitted {
        sender: raw(sender.as_bytes()),
        nonce: nonce.get(),
        valid_until: valid_until.get(),
        action: Some(action),
    }
}

fn executed(position: u32, status: ReceiptStatus) -> proto::TransactionExecuted {
    let (outcome, failure) = match status {
        ReceiptStatus::Executed => (proto::EventOutcome::Executed, 0),
        ReceiptStatus::Failed(reason) => (proto::EventOutcome::Failed, u32::from(reason as u8)),
        ReceiptStatus::Expired => (proto::EventOutcome::Expired, 0),
        ReceiptStatus::Deferred => (proto::EventOutcome::Deferred, 0),
    };
    proto::TransactionExecuted { position, outcome: outcome.into(), failure }
}

fn voter(entry: &VoterEntry) -> proto::EventVoter {
    let VoterEntry { identity, power, session_key, epoch } = entry;
    proto::EventVoter {
        identity: raw(identity.as_bytes()),
        power: power.get(),
        session_key: raw(session_key.as_bytes()),
        epoch: epoch.get(),
    }
}

fn raw(bytes: &[u8; 32]) -> Vec<u8> {
    bytes.to_vec()
}
