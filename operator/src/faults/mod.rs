//! Faults between the operator and the API server, for tests only: a layer of the client that exists when a plan is
//! given at start, and not otherwise.
//!
//! Each plan is one fault at one place, so that a run can be repeated: the process ends after its k-th write, writes
//! are refused or their answers lost, events of watches are dropped, doubled or held back, lists are old.

mod events;
mod lists;
mod wrong;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body as AnswerBody, Bytes, HttpBody};
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use tower::{BoxError, Layer, Service, ServiceExt};

pub use events::EventFaultKind;
pub use lists::{FirstLists, FirstListsKind};

/// Exit code of a process that a plan has ended.
pub const STOPPED: i32 = 86;
/// Tries of the remaking client until the former object is gone.
const REMAKE_TRIES_MAX: u32 = 40;

/// What an operator with this plan takes a newcomer for that has the chain's genesis and still fetches blocks.
pub fn seems_to_follow(plan: Option<&Plan>) -> bool {
    plan.is_some_and(|plan| plan.votes_in_early)
}

/// What goes wrong; JSON on the command line. All counts begin with 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The process ends once this write was carried out, before it learns so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after_write: Option<u64>,
    /// The process ends once the first write whose method and path end like this was carried out, before it learns so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<String>,
    /// Writes that fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes: Option<WriteFault>,
    /// An event of a watch that does not arrive as it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventFault>,
    /// The first list from this one on that was asked for before is answered once as it was at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_list: Option<u64>,
    /// The first lists of one resource come late or not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_lists: Option<FirstLists>,
    /// A faulty operator: what exists already is deleted and made anew instead of being kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remakes: bool,
    /// A faulty operator: nothing is ever deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_deletes: bool,
    /// A faulty operator: this part (JSON pointer) is missing in all that is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omits: Option<String>,
    /// A faulty operator: with each pod that it evicts it deletes that of another voter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evicts_another: bool,
    /// A faulty operator: the next authority of a network signs before anybody was told to trust it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signs_at_once: bool,
    /// A faulty operator: it does not write down that a change of voters was put before the chain, and does it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proposes_again: bool,
    /// A faulty operator: a newcomer is voted in while its node still fetches blocks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub votes_in_early: bool,
}

impl Plan {
    /// What goes wrong in the process that follows one that this plan has ended.
    #[must_use]
    pub fn of_the_next(&self) -> Self {
        Self {
            first_lists: self.first_lists.clone(),
            remakes: self.remakes,
            never_deletes: self.never_deletes,
            omits: self.omits.clone(),
            evicts_another: self.evicts_another,
            signs_at_once: self.signs_at_once,
            proposes_again: self.proposes_again,
            votes_in_early: self.votes_in_early,
            ..Self::default()
        }
    }
}

/// Writes that fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WriteFault {
    /// The first one.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// 409, 429, 500, 503, 504.
    pub status: u16,
    /// They are carried out all the same; only the answer is lost.
    pub is_executed: bool,
}

/// An event of a watch that does not arrive as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventFault {
    /// Which one, over all watches.
    pub at: u64,
    /// What happens to it.
    pub kind: EventFaultKind,
}

impl FromStr for Plan {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// What one process has sent and received so far.
#[derive(Default)]
pub struct Counts {
    writes: AtomicU64,
    events: AtomicU64,
    lists: AtomicU64,
    old_lists: AtomicU64,
    first_lists: AtomicU64,
    answers: Mutex<HashMap<String, Bytes>>,
}

fn next(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::SeqCst) + 1
}

/// Puts the plan around a client.
pub struct FaultLayer {
    plan: Arc<Plan>,
    counts: Arc<Counts>,
}

impl FaultLayer {
    /// A layer that carries out this plan.
    pub fn new(plan: Plan) -> Self {
        tracing::warn!(?plan, "faults are injected: for tests only");
        Self { plan: Arc::new(plan), counts: Arc::default() }
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner: Inner(Arc::new(tokio::sync::Mutex::new(inner))),
            plan: self.plan.clone(),
            counts: self.counts.clone(),
        }
    }
}

/// A client with faults.
pub struct Faulty<S> {
    inner: Inner<S>,
    plan: Arc<Plan>,
    counts: Arc<Counts>,
}

struct Inner<S>(Arc<tokio::sync::Mutex<S>>);

impl<S> Clone for Inner<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, B> Inner<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Sends a request; requests do not wait for each other's answers.
    async fn send(&self, request: Request<Body>) -> Result<Response<AnswerBody>, BoxError> {
        let answer = self.0.lock().await.ready().await?.call(request);
        Ok(answer.await?.map(AnswerBody::new))
    }
}

impl<S, B> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, plan, counts) = (self.inner.clone(), self.plan.clone(), self.counts.clone());
        Box::pin(async move {
            match Sort::of(&request) {
                Sort::Write => write(&inner, &plan, &counts, request).await,
                Sort::Watch => {
                    let answer = inner.send(request).await?;
                    Ok(answer.map(|body| events::changed(body, plan.events.clone(), counts)))
                }
                Sort::List => lists::list(&inner, &plan, &counts, request).await,
                Sort::Other => inner.send(request).await,
            }
        })
    }
}

/// What a request is.
enum Sort {
    Write,
    Watch,
    List,
    Other,
}

impl Sort {
    fn of(request: &Request<Body>) -> Self {
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        let is_besides = ["/leases", "/events"].iter().any(|word| path.contains(word));
        let is_write = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
        // What a decision is based on is read without a limit, and always from the newest state.
        let is_collection = query.contains("limit=");
        match (is_besides, is_write) {
            (true, _) => Self::Other,
            (false, true) => Self::Write,
            (false, false) if query.contains("watch=") => Self::Watch,
            (false, false) if is_collection => Self::List,
            (false, false) => Self::Other,
        }
    }
}

async fn write<S, B>(
    inner: &Inner<S>,
    plan: &Plan,
    counts: &Counts,
    request: Request<Body>,
) -> Result<Response<AnswerBody>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let number = next(&counts.writes);
    let what = format!("{} {}", request.method(), request.uri().path());
    tracing::debug!(number, %what, "write");
    if let Some(fault) = plan.writes.as_ref().filter(|fault| is_hit(fault, number)) {
        tracing::warn!(number, %what, status = fault.status, executed = fault.is_executed, "fault injected: write");
        if fault.is_executed {
            inner.send(request).await?;
        }
        return Ok(refusal(fault.status));
    }
    if plan.never_deletes && request.method() == Method::DELETE {
        tracing::warn!(number, %what, "fault injected: not deleted");
        return Ok(Response::new(AnswerBody::from(r#"{"kind":"Status","apiVersion":"v1","status":"Success"}"#)));
    }
    let request = match &plan.omits {
        Some(pointer) if is_apply(&request) => without(request, pointer).await?,
        Some(_) | None => request,
    };
    let request = if plan.signs_at_once { wrong::signing_at_once(inner, request).await? } else { request };
    let request = if plan.proposes_again { without(request, wrong::PROPOSED).await? } else { request };
    let another = if plan.evicts_another { wrong::another(&request) } else { None };
    let answer = if plan.remakes { remade(inner, request).await? } else { inner.send(request).await? };
    if let Some(path) = another.filter(|_| answer.status().is_success()) {
        wrong::delete(inner, &path).await?;
    }
    let is_last = plan.stop_after.as_ref().is_some_and(|end| what.ends_with(end.as_str()));
    if plan.stop_after_write == Some(number) || is_last {
        tracing::warn!(number, %what, status = answer.status().as_u16(), "fault injected: stop");
        std::process::exit(STOPPED);
    }
    Ok(answer)
}

fn is_apply(request: &Request<Body>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    request.method() == Method::PATCH && kind.is_some_and(|kind| kind.starts_with("application/apply-patch"))
}

/// The same request without this part of its body.
async fn without(request: Request<Body>, pointer: &str) -> Result<Request<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await?;
    let Ok(mut object) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return Ok(Request::from_parts(parts, Body::from(bytes)));
    };
    let (above, name) = pointer.rsplit_once('/').unwrap_or_default();
    let removed = object.pointer_mut(above).and_then(|place| place.as_object_mut()?.remove(name));
    if removed.is_some() {
        tracing::warn!(pointer, "fault injected: omitted");
    }
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Ok(Request::from_parts(parts, Body::from(serde_json::to_vec(&object)?)))
}

fn is_hit(fault: &WriteFault, number: u64) -> bool {
    (fault.from..fault.from.saturating_add(fault.count)).contains(&number)
}

/// What the API server answers when it refuses.
fn refusal(code: u16) -> Response<AnswerBody> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "injected", "reason": reason, "code": code,
    });
    let mut answer = Response::new(AnswerBody::from(status.to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

/// The client of a faulty operator: on `AlreadyExists` it deletes what is there and makes it anew.
async fn remade<S, B>(inner: &Inner<S>, request: Request<Body>) -> Result<Response<AnswerBody>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await?;
    let again = || Request::from_parts(parts.clone(), Body::from(bytes.clone()));
    let mut answer = inner.send(again()).await?;
    let object: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let Some(name) = object.pointer("/metadata/name").and_then(serde_json::Value::as_str) else { return Ok(answer) };
    for _ in 0..REMAKE_TRIES_MAX {
        if parts.method != Method::POST || answer.status() != StatusCode::CONFLICT {
            break;
        }
        tracing::warn!(name, "fault injected: remade");
        let uri = format!("{}/{name}", parts.uri.path());
        let deletion = Request::builder().method(Method::DELETE).uri(uri).body(Body::empty())?;
        inner.send(deletion).await?;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = inner.send(again()).await?;
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_from_its_text_and_unknown_faults_are_refused() {
        let plan: Plan = r#"{"stopAfterWrite": 3}"#.parse().expect("a plan");
        assert_eq!(plan, Plan { stop_after_write: Some(3), ..Plan::default() });
        assert!(r#"{"stopAfter": 3}"#.parse::<Plan>().is_err());
        let storm = WriteFault { from: 3, count: 2, status: 429, is_executed: false };
        assert_eq!((1..7).filter(|number| is_hit(&storm, *number)).collect::<Vec<u64>>(), [3, 4]);
    }

    #[test]
    fn leases_and_events_are_not_counted() {
        let sort = |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request");
            match Sort::of(&request) {
                Sort::Write => "write",
                Sort::Watch => "watch",
                Sort::List => "list",
                Sort::Other => "other",
            }
        };
        assert_eq!(sort(Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/a/leases/b"), "other");
        assert_eq!(sort(Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events"), "other");
        assert_eq!(sort(Method::PATCH, "/api/v1/namespaces/a/services/b?force=true"), "write");
        assert_eq!(sort(Method::GET, "/api/v1/namespaces/a/pods?limit=500"), "list");
        assert_eq!(sort(Method::GET, "/api/v1/namespaces/a/pods?watch=true&labelSelector=x"), "watch");
        assert_eq!(sort(Method::GET, "/api/v1/namespaces/a/secrets/b"), "other");
        assert_eq!(sort(Method::GET, "/api/v1/namespaces/a/pods?labelSelector=x"), "other");
    }
}
