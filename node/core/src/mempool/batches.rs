//! Batches on their way into a block: which are durable here, which of them a quorum has, which a block may name.
//!
//! A batch enters verified. It is kept until a decided block names it or the last of its transactions expires; nothing is
//! evicted. It is *certified* once voters with a quorum of the power have acknowledged it: then at most `f` faults cannot
//! lose it, and every leader may name it. Whoever holds a batch repeats its acknowledgement, so that a certificate is
//! completed although the node that made the batch is gone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::Space;
use crate::{
    crypto::VerifiedBatch,
    types::{Batch, BatchAcknowledgement, Epoch, Hash, Header, Height, Identity, Power, VoterEntry, VoterSet},
};

/// What a batch takes in the header that names it.
pub const DIGEST_BYTES: usize = 32;

/// The bounds of the batches that a node keeps.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLimits {
    /// The most batches.
    pub batches_max: usize,
    /// The most bytes that they take.
    pub bytes_max: usize,
    /// The most batches whose acknowledgements are kept though the batch has not come.
    pub early_max: usize,
    /// How many batches of decided blocks are remembered, to know their echoes.
    pub remembered_max: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { batches_max: 20_000, bytes_max: 256 * 1024 * 1024, early_max: 4_096, remembered_max: 50_000 }
    }
}

/// What became of a batch that came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Added {
    /// It is new: to be stored. These acknowledgements of it came earlier, not verified.
    New(Vec<BatchAcknowledgement>),
    /// It is here already; `durable` if it is stored.
    Known {
        /// It is on this node's disk.
        durable: bool,
    },
    /// A decided block names it.
    Included,
    /// None of its transactions can be executed any more, or it has none.
    Expired,
    /// There is no room.
    Full,
}

/// A batch that a quorum has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certified {
    /// The batch.
    pub batch: Arc<Batch>,
    /// It was made here.
    pub own: bool,
}

/// What to say again, because it may have been lost.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repetition {
    /// Batches to acknowledge again.
    pub acknowledge: Vec<Hash>,
    /// Batches that somebody has and this node has not.
    pub ask: BTreeMap<Identity, Vec<Hash>>,
}

#[derive(Debug)]
struct Known {
    batch: Arc<Batch>,
    arrival: u64,
    valid_until: Height,
    /// The voters that have said so, each with the number of the session key that signed.
    acknowledged_by: BTreeMap<Identity, Epoch>,
    own: bool,
    durable: bool,
    certified: bool,
    /// Ticks since it came.
    ticks: u32,
}

impl Known {
    /// Whether those who have acknowledged are a quorum of these voters. Forgets those who are none of them.
    fn certify(&mut self, voters: &VoterSet) -> bool {
        let entry = |voter: &Identity, epoch: Epoch| voters.get(voter).filter(|entry| entry.epoch == epoch);
        self.acknowledged_by.retain(|voter, epoch| entry(voter, *epoch).is_some());
        let powers = self.acknowledged_by.iter().filter_map(|(voter, epoch)| Some(entry(voter, *epoch)?.power.get()));
        self.certified = Power::new(powers.sum()) >= voters.quorum();
        self.certified
    }

    fn certified(&self) -> Certified {
        Certified { batch: self.batch.clone(), own: self.own }
    }
}

#[derive(Debug, Default)]
struct Early {
    acknowledgements: BTreeMap<Identity, BatchAcknowledgement>,
    ticks: u32,
}

/// The batches that no decided block names yet.
#[derive(Debug)]
pub struct Batches {
    limits: BatchLimits,
    known: BTreeMap<Hash, Known>,
    /// Certified ones, in order of arrival.
    ready: BTreeMap<u64, Hash>,
    expiries: BTreeSet<(Height, Hash)>,
    early: BTreeMap<Hash, Early>,
    included: BTreeSet<Hash>,
    included_order: VecDeque<Hash>,
    next_arrival: u64,
    bytes: usize,
}

impl Batches {
    /// No batches.
    #[must_use]
    pub fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            known: BTreeMap::new(),
            ready: BTreeMap::new(),
            expiries: BTreeSet::new(),
            early: BTreeMap::new(),
            included: BTreeSet::new(),
            included_order: VecDeque::new(),
            next_arrival: 0,
            bytes: 0,
        }
    }

    /// Takes a verified batch. `decided` is the last decided height.
    pub fn add(&mut self, batch: &VerifiedBatch, own: bool, decided: Height) -> Added {
        let batch = batch.batch();
        let digest = batch.digest();
        if self.included.contains(&digest) {
            return Added::Included;
        }
        if let Some(known) = self.known.get(&digest) {
            return Added::Known { durable: known.durable };
        }
        let last = batch.transactions().iter().map(|transaction| transaction.body().valid_until).max();
        let Some(valid_until) = last.filter(|last| *last > decided) else { return Added::Expired };
        if self.known.len() >= self.limits.batches_max || self.bytes + batch.bytes() > self.limits.bytes_max {
            return Added::Full;
        }
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.bytes += batch.bytes();
        self.expiries.insert((valid_until, digest));
        let known = Known {
            batch: batch.clone(),
            arrival,
            valid_until,
            acknowledged_by: BTreeMap::new(),
            own,
            durable: false,
            certified: false,
            ticks: 0,
        };
        self.known.insert(digest, known);
        Added::New(
            self.early.remove(&digest).map(|early| early.acknowledgements.into_values().collect()).unwrap_or_default(),
        )
    }

    /// Whether there is room for more own transactions.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.known.len() < self.limits.batches_max / 2 && self.bytes < self.limits.bytes_max / 2
    }

    /// A batch is on the own disk. False if it is not wanted any more.
    pub fn on_stored(&mut self, digest: &Hash) -> bool {
        self.known.get_mut(digest).is_some_and(|known| {
            known.durable = true;
            true
        })
    }

    /// Whether an acknowledgement by this voter would tell something: only then is its signature worth verifying.
    #[must_use]
    pub fn wants(&self, digest: &Hash, voter: &VoterEntry) -> bool {
        let known = self.known.get(digest);
        known.is_some_and(|known| !known.certified && known.acknowledged_by.get(&voter.identity) != Some(&voter.epoch))
    }

    /// An acknowledgement by one of these voters, verified. Returns the batch when this completes its certificate.
    pub fn acknowledge(&mut self, digest: &Hash, voter: Identity, voters: &VoterSet) -> Option<Certified> {
        let known = self.known.get_mut(digest).filter(|known| !known.certified)?;
        known.acknowledged_by.insert(voter, voters.get(&voter)?.epoch);
        known.certify(voters).then(|| {
            self.ready.insert(known.arrival, *digest);
            known.certified()
        })
    }

    /// Other voters are the newest ones. Who is none of them, or has another key now, does not count any more; with what
    /// the others have said, the certificates of the returned batches are complete.
    pub fn recount(&mut self, voters: &VoterSet) -> Vec<Certified> {
        let mut certified = Vec::new();
        for (digest, known) in self.known.iter_mut().filter(|(_, known)| !known.certified) {
            if known.certify(voters) {
                self.ready.insert(known.arrival, *digest);
                certified.push(known.certified());
            }
        }
        certified
    }

    /// Keeps an acknowledgement of a batch that has not come, or of one that never will.
    pub fn keep_early(&mut self, acknowledgement: BatchAcknowledgement) {
        let digest = acknowledgement.batch;
        let over = self.known.contains_key(&digest) || self.included.contains(&digest);
        if over || (self.early.len() >= self.limits.early_max && !self.early.contains_key(&digest)) {
            return;
        }
        let early = self.early.entry(digest).or_default();
        if early.acknowledgements.len() < crate::types::VOTERS_MAX {
            early.acknowledgements.insert(acknowledgement.voter, acknowledgement);
        }
    }

    /// A batch, if it is here.
    #[must_use]
    pub fn get(&self, digest: &Hash) -> Option<&Arc<Batch>> {
        self.known.get(digest).map(|known| &known.batch)
    }

    /// Whether a batch is on the own disk.
    #[must_use]
    pub fn is_durable(&self, digest: &Hash) -> bool {
        self.known.get(digest).is_some_and(|known| known.durable)
    }

    /// Whether a quorum has a batch, as far as this node knows.
    #[must_use]
    pub fn is_certified(&self, digest: &Hash) -> bool {
        self.known.get(digest).is_some_and(|known| known.certified)
    }

    /// Whether a block could name a batch.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Certified batches for a block, in order of arrival, so that those of one sender keep their order. One that has no
    /// room in a block of its own, since blocks have become smaller, does not keep the others back. `whole` is the room of
    /// a block.
    #[must_use]
    pub fn pick(&self, mut space: Space, whole: Space, count_max: usize, decided: Height) -> Vec<Arc<Batch>> {
        let fits = |known: &&Known| {
            known.batch.transactions().len() <= whole.transactions_max
                && known.batch.bytes() + DIGEST_BYTES <= whole.bytes_max
        };
        let mut picked = Vec::new();
        let ready = self.ready.values().filter_map(|digest| self.known.get(digest));
        for known in ready.filter(|known| known.valid_until > decided).filter(fits).take(count_max) {
            let (count, bytes) = (known.batch.transactions().len(), known.batch.bytes());
            let (Some(transactions_max), Some(bytes_max)) =
                (space.transactions_max.checked_sub(count), space.bytes_max.checked_sub(bytes + DIGEST_BYTES))
            else {
                break;
            };
            space = Space { transactions_max, bytes_max };
            picked.push(known.batch.clone());
        }
        picked
    }

    /// A block with this header is decided: its batches wait no more, here or elsewhere.
    pub fn on_decided(&mut self, header: &Header) {
        for digest in &header.batches {
            self.remove(digest);
            self.early.remove(digest);
            if self.included.insert(*digest) {
                self.included_order.push_back(*digest);
            }
        }
        while self.included_order.len() > self.limits.remembered_max {
            if let Some(oldest) = self.included_order.pop_front() {
                self.included.remove(&oldest);
            }
        }
    }

    /// Forgets the batches of which no transaction can be executed after this height. Returns them.
    pub fn drop_expired(&mut self, decided: Height) -> Vec<Certified> {
        let mut expired = Vec::new();
        while let Some((valid_until, digest)) = self.expiries.first().copied() {
            if valid_until > decided {
                break;
            }
            expired.extend(self.remove(&digest).map(|known| Certified { batch: known.batch, own: known.own }));
        }
        expired
    }

    /// Some time has passed: says what should be said again after two ticks without success. The bounds keep each message
    /// small.
    pub fn on_tick(&mut self, acknowledge_max: usize, ask_max: usize) -> Repetition {
        let mut repetition = Repetition::default();
        for (digest, known) in &mut self.known {
            known.ticks = known.ticks.saturating_add(1);
            if known.durable && known.ticks > 2 && repetition.acknowledge.len() < acknowledge_max {
                repetition.acknowledge.push(*digest);
                known.ticks = 0;
            }
        }
        let mut asked = 0;
        for (digest, early) in &mut self.early {
            early.ticks = early.ticks.saturating_add(1);
            if early.ticks < 2 || asked >= ask_max {
                continue;
            }
            // The holders in turn: one that does not answer does not keep the others from being asked.
            let turn = usize::try_from(early.ticks).unwrap_or_default() % early.acknowledgements.len().max(1);
            if let Some(holder) = early.acknowledgements.keys().nth(turn) {
                repetition.ask.entry(*holder).or_default().push(*digest);
                asked += 1;
            }
        }
        // Nobody had it: its acknowledgements may be lies.
        self.early.retain(|_, early| early.ticks < 32);
        repetition
    }

    fn remove(&mut self, digest: &Hash) -> Option<Known> {
        let known = self.known.remove(digest)?;
        self.bytes -= known.batch.bytes();
        self.expiries.remove(&(known.valid_until, *digest));
        self.ready.remove(&known.arrival);
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::{Added, BatchLimits, Batches};
    use crate::{
        crypto::{VerifiedBatch, verify_transaction},
        fixtures::{block, genesis, identity, transfer},
        mempool::Space,
        types::{BatchAcknowledgement, Epoch, Hash, Height, Signature, VoterEntry, VoterSet},
    };

    const ALL: Space = Space { transactions_max: 100, bytes_max: 100_000 };

    fn batch(nonce: u64) -> VerifiedBatch {
        let transaction = transfer(genesis(&[1, 1, 1, 1]).incarnation(), "alice", "bob", nonce, 1);
        VerifiedBatch::new(vec![verify_transaction(transaction).unwrap()])
    }

    fn voters() -> VoterSet {
        genesis(&[1, 1, 1, 1]).voter_set().clone()
    }

    fn pool(numbers: std::ops::Range<u64>) -> Batches {
        let mut batches = Batches::new(BatchLimits::default());
        for number in numbers {
            assert_eq!(batches.add(&batch(number), true, Height::ZERO), Added::New(Vec::new()));
        }
        batches
    }

    fn certify(batches: &mut Batches, number: u64) -> usize {
        let digest = batch(number).batch().digest();
        let voters = voters();
        (0..4).filter(|n| batches.acknowledge(&digest, identity(*n), &voters).is_some()).count()
    }

    fn picked(batches: &Batches, space: Space) -> Vec<Hash> {
        batches.pick(space, ALL, 10, Height::ZERO).iter().map(|batch| batch.digest()).collect()
    }

    #[test]
    fn a_batch_is_certified_once_by_a_quorum_and_never_by_one_voter_twice() {
        let mut batches = pool(0..1);
        let digest = batch(0).batch().digest();
        let mut acknowledge = |n| batches.acknowledge(&digest, identity(n), &voters()).is_some();
        let certified = [1, 1, 1, 2, 9, 3, 0].map(&mut acknowledge);
        assert_eq!(certified, [false, false, false, false, false, true, false]);
    }

    #[test]
    fn who_is_no_voter_any_more_or_has_another_key_does_not_count_and_fewer_voters_need_fewer() {
        let digest = batch(0).batch().digest();
        let of = |powers: &[u64], epochs: &[u64]| {
            let entries = genesis(powers).voter_set().entries().to_vec();
            let renewed = entries.into_iter().enumerate().map(|(index, entry)| {
                let place = (0..powers.len()).find(|n| identity(*n as u64) == entry.identity).unwrap_or(index);
                VoterEntry { epoch: Epoch::new(epochs[place]), ..entry }
            });
            VoterSet::new(renewed.collect()).unwrap()
        };
        let (five, four) = (of(&[1; 5], &[1; 5]), of(&[1; 4], &[1; 4]));
        let mut batches = pool(0..1);
        for n in [0, 1, 4] {
            assert_eq!(batches.acknowledge(&digest, identity(n), &five), None);
        }
        // The fifth is voted out: two of four are left.
        assert_eq!(batches.recount(&four).len(), 0);
        // The first gets another key: its word of before is worth nothing, and it is asked for another.
        let renewed = of(&[1; 4], &[2, 1, 1, 1]);
        assert_eq!(batches.acknowledge(&digest, identity(2), &renewed), None);
        assert!(batches.wants(&digest, renewed.get(&identity(0)).unwrap()));
        assert!(!batches.wants(&digest, renewed.get(&identity(1)).unwrap()));
        // Two of four are no quorum by number, and are one by power.
        assert_eq!(batches.recount(&renewed).len(), 0);
        assert_eq!(batches.recount(&of(&[1, 4, 4, 1], &[2, 1, 1, 1])).len(), 1);
        assert_eq!(batches.recount(&renewed).len(), 0);
        assert!(batches.is_certified(&digest));
    }

    #[test]
    fn a_batch_that_fits_into_no_block_does_not_keep_others_back() {
        let two = |nonce| {
            let incarnation = genesis(&[1; 4]).incarnation();
            let both = [nonce, nonce + 1].map(|nonce| transfer(incarnation, "alice", "bob", nonce, 1));
            VerifiedBatch::new(both.map(|transaction| verify_transaction(transaction).unwrap()).to_vec())
        };
        let mut batches = Batches::new(BatchLimits::default());
        for added in [two(8), batch(0)] {
            batches.add(&added, true, Height::ZERO);
            for n in 0..4 {
                batches.acknowledge(&added.batch().digest(), identity(n), &voters());
            }
        }
        let whole = Space { transactions_max: 1, ..ALL };
        let picked = batches.pick(whole, whole, 10, Height::ZERO);
        assert_eq!(picked.iter().map(|batch| batch.digest()).collect::<Vec<_>>(), [batch(0).batch().digest()]);
    }

    #[test]
    fn blocks_name_certified_batches_in_order_of_arrival_as_far_as_they_fit() {
        let mut batches = pool(0..3);
        assert_eq!(picked(&batches, ALL), []);
        assert_eq!((certify(&mut batches, 2), certify(&mut batches, 0)), (1, 1));
        let named = [0, 2].map(|number| batch(number).batch().digest());
        assert_eq!(picked(&batches, ALL), named);
        assert_eq!(picked(&batches, Space { transactions_max: 1, ..ALL }), named[..1]);
    }

    #[test]
    fn a_batch_of_a_decided_block_does_not_come_back() {
        let mut batches = pool(0..1);
        certify(&mut batches, 0);
        let decided = block(1, Hash::ZERO, batch(0).batch().transactions().to_vec());
        batches.on_decided(decided.header());
        assert_eq!((picked(&batches, ALL), batches.bytes), (Vec::new(), 0));
        assert_eq!(batches.add(&batch(0), false, Height::new(1)), Added::Included);
    }

    #[test]
    fn batches_expire_and_the_bounds_refuse() {
        let mut batches = pool(0..1);
        let last = batch(0).batch().transactions()[0].body().valid_until;
        assert_eq!(batches.drop_expired(last.checked_sub(1).unwrap()).len(), 0);
        assert_eq!(batches.drop_expired(last).len(), 1);
        assert_eq!(batches.add(&batch(0), false, last), Added::Expired);
        let mut batches = Batches::new(BatchLimits { batches_max: 1, ..BatchLimits::default() });
        batches.add(&batch(0), false, Height::ZERO);
        assert_eq!(batches.add(&batch(1), false, Height::ZERO), Added::Full);
        assert_eq!(batches.add(&batch(0), false, Height::ZERO), Added::Known { durable: false });
    }

    #[test]
    fn what_may_have_been_lost_is_said_again_and_what_never_came_is_asked_for() {
        let mut batches = pool(0..1);
        let (here, missing) = (batch(0).batch().digest(), batch(1).batch().digest());
        let signature = Signature::new([1; 64]);
        let early = BatchAcknowledgement { batch: missing, voter: identity(2), epoch: Epoch::FIRST, signature };
        batches.keep_early(early);
        assert!(batches.on_stored(&here) && !batches.on_stored(&missing));
        let first = batches.on_tick(10, 10);
        assert!(first.acknowledge.is_empty() && first.ask.is_empty());
        let (mut repeated, mut asked) = (0, 0);
        for _ in 0..4 {
            let more = batches.on_tick(10, 10);
            repeated += more.acknowledge.len();
            asked += more.ask.get(&identity(2)).map_or(0, Vec::len);
        }
        assert_eq!((repeated, asked), (1, 4));
        assert_eq!(batches.add(&batch(1), false, Height::ZERO), Added::New(vec![early]));
    }
}
