//! What a final header claims is compared with the own results, whenever the process that took it ends.

use std::sync::Arc;

use super::{NOW_MS, boot, four, hear, not_first, prevote, said};
use crate::{
    consensus::{Effect, Engine, HaltReason, Input, SigningLog},
    fixtures::{block, session_pair},
    ledger::{Applied, MemoryStore, Outcome, apply_block, apply_genesis, snapshot},
    types::{
        Block, CertifiedBlock, CommitCertificate, CommitSignature, Genesis, Hash, Header, Height, PeerMessage, Results,
        UnsignedVote, VoteKind, voters_hash,
    },
};

/// What is made of a true header.
type Claim = fn(&mut Header);

/// When the process ends that took the blocks.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Never,
    /// All three blocks are final, none is executed.
    BeforeExecution,
    /// Block 1 is executed, and the engine has not heard of it.
    BetweenExecutionAndComparison,
}

fn certified(genesis: &Genesis, header: Header) -> CertifiedBlock {
    let block = Block::new(header, Vec::new()).unwrap();
    let precommit = |n| {
        let (height, value) = (block.header().height.get(), Some(block.hash()));
        let vote = UnsignedVote { kind: VoteKind::Precommit, ..prevote(height, 0, value) };
        let vote = said(n, &session_pair(n, 1), genesis, vote);
        CommitSignature { voter: vote.vote.voter, epoch: vote.epoch, signature: vote.signature }
    };
    let (height, round) = (block.header().height, block.header().round);
    let certificate = CommitCertificate::new(height, round, block.hash(), (0..4).map(precommit).collect());
    CertifiedBlock { certificate: certificate.unwrap(), block }
}

/// Three final blocks, of which the last says what `claim` makes of the truth. It can be compared once block 1 is executed.
fn three_blocks(genesis: &Genesis, claim: Claim) -> Vec<CertifiedBlock> {
    let mut store = MemoryStore::new();
    apply_genesis(&mut store, genesis).unwrap();
    let voters = genesis.voter_set();
    let mut results = vec![Results::NONE, snapshot(&store).unwrap().unwrap().results];
    let mut blocks: Vec<CertifiedBlock> = Vec::new();
    for height in 1..=3_u64 {
        let parent = blocks.last().map_or_else(|| genesis.hash(), |before| before.block.hash());
        let mut header = Header {
            voters_hash: voters_hash(voters, voters),
            parameters_hash: genesis.parameters.hash(),
            results: results[usize::try_from(height - 1).unwrap()],
            ..block(height, parent, Vec::new()).header().clone()
        };
        if height == 3 {
            claim(&mut header);
        }
        let next = certified(genesis, header);
        results.push(applied(&mut store, &next.block).1);
        blocks.push(next);
    }
    blocks
}

fn applied(store: &mut MemoryStore, block: &Block) -> (Box<Outcome>, Results) {
    match apply_block(store, block).unwrap() {
        Applied::Now { outcome, results } => (outcome, results),
        Applied::Before => panic!("each block is applied once"),
    }
}

fn halts(effects: &[Effect]) -> Option<&HaltReason> {
    effects.iter().find_map(|effect| match effect {
        Effect::Halt(reason) => Some(reason),
        _ => None,
    })
}

/// Why a node stops that takes the blocks and executes the first.
fn halt_of(claim: Claim, ends: Ends) -> Option<HaltReason> {
    let genesis: Arc<Genesis> = four();
    let me = not_first(&genesis);
    let blocks = three_blocks(&genesis, claim);
    let mut store = MemoryStore::new();
    apply_genesis(&mut store, &genesis).unwrap();
    let mut engine = Engine::new(boot(&genesis, me, SigningLog::Fresh));
    engine.step(NOW_MS, Input::Start);
    let from = (me + 1) % 4;
    hear(&mut engine, from, PeerMessage::Status { height: Height::new(9) });
    let effects = hear(&mut engine, from, PeerMessage::BlocksResponse { blocks: blocks.clone() });
    assert_eq!((engine.status().tip, halts(&effects)), (Height::new(3), None));
    let restarted = |executed: &MemoryStore| {
        let last = blocks.last().unwrap();
        Engine::new(super::Boot {
            tip: Some((last.block.header().clone(), last.certificate.clone())),
            executed: snapshot(executed).unwrap().unwrap(),
            recent: blocks.iter().rev().map(|block| block.block.header().clone()).collect(),
            ..boot(&genesis, me, SigningLog::Fresh)
        })
    };
    let first = &blocks.first().unwrap().block;
    let effects = match ends {
        Ends::Never => {
            let (outcome, results) = applied(&mut store, first);
            engine.step(NOW_MS, Input::Executed { outcome, results })
        }
        Ends::BeforeExecution => {
            let mut engine = restarted(&store);
            assert_eq!(halts(&engine.step(NOW_MS, Input::Start)), None);
            let (outcome, results) = applied(&mut store, first);
            engine.step(NOW_MS, Input::Executed { outcome, results })
        }
        Ends::BetweenExecutionAndComparison => {
            applied(&mut store, first);
            restarted(&store).step(NOW_MS, Input::Start)
        }
    };
    halts(&effects).cloned()
}

#[test]
fn a_wrong_claim_of_a_final_header_is_found_whenever_the_process_ends() {
    let (one, three) = (Height::new(1), Height::new(3));
    let claims: [(Claim, Option<HaltReason>); 5] = [
        (|_| {}, None),
        (
            |header| header.results.receipts_root = Hash::tagged("other", b"receipts"),
            Some(HaltReason::ResultsDiffer { height: one }),
        ),
        (
            |header| header.results.roots.state_root = Hash::tagged("other", b"state"),
            Some(HaltReason::ResultsDiffer { height: one }),
        ),
        (|header| header.voters_hash = Hash::ZERO, Some(HaltReason::VotersDiffer { height: three })),
        (|header| header.parameters_hash = Hash::ZERO, Some(HaltReason::ParametersDiffer { height: three })),
    ];
    for (claim, expected) in claims {
        for ends in [Ends::Never, Ends::BeforeExecution, Ends::BetweenExecutionAndComparison] {
            assert_eq!(halt_of(claim, ends), expected, "{ends:?}");
        }
    }
}
