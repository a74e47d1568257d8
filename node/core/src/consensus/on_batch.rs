//! Batches: made of clients' transactions, stored, acknowledged, asked for, and put together to the blocks that name them.

use std::{collections::BTreeMap, sync::Arc};

use super::{DropReason, Effect, Engine, engine::TICK_MS, gate::drop_reason, timers::TimerId};
use crate::{
    crypto::{VerifiedBatch, verify_acknowledgement},
    ledger::Outcome,
    mempool::{Added, Certified, Space},
    types::{
        ACKNOWLEDGEMENTS_PER_MESSAGE_MAX, BATCHES_PER_REQUEST_MAX, Batch, BatchAcknowledgement, Block, Hash, Header,
        Height, Identity, PeerMessage, ProposedHeader, ReceiptStatus, TransactionId, VoterSet,
    },
};

/// The most transactions of one batch that is made here.
pub const SEALED_TRANSACTIONS_MAX: usize = 500;
/// The most bytes of one.
const SEALED_BYTES_MAX: usize = 256 * 1024;
/// What the header and lengths of a block with one batch take at most.
const HEADER_BYTES_MAX: usize = 1_024;
/// How long transactions wait for others, milliseconds.
const SEAL_AFTER_MS: u64 = 20;
/// How long they wait while there are many: each batch costs every voter a write, a signature and the verification of the
/// others', whatever is in it.
const SEAL_AFTER_BUSY_MS: u64 = 40;
/// So many in the last batch mean that there are many.
const BUSY: usize = 32;
/// The most batches that a node which may not sign hands on at once.
const HANDED_ON_MAX: usize = 8;
/// Proposals of one height that wait for their batches.
const INCOMPLETE_MAX: usize = 4;

/// The block of a header, if all of its batches are found.
pub(super) fn assemble(header: &Header, find: impl Fn(&Hash) -> Option<Arc<Batch>>) -> Option<Block> {
    let batches: Option<Vec<_>> = header.batches.iter().map(find).collect();
    Block::of_shared(header.clone(), batches?).ok()
}

impl Engine {
    /// Makes batches while there are enough transactions, and sets the timer for the rest.
    pub(super) fn seal_when_due(&mut self) {
        while self.mempool.unsealed() >= SEALED_TRANSACTIONS_MAX && self.seal() {}
        if self.mempool.unsealed() > 0 && !self.seal_timer {
            self.seal_timer = true;
            let after_ms = if self.sealed_last >= BUSY { SEAL_AFTER_BUSY_MS } else { SEAL_AFTER_MS };
            self.out.push(Effect::SetTimer { id: TimerId::SealBatch, after_ms });
        }
    }

    pub(super) fn on_seal_timer(&mut self) {
        self.seal_timer = false;
        self.seal();
        if self.mempool.unsealed() >= SEALED_TRANSACTIONS_MAX {
            self.seal_when_due();
        }
    }

    /// Makes one batch. False if nothing could go into it: what is left waits behind a gap.
    fn seal(&mut self) -> bool {
        let fits = self.batch_space();
        let space = Space {
            transactions_max: SEALED_TRANSACTIONS_MAX.min(fits.transactions_max),
            bytes_max: SEALED_BYTES_MAX.min(fits.bytes_max),
        };
        let transactions = self.mempool.seal(space);
        self.sealed_last = transactions.len();
        if transactions.is_empty() {
            return false;
        }
        let batch = VerifiedBatch::new(transactions);
        if let Added::New(early) = self.batches.add(&batch, true, self.chain.tip()) {
            self.out.push(Effect::Broadcast(PeerMessage::Batch(batch.batch().clone()).into()));
            self.store(&batch, early);
        }
        true
    }

    /// What fits into a block that names nothing else.
    fn batch_space(&self) -> Space {
        let parameters = self.chain.parameters();
        let bytes = usize::try_from(parameters.block_bytes_max).unwrap_or(usize::MAX);
        Space {
            transactions_max: usize::try_from(parameters.transactions_per_block_max).unwrap_or(usize::MAX),
            bytes_max: bytes.saturating_sub(HEADER_BYTES_MAX),
        }
    }

    /// A verified batch of a peer.
    pub(super) fn on_batch(&mut self, from: Identity, batch: &VerifiedBatch) {
        if !batch.is_of(self.chain.incarnation()) {
            return self.out.push(Effect::Dropped { from, reason: DropReason::OtherChain });
        }
        let space = self.batch_space();
        let (count, bytes) = (batch.batch().transactions().len(), batch.batch().bytes());
        if count > space.transactions_max || bytes > space.bytes_max {
            return self.out.push(Effect::Dropped { from, reason: DropReason::TooLarge });
        }
        match self.batches.add(batch, false, self.chain.tip()) {
            Added::New(early) => {
                self.store(batch, early);
                self.complete_waiting();
            }
            // Whoever sends it again has not heard that it is here.
            Added::Known { durable: true } => {
                let list = self.acknowledge(&[batch.batch().digest()]);
                self.send_acknowledgements(Some(from), list);
            }
            Added::Known { durable: false } | Added::Included | Added::Expired => {}
            Added::Full => self.out.push(Effect::Dropped { from, reason: DropReason::TooManyWaiting }),
        }
    }

    fn store(&mut self, batch: &VerifiedBatch, early: Vec<BatchAcknowledgement>) {
        let digest = batch.batch().digest();
        self.out.push(Effect::StoreBatch(batch.batch().clone()));
        // What cannot be verified was sent by somebody who is not trusted with more than this.
        let _ = self.on_acknowledgements(early);
        if self.faults.acknowledged_early {
            let list = self.acknowledge(&[digest]);
            self.send_acknowledgements(None, list);
        }
    }

    /// Batches are on the disk: now they are acknowledged.
    pub(super) fn on_batches_stored(&mut self, digests: &[Hash]) {
        let wanted: Vec<Hash> = digests.iter().filter(|digest| self.batches.on_stored(digest)).copied().collect();
        if self.faults.durable_alone {
            let stored = wanted.iter().filter_map(|digest| self.batches.get(digest));
            let ids = stored.flat_map(|batch| ids(batch)).collect();
            self.out.push(Effect::Durable(ids));
        }
        let list = self.acknowledge(&wanted);
        self.send_acknowledgements(None, list);
    }

    /// Signs for batches that are on the disk, as far as this process may sign: with the key that the newest voters name,
    /// since those are the ones who will have to put the batch into a block.
    fn acknowledge(&mut self, digests: &[Hash]) -> Vec<BatchAcknowledgement> {
        let Some(voters) = self.chain.newest_voters().cloned() else { return Vec::new() };
        let mut list = Vec::new();
        for digest in digests {
            if let Ok(acknowledgement) = self.signer.acknowledge_batch(&voters, *digest) {
                let certified = self.batches.acknowledge(digest, self.identity, &voters);
                self.on_certified(certified);
                list.push(acknowledgement);
            }
        }
        list
    }

    fn send_acknowledgements(&mut self, to: Option<Identity>, list: Vec<BatchAcknowledgement>) {
        for chunk in list.chunks(ACKNOWLEDGEMENTS_PER_MESSAGE_MAX) {
            let message = PeerMessage::BatchAcknowledgements(chunk.to_vec()).into();
            self.out.push(match to {
                Some(to) => Effect::Send { to, message },
                None => Effect::Broadcast(message),
            });
        }
    }

    /// Acknowledgements of others. Those that come before their batch are kept for it. A wrong one does not keep the others
    /// from being counted.
    pub(super) fn on_acknowledgements(&mut self, list: Vec<BatchAcknowledgement>) -> Result<(), DropReason> {
        let Some(voters) = self.chain.newest_voters().filter(|_| !self.superseded).cloned() else { return Ok(()) };
        let mut taken = Ok(());
        for acknowledgement in list {
            if let Err(reason) = self.on_acknowledgement(acknowledgement, &voters) {
                taken = Err(reason);
            }
        }
        taken
    }

    fn on_acknowledgement(&mut self, said: BatchAcknowledgement, voters: &VoterSet) -> Result<(), DropReason> {
        let BatchAcknowledgement { batch, voter, .. } = said;
        let entry = voters.get(&voter).ok_or(DropReason::NotAVoter)?;
        if self.batches.wants(&batch, entry) {
            let incarnation = self.chain.incarnation();
            verify_acknowledgement(incarnation, voters, &said).map_err(|error| drop_reason(&error))?;
            let certified = self.batches.acknowledge(&batch, voter, voters);
            self.on_certified(certified);
        } else {
            self.batches.keep_early(said);
        }
        Ok(())
    }

    /// A block was executed: the newest voters may be others, and what others have said may be enough for them.
    pub(super) fn recount_batches(&mut self) {
        let Some(voters) = self.chain.newest_voters().filter(|_| !self.superseded).cloned() else { return };
        if self.counted_by.as_ref().is_some_and(|known| known.as_ref() == voters.as_ref()) {
            return;
        }
        for certified in self.batches.recount(&voters) {
            self.on_certified(Some(certified));
        }
        self.counted_by = Some(voters);
    }

    fn on_certified(&mut self, certified: Option<Certified>) {
        if let Some(Certified { batch, own: true }) = certified {
            self.out.push(Effect::Durable(ids(&batch)));
        }
    }

    /// A peer asks for batches.
    pub(super) fn on_batches_request(&mut self, from: Identity, digests: &[Hash]) {
        for batch in digests.iter().filter_map(|digest| self.batches.get(digest)) {
            let message = PeerMessage::Batch(batch.clone());
            self.out.push(Effect::Send { to: from, message: message.into() });
        }
    }

    /// Takes a proposal whose batches are all here; asks for the missing ones otherwise.
    pub(super) fn complete_proposal(&mut self, proposed: ProposedHeader) {
        match self.assemble(&proposed) {
            Some(block) => self.take_proposal(proposed.proposal, block),
            None => {
                self.ask_missing(&proposed, proposed.proposal.proposal.proposer);
                let known = self.incomplete.iter().any(|known| known.proposal == proposed.proposal);
                if !known && self.incomplete.len() < INCOMPLETE_MAX {
                    self.incomplete.push(proposed);
                }
            }
        }
    }

    fn assemble(&self, proposed: &ProposedHeader) -> Option<Block> {
        let travelling: BTreeMap<Hash, &Arc<Batch>> =
            proposed.batches.iter().map(|batch| (batch.digest(), batch)).collect();
        assemble(&proposed.header, |digest| self.batches.get(digest).or(travelling.get(digest).copied()).cloned())
    }

    /// A batch came: maybe it was the last one of a proposal.
    fn complete_waiting(&mut self) {
        for proposed in std::mem::take(&mut self.incomplete) {
            match self.assemble(&proposed) {
                Some(block) if proposed.header.height == self.chain.next() => {
                    self.take_proposal(proposed.proposal, block);
                }
                _ => self.incomplete.push(proposed),
            }
        }
    }

    fn ask_missing(&mut self, proposed: &ProposedHeader, holder: Identity) {
        let travels = |digest: &&Hash| proposed.batches.iter().any(|batch| batch.digest() == **digest);
        let named = proposed.header.batches.iter();
        let missing: Vec<Hash> =
            named.filter(|digest| self.batches.get(digest).is_none() && !travels(digest)).copied().collect();
        for chunk in missing.chunks(BATCHES_PER_REQUEST_MAX) {
            let message = PeerMessage::BatchesRequest(chunk.to_vec()).into();
            self.out.push(Effect::Send { to: holder, message });
        }
    }

    /// Says again what may have been lost, and asks again for what is missing.
    pub(super) fn repeat_batches(&mut self) {
        let repetition = self.batches.on_tick(ACKNOWLEDGEMENTS_PER_MESSAGE_MAX, BATCHES_PER_REQUEST_MAX);
        let list = self.acknowledge(&repetition.acknowledge);
        if list.is_empty() && !self.superseded {
            self.hand_on(&repetition.acknowledge);
        }
        self.send_acknowledgements(None, list);
        for (holder, digests) in repetition.ask {
            let message = PeerMessage::BatchesRequest(digests).into();
            self.out.push(Effect::Send { to: holder, message });
        }
        let voters = self.chain.voters(self.chain.next()).cloned();
        let holders: Vec<Identity> =
            voters.iter().flat_map(|voters| voters.entries()).map(|entry| entry.identity).collect();
        let own = self.identity;
        for proposed in self.incomplete.clone() {
            for holder in holders.iter().filter(|holder| **holder != own) {
                self.ask_missing(&proposed, *holder);
            }
        }
    }

    /// Who may not sign, because it is no voter or was voted out, gives what it holds to a voter, another one each time: no
    /// acknowledgement of its own would bring anybody to ask for it.
    fn hand_on(&mut self, digests: &[Hash]) {
        let Some(voters) = self.chain.newest_voters().cloned() else { return };
        let turn = usize::try_from(self.now_ms / TICK_MS).unwrap_or_default();
        let others = voters.entries().iter().filter(|entry| entry.identity != self.identity).count();
        let mut entries = voters.entries().iter().filter(|entry| entry.identity != self.identity);
        let Some(to) = entries.nth(turn % others.max(1)).map(|entry| entry.identity) else { return };
        let first = turn.wrapping_mul(HANDED_ON_MAX) % digests.len().max(1);
        let count = HANDED_ON_MAX.min(digests.len());
        for batch in digests.iter().cycle().skip(first).take(count).filter_map(|digest| self.batches.get(digest)) {
            self.out.push(Effect::Send { to, message: PeerMessage::Batch(batch.clone()).into() });
        }
    }

    /// A block was executed: what is stored of its batches can go, unless something in them was deferred. Returns own
    /// transactions that expired in batches which no block named.
    pub(super) fn drop_batches(&mut self, outcome: &Outcome) -> Vec<TransactionId> {
        let mut dropped = Vec::new();
        let tip = self.chain.tip();
        let mut first = 0;
        for NamedBatch { digest, end, valid_until } in self.unexecuted.remove(&outcome.height).unwrap_or_default() {
            let receipts = outcome.receipts.get(first..end).unwrap_or_default();
            first = end;
            if receipts.iter().any(|receipt| receipt.status == ReceiptStatus::Deferred) {
                self.kept_batches.insert((valid_until, digest));
            } else {
                dropped.push(digest);
            }
        }
        while let Some((valid_until, digest)) = self.kept_batches.first().copied().filter(|(last, _)| *last <= tip) {
            self.kept_batches.remove(&(valid_until, digest));
            dropped.push(digest);
        }
        let mut expired = Vec::new();
        for Certified { batch, own } in self.batches.drop_expired(tip) {
            dropped.push(batch.digest());
            if own {
                expired.extend(ids(&batch));
            }
        }
        if !dropped.is_empty() {
            self.out.push(Effect::DropBatches(dropped));
        }
        expired
    }
}

/// A batch of a decided block that is not executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedBatch {
    digest: Hash,
    /// One past the index of its last transaction in the block.
    end: usize,
    /// The last height at which one of its transactions can be executed.
    valid_until: Height,
}

/// The batches of a decided block.
pub(super) fn named_batches(block: &Block) -> Vec<NamedBatch> {
    let mut end = 0;
    let named = block.batches().iter().map(|batch| {
        end += batch.transactions().len();
        let last = batch.transactions().iter().map(|transaction| transaction.body().valid_until).max();
        NamedBatch { digest: batch.digest(), end, valid_until: last.unwrap_or_default() }
    });
    named.collect()
}

fn ids(batch: &Batch) -> Vec<TransactionId> {
    batch.transactions().iter().map(|transaction| transaction.id()).collect()
}
