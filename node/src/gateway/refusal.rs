//! Why a request gets no answer: as an RFC 9457 problem for REST, as a status for gRPC.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use node_api::gateway::Permission;
use serde_json::json;
use tonic::{Code, Status};

/// The versions of the REST interface that exist.
pub const VERSIONS: [&str; 1] = ["v1"];

/// A refusal. Nothing in it tells a stranger about the inside of the network.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The path names a version that does not exist.
    UnknownVersion,
    /// The path names nothing.
    NoSuchRoute,
    /// The path takes other methods.
    Method,
    /// The request has a mistake.
    Invalid(String),
    /// The body has a type that the route does not take.
    MediaType(&'static str),
    /// The body is too large.
    TooLarge {
        /// Most bytes.
        most: usize,
    },
    /// The headers are too large or too many.
    Headers,
    /// The body did not come in time.
    SlowBody,
    /// No credential, or one that is not good.
    Unauthenticated(&'static str),
    /// The caller may not do this.
    Forbidden(Permission),
    /// The caller had enough for now.
    TooMany {
        /// When the next request may come.
        retry_in: Duration,
    },
    /// The gateway has too much to do.
    Overloaded(&'static str),
    /// What was asked for does not exist.
    NotFound(String),
    /// A node answered with a refusal, or none answered.
    Backend(Status),
}

struct Terms {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
}

impl Refusal {
    fn terms(&self) -> Terms {
        let terms = |status, kind, title, detail: String| Terms { status, kind, title, detail };
        match self {
            Self::UnknownVersion => terms(
                StatusCode::NOT_FOUND,
                "unknown-version",
                "This version of the interface does not exist",
                format!("versions that exist: {}", VERSIONS.join(", ")),
            ),
            Self::NoSuchRoute => terms(
                StatusCode::NOT_FOUND,
                "no-such-route",
                "Nothing is at this path",
                "the routes are listed in /api/v1/openapi.json".to_owned(),
            ),
            Self::Method => terms(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This path takes other methods",
                "the Allow header lists them".to_owned(),
            ),
            Self::Invalid(detail) => {
                terms(StatusCode::BAD_REQUEST, "invalid-request", "The request has a mistake", detail.clone())
            }
            Self::MediaType(expected) => terms(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body has a type that is not taken here",
                format!("send {expected}"),
            ),
            Self::TooLarge { most } => terms(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "The body is too large",
                format!("send at most {most} bytes"),
            ),
            Self::Headers => terms(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers-too-large",
                "A header is too large",
                "send fewer and shorter headers".to_owned(),
            ),
            Self::SlowBody => terms(
                StatusCode::REQUEST_TIMEOUT,
                "slow-body",
                "The body did not arrive in time",
                "send it faster, or in smaller parts".to_owned(),
            ),
            Self::Unauthenticated(detail) => {
                terms(StatusCode::UNAUTHORIZED, "unauthenticated", "A good credential is needed", (*detail).to_owned())
            }
            Self::Forbidden(permission) => terms(
                StatusCode::FORBIDDEN,
                "forbidden",
                "The caller may not do this",
                format!("the permission {permission:?} is missing").to_lowercase(),
            ),
            Self::TooMany { retry_in } => terms(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-requests",
                "The limit is reached",
                format!("try again in {} s", seconds(*retry_in)),
            ),
            Self::Overloaded(what) => terms(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "The gateway has too much to do",
                (*what).to_owned(),
            ),
            Self::NotFound(detail) => {
                terms(StatusCode::NOT_FOUND, "not-found", "What was asked for does not exist", detail.clone())
            }
            Self::Backend(status) => backend_terms(status),
        }
    }

    /// Seconds after which another try makes sense.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::TooMany { retry_in } => Some(seconds(*retry_in)),
            Self::Overloaded(_) => Some(1),
            Self::Backend(status) => match status.code() {
                Code::Unavailable | Code::ResourceExhausted => Some(1),
                _ => None,
            },
            Self::UnknownVersion
            | Self::NoSuchRoute
            | Self::Method
            | Self::Invalid(_)
            | Self::MediaType(_)
            | Self::TooLarge { .. }
            | Self::Headers
            | Self::SlowBody
            | Self::Unauthenticated(_)
            | Self::Forbidden(_)
            | Self::NotFound(_) => None,
        }
    }

    /// The HTTP status of it.
    pub fn status(&self) -> StatusCode {
        self.terms().status
    }

    /// For people in a log.
    pub fn detail(&self) -> String {
        self.terms().detail
    }

    /// The problem as JSON; `request_id` lets a person find it in the logs.
    pub fn to_json(&self, request_id: &str) -> serde_json::Value {
        let Terms { status, kind, title, detail } = self.terms();
        json!({
            "type": format!("urn:althing:problem:{kind}"),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "instance": format!("urn:althing:request:{request_id}"),
        })
    }

    /// The answer to a REST request.
    pub fn into_rest(self, request_id: &str) -> Response {
        let text = self.to_json(request_id).to_string();
        let mut response = (self.status(), Body::from(text)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Unauthenticated(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, ApiKey"));
        }
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The answer to a gRPC call.
    pub fn into_grpc(self) -> Response {
        let retry_after_s = self.retry_after_s();
        let mut response = self.into_status().into_http::<Body>();
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The gRPC status of it.
    pub fn into_status(self) -> Status {
        let code = match &self {
            Self::Backend(status) => return outward(status),
            Self::UnknownVersion | Self::NoSuchRoute | Self::Method => Code::Unimplemented,
            Self::Invalid(_) | Self::MediaType(_) | Self::Headers => Code::InvalidArgument,
            Self::TooLarge { .. } | Self::TooMany { .. } => Code::ResourceExhausted,
            Self::SlowBody => Code::DeadlineExceeded,
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::Overloaded(_) => Code::Unavailable,
            Self::NotFound(_) => Code::NotFound,
        };
        Status::new(code, self.detail())
    }
}

/// Whole seconds, rounded up, at least one.
fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// What a client is told whose call may have had an effect that nobody could tell it of.
const UNSETTLED: &str = "a node may have taken it: ask for the transaction, or send the same bytes again";

/// For such a call.
pub fn unsettled() -> Status {
    Status::unavailable(UNSETTLED)
}

/// The status that a client sees for a node's status. What nodes say about connections, and about the gateway's own
/// certificate, is not for clients.
fn outward(status: &Status) -> Status {
    use std::error::Error;
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
            if status.source().is_none() =>
        {
            Status::new(status.code(), status.message())
        }
        Code::DeadlineExceeded => Status::deadline_exceeded("no node answered in time"),
        Code::Cancelled => Status::deadline_exceeded("no node answered in time"),
        Code::Unimplemented => Status::unimplemented("the nodes do not offer this call"),
        Code::Unavailable if status.message() == UNSETTLED => unsettled(),
        _ => Status::unavailable("no node can take this call now"),
    }
}

fn backend_terms(status: &Status) -> Terms {
    let status = outward(status);
    let (code, kind, title) = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => {
            (StatusCode::BAD_REQUEST, "invalid-request", "The request has a mistake")
        }
        Code::NotFound => (StatusCode::NOT_FOUND, "not-found", "What was asked for does not exist"),
        Code::FailedPrecondition | Code::AlreadyExists => {
            (StatusCode::CONFLICT, "conflict", "The state of the chain does not allow this")
        }
        Code::ResourceExhausted => (StatusCode::SERVICE_UNAVAILABLE, "nodes-full", "The nodes have too much to do"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "no-answer", "There was no answer in time"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "not-offered", "The nodes do not offer this"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "No node can answer now"),
    };
    Terms { status: code, kind, title, detail: status.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::{Code, Status};

    use super::Refusal;

    #[test]
    fn a_problem_names_what_to_do_and_when() {
        let refusal = Refusal::TooMany { retry_in: Duration::from_millis(1_200) };
        let problem = refusal.to_json("r1");
        assert_eq!(problem["type"], "urn:althing:problem:too-many-requests");
        assert_eq!(problem["status"], 429);
        assert_eq!(problem["instance"], "urn:althing:request:r1");
        let response = refusal.into_rest("r1");
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }

    #[test]
    fn what_nodes_say_of_the_inside_stays_inside() {
        for code in [Code::PermissionDenied, Code::Unauthenticated, Code::Internal, Code::Unknown, Code::Unavailable] {
            let refusal = Refusal::Backend(Status::new(code, "10.1.2.3 spiffe://secret"));
            let text = refusal.to_json("r").to_string();
            assert!(!text.contains("10.1.2.3"), "{code:?}: {text}");
            assert!(!refusal.into_status().message().contains("10.1.2.3"));
        }
        let refusal = Refusal::Backend(Status::failed_precondition("nonce 3 is already used"));
        assert_eq!((refusal.status().as_u16(), refusal.detail().as_str()), (409, "nonce 3 is already used"));
    }
}
