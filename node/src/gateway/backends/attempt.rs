//! Makes one call, at another backend again where that is allowed, within the time of the caller.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::uri::PathAndQuery;
use node_api::{
    gateway::Backends as Configured,
    proto::MESSAGE_BYTES_MAX,
    trace::{TRACEPARENT, TraceParent},
    unsettled,
};
use tokio::time::{Instant, timeout_at};
use tonic::{
    Code, ConnectError, Request, Response, Status, Streaming,
    client::Grpc,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::Channel,
};

use super::{
    RawCodec,
    node::Connection,
    pool::{Dialing, Lease, Pool},
    probe,
};
use crate::gateway::{
    calls::{CallRule, Retry, Tier},
    metrics::GatewayMetrics,
    refusal,
    rules::{breaker::CallResult, probes::Standing},
};

/// Backends that one call is tried at.
const ATTEMPTS_MAX: usize = 3;
/// Longest wait for a backend while there is another one to ask.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(3);

/// What a call takes along.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// When the caller no longer waits.
    pub deadline: Instant,
    /// The trace that the caller is in.
    pub trace: TraceParent,
    /// The id of the caller's request.
    pub request_id: Arc<str>,
}

/// One call under way at a backend. It is counted once, also when its caller leaves before the end.
struct Underway<'a> {
    lease: Lease,
    connection: Option<Connection>,
    metrics: &'a GatewayMetrics,
    begun: Instant,
}

impl<'a> Underway<'a> {
    fn new(lease: Lease, metrics: &'a GatewayMetrics) -> Self {
        Self { lease, connection: None, metrics, begun: Instant::now() }
    }

    /// The backend's connection, ready for a call.
    async fn connect(&mut self) -> Result<Grpc<Channel>, Status> {
        let connection = self.lease.node().connection().await?;
        let mut grpc = Grpc::new(connection.client.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        self.connection = Some(connection);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    /// Counts the result. For the breaker what several calls lose with one connection is one failure, and none when a backend
    /// cannot be reached: that is for its probes to find out.
    fn settle<T>(&mut self, result: &Result<T, Status>, patience: Patience) {
        self.lease.settle(blame(result, patience));
        let known = match &self.connection {
            Some(connection) => result.as_ref().is_err_and(was_cut) && !connection.is_open() && !connection.blame(),
            None => true,
        };
        if known {
            self.lease.pardon();
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.metrics.called(self.lease.node().address, self.lease.result(), self.begun.elapsed());
    }
}

/// One call of a client, wherever it is tried.
struct Order<'a> {
    rule: &'a CallRule,
    message: Bytes,
    context: &'a CallContext,
}

/// Both tiers.
#[derive(Debug)]
pub struct Backends {
    submit: Arc<Pool>,
    read: Arc<Pool>,
    metrics: Arc<GatewayMetrics>,
}

impl Backends {
    /// Those of the configuration.
    pub fn new(configured: &Configured, dialing: Dialing, metrics: Arc<GatewayMetrics>) -> Self {
        let submit = Arc::new(Pool::new(configured.submit.clone(), dialing.clone()));
        let read = if configured.read.is_empty() { configured.submit.clone() } else { configured.read.clone() };
        Self { submit, read: Arc::new(Pool::new(read, dialing)), metrics }
    }

    /// The backends of a tier.
    pub fn pool(&self, tier: Tier) -> &Arc<Pool> {
        match tier {
            Tier::Submit => &self.submit,
            Tier::Read => &self.read,
        }
    }

    /// Whether a tier has somebody to ask.
    pub fn serve(&self, tier: Tier) -> bool {
        self.pool(tier).view().iter().any(|backend| backend.standing != Standing::Out)
    }

    /// Shows the backends as they are now.
    pub fn show(&self) {
        for tier in [Tier::Submit, Tier::Read] {
            self.metrics.show_backends(tier, &self.pool(tier).view());
        }
    }

    /// Finds, connects and probes the backends of a tier until the future is dropped.
    pub fn probe(self: &Arc<Self>, tier: Tier) -> BoxFuture<'static, ()> {
        let backends = Arc::clone(self);
        let pool = Arc::clone(self.pool(tier));
        Box::pin(probe::run(pool, tier, move |gone| {
            backends.metrics.forget(tier, gone);
        }))
    }

    /// A call with one answer.
    pub async fn unary(&self, rule: &CallRule, request: Bytes, context: &CallContext) -> Result<Bytes, Status> {
        let call = |mut grpc: Grpc<Channel>, request: Request<Bytes>| async move {
            grpc.unary(request, PathAndQuery::from_static(rule.path), RawCodec).await.map(Response::into_inner)
        };
        self.attempts(&Order { rule, message: request, context }, call).await
    }

    /// A call with a stream of answers; the deadline is for its beginning.
    pub async fn stream(
        &self,
        rule: &CallRule,
        request: Bytes,
        context: &CallContext,
    ) -> Result<Streaming<Bytes>, Status> {
        let call = |mut grpc: Grpc<Channel>, mut request: Request<Bytes>| async move {
            request.metadata_mut().remove("grpc-timeout");
            grpc.server_streaming(request, PathAndQuery::from_static(rule.path), RawCodec)
                .await
                .map(Response::into_inner)
        };
        self.attempts(&Order { rule, message: request, context }, call).await
    }

    /// A call with a stream each way, at one backend: what was sent cannot be sent again.
    pub async fn duplex(
        &self,
        rule: &CallRule,
        requests: BoxStream<'static, Bytes>,
        context: &CallContext,
    ) -> Result<Streaming<Bytes>, Status> {
        let none = || Status::unavailable("no node can take this call now");
        let lease = self.pool(rule.tier).next(&[]).ok_or_else(none)?;
        let mut underway = Underway::new(lease, &self.metrics);
        let mut request = Request::new(requests);
        insert(request.metadata_mut(), TRACEPARENT, &context.trace.child().to_string());
        insert(request.metadata_mut(), "x-request-id", &context.request_id);
        let work = async {
            let mut grpc = underway.connect().await?;
            grpc.streaming(request, PathAndQuery::from_static(rule.path), RawCodec).await.map(Response::into_inner)
        };
        let result = within(context.deadline, work).await;
        underway.settle(&result, Patience::Short);
        result
    }

    async fn attempts<T, F: Future<Output = Result<T, Status>>>(
        &self,
        order: &Order<'_>,
        call: impl Fn(Grpc<Channel>, Request<Bytes>) -> F,
    ) -> Result<T, Status> {
        let Order { rule, context, .. } = order;
        let pool = self.pool(rule.tier);
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut last: Option<Status> = None;
        let mut acted = false;
        while tried.len() < ATTEMPTS_MAX {
            let Some(lease) = pool.next(&tried) else { break };
            tried.push(lease.node().address);
            let status = match self.attempt(lease, order, &call).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            acted |= rule.retry != Retry::Always && may_have_acted(&status);
            let again = may_retry(rule.retry, &status) && Instant::now() < context.deadline;
            // A node may have done what a later one refuses.
            last = Some(if acted { refusal::unsettled() } else { status });
            if !again {
                break;
            }
            self.metrics.retries_total.inc();
        }
        Err(last.unwrap_or_else(|| Status::unavailable("no node can take this call now")))
    }

    async fn attempt<T, F: Future<Output = Result<T, Status>>>(
        &self,
        lease: Lease,
        order: &Order<'_>,
        call: &impl Fn(Grpc<Channel>, Request<Bytes>) -> F,
    ) -> Result<T, Status> {
        let Order { rule, message, context } = order;
        let now = Instant::now();
        let full = now + ATTEMPT_TIME_MAX;
        let (until, patience) = match rule.retry {
            Retry::Always if full <= context.deadline => (full, Patience::Full),
            // A caller who waits for finality may wait in vain without a fault of the backend.
            Retry::Always | Retry::Idempotent | Retry::IfUnsent => (context.deadline, Patience::Short),
        };
        let mut underway = Underway::new(lease, &self.metrics);
        let mut request = Request::new(message.clone());
        request.set_timeout(until.saturating_duration_since(now));
        insert(request.metadata_mut(), TRACEPARENT, &context.trace.child().to_string());
        insert(request.metadata_mut(), "x-request-id", &context.request_id);
        let work = async { call(underway.connect().await?, request).await };
        let result = within(until, work).await;
        underway.settle(&result, patience);
        result
    }
}

/// How long a backend had for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// As long as a call of this kind may take: no answer is a fault.
    Full,
    /// As long as the caller chose: no answer says nothing about the backend.
    Short,
}

/// The result of `work`, or that time is up. The connection and the node watch the same time and say so in words of
/// their own.
async fn within<T>(until: Instant, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = || Status::deadline_exceeded("no answer in time");
    match timeout_at(until, work).await {
        Err(_) => Err(late()),
        Ok(Err(status)) if status.code() == Code::Cancelled && Instant::now() >= until => Err(late()),
        Ok(result) => result,
    }
}

fn insert(metadata: &mut MetadataMap, name: &'static str, value: &str) {
    if let Ok(value) = AsciiMetadataValue::try_from(value) {
        metadata.insert(name, value);
    }
}

/// Whether the backend is to blame for a result. A refusal of the caller's request is an answer.
fn blame<T>(result: &Result<T, Status>, patience: Patience) -> CallResult {
    let Err(status) = result else { return CallResult::Answered };
    match (status.code(), patience) {
        // Nobody but the connection itself reports these with a cause.
        (Code::Unknown | Code::Cancelled, _) if status.source().is_some() => CallResult::Failed,
        (Code::Unavailable | Code::Internal | Code::DataLoss, _) => CallResult::Failed,
        (Code::DeadlineExceeded, Patience::Full) => CallResult::Failed,
        (Code::DeadlineExceeded, Patience::Short) => CallResult::Abandoned,
        (_, _) => CallResult::Answered,
    }
}

fn may_retry(retry: Retry, status: &Status) -> bool {
    match retry {
        Retry::Always => is_fault(status),
        Retry::Idempotent => is_fault(status) || may_have_acted(status),
        Retry::IfUnsent => was_not_sent(status),
    }
}

/// Whoever has time for another attempt had it for a whole one.
fn is_fault(status: &Status) -> bool {
    blame::<()>(&Err(status.clone()), Patience::Full) == CallResult::Failed || was_cut(status)
}

/// Whether the node may have done what it was asked for without a word of it.
fn may_have_acted(status: &Status) -> bool {
    unsettled::is_said_by(status) || (was_cut(status) && !was_not_sent(status))
}

/// The connection broke under the call.
fn was_cut(status: &Status) -> bool {
    status.source().is_some()
}

/// There was no connection that the call could have left on.
fn was_not_sent(status: &Status) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(cause) = next {
        if cause.is::<ConnectError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, Instant};
    use tonic::{Code, Status};

    use super::{Patience, blame, within};
    use crate::gateway::rules::breaker::CallResult;

    #[test]
    fn a_deadline_counts_against_a_backend_only_after_a_whole_attempt() {
        for (code, patience, expected) in [
            (Code::DeadlineExceeded, Patience::Full, CallResult::Failed),
            (Code::DeadlineExceeded, Patience::Short, CallResult::Abandoned),
            (Code::Unavailable, Patience::Short, CallResult::Failed),
            (Code::NotFound, Patience::Full, CallResult::Answered),
        ] {
            assert_eq!(blame::<()>(&Err(Status::new(code, "")), patience), expected, "{code:?} {patience:?}");
        }
        assert_eq!(blame(&Ok(()), Patience::Short), CallResult::Answered);
    }

    #[tokio::test]
    async fn whoever_watches_the_time_first_it_is_the_same_deadline() {
        let now = Instant::now();
        let cancelled = || async { Err::<(), _>(Status::cancelled("Timeout expired")) };
        for (until, expected) in [(now, Code::DeadlineExceeded), (now + Duration::from_secs(3_600), Code::Cancelled)] {
            assert_eq!(within(until, cancelled()).await.expect_err("fails").code(), expected);
        }
        let never = within(now, std::future::pending::<Result<(), Status>>()).await;
        assert_eq!(never.expect_err("fails").code(), Code::DeadlineExceeded);
    }
}
