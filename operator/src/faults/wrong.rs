//! Operators that do what they must not, made of ones that do not by changing what they send: checkers are proved by them.

use axum::body::{Bytes, HttpBody};
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower::{BoxError, Service};

use super::Inner;

/// Longest answer that is held in memory.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Where a group's status says until when a change of voters may be executed that was put before the chain.
pub(super) const PROPOSED: &str = "/status/members/change/proposedUntil";

/// The path of the pod of another voter, when a request evicts the pod of one: one voter more than the budget permits.
pub(super) fn another(request: &Request<Body>) -> Option<String> {
    let path = request.uri().path().strip_suffix("/eviction")?;
    let (node, pod) = path.rsplit_once('-')?;
    let (group, number) = node.rsplit_once('-')?;
    let number: u32 = number.parse().ok()?;
    let other = if number == 0 { 1 } else { number - 1 };
    Some(format!("{group}-{other}-{pod}"))
}

/// Deletes a pod past the disruption budget.
pub(super) async fn delete<S, B>(inner: &Inner<S>, path: &str) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    tracing::warn!(path, "fault injected: deleted too");
    inner.send(Request::builder().method(Method::DELETE).uri(path).body(Body::empty())?).await?;
    Ok(())
}

/// The same request, but an authority that is to be trusted beside the one that signs is made to sign at once.
pub(super) async fn signing_at_once<S, B>(inner: &Inner<S>, request: Request<Body>) -> Result<Request<Body>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if request.method() != Method::PATCH || !request.uri().path().ends_with("-ca") {
        return Ok(request);
    }
    let (mut parts, body) = request.into_parts();
    let bytes = body.collect_bytes().await?;
    let patch: Value = serde_json::from_slice(&bytes)?;
    let read = Request::builder().method(Method::GET).uri(parts.uri.path()).body(Body::empty())?;
    let answer = axum::body::to_bytes(inner.send(read).await?.into_body(), ANSWER_BYTES_MAX).await?;
    let Some(hasty) = signing(&patch, &serde_json::from_slice(&answer)?) else {
        return Ok(Request::from_parts(parts, Body::from(bytes)));
    };
    tracing::warn!(path = parts.uri.path(), "fault injected: signs at once");
    parts.headers.remove(http::header::CONTENT_LENGTH);
    Ok(Request::from_parts(parts, Body::from(serde_json::to_vec(&hasty)?)))
}

/// The change by which the next authority of `patch` signs in place of the one that `secret` has; none of another patch.
fn signing(patch: &Value, secret: &Value) -> Option<Value> {
    let [next, next_key] = ["next.crt", "next.key"].map(|entry| patch.get("data")?.get(entry)?.as_str());
    let [signs, signs_key] = ["tls.crt", "tls.key"].map(|entry| secret.get("data")?.get(entry)?.as_str());
    let mut hasty = patch.clone();
    let data = hasty.get_mut("data")?;
    *data = json!({
        "tls.crt": next?, "tls.key": next_key?, "former.crt": signs?, "former.key": signs_key?,
        "ca.crt": data.get("ca.crt")?,
    });
    Some(hasty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_the_pod_of_one_voter_goes_that_of_its_neighbour() {
        let of = |path: &str| another(&Request::builder().uri(path).body(Body::empty()).expect("a request"));
        let pod = |name: &str| Some(format!("/api/v1/namespaces/a/pods/{name}"));
        assert_eq!(of("/api/v1/namespaces/a/pods/alpha-main-3-0/eviction"), pod("alpha-main-2-0"));
        assert_eq!(of("/api/v1/namespaces/a/pods/alpha-main-0-0/eviction"), pod("alpha-main-1-0"));
        assert_eq!(of("/api/v1/namespaces/a/pods/alpha-main-0-0"), None);
    }

    #[test]
    fn the_next_authority_signs_in_place_of_the_one_that_is_there() {
        let secret = json!({ "data": { "tls.crt": "a", "tls.key": "ak", "ca.crt": "a" } });
        let patch = |data: Value| json!({ "metadata": { "resourceVersion": "1" }, "data": data });
        let begun = patch(json!({ "next.crt": "b", "next.key": "bk", "ca.crt": "ab" }));
        let expected =
            json!({ "tls.crt": "b", "tls.key": "bk", "former.crt": "a", "former.key": "ak", "ca.crt": "ab" });
        assert_eq!(signing(&begun, &secret), Some(patch(expected)));
        let withdrawn = patch(json!({ "former.crt": null, "former.key": null, "ca.crt": "b" }));
        assert_eq!(signing(&withdrawn, &secret), None);
    }
}
