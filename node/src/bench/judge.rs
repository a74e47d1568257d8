//! Puts the headers and transactions that nodes show together: what is final, when, and whether the certified receipts are those
//! that the rules of the ledger give.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use node_core::types::{FailureReason, Hash, Header, Height, Receipt, ReceiptStatus, TransactionId, merkle_root};
use tokio::time::Instant;

use super::{BenchError, corpus::Order};

/// What became final.
#[derive(Debug)]
pub struct Finality {
    /// For each transaction of the corpus, when every node, but for an absent one, had shown it in a final block.
    pub at: Vec<Option<Instant>>,
    /// How many have such a time.
    pub count: usize,
    /// Places in blocks of transactions that an earlier place, or an earlier block, had executed. They fail there, with a used
    /// nonce.
    pub repeated: usize,
    /// Blocks with at least one such place.
    pub blocks_with_repeats: usize,
    /// Places in blocks of transactions that came before the one of the same account whose turn it was. They have no effect
    /// there, and come again.
    pub deferred: usize,
    /// Blocks whose certified receipts are not those that follow from the order of the transactions.
    pub blocks_with_failures: usize,
    /// Blocks with at least one transaction whose receipts are compared.
    pub blocks_checked: usize,
    /// When the first node showed each block, in this order.
    pub blocks: Vec<Instant>,
    /// What each node has shown, and when.
    pub shown: Vec<Vec<(Instant, Height)>>,
    /// Final blocks that an absent node has not shown.
    pub behind: usize,
}

impl Finality {
    /// The longest time between two blocks in a row of which the second came after `from`.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let pairs = self.blocks.iter().zip(self.blocks.iter().skip(1));
        let gaps = pairs.filter(|(_, next)| **next >= from).map(|(block, next)| next.saturating_duration_since(*block));
        gaps.max().unwrap_or_default()
    }

    /// When a node that came back at `from` first showed a block that was the newest of all.
    pub fn caught_up(&self, node: usize, from: Instant) -> Option<Instant> {
        let others = || self.shown.iter().enumerate().filter(|(other, _)| *other != node).flat_map(|(_, shown)| shown);
        let newest = |at: Instant| others().filter(|(shown, _)| *shown <= at).map(|(_, height)| *height).max();
        let own = self.shown.get(node)?.iter().filter(|(at, _)| *at >= from);
        own.clone().find(|(at, height)| Some(*height) >= newest(*at)).map(|(at, _)| *at)
    }
}

/// One header as one node shows it.
pub struct Arrival {
    /// The node.
    pub node: usize,
    /// When it came.
    pub at: Instant,
    /// The header, whose certificate was verified.
    pub header: Header,
    /// Its hash.
    pub hash: Hash,
}

/// The transactions of one block.
pub struct Body {
    /// The block.
    pub height: Height,
    /// When it came.
    pub at: Instant,
    /// They in their order.
    pub included: Vec<Included>,
}

/// One place in a block.
#[derive(Clone, Copy)]
pub struct Included {
    /// The transaction.
    pub id: TransactionId,
    /// Its index in the corpus, if it is of it.
    pub index: Option<usize>,
}

#[derive(Default)]
struct Place {
    hash: Option<Hash>,
    shown: usize,
    finished: bool,
    last: Option<Instant>,
    body: Option<Judged>,
}

/// The transactions of a block whose predecessors are all known.
struct Judged {
    at: Instant,
    /// Indexes of those that were executed here.
    executed: Vec<usize>,
}

/// Puts headers and bodies together.
pub struct Judge {
    nodes: usize,
    /// How many of them must have shown a block that is final.
    needed: usize,
    order: Order,
    /// Which transactions of the corpus the blocks below `next` have executed.
    executed: Vec<bool>,
    /// The first height whose transactions are not known.
    next: Height,
    /// Transactions of blocks above that: what they did depends on those between.
    waiting: BTreeMap<Height, Body>,
    places: BTreeMap<Height, Place>,
    /// Receipts roots that the header two heights later must name.
    expected_roots: VecDeque<(Height, Hash, bool)>,
    roots_named: BTreeMap<Height, Hash>,
    /// What is known.
    pub finality: Finality,
}

impl Judge {
    /// For a corpus of this order, of which nothing is in blocks below `first`.
    pub fn new(nodes: usize, first: Height, order: Order) -> Self {
        Self {
            nodes,
            needed: nodes,
            order,
            executed: vec![false; order.transactions],
            next: first,
            waiting: BTreeMap::new(),
            places: BTreeMap::new(),
            expected_roots: VecDeque::new(),
            roots_named: BTreeMap::new(),
            finality: Finality {
                at: vec![None; order.transactions],
                count: 0,
                repeated: 0,
                blocks_with_repeats: 0,
                deferred: 0,
                blocks_with_failures: 0,
                blocks_checked: 0,
                blocks: Vec::new(),
                shown: vec![Vec::new(); nodes],
                behind: 0,
            },
        }
    }

    /// What all nodes but one have shown is final.
    pub fn allow_one_absent(&mut self) {
        self.needed -= 1;
    }

    /// How many final blocks the absent node has not shown.
    pub fn count_behind(&mut self) -> usize {
        self.finality.behind = self.places.values().filter(|place| place.finished).count();
        self.finality.behind
    }

    /// Whether the header is seen for the first time: then its block is to be read.
    pub fn on_header(&mut self, arrival: &Arrival) -> Result<bool, BenchError> {
        let height = arrival.header.height;
        let place = self.places.entry(height).or_default();
        let first = place.hash.is_none();
        if *place.hash.get_or_insert(arrival.hash) != arrival.hash {
            let problem = "it has another final block than the others".to_owned();
            return Err(BenchError::Contradiction { node: arrival.node, height: height.get(), problem });
        }
        place.shown += 1;
        place.last = Some(arrival.at);
        if first {
            if let Some(executed) = height.checked_sub(2) {
                self.roots_named.insert(executed, arrival.header.results.receipts_root);
            }
            self.finality.blocks.push(arrival.at);
        }
        if let Some(shown) = self.finality.shown.get_mut(arrival.node) {
            shown.push((arrival.at, height));
        }
        self.finish(height);
        self.compare_roots();
        Ok(first)
    }

    /// The transactions of a block have come, in any order of the blocks.
    pub fn on_body(&mut self, body: Body) {
        self.waiting.insert(body.height, body);
        while let Some(body) = self.waiting.remove(&self.next) {
            let height = self.next;
            self.next = height.next();
            let judged = self.judge(body);
            self.places.entry(height).or_default().body = Some(judged);
            self.finish(height);
        }
        self.compare_roots();
    }

    /// What the transactions of the next block do, by the rule of the nonces: one whose turn it is is executed, one that was
    /// executed before fails, one that comes too early is deferred.
    fn judge(&mut self, body: Body) -> Judged {
        let Body { height, at, included } = body;
        let mut executed = Vec::with_capacity(included.len());
        let mut receipts = Vec::with_capacity(included.len());
        let (repeated, mut counts) = (self.finality.repeated, false);
        for (place, Included { id, index }) in (0..).zip(included) {
            counts |= index.is_some();
            let status = index.map_or(ReceiptStatus::Executed, |index| self.status(index));
            match (status, index) {
                (ReceiptStatus::Executed, Some(index)) => {
                    if let Some(known) = self.executed.get_mut(index) {
                        *known = true;
                    }
                    executed.push(index);
                }
                (ReceiptStatus::Executed, None) => {}
                (ReceiptStatus::Failed(_) | ReceiptStatus::Expired, _) => self.finality.repeated += 1,
                (ReceiptStatus::Deferred, _) => self.finality.deferred += 1,
            }
            receipts.push(Receipt { transaction: id, height, index: place, status }.hash());
        }
        self.finality.blocks_with_repeats += usize::from(self.finality.repeated > repeated);
        self.expected_roots.push_back((height, merkle_root(&receipts), counts));
        Judged { at, executed }
    }

    fn status(&self, index: usize) -> ReceiptStatus {
        let executed = |index: usize| self.executed.get(index).is_some_and(|executed| *executed);
        if executed(index) {
            ReceiptStatus::Failed(FailureReason::NonceUsed)
        } else if self.order.before(index).is_none_or(executed) {
            ReceiptStatus::Executed
        } else {
            ReceiptStatus::Deferred
        }
    }

    /// A block that enough nodes have shown, and whose transactions are known, is final.
    fn finish(&mut self, height: Height) {
        let Some(place) = self.places.get_mut(&height) else { return };
        let last = place.last.filter(|_| !place.finished && place.shown >= self.needed);
        let found = last.and_then(|last| Some((last, place.body.take()?)));
        place.finished |= found.is_some();
        if place.finished && place.shown >= self.nodes {
            self.places.remove(&height);
        }
        let Some((last, body)) = found else { return };
        let at = last.max(body.at);
        for index in &body.executed {
            if let Some(place @ None) = self.finality.at.get_mut(*index) {
                *place = Some(at);
                self.finality.count += 1;
            }
        }
    }

    fn compare_roots(&mut self) {
        let named = &mut self.roots_named;
        let finality = &mut self.finality;
        self.expected_roots.retain(|(height, expected, counts)| match named.remove(height) {
            Some(found) => {
                finality.blocks_checked += usize::from(*counts);
                finality.blocks_with_failures += usize::from(found != *expected);
                false
            }
            None => true,
        });
    }

    /// The receipts of every block with transactions are compared.
    pub fn settled(&self) -> bool {
        let waits = |body: &Body| body.included.iter().any(|included| included.index.is_some());
        self.expected_roots.iter().all(|(_, _, counts)| !counts) && !self.waiting.values().any(waits)
    }
}

#[cfg(test)]
mod tests {
    use node_core::types::{
        FailureReason, Hash, Header, Height, Identity, Receipt, ReceiptStatus, Results, Round, TimeMs, TransactionId,
        merkle_root,
    };
    use tokio::time::Instant;

    use super::{Arrival, Body, Included, Judge, Order};

    const USED: ReceiptStatus = ReceiptStatus::Failed(FailureReason::NonceUsed);

    /// A corpus of so many transactions, all of different accounts.
    fn judge(nodes: usize, transactions: usize) -> Judge {
        Judge::new(nodes, Height::new(1), Order { transactions, accounts: transactions })
    }

    fn header(height: u64, time: u64, receipts_root: Hash) -> Header {
        Header {
            height: Height::new(height),
            round: Round::new(0),
            parent: Hash::ZERO,
            proposer: Identity::new([1; 32]),
            time: TimeMs::new(time),
            batches: Vec::new(),
            voters_hash: Hash::ZERO,
            results: Results { receipts_root, ..Results::NONE },
            parameters_hash: Hash::ZERO,
        }
    }

    fn shown(node: usize, header: Header) -> Arrival {
        Arrival { node, at: Instant::now(), hash: header.hash(), header }
    }

    fn id(index: usize) -> TransactionId {
        TransactionId::new([u8::try_from(index).expect("tests have few"); 32])
    }

    fn body(height: u64, indexes: &[usize]) -> Body {
        let included = indexes.iter().map(|index| Included { id: id(*index), index: Some(*index) }).collect();
        Body { height: Height::new(height), at: Instant::now(), included }
    }

    fn root(height: u64, places: &[(usize, ReceiptStatus)]) -> Hash {
        let receipts = (0..).zip(places).map(|(place, (index, status))| {
            Receipt { transaction: id(*index), height: Height::new(height), index: place, status: *status }.hash()
        });
        merkle_root(&receipts.collect::<Vec<_>>())
    }

    /// One node shows a block for each of `roots`, the receipts that it names for the block two heights before.
    fn show(judge: &mut Judge, roots: &[Hash]) {
        for (height, named) in (1..).zip(roots) {
            judge.on_header(&shown(0, header(height, height, *named))).expect("there is one node");
        }
    }

    #[test]
    fn a_transaction_is_final_once_every_node_has_shown_its_block() {
        let mut judge = judge(2, 3);
        let block = header(1, 5, Hash::ZERO);
        assert!(judge.on_header(&shown(0, block.clone())).expect("it is the first"));
        judge.on_body(body(1, &[0, 2]));
        assert_eq!(judge.finality.count, 0);
        assert!(!judge.on_header(&shown(1, block)).expect("it is the same"));
        assert_eq!(judge.finality.at.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn an_absent_node_delays_nothing_and_has_to_show_the_same_later() {
        let mut judge = judge(2, 1);
        judge.allow_one_absent();
        let block = header(1, 5, Hash::ZERO);
        judge.on_header(&shown(0, block.clone())).expect("it is the first");
        judge.on_body(body(1, &[0]));
        assert_eq!((judge.finality.count, judge.count_behind()), (1, 1));
        assert!(judge.on_header(&shown(1, header(1, 6, Hash::ZERO))).is_err(), "it shows another block");
        let back = shown(1, block);
        judge.on_header(&back).expect("it is the same");
        assert_eq!((judge.finality.count, judge.count_behind()), (1, 0));
        assert_eq!(judge.finality.caught_up(1, back.at), Some(back.at));
    }

    #[test]
    fn two_nodes_with_different_blocks_end_the_measurement() {
        let mut judge = judge(2, 1);
        assert!(judge.on_header(&shown(0, header(1, 5, Hash::ZERO))).is_ok());
        assert!(judge.on_header(&shown(1, header(1, 6, Hash::ZERO))).is_err());
    }

    #[test]
    fn a_block_whose_certified_receipts_are_others_counts_as_one_with_failures() {
        let mut judge = judge(1, 2);
        let (good, bad) = (root(1, &[(0, ReceiptStatus::Executed)]), root(2, &[(1, USED)]));
        show(&mut judge, &[Hash::ZERO, Hash::ZERO, good, bad]);
        judge.on_body(body(1, &[0]));
        judge.on_body(body(2, &[1]));
        let finality = judge.finality;
        assert_eq!((finality.blocks_checked, finality.blocks_with_failures, finality.repeated), (2, 1, 0));
        assert_eq!(finality.count, 2);
    }

    #[test]
    fn a_transaction_that_is_in_a_second_block_fails_there_and_that_is_no_failure_of_the_block() {
        // Whatever the order in which the blocks are fetched.
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut judge = judge(1, 3);
            let executed = ReceiptStatus::Executed;
            let first = root(1, &[(0, executed), (1, executed)]);
            let second = root(2, &[(1, USED), (2, executed)]);
            let third = root(3, &[(2, USED), (0, USED)]);
            show(&mut judge, &[Hash::ZERO, Hash::ZERO, first, second, third]);
            for height in order {
                let indexes: &[usize] = [&[0, 1], &[1, 2], &[2, 0]][height - 1];
                judge.on_body(body(height as u64, indexes));
            }
            assert!(judge.settled());
            let finality = judge.finality;
            assert_eq!((finality.blocks_checked, finality.blocks_with_failures), (3, 0), "fetched in order {order:?}");
            assert_eq!((finality.repeated, finality.blocks_with_repeats, finality.count), (3, 2, 3));
        }
    }

    #[test]
    fn a_transaction_whose_turn_it_is_not_is_deferred_and_final_only_when_it_comes_again() {
        // Two accounts: transaction 2 follows 0.
        let mut judge = Judge::new(1, Height::new(1), Order { transactions: 4, accounts: 2 });
        let executed = ReceiptStatus::Executed;
        let first = root(1, &[(2, ReceiptStatus::Deferred), (1, executed)]);
        let second = root(2, &[(0, executed), (2, executed)]);
        show(&mut judge, &[Hash::ZERO, Hash::ZERO, first, second]);
        judge.on_body(body(1, &[2, 1]));
        assert_eq!(judge.finality.count, 1);
        judge.on_body(body(2, &[0, 2]));
        let finality = judge.finality;
        assert_eq!((finality.blocks_checked, finality.blocks_with_failures), (2, 0));
        assert_eq!((finality.deferred, finality.repeated, finality.count), (1, 0, 3));
    }
}
