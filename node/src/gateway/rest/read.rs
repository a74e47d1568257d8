//! Reads: a parameterised call to a node, its answer as JSON, kept for as long as it stays true.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use node_api::{gateway::Permission, proto};
use prost::Message;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    inconsistent,
    input::{self, Input},
};
use crate::gateway::{
    backends::CallContext,
    cache::{Lifetime, Stored},
    calls::Call,
    entrance::Caller,
    refusal::Refusal,
    routes::Target,
    state::Gateway,
};

/// Blocks that one page reads at a time.
const PARALLEL_MAX: usize = 8;
/// Blocks in a page that names no limit.
const PAGE: u64 = 20;
/// Longest pause between two looks at a transaction that is waited for.
const LOOK: Duration = Duration::from_secs(1);

/// The answer of a route that reads.
pub async fn answer(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    target: Target,
    input: &Input,
) -> Result<Arc<Stored>, Refusal> {
    let context = caller.context_within(gateway, input.number("timeoutMs"));
    let missing = || Refusal::Invalid("a parameter is missing".to_owned());
    match target {
        Target::Transaction => {
            let id = input.key("id").ok_or_else(missing)?;
            transaction(gateway, &context, id, input.text("wait") == Some("final")).await
        }
        Target::Account => {
            let prove = input.flag("prove");
            if prove {
                caller.needs(Permission::Prove)?;
            }
            let account = input.key("account").ok_or_else(missing)?.to_vec();
            let request = proto::GetAccountRequest { account, prove }.encode_to_vec();
            fetch(gateway, &context, Call::GetAccount, request).await
        }
        Target::Block => {
            let height = input.number("height").unwrap_or(0);
            fetch(gateway, &context, Call::GetBlock, proto::GetBlockRequest { height }.encode_to_vec()).await
        }
        Target::LightBlocks => {
            let trusted_height = input.number("trusted").unwrap_or(0);
            let to_height = input.number("height").unwrap_or(0);
            let request = proto::GetLightBlocksRequest { trusted_height, to_height };
            fetch(gateway, &context, Call::GetLightBlocks, request.encode_to_vec()).await
        }
        Target::Blocks => page(gateway, &context, input).await,
        Target::Validators => {
            fetch(gateway, &context, Call::GetValidators, proto::GetValidatorsRequest {}.encode_to_vec()).await
        }
        Target::Governance => {
            fetch(gateway, &context, Call::GetGovernance, proto::GetGovernanceRequest {}.encode_to_vec()).await
        }
        Target::Status => fetch(gateway, &context, Call::GetStatus, proto::GetStatusRequest {}.encode_to_vec()).await,
        Target::Versions
        | Target::OpenApi
        | Target::Submit
        | Target::SubmitMany
        | Target::BlockEvents
        | Target::TransactionEvents
        | Target::Socket => Err(Refusal::NoSuchRoute),
    }
}

/// The name of a call's answer.
const fn answer_name(call: Call) -> &'static str {
    match call {
        Call::Submit => "SubmitResponse",
        Call::SubmitBatch => "SubmitBatchResponse",
        Call::SubmitStream => "SubmitStreamResponse",
        Call::GetTransaction => "GetTransactionResponse",
        Call::GetAccount => "GetAccountResponse",
        Call::GetBlock | Call::StreamBlocks => "Block",
        Call::GetLightBlocks => "GetLightBlocksResponse",
        Call::GetValidators => "GetValidatorsResponse",
        Call::GetGovernance => "GetGovernanceResponse",
        Call::GetStatus => "GetStatusResponse",
    }
}

async fn fetch(gateway: &Gateway, context: &CallContext, call: Call, request: Vec<u8>) -> Result<Arc<Stored>, Refusal> {
    let key = (call, Bytes::from(request));
    if let Some(stored) = gateway.cache.get(&key) {
        return Ok(stored);
    }
    let answer = gateway.backends.unary(call.rule(), key.1.clone(), context).await.map_err(Refusal::Backend)?;
    let lifetime = lifetime(call, &key.1, &answer);
    let json = gateway.translator.to_json(answer_name(call), answer).map_err(|_| inconsistent())?;
    let stored = Arc::new(Stored::new(json.to_string().into(), lifetime));
    gateway.cache.put(key, &stored);
    Ok(stored)
}

/// How long an answer stays true.
fn lifetime(call: Call, request: &Bytes, answer: &Bytes) -> Lifetime {
    use proto::get_transaction_response::Status;
    match call {
        // Height 0 asks for the newest.
        Call::GetBlock if !request.is_empty() => Lifetime::Final,
        Call::GetTransaction => match proto::GetTransactionResponse::decode(answer.clone()).map(|answer| answer.status)
        {
            Ok(Some(Status::Final(_) | Status::Expired(_))) => Lifetime::Final,
            Ok(Some(Status::Unknown(_) | Status::Pending(_)) | None) | Err(_) => Lifetime::RealTime,
        },
        Call::GetValidators => Lifetime::Dynamic,
        Call::Submit
        | Call::SubmitBatch
        | Call::SubmitStream
        | Call::GetGovernance
        | Call::GetAccount
        | Call::GetBlock
        | Call::StreamBlocks
        | Call::GetLightBlocks
        | Call::GetStatus => Lifetime::RealTime,
    }
}

/// What became of a transaction; with `wait`, once it is final or time is up.
async fn transaction(
    gateway: &Gateway,
    context: &CallContext,
    id: [u8; 32],
    wait: bool,
) -> Result<Arc<Stored>, Refusal> {
    let request = proto::GetTransactionRequest { transaction_id: id.to_vec() }.encode_to_vec();
    let mut newest = gateway.feed.newest();
    // One look at the end is always possible.
    let end = context.deadline;
    let looks = CallContext { deadline: end + LOOK, ..context.clone() };
    loop {
        newest.mark_unchanged();
        let stored = fetch(gateway, &looks, Call::GetTransaction, request.clone()).await?;
        if !wait || stored.lifetime == Lifetime::Final || Instant::now() >= end {
            return Ok(stored);
        }
        let pause = end.min(Instant::now() + LOOK);
        // A new block may hold it. Without a feed, a look now and then.
        let _ = tokio::time::timeout_at(pause, newest.changed()).await;
    }
}

/// A page of blocks without their bodies.
async fn page(gateway: &Arc<Gateway>, context: &CallContext, input: &Input) -> Result<Arc<Stored>, Refusal> {
    let limit = input.number("limit").unwrap_or(PAGE);
    let newest = newest(gateway, context).await?;
    let first = match input.text("after").and_then(input::cursor) {
        Some(after) => after.saturating_add(1),
        None => newest.saturating_sub(limit).saturating_add(1),
    };
    let last = newest.min(first.saturating_add(limit).saturating_sub(1));
    let blocks: Vec<Value> = stream::iter(first..=last)
        .map(|height| async move {
            let block = gateway.feed.block(height).await.map_err(Refusal::Backend)?;
            let brief = block.brief.encode_to_vec().into();
            let mut json = gateway.translator.to_json("Block", brief).map_err(|_| inconsistent())?;
            if let Some(object) = json.as_object_mut() {
                object.remove("block");
                object.remove("certificate");
            }
            Ok(json)
        })
        .buffered(PARALLEL_MAX)
        .try_collect()
        .await?;
    let end = last.max(first.saturating_sub(1));
    let page = json!({"blocks": blocks, "next": input::cursor_after(end)});
    Ok(Arc::new(Stored::new(page.to_string().into(), Lifetime::RealTime)))
}

async fn newest(gateway: &Gateway, context: &CallContext) -> Result<u64, Refusal> {
    let newest = *gateway.feed.newest().borrow();
    if newest > 0 {
        return Ok(newest);
    }
    let request = proto::GetBlockRequest { height: 0 }.encode_to_vec().into();
    match gateway.backends.unary(Call::GetBlock.rule(), request, context).await {
        Ok(answer) => proto::Block::decode(answer).map(|block| block.height).map_err(|_| inconsistent()),
        // A chain without blocks has an empty page.
        Err(status) if status.code() == tonic::Code::NotFound => Ok(0),
        Err(status) => Err(Refusal::Backend(status)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use node_api::proto::{self, get_transaction_response::Status};
    use prost::Message;

    use super::{Call, Lifetime, lifetime};

    #[test]
    fn answers_are_kept_for_as_long_as_they_stay_true() {
        let nothing = Bytes::new();
        let block = |height| Bytes::from(proto::GetBlockRequest { height }.encode_to_vec());
        let transaction =
            |status| Bytes::from(proto::GetTransactionResponse { status: Some(status), height: 9 }.encode_to_vec());
        for (call, request, answer, expected) in [
            (Call::GetBlock, block(7), nothing.clone(), Lifetime::Final),
            (Call::GetBlock, block(0), nothing.clone(), Lifetime::RealTime),
            (
                Call::GetTransaction,
                nothing.clone(),
                transaction(Status::Final(proto::Final::default())),
                Lifetime::Final,
            ),
            (
                Call::GetTransaction,
                nothing.clone(),
                transaction(Status::Expired(proto::Expired::default())),
                Lifetime::Final,
            ),
            (
                Call::GetTransaction,
                nothing.clone(),
                transaction(Status::Pending(proto::Pending {})),
                Lifetime::RealTime,
            ),
            (
                Call::GetTransaction,
                nothing.clone(),
                transaction(Status::Unknown(proto::Unknown {})),
                Lifetime::RealTime,
            ),
            (Call::GetTransaction, nothing.clone(), Bytes::from_static(&[0xff]), Lifetime::RealTime),
            (Call::GetValidators, nothing.clone(), nothing.clone(), Lifetime::Dynamic),
            (Call::GetGovernance, nothing.clone(), nothing.clone(), Lifetime::RealTime),
            (Call::GetAccount, nothing.clone(), nothing.clone(), Lifetime::RealTime),
            (Call::GetLightBlocks, nothing.clone(), nothing.clone(), Lifetime::RealTime),
            (Call::GetStatus, nothing.clone(), nothing.clone(), Lifetime::RealTime),
        ] {
            assert_eq!(lifetime(call, &request, &answer), expected, "{call:?} {answer:?}");
        }
    }
}
