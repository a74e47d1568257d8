//! The same events over a WebSocket, for clients that have no server-sent events.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{
        FromRequestParts,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use futures::{SinkExt, Stream, StreamExt};
use http::request::Parts;

use super::{
    events::{self, Event},
    input::Input,
};
use crate::gateway::{entrance::Caller, refusal::Refusal, state::Gateway};

/// Largest message of a client; nothing that it could say means anything.
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Bytes that may wait for a client that does not read.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Longest time for one message to leave.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);

/// `GET /api/v1/socket`
pub async fn open(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    input: &Input,
    mut parts: Parts,
) -> Result<Response, Refusal> {
    let place = caller.stream_place(gateway)?;
    let topic = events::topic(input)?;
    let begin = events::begin(gateway, &topic, input, &parts.headers).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|_| Refusal::Invalid("this path takes WebSocket upgrades only".to_owned()))?;
    let events = events::open(gateway, topic, begin);
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .max_write_buffer_size(WAITING_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _place = place;
        run(socket, events).await;
    }))
}

async fn run(socket: WebSocket, events: impl Stream<Item = Event>) {
    let (mut sink, mut source) = socket.split();
    tokio::pin!(events);
    loop {
        let message = tokio::select! {
            event = events.next() => match event {
                Some(event) => match events::message(&event) {
                    Some(text) => Message::Text(text.into()),
                    None => Message::Ping(bytes::Bytes::new()),
                },
                None => break,
            },
            received = source.next() => match received {
                // Pongs and whatever else: read and forgotten.
                Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        };
        if !matches!(tokio::time::timeout(SEND_TIME_MAX, sink.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
    // The gateway stops: the client goes on elsewhere with its last id.
    let _ = tokio::time::timeout(SEND_TIME_MAX, sink.send(Message::Close(None))).await;
}
