//! Proposing a block, and judging those of others.

use std::sync::Arc;

use arc_malachitebft_core_consensus::{Input as CoreInput, LocallyProposedValue};
use arc_malachitebft_core_types::ValueOrigin;

use super::{DropReason, Effect, Engine, context, log::LoggedValue, validate::Judge};
use crate::{
    codec::Encode,
    mempool::{DIGEST_BYTES, Space},
    types::{BLOCK_BATCHES_MAX, Batch, Block, Hash, Header, Proposal, Round, TimeMs, UnsignedProposal},
};

/// Bytes of a block beside its header and transactions: versions and lengths.
const BLOCK_OVERHEAD_BYTES: usize = 64;

impl Engine {
    /// Judges one proposed block, if one is not judged yet and `height - 2` is executed.
    pub(super) fn judge_block(&mut self) -> bool {
        if self.core.is_none() || !self.chain.may_vote_next() {
            return false;
        }
        let Some(proposal) = self.blocks.unjudged().into_iter().next() else { return false };
        let Some(valid) = self.check_proposed(&proposal) else { return false };
        if !valid {
            self.out.push(Effect::Dropped { from: proposal.proposal.proposer, reason: DropReason::InvalidBlock });
        }
        self.tell_verdict(&proposal, valid);
        true
    }

    /// A block that was ahead of this node's clock is proposed again, and may be in time by now. A quorum may be locked on
    /// it: whoever refused it for good would be missing to them for good.
    pub(super) fn judge_again(&mut self, proposal: &Proposal) {
        let refused = self.blocks.verdict(&proposal.proposal.value) == Some(false);
        if refused && self.chain.may_vote_next() && self.check_proposed(proposal) == Some(true) {
            self.tell_verdict(proposal, true);
        }
    }

    fn check_proposed(&self, proposal: &Proposal) -> Option<bool> {
        let block = self.blocks.get(&proposal.proposal.value)?;
        let judge = Judge { chain: &self.chain, batches: &self.batches, now_ms: self.now_ms, faults: self.faults };
        Some(judge.check(block).is_ok())
    }

    fn tell_verdict(&mut self, proposal: &Proposal, valid: bool) {
        let UnsignedProposal { height, round, pol_round, value, proposer } = proposal.proposal;
        self.blocks.judge(&value, valid);
        let judged = LoggedValue { height, round, valid_round: pol_round, proposer, value, valid };
        self.drive(CoreInput::ProposedValue(judged.for_core(), ValueOrigin::Consensus), None);
    }

    /// Proposes a block, if the protocol waits for one and `height - 2` is executed.
    pub(super) fn propose(&mut self) -> bool {
        let height = self.chain.next();
        let Some(round) = self.core.as_mut().filter(|_| self.chain.may_vote_next()).and_then(|core| core.wanted.take())
        else {
            return false;
        };
        if self.log.own_proposal(round).is_some() {
            return false;
        }
        let logged = self.log.own_value(round, &self.identity).filter(|value| self.blocks.get(value).is_some());
        let Some(value) = logged.or_else(|| self.build_block(round)) else { return false };
        let proposal = LocallyProposedValue { height, round: context::round_into(round), value };
        self.drive(CoreInput::Propose(proposal), None);
        true
    }

    /// Builds a block of what waits.
    fn build_block(&mut self, round: Round) -> Option<Hash> {
        let height = self.chain.next();
        let earliest = self.chain.tip_time().saturating_add(1);
        let mut header = Header {
            height,
            round,
            parent: self.chain.tip_hash(),
            proposer: self.identity,
            time: TimeMs::new(self.now_ms).max(if self.faults.time_unchecked { TimeMs::new(0) } else { earliest }),
            batches: Vec::new(),
            voters_hash: self.chain.voters_hash_for(height)?,
            results: self.chain.results_for(height)?,
            parameters_hash: self.chain.parameters_hash(),
        };
        let parameters = self.chain.parameters();
        let transactions_max = usize::try_from(parameters.transactions_per_block_max).unwrap_or(usize::MAX);
        let overhead = header.encode().len() + BLOCK_OVERHEAD_BYTES;
        let bytes_max = usize::try_from(parameters.block_bytes_max).unwrap_or(usize::MAX).saturating_sub(overhead);
        let space = Space { transactions_max, bytes_max };
        let sessions = Batch::new(self.mempool.pick_sessions(space)).ok()?;
        let mut batches = Vec::new();
        let (whole, mut space) = (space, space);
        if !sessions.transactions().is_empty() {
            space.transactions_max = space.transactions_max.saturating_sub(sessions.transactions().len());
            space.bytes_max = space.bytes_max.saturating_sub(sessions.bytes() + DIGEST_BYTES);
            batches.push(Arc::new(sessions));
        }
        let count_max = BLOCK_BATCHES_MAX - batches.len();
        batches.extend(self.batches.pick(space, whole, count_max, self.chain.tip()));
        header.batches = batches.iter().map(|batch| batch.digest()).collect();
        let block = Block::of_shared(header, batches).ok()?;
        let value = block.hash();
        self.blocks.insert(value, Arc::new(block));
        self.blocks.judge(&value, true);
        Some(value)
    }
}
