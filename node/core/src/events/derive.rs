//! From a decided block, the state before it and its execution to its events.

use super::{Event, EventId, EventPayload, TraceId};
use crate::{
    ledger::{CHANGE_DELAY_BLOCKS, Outcome, Snapshot},
    types::{
        Block, GovernanceChange, Height, Parameters, ParametersDraft, Payload, PendingSets, ReceiptStatus,
        RecoveryManifest, Timeout, Transaction, TransactionId, VoterEntry, VoterSet,
    },
};

/// A block with what was decided before it and what it did.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// The block.
    pub block: &'a Block,
    /// The state on which it was executed, without the recovery.
    pub before: &'a Snapshot,
    /// The recovery after which it is the first.
    pub recovery: Option<&'a RecoveryManifest>,
    /// What it did.
    pub outcome: &'a Outcome,
}

/// All events of a block, in order.
#[must_use]
pub fn events_of(decided: Decided<'_>) -> Vec<Event> {
    let Decided { block, before, recovery, outcome } = decided;
    let header = block.header();
    let (hash, next_sets) = (block.hash(), &outcome.sets);
    let mut events = Events { block, hash, list: Vec::new() };
    events.add(EventPayload::BlockCreated {
        block: hash,
        parent: header.parent,
        proposer: header.proposer,
        round: header.round,
        transactions: count(block.transactions().count()),
    });
    let sets = started_sets(&before.sets, recovery);
    if let Some(manifest) = recovery {
        let incarnation = manifest.incarnation();
        events.add(EventPayload::ChainRecovered { number: manifest.number, incarnation });
        events.add_changes(Change { before: &before.sets.third, after: &sets.third, counts_from: header.height }, &[]);
    }
    for transaction in block.transactions() {
        let body = transaction.body().clone();
        events.add_of(transaction.id(), EventPayload::TransactionSubmitted { body });
    }
    events.add(EventPayload::BlockValidated {
        block: hash,
        voters_hash: header.voters_hash,
        parameters_hash: header.parameters_hash,
        results: header.results,
    });
    events.add(EventPayload::ConsensusReached {
        block: hash,
        voters: count(sets.first.count()),
        total_power: sets.first.total_power(),
        quorum: sets.first.quorum(),
    });
    for receipt in &outcome.receipts {
        let payload = EventPayload::TransactionExecuted { position: receipt.index, status: receipt.status };
        events.add_of(receipt.transaction, payload);
    }
    let changing = changing(block, outcome);
    let counts_from = header.height.saturating_add(CHANGE_DELAY_BLOCKS);
    events.add_changes(Change { before: &sets.third, after: &next_sets.third, counts_from }, &changing);
    for transaction in &changing {
        events.add_rules(transaction, &before.chain.parameters, counts_from);
    }
    let executed = outcome.receipts.iter().filter(|receipt| receipt.status == ReceiptStatus::Executed).count();
    events.add(EventPayload::BlockFinalised {
        block: hash,
        receipts_root: outcome.receipts_root,
        executed: count(executed),
        without_effect: count(outcome.receipts.len().saturating_sub(executed)),
    });
    events.list
}

/// The sets of this height and the next two, as the execution of the block found them.
fn started_sets(sets: &PendingSets, recovery: Option<&RecoveryManifest>) -> PendingSets {
    // Execution has used the manifest before, so it fits the sets.
    let recovered = recovery.and_then(|manifest| manifest.recovered(sets).ok().flatten());
    recovered.unwrap_or_else(|| sets.clone())
}

/// The transactions of the block that may have changed voters or rules, in order.
fn changing<'a>(block: &'a Block, outcome: &Outcome) -> Vec<&'a Transaction> {
    let executed = |status: ReceiptStatus| status == ReceiptStatus::Executed;
    let pairs = block.transactions().zip(&outcome.receipts).filter(|(_, receipt)| executed(receipt.status));
    pairs
        .map(|(transaction, _)| transaction)
        .filter(|transaction| match transaction.body().payload {
            Payload::Transfer(_) | Payload::KeepSession(_) => false,
            Payload::RotateSession(_) | Payload::Governance(_) => true,
        })
        .collect()
}

/// Two voter sets, one after the other.
struct Change<'a> {
    before: &'a VoterSet,
    after: &'a VoterSet,
    counts_from: Height,
}

/// The events of a block in the making.
struct Events<'a> {
    block: &'a Block,
    hash: crate::types::Hash,
    list: Vec<Event>,
}

impl Events<'_> {
    fn add(&mut self, payload: EventPayload) {
        self.push(None, payload);
    }

    fn add_of(&mut self, transaction: TransactionId, payload: EventPayload) {
        self.push(Some(transaction), payload);
    }

    fn push(&mut self, transaction: Option<TransactionId>, payload: EventPayload) {
        let header = self.block.header();
        let id = EventId { height: header.height, index: count(self.list.len()) };
        let trace = transaction.as_ref().map_or_else(|| TraceId::of_block(&self.hash), TraceId::of_transaction);
        self.list.push(Event { id, time: header.time, transaction, trace, payload });
    }

    /// Who comes, goes, or is another one, in the order of identities: first those that were there.
    fn add_changes(&mut self, change: Change<'_>, changing: &[&Transaction]) {
        let Change { before, after, counts_from } = change;
        for voter in before.entries().iter().copied() {
            match after.get(&voter.identity).copied() {
                None => {
                    let cause = cause(changing, |transaction| removes(transaction, &voter));
                    self.push(cause, EventPayload::ValidatorRemoved { voter, counts_from });
                }
                Some(entry) => {
                    let cause = cause(changing, |transaction| makes(transaction, &entry));
                    if (entry.session_key, entry.epoch) != (voter.session_key, voter.epoch) {
                        let payload = EventPayload::ValidatorRotated { before: voter, after: entry, counts_from };
                        self.push(cause, payload);
                    }
                    if entry.power != voter.power {
                        let payload = EventPayload::ValidatorPowerChanged { before: voter, after: entry, counts_from };
                        self.push(cause, payload);
                    }
                }
            }
        }
        for voter in after.entries().iter().filter(|entry| before.get(&entry.identity).is_none()).copied() {
            let cause = cause(changing, |transaction| makes(transaction, &voter));
            self.push(cause, EventPayload::ValidatorRegistered { voter, counts_from });
        }
    }

    /// What a transaction changes beside the voters.
    fn add_rules(&mut self, transaction: &Transaction, in_force: &Parameters, counts_from: Height) {
        let Payload::Governance(change) = &transaction.body().payload else { return };
        match change {
            GovernanceChange::SetParameters(parameters) => {
                for ((name, before), (_, after)) in values(in_force).into_iter().zip(values(parameters)) {
                    if before != after {
                        let payload = EventPayload::ParameterChanged { name, before, after, counts_from };
                        self.add_of(transaction.id(), payload);
                    }
                }
            }
            GovernanceChange::SetKeys(governance) => {
                let governance = governance.clone();
                self.add_of(transaction.id(), EventPayload::GovernanceKeysChanged { governance });
            }
            GovernanceChange::AddVoter(_)
            | GovernanceChange::ReplaceVoter { .. }
            | GovernanceChange::RemoveVoter { .. }
            | GovernanceChange::SetPower { .. } => {}
        }
    }
}

/// The last transaction of the block that did it. None did when a rotation has only now run out of objections.
fn cause(changing: &[&Transaction], did: impl Fn(&Transaction) -> bool) -> Option<TransactionId> {
    changing.iter().rev().find(|transaction| did(transaction)).map(|transaction| transaction.id())
}

/// Whether a transaction takes this voter away.
fn removes(transaction: &Transaction, voter: &VoterEntry) -> bool {
    match &transaction.body().payload {
        Payload::Governance(GovernanceChange::RemoveVoter { identity }) => *identity == voter.identity,
        Payload::Governance(GovernanceChange::ReplaceVoter { former, voter: _ }) => *former == voter.identity,
        Payload::Governance(
            GovernanceChange::AddVoter(_)
            | GovernanceChange::SetPower { .. }
            | GovernanceChange::SetParameters(_)
            | GovernanceChange::SetKeys(_),
        )
        | Payload::Transfer(_)
        | Payload::RotateSession(_)
        | Payload::KeepSession(_) => false,
    }
}

/// Whether a transaction makes a voter what it will be, in a part.
fn makes(transaction: &Transaction, entry: &VoterEntry) -> bool {
    match &transaction.body().payload {
        Payload::RotateSession(rotation) => rotation.new_key == entry.session_key,
        Payload::Governance(GovernanceChange::SetPower { identity, power }) => {
            (identity, power) == (&entry.identity, &entry.power)
        }
        Payload::Governance(change) => change.new_voter().is_some_and(|voter| voter.session_key == entry.session_key),
        Payload::Transfer(_) | Payload::KeepSession(_) => false,
    }
}

/// Every parameter by its name. The names are part of the events and never change.
fn values(parameters: &Parameters) -> [(&'static str, u64); 10] {
    let ParametersDraft {
        block_interval_ms,
        propose_timeout: Timeout { base_ms: propose_base, delta_ms: propose_delta },
        prevote_timeout: Timeout { base_ms: prevote_base, delta_ms: prevote_delta },
        precommit_timeout: Timeout { base_ms: precommit_base, delta_ms: precommit_delta },
        transactions_per_block_max,
        block_bytes_max,
        time_drift_ms_max,
    } = **parameters;
    [
        ("block_interval_ms", block_interval_ms),
        ("propose_timeout.base_ms", propose_base),
        ("propose_timeout.delta_ms", propose_delta),
        ("prevote_timeout.base_ms", prevote_base),
        ("prevote_timeout.delta_ms", prevote_delta),
        ("precommit_timeout.base_ms", precommit_base),
        ("precommit_timeout.delta_ms", precommit_delta),
        ("transactions_per_block_max", u64::from(transactions_per_block_max)),
        ("block_bytes_max", u64::from(block_bytes_max)),
        ("time_drift_ms_max", time_drift_ms_max),
    ]
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
