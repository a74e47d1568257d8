//! `Transactions`: takes signed transactions and answers what became of them.

use std::{pin::Pin, time::Duration};

use futures::{FutureExt, Stream};
use node_api::{
    deadline::{TIMEOUT, timeout_ms},
    fields,
    proto::{self, stream_answer, submit_response::Answer, transactions_server::Transactions},
    unsettled,
};
use node_core::{codec::Decode, mempool::Refusal, types::Transaction};
use prost::bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
};

use super::submissions::Submitter;
use crate::shell::{
    handle::{self, Handle},
    submission::{SubmitError, Wanted},
    verifier::Verifier,
};

/// Largest transaction that is decoded.
pub const TRANSACTION_BYTES_MAX: usize = 64 << 10;
/// Answers of a stream that wait for the connection, in messages.
const ANSWERS_MAX: usize = 64;
/// When a client whose transaction did not fit may try again: a few blocks later.
const RETRY_AFTER_MS: u32 = 500;

/// What is kept of a caller's time for the way back of a batch's answers: a tenth, within these.
const WAY_TIME_MIN: Duration = Duration::from_millis(20);
const WAY_TIME_MAX: Duration = Duration::from_millis(500);

/// The service.
#[derive(Clone, Debug)]
pub struct TransactionsService {
    handle: Handle,
    verifier: Verifier,
}

impl TransactionsService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle, verifier: Verifier) -> Self {
        Self { handle, verifier }
    }
}

type AnswerStream = Pin<Box<dyn Stream<Item = Result<proto::SubmitStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Transactions for TransactionsService {
    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitResponse>, Status> {
        let proto::SubmitRequest { transaction, wait } = request.into_inner();
        let id = Transaction::decode(&transaction).map(|transaction| transaction.id());
        let mut answers = self.run(std::slice::from_ref(&transaction), wait, None).await?;
        let answer = of_one(answers.pop().and_then(|run| run.answer))?;
        let id = id.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(proto::SubmitResponse { transaction_id: id.as_bytes().to_vec(), answer: Some(answer) }))
    }

    async fn submit_batch(
        &self,
        request: Request<proto::SubmitBatchRequest>,
    ) -> Result<Response<proto::SubmitBatchResponse>, Status> {
        let until = answer_by(request.metadata());
        let proto::SubmitBatchRequest { transactions, wait } = request.into_inner();
        let answers = self.run(&transactions, wait, until).await?;
        Ok(Response::new(proto::SubmitBatchResponse { answers }))
    }

    type SubmitStreamStream = AnswerStream;

    async fn submit_stream(
        &self,
        request: Request<Streaming<proto::SubmitStreamRequest>>,
    ) -> Result<Response<AnswerStream>, Status> {
        let (submitter, answers) = Submitter::new(self.handle.clone(), self.verifier.clone());
        let (out, stream) = mpsc::channel(ANSWERS_MAX);
        // Both end with the connection: its end closes `stream`, and with that the queue of answers.
        tokio::spawn(submitter.read(request.into_inner(), out.clone()));
        tokio::spawn(answers.forward(out));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_transaction(
        &self,
        request: Request<proto::GetTransactionRequest>,
    ) -> Result<Response<proto::GetTransactionResponse>, Status> {
        let id = fields::transaction_id("transaction_id", &request.into_inner().transaction_id)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(self.handle.ask(|reply| handle::Request::Transaction(id, reply)).await?))
    }
}

impl TransactionsService {
    /// Submits, and waits for the answer to each; at `until` the rest is answered with `accepted`.
    async fn run(
        &self,
        transactions: &[Bytes],
        wait: i32,
        until: Option<Instant>,
    ) -> Result<Vec<proto::StreamAnswer>, Status> {
        let (mut submitter, mut answers) = Submitter::new(self.handle.clone(), self.verifier.clone());
        submitter.one(transactions, wait).await?;
        // The answers end once the last ticket is gone.
        drop(submitter);
        let mut runs = Vec::new();
        let early = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(early);
        loop {
            tokio::select! {
                // What is known counts more than that time is up.
                biased;
                more = answers.next() => match more {
                    Some(more) => runs.extend(more),
                    None => break,
                },
                () = &mut early => {
                    self.mempool_has_spoken(transactions).await?;
                    while let Some(more) = answers.next().now_or_never().flatten() {
                        runs.extend(more);
                    }
                    runs.extend(unanswered(&runs, transactions.len()));
                    break;
                }
            }
        }
        runs.sort_by_key(|run| run.first);
        Ok(runs)
    }

    /// The main loop answers in order: when it has answered a question, it has taken or refused what was submitted before.
    async fn mempool_has_spoken(&self, transactions: &[Bytes]) -> Result<(), Status> {
        let id = transactions.first().and_then(|bytes| Transaction::decode(bytes).ok()).map(|first| first.id());
        if let Some(id) = id {
            self.handle.ask(|reply| handle::Request::Transaction(id, reply)).await?;
        }
        Ok(())
    }
}

/// The answer about one transaction. There is none when this node stops before it knows.
fn of_one(answer: Option<stream_answer::Answer>) -> Result<Answer, Status> {
    Ok(match answer {
        None => return Err(unsettled::status("this node stops before it knows what becomes of the transaction")),
        Some(stream_answer::Answer::Accepted(accepted)) => Answer::Accepted(accepted),
        Some(stream_answer::Answer::Durable(durable)) => Answer::Durable(durable),
        Some(stream_answer::Answer::Final(fate)) => Answer::Final(fate),
        Some(stream_answer::Answer::Expired(expired)) => Answer::Expired(expired),
        Some(stream_answer::Answer::Refused(refused)) => return Err(refusal(&refused)),
    })
}

/// `accepted` for every number below `count` that no run holds.
fn unanswered(runs: &[proto::StreamAnswer], count: usize) -> Vec<proto::StreamAnswer> {
    let mut known: Vec<(u64, u64)> = runs.iter().map(|run| (run.first, run.first + u64::from(run.count))).collect();
    known.sort_unstable();
    let end = count as u64;
    let mut next = 0;
    let mut gaps = Vec::new();
    for (first, behind) in known.into_iter().chain([(end, end)]) {
        if next < first {
            let count = u32::try_from(first - next).unwrap_or(u32::MAX);
            let answer = Some(stream_answer::Answer::Accepted(proto::Accepted {}));
            gaps.push(proto::StreamAnswer { first: next, count, answer });
        }
        next = behind;
    }
    gaps
}

/// When to answer with what is known, so that it arrives before the caller's deadline.
fn answer_by(metadata: &MetadataMap) -> Option<Instant> {
    let time_ms = timeout_ms(metadata.get(TIMEOUT)?.to_str().ok()?)?;
    let time = Duration::from_millis(time_ms);
    let way = (time / 10).clamp(WAY_TIME_MIN, WAY_TIME_MAX);
    // A deadline beyond what the clock can hold is none.
    Instant::now().checked_add(time.saturating_sub(way))
}

/// What a client waits for.
pub fn wanted(wait: proto::Wait) -> Wanted {
    match wait {
        proto::Wait::Unspecified | proto::Wait::Accepted => Wanted::Accepted,
        proto::Wait::Durable => Wanted::Durable,
        proto::Wait::Final => Wanted::Final,
    }
}

/// The status code of a refusal.
pub fn code_of(error: &SubmitError) -> Code {
    match error {
        SubmitError::NotRunning => Code::Unavailable,
        SubmitError::Full
        | SubmitError::Overloaded
        | SubmitError::Refused(Refusal::Full | Refusal::SenderFull | Refusal::Evicted) => Code::ResourceExhausted,
        SubmitError::BadSignature | SubmitError::Refused(Refusal::WrongIncarnation) => Code::InvalidArgument,
        SubmitError::Expired { .. } | SubmitError::Refused(_) => Code::FailedPrecondition,
    }
}

/// How long to wait before another try, milliseconds; 0 where that is no use.
pub fn retry_after_ms(error: &SubmitError) -> u32 {
    match code_of(error) {
        Code::ResourceExhausted | Code::Unavailable => RETRY_AFTER_MS,
        _ => 0,
    }
}

/// The same refusal as a status, with the hint where gRPC clients look for it.
fn refusal(refused: &proto::Refused) -> Status {
    let mut status = Status::new(Code::from(refused.code), refused.reason.clone());
    if refused.retry_after_ms > 0 {
        let hint = MetadataValue::from(refused.retry_after_ms);
        status.metadata_mut().insert("grpc-retry-pushback-ms", hint);
    }
    status
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_api::{
        proto::{self, stream_answer::Answer},
        unsettled,
    };
    use tokio::time::Instant;
    use tonic::{Code, metadata::MetadataMap};

    use super::{TIMEOUT, answer_by, of_one, unanswered};

    #[test]
    fn what_this_node_does_not_know_when_it_stops_it_may_have_taken_and_what_it_refuses_it_has_not() {
        assert!(of_one(None).is_err_and(|status| unsettled::is_said_by(&status)));
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::InvalidArgument, Code::FailedPrecondition] {
            let refused = proto::Refused { code: code.into(), reason: String::new(), retry_after_ms: 0 };
            let status = of_one(Some(Answer::Refused(refused))).expect_err("is refused");
            assert!(status.code() == code && !unsettled::is_said_by(&status), "{status}");
        }
    }

    #[test]
    fn whatever_has_no_answer_in_time_is_accepted() {
        let run = |first, count| proto::StreamAnswer { first, count, answer: None };
        for (answered, count, expected) in [
            (vec![], 3, vec![(0, 3)]),
            (vec![run(0, 3)], 3, vec![]),
            (vec![run(4, 1), run(1, 2)], 6, vec![(0, 1), (3, 1), (5, 1)]),
            (vec![], 0, vec![]),
        ] {
            let gaps: Vec<_> = unanswered(&answered, count).iter().map(|run| (run.first, run.count)).collect();
            assert_eq!(gaps, expected, "{answered:?} of {count}");
        }
    }

    #[test]
    fn a_batch_is_answered_before_the_caller_is_gone() {
        let mut metadata = MetadataMap::new();
        assert_eq!(answer_by(&metadata), None);
        for (text, earliest_ms, latest_ms) in [("10S", 9_000, 9_500), ("1S", 800, 900), ("1m", 0, 1)] {
            metadata.insert(TIMEOUT, text.parse().expect("a value"));
            let (before, until) = (Instant::now(), answer_by(&metadata).expect("a time"));
            let left = until.saturating_duration_since(before);
            assert!(left >= Duration::from_millis(earliest_ms), "{text}: {left:?}");
            let left = until.saturating_duration_since(Instant::now());
            assert!(left <= Duration::from_millis(latest_ms), "{text}: {left:?}");
        }
    }
}
