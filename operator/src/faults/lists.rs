//! Changes lists: old answers, late ones and none at all.

use std::sync::PoisonError;
use std::time::Duration;

use axum::body::{Body as AnswerBody, Bytes, HttpBody};
use http::{Request, Response};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use tower::{BoxError, Service};

use super::{Counts, Inner, Plan, next, refusal};

/// Longest answer that is held in memory.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How late a late list is.
const LATE: Duration = Duration::from_secs(4);
/// How many first lists are refused.
const REFUSED_LISTS: u64 = 3;

/// The first lists of one resource come late or not at all: until then nothing of it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirstLists {
    /// Last part of the path, for example `pods`.
    pub resource: String,
    /// What happens to them.
    pub kind: FirstListsKind,
}

impl FirstLists {
    fn concerns(&self, path: &str) -> bool {
        path.rsplit('/').next() == Some(self.resource.as_str())
    }
}

/// What happens to the first lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FirstListsKind {
    /// The first one is answered seconds later.
    Late,
    /// The first ones are refused.
    Refused,
}

/// Makes the first lists of one resource late, or answers in their place; gives each later list what was answered to the
/// same request before, at the planned one.
pub(super) async fn list<S, B>(
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
    if let Some(fault) = plan.first_lists.as_ref().filter(|fault| fault.concerns(request.uri().path())) {
        let number = next(&counts.first_lists);
        match fault.kind {
            FirstListsKind::Late if number == 1 => {
                tracing::warn!(number, resource = %fault.resource, "fault injected: late list");
                tokio::time::sleep(LATE).await;
            }
            FirstListsKind::Refused if number <= REFUSED_LISTS => {
                tracing::warn!(number, resource = %fault.resource, "fault injected: refused list");
                return Ok(refusal(503));
            }
            FirstListsKind::Late | FirstListsKind::Refused => {}
        }
    }
    let Some(from) = plan.old_list else { return inner.send(request).await };
    let number = next(&counts.lists);
    let key = request.uri().to_string();
    let answer = inner.send(request).await?;
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await?;
    let mut answers = counts.answers.lock().unwrap_or_else(PoisonError::into_inner);
    let chosen = match answers.get(&key) {
        Some(old) if number >= from && next(&counts.old_lists) == 1 => {
            tracing::warn!(number, list = %key, "fault injected: old list");
            old.clone()
        }
        _ => bytes.clone(),
    };
    // The oldest answer is the one that is furthest from the truth.
    answers.entry(key).or_insert(bytes);
    Ok(Response::from_parts(parts, AnswerBody::from(chosen)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn the_first_list_that_is_asked_for_again_is_once_as_it_was() {
        let number = AtomicU64::new(0);
        let server = tower::service_fn(move |_: Request<Body>| {
            let answer = number.fetch_add(1, Ordering::SeqCst).to_string();
            std::future::ready(Ok::<_, BoxError>(Response::new(AnswerBody::from(answer))))
        });
        let (inner, counts) = (Inner(Arc::new(tokio::sync::Mutex::new(server))), Counts::default());
        let plan = Plan { old_list: Some(1), ..Plan::default() };
        let mut answers = Vec::new();
        for path in ["/pods", "/services", "/pods", "/services", "/pods"] {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            let answer = list(&inner, &plan, &counts, request).await.expect("an answer");
            let bytes = axum::body::to_bytes(answer.into_body(), 100).await.expect("a body");
            answers.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        assert_eq!(answers, ["0", "1", "0", "3", "4"]);
    }

    #[test]
    fn a_resource_is_known_by_the_end_of_its_path() {
        let fault = FirstLists { resource: "pods".to_string(), kind: FirstListsKind::Late };
        assert!(fault.concerns("/api/v1/namespaces/a/pods"));
        assert!(!fault.concerns("/api/v1/namespaces/pods/services"));
    }
}
