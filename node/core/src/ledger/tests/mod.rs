//! The rules of execution on a chain in memory.

mod apply;
mod governance;
mod recovery;
mod rotation;
mod store;
mod transfers;

use super::{Applied, MemoryStore, Outcome, Snapshot, apply_block, apply_genesis, snapshot};
use crate::{
    fixtures::{block, genesis, identity},
    types::{Block, Hash, Height, Incarnation, ReceiptStatus, Transaction, VoterEntry},
};

/// A chain that executes whatever blocks it is given.
struct TestChain {
    store: MemoryStore,
    incarnation: Incarnation,
    tip: Hash,
    height: u64,
    blocks: Vec<Block>,
}

impl TestChain {
    fn new(powers: &[u64]) -> Self {
        let genesis = genesis(powers);
        let mut store = MemoryStore::new();
        apply_genesis(&mut store, &genesis).unwrap();
        Self { store, incarnation: genesis.incarnation(), tip: genesis.hash(), height: 0, blocks: Vec::new() }
    }

    /// Executes the next block and gives what became of its transactions.
    fn run(&mut self, transactions: Vec<Transaction>) -> Vec<ReceiptStatus> {
        self.outcome(transactions).receipts.iter().map(|receipt| receipt.status).collect()
    }

    fn outcome(&mut self, transactions: Vec<Transaction>) -> Outcome {
        let block = block(self.height + 1, self.tip, transactions);
        let Applied::Now { outcome, .. } = apply_block(&mut self.store, &block).unwrap() else {
            panic!("the block was applied before")
        };
        self.height += 1;
        self.tip = block.hash();
        self.blocks.push(block);
        *outcome
    }

    /// Executes empty blocks up to this height.
    fn run_to(&mut self, height: u64) {
        while self.height < height {
            self.run(Vec::new());
        }
    }

    fn snapshot(&self) -> Snapshot {
        snapshot(&self.store).unwrap().unwrap()
    }

    /// Voter `n` at one of the next three heights.
    fn voter(&self, height: u64, n: u64) -> VoterEntry {
        let sets = self.snapshot().sets;
        *sets.at(Height::new(self.height), Height::new(height)).unwrap().get(&identity(n)).unwrap()
    }
}
