//! Submitting transactions, one or many, each with a line in the audit log.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderMap;
use node_api::proto::{self, Wait, stream_answer, submit_response};
use node_core::{
    codec::Decode,
    types::{Transaction, TransactionId},
};
use prost::Message;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::{
    inconsistent,
    input::{self, BodyKind, Input},
    json_answer, made,
};
use crate::gateway::{
    backends::CallContext, cache::Lifetime, calls::Call, entrance::Caller, refusal::Refusal, routes::BATCH_MAX,
    state::Gateway,
};

/// `POST /api/v1/transactions`
pub async fn one(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    input: &Input,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let kind = input::body_kind(headers).ok_or(Refusal::MediaType("application/json or application/octet-stream"))?;
    let body = input::body(gateway, caller, body).await?;
    let request = match kind {
        BodyKind::Json => {
            gateway.translator.from_json("SubmitRequest", &body).map_err(|error| Refusal::Invalid(error.to_string()))?
        }
        BodyKind::Bytes => {
            let wait = input.text("wait").unwrap_or("accepted").to_ascii_uppercase();
            let wait = Wait::from_str_name(&format!("WAIT_{wait}")).unwrap_or(Wait::Accepted);
            proto::SubmitRequest { transaction: body, wait: wait.into() }.encode_to_vec().into()
        }
    };
    let context = caller.context_within(gateway, input.number("timeoutMs"));
    let answer = submit(gateway, caller, &context, (Call::Submit, request)).await.map_err(Refusal::Backend)?;
    let json = gateway.translator.to_json("SubmitResponse", answer).map_err(|_| inconsistent())?;
    json_answer(caller, &HeaderMap::new(), &made(&json, Lifetime::RealTime))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Many {
    transactions: Vec<String>,
    #[serde(default)]
    wait: Option<String>,
}

/// `POST /api/v1/transactions/batch`
pub async fn many(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    input: &Input,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    if input::body_kind(headers) != Some(BodyKind::Json) {
        return Err(Refusal::MediaType("application/json"));
    }
    let body = input::body(gateway, caller, body).await?;
    let invalid = |detail: &str| Refusal::Invalid(detail.to_owned());
    let many: Many = serde_json::from_slice(&body).map_err(|error| Refusal::Invalid(error.to_string()))?;
    if many.transactions.is_empty() || many.transactions.len() > BATCH_MAX {
        return Err(Refusal::Invalid(format!("send 1 to {BATCH_MAX} transactions")));
    }
    let wait = match many.wait.as_deref() {
        None => Wait::Accepted,
        Some(name) => {
            Wait::from_str_name(name).ok_or_else(|| invalid("wait is WAIT_ACCEPTED, WAIT_DURABLE or WAIT_FINAL"))?
        }
    };
    let transactions = many.transactions.iter().map(|text| STANDARD.decode(text).map(Bytes::from));
    let transactions: Vec<Bytes> =
        transactions.collect::<Result<_, _>>().map_err(|_| invalid("a transaction is not base64"))?;
    let context = &caller.context_within(gateway, input.number("timeoutMs"));
    let request = proto::SubmitBatchRequest { transactions, wait: wait.into() };
    let results = together(gateway, caller, context, request).await?;
    json_answer(caller, &HeaderMap::new(), &made(&json!({"results": results}), Lifetime::RealTime))
}

/// All in one call of one node, which takes them in their order and says of each what became of it.
async fn together(
    gateway: &Gateway,
    caller: &Caller,
    context: &CallContext,
    request: proto::SubmitBatchRequest,
) -> Result<Vec<Value>, Refusal> {
    let id = |bytes: &Bytes| Transaction::decode(bytes).ok().map(|transaction| transaction.id());
    let ids: Vec<Option<TransactionId>> = request.transactions.iter().map(id).collect();
    let request = request.encode_to_vec().into();
    let answer = submit(gateway, caller, context, (Call::SubmitBatch, request)).await.map_err(Refusal::Backend)?;
    let answers = proto::SubmitBatchResponse::decode(answer).map_err(|_| inconsistent())?.answers;
    let missing = || problem(caller, Refusal::Backend(Status::unavailable("the node gave no answer")));
    let mut results: Vec<Value> = ids.iter().map(|_| missing()).collect();
    for run in answers {
        let first = usize::try_from(run.first).unwrap_or(usize::MAX);
        let count = usize::try_from(run.count).unwrap_or(usize::MAX);
        for (result, id) in results.iter_mut().zip(&ids).skip(first).take(count) {
            *result = match (&run.answer, id) {
                (Some(answer), Some(id)) => told(gateway, caller, id, answer),
                (_, _) => missing(),
            };
        }
    }
    Ok(results)
}

/// What a node says of one transaction of a batch, in the form of the answer about a single one.
fn told(gateway: &Gateway, caller: &Caller, id: &TransactionId, answer: &stream_answer::Answer) -> Value {
    let answer = match answer {
        stream_answer::Answer::Refused(refused) => {
            return problem(caller, Refusal::Backend(Status::new(Code::from_i32(refused.code), &*refused.reason)));
        }
        // Without a look at the descriptors: there may be a thousand of them.
        stream_answer::Answer::Accepted(_) => {
            return json!({"transactionId": STANDARD.encode(id.as_bytes()), "accepted": {}});
        }
        stream_answer::Answer::Durable(_) => {
            return json!({"transactionId": STANDARD.encode(id.as_bytes()), "durable": {}});
        }
        stream_answer::Answer::Final(fate) => submit_response::Answer::Final(fate.clone()),
        stream_answer::Answer::Expired(expired) => submit_response::Answer::Expired(*expired),
    };
    let response = proto::SubmitResponse { transaction_id: id.as_bytes().to_vec(), answer: Some(answer) };
    let json = gateway.translator.to_json("SubmitResponse", response.encode_to_vec().into());
    json.unwrap_or_else(|_| problem(caller, inconsistent()))
}

fn problem(caller: &Caller, refusal: Refusal) -> Value {
    json!({"problem": refusal.to_json(&caller.context.request_id)})
}

/// Makes a call that changes something, and records it.
async fn submit(
    gateway: &Gateway,
    caller: &Caller,
    context: &CallContext,
    (call, request): (Call, Bytes),
) -> Result<Bytes, Status> {
    let result = gateway.backends.unary(call.rule(), request.clone(), context).await;
    audit(caller, call, &request, result.as_ref().err());
    result
}

/// One line for each message with transactions that a caller hands in, whatever becomes of it. A call that only reads
/// leaves none.
pub fn audit(caller: &Caller, call: Call, request: &Bytes, refused: Option<&Status>) {
    let transactions = match call {
        Call::Submit => proto::SubmitRequest::decode(request.clone()).map(|request| vec![request.transaction]),
        Call::SubmitBatch => proto::SubmitBatchRequest::decode(request.clone()).map(|request| request.transactions),
        Call::SubmitStream => proto::SubmitStreamRequest::decode(request.clone()).map(|request| request.transactions),
        Call::GetTransaction
        | Call::GetAccount
        | Call::GetBlock
        | Call::StreamBlocks
        | Call::GetLightBlocks
        | Call::GetValidators
        | Call::GetGovernance
        | Call::GetStatus => return,
    };
    let transactions = transactions.unwrap_or_default();
    // Of many the first is named; with their number that is enough to find them in the block.
    let first = transactions.first().and_then(|bytes| Transaction::decode(bytes).ok());
    let (id, sender) = match &first {
        Some(transaction) => (transaction.id().to_string(), transaction.body().sender.to_string()),
        None => ("malformed".to_owned(), "-".to_owned()),
    };
    tracing::info!(
        target: "audit",
        operation = ?call,
        principal = &*caller.principal.name,
        transactions = transactions.len(),
        transaction = id,
        sender,
        result = refused.map_or("taken".to_owned(), |status| format!("{:?}", status.code())),
        request_id = &*caller.context.request_id,
        "change"
    );
}
