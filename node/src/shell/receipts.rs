//! What became of transactions: the newest receipts, and who waits for one.

use std::collections::{HashMap, VecDeque};

use node_api::proto;
use node_core::{
    codec::Encode,
    types::{Hash, Height, Receipt, ReceiptStatus, TransactionId},
};

use super::submission::{Answer, SubmitError, Ticket, Wanted};

/// Receipts that are kept. Older ones are in the blocks, which everybody can execute again.
const RECEIPTS_MAX: usize = 200_000;
/// Transactions somebody waits for.
const WAITERS_MAX: usize = 200_000;

/// The strongest answer about one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In a final block.
    Final {
        /// The block's hash.
        block: Hash,
        /// What it did.
        receipt: Receipt,
    },
    /// It can no longer enter a block.
    Expired {
        /// The last height at which it was valid.
        valid_until: Height,
    },
}

/// Receipts by transaction, and waiters.
#[derive(Debug, Default)]
pub struct Receipts {
    fates: HashMap<TransactionId, Fate>,
    order: VecDeque<TransactionId>,
    pending: HashMap<TransactionId, Pending>,
    /// Nothing pending expires before this height.
    first_expiry: Height,
}

#[derive(Debug)]
struct Pending {
    valid_until: Height,
    /// A quorum has it.
    durable: bool,
    waiters: Vec<Ticket>,
}

impl Receipts {
    /// A transaction that this node takes from a client. False when too many are waited for.
    pub fn expect(&mut self, id: TransactionId, valid_until: Height) -> bool {
        if self.pending.len() >= WAITERS_MAX && !self.pending.contains_key(&id) {
            return false;
        }
        self.pending.entry(id).or_insert(Pending { valid_until, durable: false, waiters: Vec::new() });
        self.first_expiry = self.first_expiry.min(valid_until);
        true
    }

    /// Tells `waiter` the fate of an expected transaction when it is known.
    pub fn wait(&mut self, id: &TransactionId, waiter: Ticket) {
        if let Some(fate) = self.fates.get(id) {
            waiter.answer(Answer::Settled(fate.clone()));
        } else if let Some(pending) = self.pending.get_mut(id) {
            if pending.durable && waiter.wanted == Wanted::Durable {
                return waiter.answer(Answer::Durable);
            }
            pending.waiters.retain(|waiter| !waiter.is_abandoned());
            pending.waiters.push(waiter);
        }
    }

    /// Transactions are durable at a quorum.
    pub fn on_durable(&mut self, ids: &[TransactionId]) {
        for id in ids {
            let Some(pending) = self.pending.get_mut(id) else { continue };
            pending.durable = true;
            for waiter in pending.waiters.extract_if(.., |waiter| waiter.wanted == Wanted::Durable) {
                waiter.answer(Answer::Durable);
            }
        }
    }

    /// A block was executed.
    pub fn on_executed(&mut self, height: Height, block: Hash, receipts: &[Receipt]) {
        for receipt in receipts {
            // A deferred transaction may be included again: not the last word.
            if receipt.status.is_final() {
                self.settle(receipt.transaction, Fate::Final { block, receipt: receipt.clone() });
            }
        }
        if self.first_expiry > height {
            return;
        }
        let expired: Vec<(TransactionId, Height)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.valid_until <= height)
            .map(|(id, pending)| (*id, pending.valid_until))
            .collect();
        for (id, valid_until) in expired {
            self.settle(id, Fate::Expired { valid_until });
        }
        let next = self.pending.values().map(|pending| pending.valid_until).min();
        self.first_expiry = next.unwrap_or(Height::new(u64::MAX));
    }

    /// The mempool did not take a transaction: its waiters are told.
    pub fn on_refused(&mut self, id: &TransactionId, error: SubmitError) {
        for waiter in self.pending.remove(id).into_iter().flat_map(|pending| pending.waiters) {
            waiter.answer(Answer::Refused(error));
        }
    }

    /// Transactions waited in the mempool until no block could include them.
    pub fn on_expired(&mut self, ids: &[TransactionId]) {
        for id in ids {
            if let Some(valid_until) = self.pending.get(id).map(|pending| pending.valid_until) {
                self.settle(*id, Fate::Expired { valid_until });
            }
        }
    }

    /// What is known.
    pub fn of(&self, id: &TransactionId) -> Option<&Fate> {
        self.fates.get(id)
    }

    /// Whether it waits in the mempool of this node, as far as its clients gave it.
    pub fn is_pending(&self, id: &TransactionId) -> bool {
        self.pending.contains_key(id)
    }

    /// The first final receipt of an id stands.
    fn settle(&mut self, id: TransactionId, fate: Fate) {
        if self.fates.contains_key(&id) {
            return;
        }
        if let Some(pending) = self.pending.remove(&id) {
            for waiter in pending.waiters {
                waiter.answer(Answer::Settled(fate.clone()));
            }
        }
        self.fates.insert(id, fate);
        self.order.push_back(id);
        if self.order.len() > RECEIPTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.fates.remove(&oldest);
        }
    }
}

/// A receipt as the API shows it.
pub fn final_to_proto(block: &Hash, receipt: &Receipt) -> proto::Final {
    let (outcome, reason) = match receipt.status {
        ReceiptStatus::Executed => (proto::Outcome::Executed, String::new()),
        ReceiptStatus::Failed(reason) => (proto::Outcome::Failed, reason.to_string()),
        ReceiptStatus::Expired => (proto::Outcome::Failed, "included after its last valid height".to_owned()),
        ReceiptStatus::Deferred => (proto::Outcome::Failed, "its nonce is ahead".to_owned()),
    };
    proto::Final {
        height: receipt.height.get(),
        index: receipt.index,
        receipt: Some(proto::Receipt { receipt: receipt.encode().into(), outcome: outcome.into(), reason }),
        block_hash: block.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use node_core::types::{Hash, Height, Receipt, ReceiptStatus, TransactionId};
    use tokio::sync::mpsc;

    use super::{Fate, Receipts};
    use crate::shell::submission::{Answer, Ticket, Wanted};

    fn receipt(id: u8, status: ReceiptStatus) -> Receipt {
        Receipt { transaction: TransactionId::new([id; 32]), height: Height::new(5), index: 0, status }
    }

    #[test]
    fn a_waiter_learns_the_first_final_receipt_and_never_a_deferral() {
        let mut receipts = Receipts::default();
        let id = TransactionId::new([1; 32]);
        assert!(receipts.expect(id, Height::new(50)));
        let (answers, mut fate) = mpsc::unbounded_channel();
        receipts.wait(&id, Ticket { answers, number: 7, wanted: Wanted::Final });
        receipts.on_executed(Height::new(4), Hash::ZERO, &[receipt(1, ReceiptStatus::Deferred)]);
        assert!(fate.try_recv().is_err());
        assert!(receipts.is_pending(&id));
        let done = receipt(1, ReceiptStatus::Executed);
        receipts.on_executed(Height::new(5), Hash::ZERO, std::slice::from_ref(&done));
        let settled = Answer::Settled(Fate::Final { block: Hash::ZERO, receipt: done });
        assert_eq!(fate.try_recv(), Ok((7, settled)));
        assert!(!receipts.is_pending(&id));
    }

    #[test]
    fn who_waits_for_durability_is_told_then_and_who_waits_for_finality_is_not() {
        let mut receipts = Receipts::default();
        let id = TransactionId::new([1; 32]);
        assert!(receipts.expect(id, Height::new(50)));
        let (answers, mut told) = mpsc::unbounded_channel();
        for (number, wanted) in [(1, Wanted::Final), (2, Wanted::Durable)] {
            receipts.wait(&id, Ticket { answers: answers.clone(), number, wanted });
        }
        receipts.on_durable(&[id]);
        receipts.wait(&id, Ticket { answers, number: 3, wanted: Wanted::Durable });
        assert_eq!(told.try_recv(), Ok((2, Answer::Durable)));
        assert_eq!(told.try_recv(), Ok((3, Answer::Durable)));
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn a_transaction_that_was_not_included_in_time_is_expired() {
        let mut receipts = Receipts::default();
        let id = TransactionId::new([1; 32]);
        assert!(receipts.expect(id, Height::new(5)));
        receipts.on_executed(Height::new(4), Hash::ZERO, &[]);
        assert!(receipts.is_pending(&id));
        receipts.on_executed(Height::new(5), Hash::ZERO, &[]);
        assert_eq!(receipts.of(&id), Some(&Fate::Expired { valid_until: Height::new(5) }));
    }
}
