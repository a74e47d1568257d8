//! `Transactions`: takes signed transactions and answers what became of them.

use node_api::{
    fields,
    proto::{self, submit_response::Answer, transactions_server::Transactions},
};
use node_core::{
    codec::Decode,
    crypto::verify_transaction,
    mempool::Refusal,
    types::{Transaction, TransactionId},
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use crate::shell::{
    handle::{self, Handle, HandleError},
    receipts::{Fate, final_to_proto},
    submission::{Submission, SubmitError},
};

/// Largest transaction that is decoded.
const TRANSACTION_BYTES_MAX: usize = 64 << 10;

/// The service.
#[derive(Clone, Debug)]
pub struct TransactionsService {
    handle: Handle,
}

impl TransactionsService {
    /// Answers from the node behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl Transactions for TransactionsService {
    async fn submit(&self, request: Request<proto::SubmitRequest>) -> Result<Response<proto::SubmitResponse>, Status> {
        let request = request.into_inner();
        let wait = request.wait();
        if request.transaction.len() > TRANSACTION_BYTES_MAX {
            return Err(Status::invalid_argument(format!("a transaction has at most {TRANSACTION_BYTES_MAX} bytes")));
        }
        let transaction = Transaction::decode(&request.transaction).map_err(invalid)?;
        let id = transaction.id();
        // A few signatures: short enough for the task that serves the connection.
        let transaction = verify_transaction(transaction).map_err(invalid)?;
        let (accepted, answer) = oneshot::channel();
        let (fate, settled) = oneshot::channel();
        let submission = Box::new(Submission { transaction, accepted, fate });
        self.handle.tell(handle::Request::Submit(submission))?;
        answer.await.map_err(|_| HandleError::Stopping)?.map_err(refused)?;
        let answer = match wait {
            proto::Wait::Unspecified | proto::Wait::Accepted => Answer::Accepted(proto::Accepted {}),
            proto::Wait::Final => match settled.await {
                Ok(Fate::Final { block, receipt }) => Answer::Final(final_to_proto(&block, &receipt)),
                Ok(Fate::Expired { valid_until }) => Answer::Expired(proto::Expired { valid_until: valid_until.get() }),
                Err(_) => return Err(Status::aborted("the mempool dropped the transaction")),
            },
        };
        Ok(Response::new(proto::SubmitResponse { transaction_id: bytes(&id), answer: Some(answer) }))
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

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn refused(error: SubmitError) -> Status {
    match error {
        SubmitError::NotRunning => Status::unavailable(error.to_string()),
        SubmitError::Full | SubmitError::Refused(Refusal::Full | Refusal::SenderFull) => {
            Status::resource_exhausted(error.to_string())
        }
        SubmitError::Refused(Refusal::WrongIncarnation) => Status::invalid_argument(error.to_string()),
        SubmitError::Expired { .. } | SubmitError::Refused(_) => Status::failed_precondition(error.to_string()),
    }
}

fn bytes(id: &TransactionId) -> Vec<u8> {
    id.as_bytes().to_vec()
}
