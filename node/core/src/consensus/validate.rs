//! The rules of a proposed block, as far as they can be told before it is executed.

use thiserror::Error;

use super::{chain::ChainView, faults::Faults, proposer::proposer_at};
use crate::{
    crypto::verify_transactions,
    mempool::Batches,
    types::{Block, Height, Transaction},
};

/// The rule that a block breaks.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidBlock {
    /// It is for another height.
    #[error("the block is of height {found}, expected {expected}")]
    Height {
        /// The height of the block.
        found: Height,
        /// The height being decided.
        expected: Height,
    },
    /// It does not follow the last final block.
    #[error("the block has another parent")]
    Parent,
    /// It was not its maker's turn.
    #[error("the block was not made by the proposer of its round")]
    Proposer,
    /// Its time is not after its parent's, or too far ahead of the clock.
    #[error("the block's time is out of bounds")]
    Time,
    /// It names other voters.
    #[error("the block names other voters")]
    Voters,
    /// It names other results of the block two before.
    #[error("the block names other results")]
    Results,
    /// It names other parameters.
    #[error("the block names other parameters")]
    Parameters,
    /// It has too many transactions or bytes.
    #[error("the block is too large")]
    Size,
    /// One of its transactions is for another chain or not signed by the right keys.
    #[error("the block has a transaction that is not signed for this chain")]
    Transaction,
}

/// What a block is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The chain before the block, with `height - 2` executed.
    pub chain: &'a ChainView,
    /// Batches whose signatures were verified before.
    pub batches: &'a Batches,
    /// The clock.
    pub now_ms: u64,
    /// For tests that take what a rule forbids.
    pub faults: Faults,
}

impl Judge<'_> {
    /// Checks every rule, the cheap ones first.
    pub fn check(&self, block: &Block) -> Result<(), InvalidBlock> {
        let Self { chain, batches: _, now_ms, faults } = self;
        let header = block.header();
        let expected = chain.next();
        if header.height != expected {
            return Err(InvalidBlock::Height { found: header.height, expected });
        }
        if header.parent != chain.tip_hash() {
            return Err(InvalidBlock::Parent);
        }
        let voters = chain.voters(expected).ok_or(InvalidBlock::Voters)?;
        if proposer_at(voters, expected, header.round).identity != header.proposer {
            return Err(InvalidBlock::Proposer);
        }
        let latest = now_ms.saturating_add(chain.parameters().time_drift_ms_max);
        if (header.time <= chain.tip_time() || header.time.get() > latest) && !faults.time_unchecked {
            return Err(InvalidBlock::Time);
        }
        if chain.voters_hash_for(expected) != Some(header.voters_hash) {
            return Err(InvalidBlock::Voters);
        }
        if chain.results_for(expected) != Some(header.results) && !faults.results_unchecked {
            return Err(InvalidBlock::Results);
        }
        if chain.parameters_hash() != header.parameters_hash {
            return Err(InvalidBlock::Parameters);
        }
        self.check_content(block)
    }

    fn check_content(&self, block: &Block) -> Result<(), InvalidBlock> {
        let parameters = self.chain.parameters();
        let count = u32::try_from(block.transactions().count()).unwrap_or(u32::MAX);
        let bytes = u32::try_from(block.bytes()).unwrap_or(u32::MAX);
        if count > parameters.transactions_per_block_max || bytes > parameters.block_bytes_max {
            return Err(InvalidBlock::Size);
        }
        let incarnation = self.chain.incarnation_at(block.header().height);
        if block.transactions().any(|transaction| transaction.body().incarnation != incarnation) {
            return Err(InvalidBlock::Transaction);
        }
        let unknown = block.batches().iter().filter(|batch| self.batches.get(&batch.digest()).is_none());
        let unknown: Vec<Transaction> = unknown.flat_map(|batch| batch.transactions()).cloned().collect();
        if verify_transactions(unknown).iter().all(Result::is_ok) { Ok(()) } else { Err(InvalidBlock::Transaction) }
    }
}
