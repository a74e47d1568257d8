//! REST: each route of the table, from its parameters to its answer.

mod events;
mod input;
mod read;
mod socket;
mod submit;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{
    auth::Class,
    cache::{Lifetime, Stored},
    entrance::{self, Caller, Door, Surface, Visit},
    refusal::{Refusal, VERSIONS},
    routes::{ROUTES, Route, Target, Verb},
    state::Gateway,
};
use input::Input;
pub use submit::audit;

/// What REST reads of headers beside the entrance.
#[cfg(test)]
pub(super) fn read_headers(last_event_id: &str, headers: &HeaderMap) {
    for topic in [events::Topic::Blocks, events::Topic::Transactions(vec![])] {
        let _ = events::after(&topic, last_event_id);
    }
    let _ = input::body_kind(headers);
}

/// The routes.
pub fn router(gateway: &Arc<Gateway>) -> Router {
    let mut router: Router = Router::new();
    for route in ROUTES {
        let gateway = Arc::clone(gateway);
        let handler = move |request: Request| handle(gateway, route, request);
        let method: MethodRouter = match route.verb {
            Verb::Get => get(handler),
            Verb::Post => post(handler),
        };
        router = router.route(route.path, method);
    }
    router
}

/// Problems for whatever has no route, and for methods that a route does not take.
pub fn with_fallbacks(router: Router, gateway: &Arc<Gateway>) -> Router {
    let nothing = Arc::clone(gateway);
    let method = Arc::clone(gateway);
    router
        .fallback(move |request: Request| refuse(nothing, request, no_route))
        .method_not_allowed_fallback(move |request: Request| refuse(method, request, |_| Refusal::Method))
}

fn no_route(path: &str) -> Refusal {
    let version = path.strip_prefix("/api/").and_then(|rest| rest.split('/').next());
    match version {
        Some(version) if !VERSIONS.contains(&version) => Refusal::UnknownVersion,
        Some(_) | None => Refusal::NoSuchRoute,
    }
}

async fn refuse(gateway: Arc<Gateway>, request: Request, why: fn(&str) -> Refusal) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let surface = if grpc { Surface::Grpc } else { Surface::Rest };
    let visit = Visit { name: "none", surface, door: Door::Open };
    let refusal = why(request.uri().path());
    entrance::enter(&gateway, visit, request, |_, _| async { Err(refusal) }).await
}

async fn handle(gateway: Arc<Gateway>, route: &'static Route, request: Request) -> Response {
    let door = match route.permission {
        None => Door::Open,
        Some(permission) => Door::Allowed(permission),
    };
    let visit = Visit { name: route.name, surface: Surface::Rest, door };
    let shared = Arc::clone(&gateway);
    entrance::enter(&gateway, visit, request, |caller, request| async move {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| Refusal::Invalid("the path is not percent-encoded UTF-8".to_owned()))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let input = Input::new(route, path, &parts)?;
        match route.target {
            Target::Versions => json_answer(&caller, &parts.headers, &made(&versions(), Lifetime::Static)),
            Target::OpenApi => json_answer(&caller, &parts.headers, &shared.openapi.renewed()),
            Target::Submit => submit::one(&shared, &caller, &input, &parts.headers, body).await,
            Target::SubmitMany => submit::many(&shared, &caller, &input, &parts.headers, body).await,
            Target::Transaction
            | Target::Account
            | Target::Blocks
            | Target::Block
            | Target::LightBlocks
            | Target::Validators
            | Target::Governance
            | Target::Status => {
                let stored = read::answer(&shared, &caller, route.target, &input).await?;
                json_answer(&caller, &parts.headers, &stored)
            }
            Target::BlockEvents => events::blocks(&shared, &caller, &input, &parts.headers).await,
            Target::TransactionEvents => events::transactions(&shared, &caller, &input, &parts.headers).await,
            Target::Socket => socket::open(&shared, &caller, &input, parts).await,
        }
    })
    .await
}

fn versions() -> Value {
    let versions: Vec<Value> = VERSIONS
        .iter()
        .map(|version| json!({"version": version, "document": format!("/api/{version}/openapi.json")}))
        .collect();
    json!({"versions": versions})
}

fn made(value: &Value, lifetime: Lifetime) -> Stored {
    Stored::new(value.to_string().into(), lifetime)
}

/// A message of ours, or of a node, that the descriptors do not know.
fn inconsistent() -> Refusal {
    Refusal::Backend(tonic::Status::internal("an answer has another form"))
}

/// A JSON answer with what caches need; nothing but its validator when the client has it already.
fn json_answer(caller: &Caller, request: &HeaderMap, stored: &Stored) -> Result<Response, Refusal> {
    let scope = if caller.principal.class == Class::Anonymous { "public" } else { "private" };
    let control = match stored.lifetime {
        Lifetime::Final => format!("{scope}, max-age=31536000, immutable"),
        Lifetime::Static | Lifetime::Dynamic => {
            let left = stored.lifetime.seconds().unwrap_or(0).saturating_sub(stored.age_s());
            format!("{scope}, max-age={left}")
        }
        Lifetime::RealTime => format!("{scope}, no-cache"),
    };
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let known = known.is_some_and(|value| value.split(',').any(|tag| tag.trim() == stored.etag || tag.trim() == "*"));
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { Response::new(Body::from(stored.json.clone())) };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("authorization, x-api-key"));
    for (name, value) in [(header::CACHE_CONTROL, &control), (header::ETAG, &stored.etag)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}
