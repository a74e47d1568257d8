//! Verifies the signatures of clients' transactions in batches, off the tasks that serve connections, within bounds.

use std::sync::Arc;

use node_core::{
    crypto::{InvalidSignature, VerifiedTransaction, verify_transactions},
    types::Transaction,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Transactions that may wait for verification; more are shed. About 100 ms of work for one core.
const WAITING_MAX: usize = 8_192;
/// Transactions that are verified at once: what has come while the former ones were verified, up to this many.
const BATCH_MAX: usize = 512;

/// What was found about each transaction, in their order.
pub type Verified = Vec<Result<VerifiedTransaction, InvalidSignature>>;

/// The queue before the verification. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verifier {
    jobs: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    transactions: Vec<Transaction>,
    reply: oneshot::Sender<Verified>,
    /// Given back when the job is done.
    _places: OwnedSemaphorePermit,
}

/// The queue is full: the transactions were shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// A job that was queued.
#[derive(Debug)]
pub struct Queued(oneshot::Receiver<Verified>);

impl Queued {
    /// What was found; nothing when the node is stopping.
    pub async fn wait(self) -> Option<Verified> {
        self.0.await.ok()
    }
}

impl Verifier {
    /// Starts the task behind the queue. It ends when the last clone of the queue is dropped.
    pub fn start() -> Self {
        let (jobs, queue) = mpsc::channel(WAITING_MAX);
        tokio::spawn(work(queue));
        Self { jobs, places: Arc::new(Semaphore::new(WAITING_MAX)) }
    }

    /// Queues transactions, or sheds all of them.
    pub fn queue(&self, transactions: Vec<Transaction>) -> Result<Queued, Overloaded> {
        let count = u32::try_from(transactions.len()).map_err(|_| Overloaded)?;
        let places = Arc::clone(&self.places).try_acquire_many_owned(count).map_err(|_| Overloaded)?;
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { transactions, reply, _places: places }).map_err(|_| Overloaded)?;
        Ok(Queued(answer))
    }
}

async fn work(mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.recv().await {
        let mut count = job.transactions.len();
        let mut jobs = vec![job];
        while count < BATCH_MAX
            && let Ok(job) = queue.try_recv()
        {
            count += job.transactions.len();
            jobs.push(job);
        }
        // An interrupted verification is a shutdown: nobody waits for the answers.
        let _ = tokio::task::spawn_blocking(move || verify(jobs)).await;
    }
}

fn verify(mut jobs: Vec<Job>) {
    let counts: Vec<usize> = jobs.iter().map(|job| job.transactions.len()).collect();
    let transactions = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.transactions)).collect();
    let mut results = verify_transactions(transactions).into_iter();
    for (job, count) in jobs.into_iter().zip(counts) {
        // The caller may have gone.
        let _ = job.reply.send(results.by_ref().take(count).collect());
    }
}

#[cfg(test)]
mod tests {
    use node_api::transactions::{TransferTerms, transfer};
    use node_core::{
        crypto::KeyPair,
        types::{AccountId, Amount, Hash, Height, Nonce, Transaction},
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

    #[tokio::test]
    async fn each_job_gets_the_results_of_its_own_transactions() {
        let verifier = Verifier::start();
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
    async fn what_does_not_fit_is_shed_whole() {
        let verifier = Verifier::start();
        let more = vec![signed(1); WAITING_MAX + 1];
        assert_eq!(verifier.queue(more).map(|_| ()).unwrap_err(), Overloaded);
        assert!(verifier.queue(vec![signed(1)]).is_ok());
    }
}
