//! `Transactions`: takes signed transactions and answers what became of them.

use std::pin::Pin;

use futures::Stream;
use node_api::{
    fields,
    proto::{self, stream_answer, submit_response::Answer, transactions_server::Transactions},
};
use node_core::{codec::Decode, mempool::Refusal, types::Transaction};
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue};

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
        let mut answers = self.run(std::slice::from_ref(&transaction), wait).await?;
        let answer = answers.pop().and_then(|run| run.answer);
        let answer = match answer {
            None => return Err(Status::aborted("the mempool dropped the transaction")),
            Some(stream_answer::Answer::Accepted(accepted)) => Answer::Accepted(accepted),
            Some(stream_answer::Answer::Durable(durable)) => Answer::Durable(durable),
            Some(stream_answer::Answer::Final(fate)) => Answer::Final(fate),
            Some(stream_answer::Answer::Expired(expired)) => Answer::Expired(expired),
            Some(stream_answer::Answer::Refused(refused)) => return Err(refusal(&refused)),
        };
        let id = id.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(proto::SubmitResponse { transaction_id: id.as_bytes().to_vec(), answer: Some(answer) }))
    }

    async fn submit_batch(
        &self,
        request: Request<proto::SubmitBatchRequest>,
    ) -> Result<Response<proto::SubmitBatchResponse>, Status> {
        let proto::SubmitBatchRequest { transactions } = request.into_inner();
        let answers = self.run(&transactions, proto::Wait::Accepted.into()).await?;
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
    /// Submits, and waits for the answer to each.
    async fn run(&self, transactions: &[Bytes], wait: i32) -> Result<Vec<proto::StreamAnswer>, Status> {
        let (mut submitter, mut answers) = Submitter::new(self.handle.clone(), self.verifier.clone());
        submitter.one(transactions, wait).await?;
        // The answers end once the last ticket is gone.
        drop(submitter);
        let mut runs = Vec::new();
        while let Some(more) = answers.next().await {
            runs.extend(more);
        }
        runs.sort_by_key(|run| run.first);
        Ok(runs)
    }
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
