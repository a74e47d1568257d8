//! Verifies the signatures of clients' transactions and of peers' batches together, on a thread of its own, within bounds.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use node_core::{
    crypto::{InvalidSignature, KeyPoints, PublicPoint, VerifiedBatch, VerifiedTransaction, verify_together},
    types::{Batch, Hash, Transaction},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::recent::Recent;

/// Transactions of clients that may wait for verification; more are shed. About 100 ms of work for one core.
const WAITING_MAX: usize = 8_192;
/// Transactions in batches of peers that may wait; a peer that sends more is read more slowly.
const BATCHED_MAX: usize = 16_384;
/// Transactions that are verified at once: what came while the former ones were verified, up to about this many.
const GROUP_MAX: usize = 1_024;
/// A group that is smaller waits for more, as long as there are many: the more at once, the less each of them costs.
const GROUP_WANTED: usize = 256;
const GATHER_TIME_MAX: Duration = Duration::from_millis(10);
/// So many in the group before mean that there are many.
const MANY: usize = 32;
/// Public keys whose points are remembered, in one of two generations: some 60 MiB for both.
const KEYS_MAX: usize = 131_072;
/// Verified batches that are remembered: one that comes again is not verified again.
const BATCHES_MAX: usize = 128;

/// What was found about each transaction, in their order.
pub type Verified = Vec<Result<VerifiedTransaction, InvalidSignature>>;

/// The queue before the verification. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Verifier {
    jobs: Sender<Job>,
    places: Arc<Semaphore>,
    batch_places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    work: Work,
    /// Given back when the job is done.
    places: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Work {
    Transactions(Vec<Transaction>, oneshot::Sender<Verified>),
    Batch(Arc<Batch>, oneshot::Sender<Result<VerifiedBatch, InvalidSignature>>),
}

impl Work {
    fn transactions(&self) -> usize {
        match self {
            Self::Transactions(transactions, _) => transactions.len(),
            Self::Batch(batch, _) => batch.transactions().len(),
        }
    }
}

/// The queue is full: the transactions were shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// A job that was queued.
#[derive(Debug)]
pub struct Queued<T>(oneshot::Receiver<T>);

impl<T> Queued<T> {
    /// What was found; nothing when the node is stopping.
    pub async fn wait(self) -> Option<T> {
        self.0.await.ok()
    }
}

impl Verifier {
    /// Starts the thread behind the queue.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        thread::Builder::new().name("verify".to_owned()).spawn(move || Worker::default().work(&queue))?;
        let (places, batch_places) = (Semaphore::new(WAITING_MAX), Semaphore::new(BATCHED_MAX));
        Ok(Self { jobs, places: Arc::new(places), batch_places: Arc::new(batch_places) })
    }

    /// Queues transactions, or sheds all of them.
    pub fn queue(&self, transactions: Vec<Transaction>) -> Result<Queued<Verified>, Overloaded> {
        let count = u32::try_from(transactions.len()).map_err(|_| Overloaded)?;
        let places = Arc::clone(&self.places).try_acquire_many_owned(count).map_err(|_| Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let job = Job { work: Work::Transactions(transactions, reply), places };
        self.jobs.send(job).map_err(|_| Overloaded)?;
        Ok(Queued(answer))
    }

    /// Queues a batch of a peer; waits while too many do. Nothing when the node is stopping.
    pub async fn queue_batch(&self, batch: Arc<Batch>) -> Option<Queued<Result<VerifiedBatch, InvalidSignature>>> {
        let count = u32::try_from(batch.transactions().len()).ok()?;
        let places = Arc::clone(&self.batch_places).acquire_many_owned(count).await.ok()?;
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { work: Work::Batch(batch, reply), places }).ok()?;
        Some(Queued(answer))
    }
}

/// The thread's own.
#[derive(Debug)]
struct Worker {
    keys: Keys,
    batches: Recent<Hash, VerifiedBatch>,
    last: usize,
}

impl Default for Worker {
    fn default() -> Self {
        Self { keys: Keys(Recent::new(KEYS_MAX)), batches: Recent::new(BATCHES_MAX), last: 0 }
    }
}

impl Worker {
    fn work(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let jobs = self.gather(first, queue);
            self.verify(jobs);
        }
    }

    fn gather(&mut self, first: Job, queue: &Receiver<Job>) -> Vec<Job> {
        let mut count = first.work.transactions();
        let mut jobs = vec![first];
        let until = (self.last >= MANY).then(|| Instant::now() + GATHER_TIME_MAX);
        while count < GROUP_MAX {
            let patience = until.filter(|_| count < GROUP_WANTED).map(|until| until.duration_since(Instant::now()));
            match queue.recv_timeout(patience.unwrap_or_default()) {
                Ok(job) => {
                    count += job.work.transactions();
                    jobs.push(job);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.last = count;
        jobs
    }

    fn verify(&mut self, jobs: Vec<Job>) {
        let (mut transactions, mut batches) = (Vec::new(), Vec::new());
        let (mut clients, mut peers) = (Vec::new(), Vec::new());
        for Job { work, places } in jobs {
            match work {
                Work::Transactions(more, reply) => {
                    clients.push((more.len(), reply, places));
                    transactions.extend(more);
                }
                Work::Batch(batch, reply) => {
                    // In all of these: whoever asked may have gone.
                    if let Some(known) = self.batches.get(&batch.digest()) {
                        let _ = reply.send(Ok(known));
                    } else {
                        peers.push((reply, places));
                        batches.push(batch);
                    }
                }
            }
        }
        let (transactions, batches) = verify_together(&mut self.keys, transactions, batches);
        let mut transactions = transactions.into_iter();
        for (count, reply, _places) in clients {
            let _ = reply.send(transactions.by_ref().take(count).collect());
        }
        for ((reply, _places), found) in peers.into_iter().zip(batches) {
            if let Ok(batch) = &found {
                self.batches.put(batch.batch().digest(), batch.clone());
            }
            let _ = reply.send(found);
        }
    }
}

/// The points of the keys that signed lately.
#[derive(Debug)]
struct Keys(Recent<[u8; 32], PublicPoint>);

impl KeyPoints for Keys {
    fn find(&mut self, key: &[u8; 32]) -> Option<PublicPoint> {
        if let Some(known) = self.0.get(key) {
            return Some(known);
        }
        let found = PublicPoint::of(key)?;
        self.0.put(*key, found);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use node_api::transactions::{TransferTerms, transfer};
    use node_core::{
        crypto::KeyPair,
        types::{AccountId, Amount, Batch, Hash, Height, Nonce, Transaction},
    };

    use super::{Overloaded, Verifier, WAITING_MAX};

    fn signed(nonce: u64) -> Transaction {
        let terms = TransferTerms {
            incarnation: Hash::ZERO.into(),
            nonce: Nonce::new(nonce),
            valid_until: Height::new(9),
            to: AccountId::new([1; 32]),
            amount: Amount::new(1),
        };
        transfer(&KeyPair::from_seed([3; 32]), &terms)
    }

    fn forged() -> Transaction {
        let (one, other) = (signed(1), signed(2));
        Transaction::new(one.body().clone(), other.signatures().to_vec()).expect("one signature is in order")
    }

    fn batch(transactions: Vec<Transaction>) -> Arc<Batch> {
        Arc::new(Batch::new(transactions).expect("few transactions"))
    }

    #[tokio::test]
    async fn each_job_gets_the_results_of_its_own_transactions() {
        let verifier = Verifier::start().expect("a thread starts");
        let jobs = [vec![signed(1), forged()], vec![signed(3)], vec![forged()]];
        let queued: Vec<_> = jobs.map(|job| verifier.queue(job).expect("there is room")).into_iter().collect();
        let mut found = Vec::new();
        for job in queued {
            let results = job.wait().await.expect("the verifier runs");
            found.push(results.iter().map(Result::is_ok).collect::<Vec<_>>());
        }
        assert_eq!(found, [vec![true, false], vec![true], vec![false]]);
    }

    #[tokio::test]
    async fn a_bad_batch_is_refused_every_time_and_does_not_spoil_others() {
        let verifier = Verifier::start().expect("a thread starts");
        let (good, bad) = (batch(vec![signed(1), signed(2)]), batch(vec![signed(3), forged()]));
        let mut found = Vec::new();
        for batch in [&good, &bad, &good, &bad] {
            let transactions = verifier.queue(vec![signed(7)]).expect("there is room");
            let batch = verifier.queue_batch(Arc::clone(batch)).await.expect("the verifier runs");
            found.push(batch.wait().await.expect("the verifier runs").is_ok());
            assert!(transactions.wait().await.expect("the verifier runs").iter().all(Result::is_ok));
        }
        assert_eq!(found, [true, false, true, false]);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_shed_whole() {
        let verifier = Verifier::start().expect("a thread starts");
        let more = vec![signed(1); WAITING_MAX + 1];
        assert_eq!(verifier.queue(more).map(|_| ()).unwrap_err(), Overloaded);
        assert!(verifier.queue(vec![signed(1)]).is_ok());
    }
}
