//! How long a round lasts that cannot decide, and how long a proposer is waited for that says nothing.

use std::sync::Arc;

use super::{NOW_MS, four, hear, not_first, own_votes, prevote, said, voter};
use crate::{
    codec::Decode,
    consensus::{Effect, Engine, Input, LogEntry, SigningLog, TimeoutKind, TimerId, proposer_at},
    fixtures::{block, identity, session_pair},
    ledger::{Applied, MemoryStore, apply_block, apply_genesis, snapshot},
    types::{
        Block, CertifiedBlock, CommitCertificate, CommitSignature, Genesis, Hash, Header, Height, Identity,
        PeerMessage, Results, Round, UnsignedVote, Vote, VoteKind, voters_hash,
    },
};

fn precommit(genesis: &Genesis, n: u64, value: Option<Hash>) -> PeerMessage {
    let vote = UnsignedVote { kind: VoteKind::Precommit, ..prevote(1, 0, value) };
    PeerMessage::Vote(said(n, &session_pair(n, 1), genesis, vote))
}

/// The timers of the protocol that are set, with their waits.
fn waits(effects: &[Effect], wanted: TimeoutKind) -> Vec<(Round, u64)> {
    let wait = |effect: &Effect| match effect {
        Effect::SetTimer { id: TimerId::Consensus { round, kind, .. }, after_ms } if *kind == wanted => {
            Some((*round, *after_ms))
        }
        _ => None,
    };
    effects.iter().filter_map(wait).collect()
}

fn log_of(effects: &[Effect]) -> Vec<Vec<u8>> {
    let mut log = Vec::new();
    for effect in effects {
        match effect {
            Effect::ResetLog { first, .. } => log = vec![first.clone()],
            Effect::AppendLog(entry) => log.push(entry.clone()),
            _ => {}
        }
    }
    log
}

fn timeouts(log: &[Vec<u8>]) -> Vec<(TimeoutKind, Round)> {
    let timeout = |bytes: &Vec<u8>| match LogEntry::decode(bytes) {
        Ok(LogEntry::Timeout(kind, round)) => Some((kind, round)),
        _ => None,
    };
    log.iter().filter_map(timeout).collect()
}

#[test]
fn a_round_ends_as_soon_as_a_quorum_has_precommitted_nothing() {
    let genesis = four();
    let me = not_first(&genesis);
    let others: Vec<u64> = (0..4).filter(|n| *n != me).collect();
    let mut engine = voter(&genesis, me, SigningLog::Fresh);
    let mut effects = engine.step(NOW_MS, Input::Start);
    for n in &others[..2] {
        effects.extend(hear(&mut engine, *n, precommit(&genesis, *n, None)));
    }
    assert_eq!((engine.status().round, engine.status().rounds_ended_early), (0, 0));
    let last = hear(&mut engine, others[2], precommit(&genesis, others[2], None));
    assert_eq!((engine.status().round, engine.status().rounds_ended_early), (1, 1));
    let timer = TimerId::Consensus { height: Height::new(1), round: Round::ZERO, kind: TimeoutKind::Precommit };
    assert!(last.iter().any(|effect| matches!(effect, Effect::CancelTimer(id) if *id == timer)));
    effects.extend(last);
    // It is in the log as if the time had passed, so the replay comes to the same round and says nothing else.
    let log = log_of(&effects);
    assert_eq!(timeouts(&log), [(TimeoutKind::Precommit, Round::ZERO)]);
    let mut again = voter(&genesis, me, SigningLog::Whole(log));
    let repeated = own_votes(&again.step(NOW_MS + 10, Input::Start), identity(me));
    assert_eq!((again.status().round, again.status().rounds_ended_early), (1, 0));
    let before = own_votes(&effects, identity(me));
    assert!(repeated.iter().all(|vote| before.contains(vote)), "{repeated:?} after {before:?}");
}

#[test]
fn a_round_in_which_a_block_may_still_be_decided_waits() {
    let genesis = four();
    let me = not_first(&genesis);
    let others: Vec<u64> = (0..4).filter(|n| *n != me).collect();
    let mut engine = voter(&genesis, me, SigningLog::Fresh);
    engine.step(NOW_MS, Input::Start);
    let values = [None, Some(Hash::new([3; 32])), None];
    let mut effects = Vec::new();
    for (n, value) in others.into_iter().zip(values) {
        effects.extend(hear(&mut engine, n, precommit(&genesis, n, value)));
    }
    assert_eq!(waits(&effects, TimeoutKind::Precommit), [(Round::ZERO, 500)]);
    assert_eq!((engine.status().round, engine.status().rounds_ended_early), (0, 0));
}

/// A chain of empty blocks that every voter has certified, with the node that follows it.
struct Followed {
    genesis: Arc<Genesis>,
    store: MemoryStore,
    results: Vec<Results>,
    parent: Hash,
    engine: Engine,
}

impl Followed {
    fn new(me: u64) -> Self {
        let genesis = four();
        let mut store = MemoryStore::new();
        apply_genesis(&mut store, &genesis).unwrap();
        let before = snapshot(&store).unwrap().unwrap().results;
        let mut engine = voter(&genesis, me, SigningLog::Fresh);
        engine.step(NOW_MS, Input::Start);
        let parent = genesis.hash();
        Self { genesis, store, results: vec![Results::NONE, before], parent, engine }
    }

    fn block(&self, height: u64) -> Block {
        let voters = self.genesis.voter_set();
        let header = Header {
            voters_hash: voters_hash(voters, voters),
            parameters_hash: self.genesis.parameters.hash(),
            results: self.results[usize::try_from(height).unwrap() - 1],
            ..block(height, self.parent, Vec::new()).header().clone()
        };
        Block::new(header, Vec::new()).unwrap()
    }

    /// The block of a height comes with its certificate, and the votes of some voters. Returns what the node does next.
    fn follow(&mut self, height: u64, voting: &[u64]) -> Vec<Effect> {
        let block = self.block(height);
        let vote = |n, kind| {
            let vote = UnsignedVote { kind, ..prevote(height, 0, Some(block.hash())) };
            said(n, &session_pair(n, 1), &self.genesis, vote)
        };
        let votes: Vec<Vote> = voting.iter().map(|n| vote(*n, VoteKind::Prevote)).collect();
        let signature = |n| {
            let Vote { vote, epoch, signature } = vote(n, VoteKind::Precommit);
            CommitSignature { voter: vote.voter, epoch, signature }
        };
        let signatures = (0..4).map(signature).collect();
        let certificate = CommitCertificate::new(Height::new(height), Round::ZERO, block.hash(), signatures).unwrap();
        self.parent = block.hash();
        for vote in votes {
            hear(&mut self.engine, 1, PeerMessage::Vote(vote));
        }
        hear(&mut self.engine, 1, PeerMessage::Status { height: Height::new(height + 9) });
        let blocks = vec![CertifiedBlock { block: block.clone(), certificate }];
        let mut effects = hear(&mut self.engine, 1, PeerMessage::BlocksResponse { blocks });
        let Applied::Now { outcome, results } = apply_block(&mut self.store, &block).unwrap() else { panic!("before") };
        self.results.push(results);
        effects.extend(self.engine.step(NOW_MS, Input::Executed { outcome, results }));
        assert_eq!(self.engine.status().tip, Height::new(height));
        effects.extend(self.engine.step(NOW_MS, Input::Timer(TimerId::NextHeight(Height::new(height + 1)))));
        effects
    }
}

/// The wait for the first proposal at height 6, whose proposer has voted at these heights; the others at all of them.
fn wait_for_first(proposer_votes: &[u64], others_vote: &[u64]) -> Vec<(Round, u64)> {
    let voters = four().voter_set().clone();
    let first: Identity = proposer_at(&voters, Height::new(6), Round::ZERO).identity;
    let number = |wanted: Identity| (0..4).find(|n| identity(*n) == wanted).unwrap();
    let proposer = number(first);
    let me = (proposer + 1) % 4;
    let mut followed = Followed::new(me);
    let mut effects = Vec::new();
    for height in 1..6 {
        let mut voting: Vec<u64> = Vec::new();
        voting.extend(proposer_votes.contains(&height).then_some(proposer));
        voting.extend(others_vote.contains(&height).then_some((me + 1) % 4));
        effects = followed.follow(height, &voting);
    }
    waits(&effects, TimeoutKind::Propose)
}

#[test]
fn a_proposer_that_said_nothing_at_the_last_heights_is_waited_for_a_quarter_of_the_time() {
    let all = [1, 2, 3, 4, 5];
    assert_eq!(wait_for_first(&all, &all), [(Round::ZERO, 1_000)]);
    assert_eq!(wait_for_first(&[1], &all), [(Round::ZERO, 250)]);
    // One word within the last four heights, however long ago, is a sign of life.
    assert_eq!(wait_for_first(&[2], &all), [(Round::ZERO, 1_000)]);
    assert_eq!(wait_for_first(&[5], &all), [(Round::ZERO, 1_000)]);
    // Where the others were not heard either, this node knows nothing about it.
    assert_eq!(wait_for_first(&[], &[2, 3, 5]), [(Round::ZERO, 1_000)]);
}

#[test]
fn after_the_first_round_every_proposer_is_waited_for_in_full() {
    use crate::{consensus::timers::FirstProposer, types::ParametersDraft};
    let parameters = crate::types::Parameters::new(ParametersDraft::default()).unwrap();
    let wait = |round| TimeoutKind::Propose.wait_ms(&parameters, Round::new(round), FirstProposer::Silent);
    assert_eq!([wait(0), wait(1), wait(2)], [250, 1_500, 2_000]);
}
