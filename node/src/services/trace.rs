//! Carries the caller's W3C `traceparent` header into the span of each call.

use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use node_api::trace::{TRACEPARENT, TraceParent};
use tower::{Layer, Service};
use tracing::{Instrument, instrument::Instrumented};

/// Wraps each call in a span with its path and, where given, the caller's trace.
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
        let span = match parent(request.headers()) {
            Some(parent) => tracing::info_span!("call", path, trace_id = parent.trace_id()),
            None => tracing::info_span!("call", path),
        };
        self.inner.call(request).instrument(span)
    }
}

/// A malformed header is as good as none: the trace is the caller's business.
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}
