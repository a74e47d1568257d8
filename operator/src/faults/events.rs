//! Changes the events of a watch: one line of JSON is one event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::{Counts, EventFault, next};

/// What happens to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventFaultKind {
    /// It is lost, with all that follow in this watch until the API server says that the watch is too old.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives late, and everything behind it.
    Delay,
}

/// How long a watch is silent before it ends, and how late an event may be.
const SILENCE: Duration = Duration::from_millis(1_500);
/// The API server's word for a watch whose events are gone: the client lists again.
const EXPIRED: &[u8] = br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"injected","reason":"Expired","code":410}}
"#;

struct Lines {
    inner: BodyDataStream,
    buffer: Vec<u8>,
    ready: VecDeque<Bytes>,
    fault: Option<EventFault>,
    counts: Arc<Counts>,
    silence: Duration,
    has_ended: bool,
}

/// The same events but for the planned one.
pub fn changed(body: Body, fault: Option<EventFault>, counts: Arc<Counts>) -> Body {
    with_silence(body, fault, counts, SILENCE)
}

fn with_silence(body: Body, fault: Option<EventFault>, counts: Arc<Counts>, silence: Duration) -> Body {
    if fault.is_none() {
        return body;
    }
    let lines = Lines {
        inner: body.into_data_stream(),
        buffer: Vec::new(),
        ready: VecDeque::new(),
        fault,
        counts,
        silence,
        has_ended: false,
    };
    Body::from_stream(futures::stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((line, lines))
    }))
}

impl Lines {
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.has_ended {
                return None;
            }
            match self.inner.next().await {
                None => return None,
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            }
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                self.take(Bytes::from(line)).await;
                if self.has_ended {
                    break;
                }
            }
        }
    }

    async fn take(&mut self, line: Bytes) {
        let number = next(&self.counts.events);
        tracing::debug!(number, "event");
        let kind = self.fault.as_ref().filter(|fault| fault.at == number).map(|fault| fault.kind);
        if let Some(kind) = kind {
            tracing::warn!(number, ?kind, "fault injected: event");
        }
        match kind {
            None => self.ready.push_back(line),
            Some(EventFaultKind::Duplicate) => self.ready.extend([line.clone(), line]),
            Some(EventFaultKind::Delay) => {
                tokio::time::sleep(self.silence).await;
                self.ready.push_back(line);
            }
            Some(EventFaultKind::Drop) => {
                tokio::time::sleep(self.silence).await;
                self.ready.push_back(Bytes::from_static(EXPIRED));
                self.has_ended = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn through(kind: EventFaultKind) -> String {
        let fault = EventFault { at: 2, kind };
        let chunks = ["one\ntw", "o\nthree\n"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let body = Body::from_stream(futures::stream::iter(chunks));
        let body = with_silence(body, Some(fault), Arc::default(), Duration::ZERO);
        let bytes = axum::body::to_bytes(body, 1_000).await.expect("a body");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn only_the_planned_event_is_changed() {
        assert_eq!(through(EventFaultKind::Duplicate).await, "one\ntwo\ntwo\nthree\n");
        assert_eq!(through(EventFaultKind::Delay).await, "one\ntwo\nthree\n");
        let dropped = through(EventFaultKind::Drop).await;
        assert!(dropped.starts_with("one\n{\"type\":\"ERROR\"") && !dropped.contains("three"), "{dropped}");
    }
}
