//! Final blocks, and transactions of accounts, as they happen: one stream of events for SSE and for WebSockets.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use node_api::{proto, trace::TraceParent};
use node_core::types::AccountId;
use prost::Message;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{inconsistent, input::Input};
use crate::gateway::{
    backends::CallContext, bodies::Guarded, calls::Call, entrance::Caller, feed::FeedBlock, refusal::Refusal,
    routes::ACCOUNTS_MAX, state::Gateway,
};

/// A quiet stream shows a sign of life this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Time for one receipt.
const RECEIPT: Duration = Duration::from_secs(5);
/// Pause before another node is asked for it.
const RECEIPT_PAUSE: Duration = Duration::from_millis(50);
/// How far above the newest block a stream may begin.
const AHEAD_MAX: u64 = 1_000_000;

/// What a stream is about.
#[derive(Clone, Debug)]
pub enum Topic {
    /// Every block.
    Blocks,
    /// Transactions that one of these accounts sends or receives.
    Transactions(Vec<AccountId>),
}

/// Where a stream begins: the height, and how many transactions of that block the client has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    height: u64,
    skip: usize,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Something happened; a stream that begins with this id goes on after it.
    Told {
        /// `height` or `height-index`.
        id: String,
        /// `block` or `transaction`.
        kind: &'static str,
        /// The facts.
        data: Value,
    },
    /// Nothing happened up to and including this block.
    Passed {
        /// Its height.
        height: u64,
    },
    /// A sign of life.
    Alive,
    /// The gateway cannot go on; the client begins again with the last id.
    Broken,
}

/// `GET /api/v1/stream/blocks`
pub async fn blocks(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    input: &Input,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    serve(gateway, caller, Topic::Blocks, (input, headers)).await
}

/// `GET /api/v1/stream/transactions`
pub async fn transactions(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    input: &Input,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let topic = topic(input)?;
    if matches!(topic, Topic::Blocks) {
        return Err(Refusal::Invalid("name at least one account".to_owned()));
    }
    serve(gateway, caller, topic, (input, headers)).await
}

/// What the parameters ask for.
pub fn topic(input: &Input) -> Result<Topic, Refusal> {
    let accounts: Vec<AccountId> = input.keys("account").into_iter().map(AccountId::new).collect();
    match accounts.len() {
        0 => Ok(Topic::Blocks),
        1..=ACCOUNTS_MAX => Ok(Topic::Transactions(accounts)),
        _ => Err(Refusal::Invalid(format!("name at most {ACCOUNTS_MAX} accounts"))),
    }
}

async fn serve(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    topic: Topic,
    (input, headers): (&Input, &HeaderMap),
) -> Result<Response, Refusal> {
    let place = caller.stream_place(gateway)?;
    let begin = begin(gateway, &topic, input, headers).await?;
    let lines = open(gateway, topic, begin).map(|event| Ok::<_, std::convert::Infallible>(line(&event)));
    let body = Body::new(Guarded::new(Body::from_stream(lines), place));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Where the client wants to begin. A height that no node keeps is refused here, not in the middle of a stream.
pub async fn begin(
    gateway: &Gateway,
    topic: &Topic,
    input: &Input,
    headers: &HeaderMap,
) -> Result<Option<Begin>, Refusal> {
    let last = match headers.get("last-event-id").map(HeaderValue::to_str) {
        None => None,
        Some(text) => {
            let begin = text.ok().and_then(|text| after(topic, text));
            Some(begin.ok_or_else(|| Refusal::Invalid("Last-Event-ID is not an id of this stream".to_owned()))?)
        }
    };
    let begin = last.or_else(|| input.number("from").map(|height| Begin { height, skip: 0 }));
    if let Some(Begin { height, .. }) = begin {
        let newest = *gateway.feed.newest().borrow();
        if height > newest.saturating_add(AHEAD_MAX) {
            return Err(Refusal::Invalid(format!("the newest block is {newest}")));
        }
        if height <= newest {
            gateway.feed.block(height).await.map_err(Refusal::Backend)?;
        }
    }
    Ok(begin)
}

/// Where a stream goes on after an event.
pub(super) fn after(topic: &Topic, id: &str) -> Option<Begin> {
    let digits =
        |text: &str| if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    match (id.split_once('-'), topic) {
        (None, _) => digits(id)?.checked_add(1).map(|height| Begin { height, skip: 0 }),
        (Some((height, index)), Topic::Transactions(_)) => {
            let skip = usize::try_from(digits(index)?).ok()?.checked_add(1)?;
            Some(Begin { height: digits(height)?, skip })
        }
        (Some(_), Topic::Blocks) => None,
    }
}

struct Following {
    gateway: Arc<Gateway>,
    topic: Topic,
    newest: watch::Receiver<u64>,
    next: u64,
    skip: usize,
    ready: VecDeque<Event>,
    stop: CancellationToken,
    ended: bool,
}

/// The events of a topic, at the pace of the reader. Ends when the gateway stops or cannot go on.
pub fn open(gateway: &Arc<Gateway>, topic: Topic, begin: Option<Begin>) -> impl Stream<Item = Event> + Send + use<> {
    let newest = gateway.feed.newest();
    let begin = begin.unwrap_or_else(|| Begin { height: newest.borrow().saturating_add(1), skip: 0 });
    gateway.metrics.streams.inc();
    let following = Following {
        gateway: Arc::clone(gateway),
        topic,
        newest,
        next: begin.height,
        skip: begin.skip,
        ready: VecDeque::new(),
        stop: gateway.stop.clone(),
        ended: false,
    };
    stream::unfold(following, |mut following| async move {
        let event = following.event().await?;
        Some((event, following))
    })
}

impl Drop for Following {
    fn drop(&mut self) {
        self.gateway.metrics.streams.dec();
    }
}

impl Following {
    async fn event(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        if self.ended {
            return None;
        }
        let next = self.next;
        tokio::select! {
            found = self.newest.wait_for(|newest| *newest >= next) => {
                found.ok()?;
            }
            () = tokio::time::sleep(HEARTBEAT) => return Some(Event::Alive),
            () = self.stop.cancelled() => return None,
        }
        match self.gateway.feed.block(next).await {
            Ok(block) => {
                if self.tell(&block).await.is_err() {
                    self.ended = true;
                    self.ready.push_back(Event::Broken);
                }
                self.next = next.saturating_add(1);
                self.skip = 0;
            }
            Err(_) => {
                self.ended = true;
                self.ready.push_back(Event::Broken);
            }
        }
        self.ready.pop_front()
    }

    async fn tell(&mut self, block: &FeedBlock) -> Result<(), Refusal> {
        let height = block.height;
        match &self.topic {
            Topic::Blocks => {
                let data = brief(&self.gateway, block)?;
                self.ready.push_back(Event::Told { id: height.to_string(), kind: "block", data });
            }
            Topic::Transactions(accounts) => {
                for (index, transaction) in block.transactions.iter().enumerate().skip(self.skip) {
                    if transaction.concerns(accounts) {
                        let id = transaction.id;
                        let mut data = receipt(&self.gateway, id.as_bytes().to_vec()).await?;
                        if let Some(object) = data.as_object_mut() {
                            object.insert("transactionId".to_owned(), json!(id.to_string()));
                            object.insert("sender".to_owned(), json!(transaction.sender.to_string()));
                        }
                        let id = format!("{height}-{index}");
                        self.ready.push_back(Event::Told { id, kind: "transaction", data });
                    }
                }
                self.ready.push_back(Event::Passed { height });
            }
        }
        Ok(())
    }
}

fn brief(gateway: &Gateway, block: &FeedBlock) -> Result<Value, Refusal> {
    let mut data =
        gateway.translator.to_json("Block", block.brief.encode_to_vec().into()).map_err(|_| inconsistent())?;
    if let Some(object) = data.as_object_mut() {
        object.remove("block");
        object.remove("certificate");
    }
    Ok(data)
}

/// What became of a transaction of a final block. The node that is asked may be a block behind the one that told it.
async fn receipt(gateway: &Gateway, transaction_id: Vec<u8>) -> Result<Value, Refusal> {
    use proto::get_transaction_response::Status;
    let request: Bytes = proto::GetTransactionRequest { transaction_id }.encode_to_vec().into();
    let context =
        CallContext { deadline: Instant::now() + RECEIPT, trace: TraceParent::start(), request_id: "stream".into() };
    loop {
        let answer = gateway.backends.unary(Call::GetTransaction.rule(), request.clone(), &context).await;
        let answer = answer.map_err(Refusal::Backend)?;
        let status = proto::GetTransactionResponse::decode(answer.clone()).map_err(|_| inconsistent())?.status;
        if matches!(status, Some(Status::Final(_))) {
            return gateway.translator.to_json("GetTransactionResponse", answer).map_err(|_| inconsistent());
        }
        if Instant::now() >= context.deadline {
            return Err(Refusal::NotFound("no node has the receipt yet".to_owned()));
        }
        tokio::time::sleep(RECEIPT_PAUSE).await;
    }
}

/// An event as a server-sent event.
fn line(event: &Event) -> Bytes {
    match event {
        Event::Told { id, kind, data } => format!("id: {id}\nevent: {kind}\ndata: {data}\n\n").into(),
        // No data: the browser only remembers the id.
        Event::Passed { height } => format!("id: {height}\n\n").into(),
        Event::Alive => Bytes::from_static(b": alive\n\n"),
        Event::Broken => Bytes::from_static(b"event: broken\ndata: {}\n\n"),
    }
}

/// An event as the text of a WebSocket message; a sign of life is a ping there.
pub fn message(event: &Event) -> Option<String> {
    match event {
        Event::Told { id, kind, data } => Some(json!({"id": id, "event": kind, "data": data}).to_string()),
        Event::Passed { height } => Some(json!({"id": height.to_string(), "event": "passed"}).to_string()),
        Event::Alive => None,
        Event::Broken => Some(json!({"event": "broken"}).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Begin, Event, Topic, after, line};

    #[test]
    fn a_stream_goes_on_right_after_the_last_event() {
        let transactions = Topic::Transactions(vec![]);
        assert_eq!(after(&Topic::Blocks, "7"), Some(Begin { height: 8, skip: 0 }));
        assert_eq!(after(&transactions, "7-2"), Some(Begin { height: 7, skip: 3 }));
        assert_eq!(after(&transactions, "7"), Some(Begin { height: 8, skip: 0 }));
        for id in ["7-2-1", "x", "-", "18446744073709551615", "+1", "1-+2"] {
            assert_eq!(after(&transactions, id), None, "{id}");
        }
        assert_eq!(after(&Topic::Blocks, "7-2"), None);
    }

    #[test]
    fn events_are_lines_that_browsers_read() {
        let event = Event::Told { id: "7".to_owned(), kind: "block", data: json!({"a": "b\nc"}) };
        assert_eq!(line(&event), "id: 7\nevent: block\ndata: {\"a\":\"b\\nc\"}\n\n");
    }
}
