//! Streams of transactions: decoded, verified in batches and handed to the main loop in order; answers go back in runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt, stream::FuturesOrdered};
use node_api::proto::{self, stream_answer::Answer as ProtoAnswer};
use node_core::{codec::Decode, types::Transaction};
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::transactions::{TRANSACTION_BYTES_MAX, code_of, retry_after_ms, wanted};
use crate::shell::{
    handle::Handle,
    receipts::{Fate, final_to_proto},
    submission::{Answer, Submission, SubmitError, Ticket, Wanted},
    verifier::{Queued, Verified, Verifier},
};

/// Most transactions in one message.
pub const MESSAGE_TRANSACTIONS_MAX: usize = 1_000;
/// Messages of one stream whose signatures are being verified.
const VERIFYING_MAX: usize = 32;
/// Transactions of one stream without an answer; more are refused.
const UNANSWERED_MAX: usize = 100_000;
/// Answers that are gathered into one message.
const ANSWERS_MAX: usize = 2_048;

/// The answers of a stream, on their way to the client.
pub type Outbox = mpsc::Sender<Result<proto::SubmitStreamResponse, Status>>;

/// One stream of transactions.
#[derive(Debug)]
pub struct Submitter {
    handle: Handle,
    verifier: Verifier,
    answers: mpsc::UnboundedSender<(u64, Answer)>,
    unanswered: Arc<AtomicUsize>,
    next: u64,
}

/// Transactions of one message whose signatures are being verified.
#[derive(Debug)]
struct Verifying {
    first: u64,
    wanted: Wanted,
    queued: Queued<Verified>,
}

impl Submitter {
    /// Numbers transactions from 0. The second part gets the answers.
    pub fn new(handle: Handle, verifier: Verifier) -> (Self, Answers) {
        let (answers, receiver) = mpsc::unbounded_channel();
        let unanswered = Arc::new(AtomicUsize::new(0));
        let given = Answers { receiver, unanswered: Arc::clone(&unanswered) };
        (Self { handle, verifier, answers, unanswered, next: 0 }, given)
    }

    /// Reads until the client ends the stream, or sends something malformed.
    pub async fn read(mut self, mut requests: Streaming<proto::SubmitStreamRequest>, out: Outbox) {
        let mut verifying = FuturesOrdered::new();
        loop {
            tokio::select! {
                // First what is verified, so that the order of one sender is kept within bounds.
                biased;
                Some(done) = verifying.next(), if !verifying.is_empty() => self.submit(done),
                message = requests.message(), if verifying.len() < VERIFYING_MAX => match message {
                    Ok(Some(request)) => match self.take(request.transactions.as_slice(), request.wait) {
                        Ok(Some(job)) => verifying.push_back(verified(job)),
                        Ok(None) => {}
                        Err(status) => {
                            let _ = out.send(Err(status)).await;
                            return;
                        }
                    },
                    Ok(None) | Err(_) => break,
                },
            }
        }
        while let Some(done) = verifying.next().await {
            self.submit(done);
        }
    }

    /// Takes one batch and waits until the mempool has said what it takes.
    pub async fn one(&mut self, transactions: &[Bytes], wait: i32) -> Result<(), Status> {
        if let Some(job) = self.take(transactions, wait)? {
            let done = verified(job).await;
            self.submit(done);
        }
        Ok(())
    }

    /// Decodes, numbers and queues. What cannot be verified now is refused here.
    fn take(&mut self, transactions: &[Bytes], wait: i32) -> Result<Option<Verifying>, Status> {
        let wanted = wanted(proto::Wait::try_from(wait).unwrap_or_default());
        if transactions.len() > MESSAGE_TRANSACTIONS_MAX {
            let problem = format!("a message has at most {MESSAGE_TRANSACTIONS_MAX} transactions");
            return Err(Status::invalid_argument(problem));
        }
        let decoded: Result<Vec<Transaction>, Status> = transactions.iter().map(decode).collect();
        let decoded = decoded?;
        let (first, count) = (self.next, decoded.len());
        self.next += count as u64;
        let unanswered = self.unanswered.fetch_add(count, Ordering::Relaxed);
        let queued = if unanswered + count > UNANSWERED_MAX { None } else { self.verifier.queue(decoded).ok() };
        match queued {
            Some(queued) => Ok(Some(Verifying { first, wanted, queued })),
            None => {
                for number in first..self.next {
                    self.ticket(number, wanted).answer(Answer::Refused(SubmitError::Overloaded));
                }
                Ok(None)
            }
        }
    }

    fn submit(&self, done: Done) {
        let Done { first, wanted, results } = done;
        let mut submissions = Vec::with_capacity(results.len());
        for (number, result) in (first..).zip(results) {
            let ticket = self.ticket(number, wanted);
            match result {
                Ok(transaction) => submissions.push(Submission { transaction, ticket }),
                Err(_) => ticket.answer(Answer::Refused(SubmitError::BadSignature)),
            }
        }
        if let Err(submissions) = self.handle.submit(submissions) {
            for submission in submissions {
                submission.ticket.answer(Answer::Refused(SubmitError::Overloaded));
            }
        }
    }

    fn ticket(&self, number: u64, wanted: Wanted) -> Ticket {
        Ticket { answers: self.answers.clone(), number, wanted }
    }
}

/// Verified transactions of one message.
#[derive(Debug)]
struct Done {
    first: u64,
    wanted: Wanted,
    results: Verified,
}

async fn verified(job: Verifying) -> Done {
    let Verifying { first, wanted, queued } = job;
    // Without results the node is stopping: the stream ends with it.
    Done { first, wanted, results: queued.wait().await.unwrap_or_default() }
}

fn decode(bytes: &Bytes) -> Result<Transaction, Status> {
    if bytes.len() > TRANSACTION_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a transaction has at most {TRANSACTION_BYTES_MAX} bytes")));
    }
    Transaction::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The answers about the transactions of one stream.
#[derive(Debug)]
pub struct Answers {
    receiver: mpsc::UnboundedReceiver<(u64, Answer)>,
    unanswered: Arc<AtomicUsize>,
}

impl Answers {
    /// The next answers, in runs; nothing once every transaction is answered and no more come.
    pub async fn next(&mut self) -> Option<Vec<proto::StreamAnswer>> {
        let mut some = Vec::new();
        let count = self.receiver.recv_many(&mut some, ANSWERS_MAX).await;
        self.unanswered.fetch_sub(count, Ordering::Relaxed);
        some.sort_by_key(|(number, _)| *number);
        if count == 0 { None } else { Some(runs(some)) }
    }

    /// Sends answers until the last.
    pub async fn forward(mut self, out: Outbox) {
        while let Some(answers) = self.next().await {
            if out.send(Ok(proto::SubmitStreamResponse { answers })).await.is_err() {
                return;
            }
        }
    }
}

/// Equal answers to consecutive numbers become one.
fn runs(answers: Vec<(u64, Answer)>) -> Vec<proto::StreamAnswer> {
    let mut runs: Vec<(proto::StreamAnswer, Answer)> = Vec::new();
    for (number, answer) in answers {
        match runs.last_mut() {
            Some((run, same)) if run.first + u64::from(run.count) == number && *same == answer => run.count += 1,
            _ => {
                let run = proto::StreamAnswer { first: number, count: 1, answer: Some(to_proto(&answer)) };
                runs.push((run, answer));
            }
        }
    }
    runs.into_iter().map(|(run, _)| run).collect()
}

fn to_proto(answer: &Answer) -> ProtoAnswer {
    match answer {
        Answer::Accepted => ProtoAnswer::Accepted(proto::Accepted {}),
        Answer::Durable => ProtoAnswer::Durable(proto::Durable {}),
        Answer::Settled(Fate::Final { block, receipt }) => ProtoAnswer::Final(final_to_proto(block, receipt)),
        Answer::Settled(Fate::Expired { valid_until }) => {
            ProtoAnswer::Expired(proto::Expired { valid_until: valid_until.get() })
        }
        Answer::Refused(error) => ProtoAnswer::Refused(proto::Refused {
            code: code_of(error).into(),
            reason: error.to_string(),
            retry_after_ms: retry_after_ms(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, SubmitError, runs};

    #[test]
    fn equal_answers_to_consecutive_numbers_are_one_run() {
        let full = || Answer::Refused(SubmitError::Full);
        let answers = [Answer::Accepted, Answer::Accepted, full(), full(), Answer::Accepted];
        let runs = runs((4..).zip(answers).collect());
        let shape: Vec<_> = runs.iter().map(|run| (run.first, run.count)).collect();
        assert_eq!(shape, [(4, 2), (6, 2), (8, 1)]);
    }
}
