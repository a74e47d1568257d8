//! Rules of the engine that one small exchange can show; everything longer is for the simulator.

mod restart;
mod rounds;

use std::{fs, path::PathBuf, sync::Arc};

use super::{
    Alarm, Boot, DropReason, Effect, Engine, Input, LogEntry, LoggedValue, Origin, SessionState, SigningLog,
    TimeoutKind, proposer_at,
};
use crate::{
    codec::{Decode, Encode},
    crypto::{KeyPair, SigningBytes, verify_transaction},
    fixtures::{block, genesis, govern, governance_pair, identity, identity_pair, session_pair, transfer, uid},
    ledger::{MemoryStore, Recoveries, apply_genesis, snapshot},
    mempool::Refusal,
    session::{KeyList, NewKey, Owner, RecordEntry, SigningRecord, Slot},
    types::{
        Batch, Block, CommitCertificate, CommitSignature, Epoch, FailureReason, Genesis, GovernanceChange, Hash,
        Header, Height, Identity, PeerMessage, Proposal, ProposedBlock, Round, RoundCertificate, RoundSignature,
        Signature, Step, TimeMs, UnsignedProposal, UnsignedVote, Vote, VoteKind, voters_hash,
    },
};

const NOW_MS: u64 = 1_790_000_001_000;

fn boot(genesis: &Arc<Genesis>, n: u64, log: SigningLog) -> Boot {
    let mut store = MemoryStore::new();
    apply_genesis(&mut store, genesis).unwrap();
    Boot {
        genesis: genesis.clone(),
        recoveries: Recoveries::default(),
        identity: identity(n),
        identity_key: Some(identity_pair(n)),
        tip: None,
        executed: snapshot(&store).unwrap().unwrap(),
        effective_keys: Vec::new(),
        proposed_keys: Vec::new(),
        log,
        batches: Vec::new(),
        recent: Vec::new(),
    }
}

/// Voter `n` with its key of genesis cleared, before it starts.
fn voter(genesis: &Arc<Genesis>, n: u64, log: SigningLog) -> Engine {
    let mut engine = Engine::new(boot(genesis, n, log));
    let owner = Owner { pod: uid("pod"), container_start: TimeMs::new(1), boot: None, machine: None };
    let new = NewKey { seed: session_pair(n, 1).seed(), epoch: Epoch::FIRST, claim: None, owner };
    let key = KeyList::new().make(new).unwrap();
    engine.step(NOW_MS, Input::Cleared(key));
    engine
}

fn four() -> Arc<Genesis> {
    Arc::new(genesis(&[1, 1, 1, 1]))
}

fn said(n: u64, signer: &KeyPair, genesis: &Genesis, vote: UnsignedVote) -> Vote {
    let vote = UnsignedVote { voter: identity(n), ..vote };
    let signature = signer.sign(&SigningBytes::vote(&genesis.incarnation(), Epoch::FIRST, &vote));
    Vote { vote, epoch: Epoch::FIRST, signature }
}

fn prevote(height: u64, round: u32, value: Option<Hash>) -> UnsignedVote {
    let (height, round) = (Height::new(height), Round::new(round));
    UnsignedVote { kind: VoteKind::Prevote, height, round, value, voter: identity(0) }
}

fn hear(engine: &mut Engine, from: u64, message: PeerMessage) -> Vec<Effect> {
    engine.step(NOW_MS, Input::Message { from: identity(from), message })
}

fn drops(effects: &[Effect]) -> Vec<DropReason> {
    let reason = |effect: &Effect| match effect {
        Effect::Dropped { reason, .. } => Some(*reason),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

fn own_votes(effects: &[Effect], of: Identity) -> Vec<Vote> {
    let vote = |effect: &Effect| match effect {
        Effect::Broadcast(message) => match message.as_ref() {
            PeerMessage::Vote(vote) if vote.vote.voter == of => Some(*vote),
            _ => None,
        },
        _ => None,
    };
    effects.iter().filter_map(vote).collect()
}

/// The number of a voter that does not propose first at height 1.
fn not_first(genesis: &Genesis) -> u64 {
    let first = proposer_at(genesis.voter_set(), Height::new(1), Round::ZERO).identity;
    (0..4).find(|n| identity(*n) != first).unwrap()
}

#[test]
fn an_own_message_never_leaves_before_its_entry_is_flushed() {
    let genesis = four();
    let first = (0..4)
        .find(|n| identity(*n) == proposer_at(genesis.voter_set(), Height::new(1), Round::ZERO).identity)
        .unwrap();
    let effects = voter(&genesis, first, SigningLog::Fresh).step(NOW_MS, Input::Start);
    let at = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    let appended = at(|effect| matches!(effect, Effect::AppendLog(_)));
    let flushed = at(|effect| matches!(effect, Effect::FlushLog));
    let proposed = at(
        |effect| matches!(effect, Effect::Broadcast(message) if matches!(message.as_ref(), PeerMessage::ProposedHeader(_))),
    );
    assert!(appended < flushed && flushed < proposed);
}

#[test]
fn a_vote_is_dropped_with_its_reason() {
    let genesis = four();
    let mut engine = voter(&genesis, not_first(&genesis), SigningLog::Fresh);
    engine.step(NOW_MS, Input::Start);
    let other = (not_first(&genesis) + 1) % 4;
    let mut heard = |signer: &KeyPair, n, vote| {
        drops(&hear(&mut engine, other, PeerMessage::Vote(said(n, signer, &genesis, vote))))
    };
    let key = session_pair(other, 1);
    assert_eq!(heard(&key, other, prevote(1, 0, None)), []);
    assert_eq!(heard(&session_pair(other, 2), other, prevote(1, 1, None)), [DropReason::BadSignature]);
    assert_eq!(heard(&key, 77, prevote(1, 0, None)), [DropReason::NotAVoter]);
    assert_eq!(heard(&key, other, prevote(1, 11, None)), [DropReason::TooFarAhead]);
    assert_eq!(heard(&key, other, prevote(1_000, 0, None)), [DropReason::TooFarAhead]);
    assert_eq!(heard(&key, other, prevote(0, 0, None)), [DropReason::OldHeight]);
}

#[test]
fn messages_that_cannot_be_verified_yet_are_bounded_for_each_peer() {
    let genesis = four();
    let mut engine = voter(&genesis, not_first(&genesis), SigningLog::Fresh);
    engine.step(NOW_MS, Input::Start);
    let vote = |round| PeerMessage::Vote(said(2, &session_pair(2, 1), &genesis, prevote(4, round, None)));
    for round in 0..64 {
        assert_eq!(drops(&hear(&mut engine, 2, vote(round))), []);
    }
    assert_eq!(drops(&hear(&mut engine, 2, vote(64))), [DropReason::TooManyWaiting]);
    assert_eq!(drops(&hear(&mut engine, 3, vote(64))), []);
}

#[test]
fn a_foreign_signature_of_the_own_key_stops_signing() {
    let genesis = four();
    let me = not_first(&genesis);
    let mut engine = voter(&genesis, me, SigningLog::Fresh);
    engine.step(NOW_MS, Input::Start);
    assert!(engine.status().signing);
    let foreign = said(me, &session_pair(me, 1), &genesis, prevote(1, 3, Some(Hash::ZERO)));
    let effects = hear(&mut engine, (me + 1) % 4, PeerMessage::Vote(foreign));
    let alarmed = |effect: &Effect| matches!(effect, Effect::Alarm(Alarm::SignedElsewhere { .. }));
    assert!(effects.iter().any(alarmed));
    assert!(!engine.status().signing);
    assert_eq!(engine.status().session, SessionState::Stopped);
}

#[test]
fn what_was_said_before_a_restart_is_said_again_and_nothing_else() {
    let genesis = four();
    let me = not_first(&genesis);
    let mut engine = voter(&genesis, me, SigningLog::Fresh);
    let mut effects = engine.step(NOW_MS, Input::Start);
    let propose = effects.iter().find_map(|effect| match effect {
        Effect::SetTimer { id: id @ super::TimerId::Consensus { kind: TimeoutKind::Propose, .. }, .. } => Some(*id),
        _ => None,
    });
    effects.extend(engine.step(NOW_MS + 1_000, Input::Timer(propose.unwrap())));
    let before = own_votes(&effects, identity(me));
    assert_eq!(before.len(), 1);
    let mut log: Vec<Vec<u8>> = Vec::new();
    for effect in &effects {
        match effect {
            Effect::ResetLog { first, .. } => log = vec![first.clone()],
            Effect::AppendLog(entry) => log.push(entry.clone()),
            _ => {}
        }
    }
    let effects = voter(&genesis, me, SigningLog::Whole(log)).step(NOW_MS + 2_000, Input::Start);
    let after = own_votes(&effects, identity(me));
    assert!(!after.is_empty() && after.iter().all(|vote| *vote == before[0]));
}

#[test]
fn without_a_cleared_key_nothing_is_signed_until_it_is_cleared() {
    let genesis = four();
    let me = not_first(&genesis);
    let mut engine = Engine::new(boot(&genesis, me, SigningLog::Fresh));
    let effects = engine.step(NOW_MS, Input::Start);
    assert!(!engine.status().signing);
    let timer = effects.iter().find_map(|effect| match effect {
        Effect::SetTimer { id: id @ super::TimerId::Consensus { kind: TimeoutKind::Propose, .. }, .. } => Some(*id),
        _ => None,
    });
    assert_eq!(own_votes(&engine.step(NOW_MS + 1_000, Input::Timer(timer.unwrap())), identity(me)), []);
    let owner = Owner { pod: uid("pod"), container_start: TimeMs::new(1), boot: None, machine: None };
    let seed = session_pair(me, 1).seed();
    let key = KeyList::new().make(NewKey { seed, epoch: Epoch::FIRST, claim: None, owner }).unwrap();
    // The step has passed; the protocol is rebuilt from the log and says what it would have said.
    assert_eq!(own_votes(&engine.step(NOW_MS + 1_100, Input::Cleared(key)), identity(me)).len(), 1);
}

#[test]
fn a_broken_log_makes_every_key_of_before_useless() {
    let genesis = four();
    let mut engine = voter(&genesis, not_first(&genesis), SigningLog::Broken("torn".into()));
    let effects = engine.step(NOW_MS, Input::Start);
    assert!(!engine.status().signing);
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::FlushLog)));
}

#[test]
fn a_log_ahead_of_the_blocks_keeps_the_node_silent() {
    let genesis = four();
    let first = LogEntry::Start { height: Height::new(7), record: SigningRecord::new() }.encode();
    let log = SigningLog::Whole(vec![first]);
    let mut engine = voter(&genesis, not_first(&genesis), log.clone());
    engine.step(NOW_MS, Input::Start);
    assert!(!engine.status().signing);
    let effects = Engine::new(boot(&genesis, not_first(&genesis), log)).step(NOW_MS, Input::Start);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Alarm(Alarm::LogAhead { .. }))));
}

#[test]
fn a_block_without_a_proof_is_not_committed() {
    let genesis = four();
    let me = not_first(&genesis);
    let mut engine = voter(&genesis, me, SigningLog::Fresh);
    engine.step(NOW_MS, Input::Start);
    let asked = hear(&mut engine, (me + 1) % 4, PeerMessage::Status { height: Height::new(9) });
    let question = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if matches!(message.as_ref(), PeerMessage::BlocksRequest { .. }));
    assert!(asked.iter().any(question));
    let block = block(1, genesis.hash(), Vec::new());
    let signature = |n| CommitSignature { voter: identity(n), epoch: Epoch::FIRST, signature: Signature::new([1; 64]) };
    let certificate =
        CommitCertificate::new(Height::new(1), Round::ZERO, block.hash(), (0..4).map(signature).collect());
    let blocks = vec![crate::types::CertifiedBlock { block, certificate: certificate.unwrap() }];
    let effects = hear(&mut engine, (me + 1) % 4, PeerMessage::BlocksResponse { blocks });
    assert_eq!(drops(&effects), [DropReason::BadCertificate]);
    assert_eq!(engine.status().tip, Height::ZERO);
}

#[test]
fn once_a_recovery_is_accepted_no_block_of_before_is_committed() {
    let genesis = four();
    let me = not_first(&genesis);
    let voters = genesis.voter_set();
    let header = Header {
        voters_hash: voters_hash(voters, voters),
        parameters_hash: genesis.parameters.hash(),
        ..block(1, genesis.hash(), Vec::new()).header().clone()
    };
    let block = Block::new(header, Vec::new()).unwrap();
    let precommit = |n| {
        let vote = UnsignedVote { kind: VoteKind::Precommit, ..prevote(1, 0, Some(block.hash())) };
        let vote = said(n, &session_pair(n, 1), &genesis, vote);
        CommitSignature { voter: vote.vote.voter, epoch: vote.epoch, signature: vote.signature }
    };
    let certificate =
        CommitCertificate::new(Height::new(1), Round::ZERO, block.hash(), (0..4).map(precommit).collect()).unwrap();
    let blocks = vec![crate::types::CertifiedBlock { block, certificate }];
    let tip_after = |inputs: Vec<Input>| {
        let mut engine = voter(&genesis, me, SigningLog::Fresh);
        for input in inputs {
            engine.step(NOW_MS, input);
        }
        hear(&mut engine, (me + 1) % 4, PeerMessage::Status { height: Height::new(9) });
        hear(&mut engine, (me + 1) % 4, PeerMessage::BlocksResponse { blocks: blocks.clone() });
        engine.status().tip
    };
    assert_eq!(tip_after(vec![Input::Start]), Height::new(1));
    assert_eq!(tip_after(vec![Input::Start, Input::Superseded]), Height::ZERO);
    assert_eq!(tip_after(vec![Input::Superseded, Input::Start]), Height::ZERO);
}

#[test]
fn a_proposal_out_of_turn_is_dropped() {
    let genesis = four();
    let me = not_first(&genesis);
    let first = proposer_at(genesis.voter_set(), Height::new(1), Round::ZERO).identity;
    let other = (0..4).find(|n| *n != me && identity(*n) != first).unwrap();
    let mut engine = voter(&genesis, me, SigningLog::Fresh);
    engine.step(NOW_MS, Input::Start);
    let block = block(1, genesis.hash(), Vec::new());
    let (height, round) = (Height::new(1), Round::ZERO);
    let proposal = UnsignedProposal { height, round, pol_round: None, value: block.hash(), proposer: identity(other) };
    let bytes = SigningBytes::proposal(&genesis.incarnation(), Epoch::FIRST, &proposal);
    let signature = session_pair(other, 1).sign(&bytes);
    let proposal = Proposal { proposal, epoch: Epoch::FIRST, signature };
    let message = PeerMessage::Proposal(Box::new(ProposedBlock { proposal, block }));
    assert_eq!(drops(&hear(&mut engine, other, message)), [DropReason::NotTheProposer]);
}

/// One of each kind of entry.
fn entries() -> Vec<LogEntry> {
    let genesis = four();
    let vote = said(1, &session_pair(1, 1), &genesis, prevote(9, 1, Some(Hash::new([3; 32]))));
    let slot = Slot { height: Height::new(9), round: Round::new(1), step: Step::Prevote };
    let record = RecordEntry::new(slot, b"signed");
    let mut signed = SigningRecord::new();
    signed.add(record).unwrap();
    let block = block(9, Hash::new([5; 32]), Vec::new());
    let header = block.header().clone();
    let batch = Batch::new(vec![transfer(genesis.incarnation(), "alice", "bob", 0, 5)]).unwrap();
    let (height, round, pol_round) = (Height::new(9), Round::new(2), Some(Round::new(1)));
    let proposal = UnsignedProposal { height, round, pol_round, value: block.hash(), proposer: identity(1) };
    let bytes = SigningBytes::proposal(&genesis.incarnation(), Epoch::FIRST, &proposal);
    let proposal = Proposal { proposal, epoch: Epoch::FIRST, signature: session_pair(1, 1).sign(&bytes) };
    let value =
        LoggedValue { height, round, valid_round: pol_round, proposer: identity(1), value: block.hash(), valid: true };
    let Vote { vote: UnsignedVote { kind, value: voted, voter, .. }, epoch, signature } = vote;
    let signatures = vec![RoundSignature { kind, value: voted, voter, epoch, signature }];
    vec![
        LogEntry::Start { height, record: signed },
        LogEntry::OwnVote(record, vote),
        LogEntry::OwnProposal(record, proposal),
        LogEntry::Vote(vote),
        LogEntry::Proposal(proposal),
        LogEntry::Block(Arc::new(block)),
        LogEntry::Value(value),
        LogEntry::Timeout(TimeoutKind::Precommit, round),
        LogEntry::Polka(RoundCertificate { height, round: Round::new(1), signatures }),
        LogEntry::Header(Arc::new(header)),
        LogEntry::Batch(Arc::new(batch)),
    ]
}

#[test]
fn log_entries_have_their_frozen_bytes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/signing-log.hex");
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let text: String = entries().iter().map(|entry| hex(entry.encode())).collect();
    if std::env::var_os("UPDATE_TESTDATA").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let frozen = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(frozen, text, "testdata/signing-log.hex differs: the layout has changed");
}

#[test]
fn log_entries_are_read_back() {
    for entry in entries() {
        let bytes = entry.encode();
        assert_eq!(LogEntry::decode(&bytes).as_ref(), Ok(&entry));
        for length in 0..bytes.len() {
            assert!(LogEntry::decode(&bytes[..length]).is_err(), "{entry:?} cut to {length} bytes");
        }
    }
}

#[test]
fn only_a_transaction_of_the_governance_keys_waits_for_a_block() {
    let genesis = four();
    let mut engine = voter(&genesis, 1, SigningLog::Fresh);
    let mut submit = |signer: KeyPair| {
        let change = GovernanceChange::RemoveVoter { identity: identity(3) };
        let verified = verify_transaction(govern(genesis.incarnation(), 0, change, &[signer])).unwrap();
        let input = Input::Submitted { origin: Origin::Client, transactions: vec![verified] };
        let refusal = |effect: &Effect| match effect {
            Effect::Refused { reason, .. } => Some(*reason),
            _ => None,
        };
        engine.step(NOW_MS, input).iter().find_map(refusal)
    };
    let wrong = Some(Refusal::WouldFail(FailureReason::WrongSigners));
    assert_eq!([submit(governance_pair(1)), submit(governance_pair(0))], [wrong, None]);
}
