//! The events of blocks on a chain in memory: order, heights, causes, and that every node gives the same.

use super::{Decided, Event, EventGroup, EventId, EventPayload, TraceId, events_of};
use crate::{
    crypto::{KeyPair, SigningBytes},
    fixtures::{
        Rotation, block, genesis, govern, governance_pair, identity, new_voter, session_key, session_pair, transfer,
    },
    ledger::{MemoryStore, Recoveries, account, apply_genesis, commit_outcome, execute_after, snapshot},
    types::{
        AccountId, Epoch, FailureReason, Governance, GovernanceChange, GovernanceKey, Hash, Height, Incarnation,
        Parameters, ParametersDraft, Power, ReceiptStatus, RecoveredVoter, RecoveryManifest, SessionKey, Timeout,
        Transaction, TransactionId,
    },
};

/// A chain that gives the events of whatever blocks it is given.
struct TestChain {
    store: MemoryStore,
    incarnation: Incarnation,
    recoveries: Recoveries,
    tip: Hash,
    height: u64,
}

impl TestChain {
    fn new() -> Self {
        let genesis = genesis(&[1; 6]);
        let mut store = MemoryStore::new();
        apply_genesis(&mut store, &genesis).unwrap();
        let (incarnation, tip) = (genesis.incarnation(), genesis.hash());
        Self { store, incarnation, recoveries: Recoveries::default(), tip, height: 0 }
    }

    fn run(&mut self, transactions: Vec<Transaction>) -> Vec<Event> {
        let block = block(self.height + 1, self.tip, transactions);
        let before = snapshot(&self.store).unwrap().unwrap();
        let outcome = execute_after(&self.store, &block, &self.recoveries).unwrap().unwrap();
        let recovery = self.recoveries.before(block.header().height);
        let decided = Decided { block: &block, before: &before, recovery, outcome: &outcome };
        let events = events_of(decided);
        assert_eq!(events_of(decided), events, "a second derivation gives the same");
        commit_outcome(&mut self.store, outcome).unwrap();
        self.height += 1;
        self.tip = block.hash();
        events
    }

    fn run_to(&mut self, height: u64) {
        while self.height < height {
            self.run(Vec::new());
        }
    }

    /// One change in a block of its own: what it says about the network, with its transaction.
    fn govern(&mut self, change: GovernanceChange) -> (TransactionId, Vec<Event>) {
        let nonce = account(&self.store, &AccountId::governance()).unwrap().nonce.get();
        let transaction = govern(self.incarnation, nonce, change, &[governance_pair(0)]);
        let id = transaction.id();
        (id, network(self.run(vec![transaction])))
    }
}

fn network(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().filter(|event| event.payload.group() == EventGroup::Network).collect()
}

/// `index group name`, one a line.
fn lines(events: &[Event]) -> Vec<String> {
    let name = |payload: &EventPayload| {
        let text = format!("{payload:?}");
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let line = |event: &Event| format!("{} {:?} {}", event.id, event.payload.group(), name(&event.payload));
    events.iter().map(line).collect()
}

#[test]
fn an_empty_block_is_created_validated_agreed_upon_and_finalised() {
    let mut chain = TestChain::new();
    let expected = |height: u64| {
        [
            "0 Block BlockCreated",
            "1 Validation BlockValidated",
            "2 Consensus ConsensusReached",
            "3 Block BlockFinalised",
        ]
        .map(|line| format!("{height}:{line}"))
    };
    assert_eq!(lines(&chain.run(Vec::new())), expected(1));
    let events = chain.run(Vec::new());
    assert_eq!(lines(&events), expected(2));
    for event in &events {
        assert_eq!(event.time, block(2, Hash::ZERO, Vec::new()).header().time);
        assert_eq!((event.transaction, event.trace), (None, TraceId::of_block(&chain.tip)));
    }
    let reached = EventPayload::ConsensusReached {
        block: chain.tip,
        voters: 6,
        total_power: Power::new(6),
        quorum: Power::new(5),
    };
    assert_eq!(events[2].payload, reached);
}

#[test]
fn transactions_are_submitted_in_their_order_and_then_have_their_results() {
    let mut chain = TestChain::new();
    let pay = |nonce, amount| transfer(chain.incarnation, "alice", "bob", nonce, amount);
    let transactions = vec![pay(0, 10), pay(1, 5_000), pay(7, 1), pay(0, 1)];
    let ids: Vec<_> = transactions.iter().map(Transaction::id).collect();
    let events = chain.run(transactions);
    assert_eq!(
        lines(&events),
        [
            "1:0 Block BlockCreated",
            "1:1 Transaction TransactionSubmitted",
            "1:2 Transaction TransactionSubmitted",
            "1:3 Transaction TransactionSubmitted",
            "1:4 Transaction TransactionSubmitted",
            "1:5 Validation BlockValidated",
            "1:6 Consensus ConsensusReached",
            "1:7 Transaction TransactionExecuted",
            "1:8 Transaction TransactionExecuted",
            "1:9 Transaction TransactionExecuted",
            "1:10 Transaction TransactionExecuted",
            "1:11 Block BlockFinalised",
        ]
    );
    let statuses = [
        ReceiptStatus::Executed,
        ReceiptStatus::Failed(FailureReason::BalanceTooSmall),
        ReceiptStatus::Deferred,
        ReceiptStatus::Failed(FailureReason::NonceUsed),
    ];
    for (position, (id, status)) in ids.iter().zip(statuses).enumerate() {
        let (submitted, executed) = (&events[1 + position], &events[7 + position]);
        assert_eq!((submitted.transaction, executed.transaction), (Some(*id), Some(*id)));
        assert_eq!((submitted.trace, executed.trace), (TraceId::of_transaction(id), TraceId::of_transaction(id)));
        let position = u32::try_from(position).unwrap();
        assert_eq!(executed.payload, EventPayload::TransactionExecuted { position, status });
    }
    let EventPayload::BlockFinalised { executed, without_effect, .. } = events[11].payload else {
        panic!("{events:?}")
    };
    assert_eq!((executed, without_effect), (1, 3));
}

#[test]
fn a_change_of_voters_stands_where_it_is_decided_and_names_its_transaction_and_when_it_counts() {
    let mut chain = TestChain::new();
    let voter = new_voter(chain.incarnation, 10, 1, 1);
    let (id, added) = chain.govern(GovernanceChange::AddVoter(voter));
    assert_eq!(lines(&added), ["1:5 Network ValidatorRegistered"]);
    assert_eq!(added[0].transaction, Some(id));
    let EventPayload::ValidatorRegistered { voter, counts_from } = &added[0].payload else { panic!("{added:?}") };
    assert_eq!((voter.identity, *counts_from), (identity(10), Height::new(4)));
    // Nothing more is said when it begins to count.
    for _ in 2..=4 {
        assert_eq!(network(chain.run(Vec::new())), []);
    }

    let (id, removed) = chain.govern(GovernanceChange::RemoveVoter { identity: identity(0) });
    assert_eq!(lines(&removed), ["5:5 Network ValidatorRemoved"]);
    assert_eq!(removed[0].transaction, Some(id));
    let replacement = new_voter(chain.incarnation, 11, 1, 1);
    let (id, replaced) = chain.govern(GovernanceChange::ReplaceVoter { former: identity(1), voter: replacement });
    assert_eq!(lines(&replaced), ["6:5 Network ValidatorRemoved", "6:6 Network ValidatorRegistered"]);
    assert!(replaced.iter().all(|event| event.transaction == Some(id)));
    let (id, changed) = chain.govern(GovernanceChange::SetPower { identity: identity(2), power: Power::new(2) });
    let EventPayload::ValidatorPowerChanged { before, after, counts_from } = &changed[0].payload else {
        panic!("{changed:?}")
    };
    assert_eq!((before.power, after.power, *counts_from), (Power::new(1), Power::new(2), Height::new(10)));
    assert_eq!(changed[0].transaction, Some(id));
}

#[test]
fn a_transaction_that_failed_changes_nothing() {
    let mut chain = TestChain::new();
    let (_, refused) = chain.govern(GovernanceChange::RemoveVoter { identity: identity(77) });
    assert_eq!(refused, []);
}

#[test]
fn a_rotation_stands_where_nobody_can_object_any_more() {
    let mut chain = TestChain::new();
    let rotation = |n, co_signer| Rotation { n, epoch: 2, co_signer, valid_until: 50 };
    let signed = rotation(0, Some(session_pair(0, 1))).transaction(chain.incarnation);
    let alone = rotation(1, None).transaction(chain.incarnation);
    let id = signed.id();
    let events = network(chain.run(vec![signed, alone]));
    let [Event { payload: EventPayload::ValidatorRotated { before, after, counts_from }, transaction, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((before.session_key, after.session_key), (session_key(0, 1), session_key(0, 2)));
    assert_eq!((*counts_from, *transaction), (Height::new(4), Some(id)));

    chain.run_to(10);
    let events = network(chain.run(Vec::new()));
    let [Event { id, payload: EventPayload::ValidatorRotated { after, counts_from, .. }, transaction, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((after.session_key, *counts_from), (session_key(1, 2), Height::new(14)));
    assert_eq!((id.height, *transaction), (Height::new(11), None));
}

#[test]
fn every_parameter_that_changes_has_its_event() {
    let mut chain = TestChain::new();
    let parameters = Parameters::new(ParametersDraft {
        block_interval_ms: 2_000,
        propose_timeout: Timeout { base_ms: 1_000, delta_ms: 700 },
        ..ParametersDraft::default()
    });
    let (id, events) = chain.govern(GovernanceChange::SetParameters(parameters.unwrap()));
    let said: Vec<_> = events
        .iter()
        .map(|event| match &event.payload {
            EventPayload::ParameterChanged { name, before, after, counts_from } => {
                (*name, *before, *after, counts_from.get(), event.transaction == Some(id))
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(said, [("block_interval_ms", 1_000, 2_000, 4, true), ("propose_timeout.delta_ms", 500, 700, 4, true)]);
    let mut keys: Vec<_> = [0, 1].map(|n| GovernanceKey::new(governance_pair(n).public())).to_vec();
    keys.sort();
    let governance = Governance { threshold: 2, keys };
    let (_, events) = chain.govern(GovernanceChange::SetKeys(governance.clone()));
    assert_eq!(events[0].payload, EventPayload::GovernanceKeysChanged { governance });
}

#[test]
fn a_recovery_stands_with_its_keys_at_the_first_height_after_it() {
    let mut chain = TestChain::new();
    chain.run_to(5);
    let now = snapshot(&chain.store).unwrap().unwrap();
    let (parent, epoch) = (now.chain.incarnation, Epoch::new(9));
    let fresh = |n| -> KeyPair { session_pair(n, 100) };
    let mut voters: Vec<_> = (0..6)
        .map(|n| {
            let (identity, session_key) = (identity(n), SessionKey::new(fresh(n).public()));
            let bytes = SigningBytes::recovery_possession(&parent, 1, &identity, epoch, &session_key);
            RecoveredVoter { identity, epoch, session_key, possession: fresh(n).sign(&bytes) }
        })
        .collect();
    voters.sort_by_key(|voter| voter.identity);
    let manifest = RecoveryManifest {
        chain_id: now.chain.chain_id,
        genesis: Hash::ZERO,
        number: 1,
        parent,
        height: now.progress.height,
        block: now.progress.block,
        state_root: now.results.roots.state_root,
        voters,
    };
    chain.recoveries = Recoveries::new([manifest.clone()]);
    let events = chain.run(Vec::new());
    let said = lines(&events);
    assert_eq!(said[..2], ["6:0 Block BlockCreated", "6:1 Network ChainRecovered"]);
    assert_eq!(events[1].payload, EventPayload::ChainRecovered { number: 1, incarnation: manifest.incarnation() });
    for event in &events[2..8] {
        let EventPayload::ValidatorRotated { after, counts_from, .. } = &event.payload else { panic!("{event:?}") };
        assert_eq!((after.epoch, *counts_from), (epoch, Height::new(6)));
    }
    assert_eq!(network(chain.run(Vec::new())), []);
}

#[test]
fn an_id_reads_back_as_it_is_written_and_a_height_alone_is_its_first_event() {
    let id = EventId { height: Height::new(12), index: 3 };
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!("12".parse(), Ok(EventId { height: Height::new(12), index: 0 }));
    for wrong in ["", ":", "1:", ":1", "1:2:3", "+1:2", "1:-2", "a", "1:4294967296", "18446744073709551616"] {
        assert!(wrong.parse::<EventId>().is_err(), "{wrong}");
    }
}
