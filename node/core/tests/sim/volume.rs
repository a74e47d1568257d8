//! A volume: what of a node survives its process, and what of the signing log was flushed.

use std::{collections::BTreeSet, sync::Arc};

use node_core::{
    codec::Decode,
    consensus::{LogEntry, SigningLog},
    ledger::MemoryStore,
    session::KeyList,
    types::{Batch, CertifiedBlock, Hash, Height, RecoveryManifest, Signature, Uid},
};

use super::dice::Dice;

#[derive(Clone, Default)]
pub struct Volume {
    pub claim: Option<Uid>,
    pub keys: KeyList,
    /// The flushed part of the signing log; nothing before the first height.
    pub log: Option<Vec<Vec<u8>>>,
    /// Appended, not flushed.
    pub unflushed: Vec<Vec<u8>>,
    pub blocks: Vec<CertifiedBlock>,
    /// The first height whose block is given to others; all if it is zero.
    pub pruned_below: Height,
    /// The stored batches, in order.
    pub batches: Vec<Arc<Batch>>,
    /// The digests of all batches that were ever durable here.
    pub stored: BTreeSet<Hash>,
    pub store: MemoryStore,
    /// The recoveries that this node has gone through.
    pub recoveries: Vec<RecoveryManifest>,
    /// The signatures whose record was ever durable here.
    pub durable: BTreeSet<Signature>,
}

impl Volume {
    pub fn append(&mut self, entry: Vec<u8>) {
        self.unflushed.push(entry);
    }

    pub fn flush(&mut self) {
        for entry in std::mem::take(&mut self.unflushed) {
            match LogEntry::decode(&entry) {
                Ok(LogEntry::OwnVote(_, vote)) => drop(self.durable.insert(vote.signature)),
                Ok(LogEntry::OwnProposal(_, proposal)) => drop(self.durable.insert(proposal.signature)),
                Ok(_) => {}
                Err(error) => panic!("the engine wrote an entry that it cannot read: {error}"),
            }
            self.log.get_or_insert_default().push(entry);
        }
    }

    pub fn store(&mut self, batch: Arc<Batch>) {
        if self.stored.insert(batch.digest()) || !self.batches.contains(&batch) {
            self.batches.push(batch);
        }
    }

    pub fn reset_log(&mut self, first: Vec<u8>) {
        self.unflushed.clear();
        self.log = Some(vec![first]);
    }

    /// The machine stops: of what was not flushed, some may have reached the disk.
    pub fn crash(&mut self, dice: &mut Dice) {
        let kept = usize::try_from(dice.below(self.unflushed.len() as u64 + 1)).unwrap();
        self.unflushed.truncate(kept);
        self.flush();
    }

    pub fn signing_log(&self) -> SigningLog {
        self.log.clone().map_or(SigningLog::Fresh, SigningLog::Whole)
    }
}
