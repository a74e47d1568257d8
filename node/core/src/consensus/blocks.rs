//! The blocks proposed at the current height, and what is known about them.

use std::{collections::BTreeMap, sync::Arc};

use crate::types::{Block, Hash, Proposal, Round};

/// How many different proposals of one round are kept: two prove that the proposer contradicts itself.
const PROPOSALS_PER_ROUND_MAX: usize = 2;
/// How many blocks of one height are kept.
const BLOCKS_MAX: usize = 32;

/// The blocks of one height.
#[derive(Debug, Default)]
pub struct Blocks {
    known: BTreeMap<Hash, Candidate>,
    proposals: BTreeMap<Round, Vec<Proposal>>,
}

#[derive(Debug)]
struct Candidate {
    block: Arc<Block>,
    valid: Option<bool>,
}

impl Blocks {
    /// A block, if it is known.
    pub fn get(&self, hash: &Hash) -> Option<&Arc<Block>> {
        self.known.get(hash).map(|candidate| &candidate.block)
    }

    /// What was found about a block, if it was judged.
    pub fn verdict(&self, hash: &Hash) -> Option<bool> {
        self.known.get(hash).and_then(|candidate| candidate.valid)
    }

    /// Remembers a block with its hash.
    pub fn insert(&mut self, hash: Hash, block: Arc<Block>) {
        if self.known.len() < BLOCKS_MAX {
            self.known.entry(hash).or_insert(Candidate { block, valid: None });
        }
    }

    /// Remembers what was found about a block.
    pub fn judge(&mut self, hash: &Hash, valid: bool) {
        if let Some(candidate) = self.known.get_mut(hash) {
            candidate.valid = Some(valid);
        }
    }

    /// Remembers a verified proposal. Returns another one of the same round that contradicts it.
    pub fn propose(&mut self, proposal: &Proposal) -> Option<Proposal> {
        let proposals = self.proposals.entry(proposal.proposal.round).or_default();
        if proposals.contains(proposal) {
            return None;
        }
        let contradicted = proposals.iter().find(|known| known.proposal != proposal.proposal).copied();
        if proposals.len() < PROPOSALS_PER_ROUND_MAX {
            proposals.push(*proposal);
        }
        contradicted
    }

    /// A proposal was verified before.
    pub fn has_proposal(&self, proposal: &Proposal) -> bool {
        self.proposals.get(&proposal.proposal.round).is_some_and(|proposals| proposals.contains(proposal))
    }

    /// The proposals of a round.
    pub fn proposals(&self, round: Round) -> &[Proposal] {
        self.proposals.get(&round).map_or(&[], Vec::as_slice)
    }

    /// The proposals whose blocks are not judged yet.
    pub fn unjudged(&self) -> Vec<Proposal> {
        let open = |proposal: &&Proposal| {
            self.known.get(&proposal.proposal.value).is_some_and(|candidate| candidate.valid.is_none())
        };
        self.proposals.values().flatten().filter(open).copied().collect()
    }

    /// A valid block that is proposed in this round.
    pub fn valid_in_round(&self, round: Round) -> Option<Hash> {
        self.proposals(round)
            .iter()
            .map(|proposal| proposal.proposal.value)
            .find(|value| self.verdict(value) == Some(true))
    }

    /// The height is over.
    pub fn clear(&mut self) {
        self.known.clear();
        self.proposals.clear();
    }
}
