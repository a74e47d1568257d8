//! Carries the caller's W3C `traceparent` and request id into the span of each call.

use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use node_api::trace::{TRACEPARENT, TraceParent};
use tower::{Layer, Service};
use tracing::{Instrument, instrument::Instrumented};

/// Name of the header with the id of a client's request.
const REQUEST_ID: &str = "x-request-id";
/// Longest id, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Wraps each call in a span with its path and, where given, the caller's trace and request id.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceLayer;

/// The service that [`TraceLayer`] makes.
#[derive(Clone, Debug)]
pub struct Traced<S> {
    inner: S,
}

impl<S> Layer<S> for TraceLayer {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

impl<S, B> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let (trace_id, request_id) =
            (parent(request.headers()).map(|parent| parent.trace_id()), request_id(request.headers()));
        let span = tracing::info_span!("call", path, trace_id, request_id);
        // The one line by which a request of a client is found in the log of the node that took it.
        span.in_scope(|| tracing::debug!("took a call"));
        self.inner.call(request).instrument(span)
    }
}

/// A malformed header is as good as none: the trace is the caller's business.
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// The id under which a gateway logs the request; what is no such id is left out.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    ((1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed)).then_some(id)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{REQUEST_ID, request_id};

    #[test]
    fn only_ids_of_requests_reach_the_log() {
        let long = "a".repeat(65);
        for (text, expected) in [("my-request_1.x", Some("my-request_1.x")), ("a b", None), ("", None), (&*long, None)]
        {
            let headers = HeaderMap::from_iter([(
                REQUEST_ID.parse().expect("a name"),
                HeaderValue::from_str(text).expect("a header"),
            )]);
            assert_eq!(request_id(&headers), expected, "{text:?}");
        }
        assert_eq!(request_id(&HeaderMap::new()), None);
    }
}
