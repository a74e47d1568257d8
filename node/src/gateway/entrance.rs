//! What happens to every request: a place, the caller, the limit, the permission; then the handler; then headers,
//! metrics and a line in the access log.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use node_api::{
    gateway::Permission,
    roles::SpiffeId,
    trace::{TRACEPARENT, TraceParent},
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    auth::{Class, Principal},
    backends::CallContext,
    bodies::{Departures, Outgoing, Room},
    limits::Limited,
    refusal::Refusal,
    rules::address,
    shares::Share,
    state::Gateway,
};

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Whom its certificate names, if it showed one.
    pub certificate: Option<SpiffeId>,
    /// What of its answers has not left yet.
    pub departures: Arc<Departures>,
}

/// How a refusal is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// As a problem.
    Rest,
    /// As a status.
    Grpc,
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Anybody; counted by address.
    Open,
    /// Whoever the configuration lets in.
    Known,
    /// The same with this permission.
    Allowed(Permission),
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// Name of the route.
    pub name: &'static str,
    /// How it is answered.
    pub surface: Surface,
    /// Who may come in.
    pub door: Door,
}

/// Who makes a request that was let in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub principal: Principal,
    /// What calls to the nodes take along.
    pub context: CallContext,
    /// Where it is counted when it showed nothing.
    pub from: IpAddr,
    /// Room for the body.
    pub room: Arc<Room>,
    /// What of the answers of its connection has not left yet.
    pub departures: Arc<Departures>,
}

/// The place of one open stream, among all and among those of its caller.
#[derive(Debug)]
pub struct StreamPlace {
    _place: OwnedSemaphorePermit,
    _share: Share,
}

impl Caller {
    /// Refuses a caller without this permission.
    pub fn needs(&self, permission: Permission) -> Result<(), Refusal> {
        if self.principal.permissions.contains(&permission) { Ok(()) } else { Err(Refusal::Forbidden(permission)) }
    }

    /// A place for one more stream.
    pub fn stream_place(&self, gateway: &Gateway) -> Result<StreamPlace, Refusal> {
        let share = match self.principal.class {
            Class::Anonymous => gateway.stream_shares.take(address::counted(self.from)),
            Class::User | Class::Service => gateway.stream_shares.take(&self.principal.name),
        };
        let share = share.ok_or(Refusal::Overloaded("too many streams of one caller"))?;
        let place = Arc::clone(&gateway.streams).try_acquire_owned();
        Ok(StreamPlace { _place: place.map_err(|_| Refusal::Overloaded("too many streams"))?, _share: share })
    }

    /// The same caller with another time to wait, within the bounds of the gateway.
    pub fn context_within(&self, gateway: &Gateway, wait_ms: Option<u64>) -> CallContext {
        let limits = &gateway.config.gateway.limits;
        let wait_ms = wait_ms.unwrap_or(limits.timeout_ms).min(limits.timeout_ms_max);
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        CallContext { deadline, ..self.context.clone() }
    }
}

/// What is known of a request before anything is decided.
struct Arrival {
    started: Instant,
    method: Method,
    path: String,
    from: IpAddr,
    trace: TraceParent,
    request_id: Arc<str>,
}

/// Takes a request through the gateway.
pub async fn enter<F: Future<Output = Result<Response, Refusal>>>(
    gateway: &Arc<Gateway>,
    visit: Visit,
    request: Request,
    work: impl FnOnce(Caller, Request) -> F,
) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let connection = connection.unwrap_or_else(|| Connection {
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        certificate: None,
        departures: Arc::default(),
    });
    let arrival = Arrival::new(gateway, &connection, &request);
    // Held until the answer begins.
    let place = Arc::clone(&gateway.requests).try_acquire_owned();
    let Admission { result: admitted, limited, class, name } = match &place {
        Err(_) => Admission::refused(Refusal::Overloaded("too many requests at one time"), None),
        Ok(_) => admit(gateway, visit.door, request.headers(), &connection, arrival.from).await,
    };
    let result = match admitted {
        Ok(principal) => {
            let limits = &gateway.config.gateway.limits;
            let context = CallContext {
                deadline: arrival.started + Duration::from_millis(limits.timeout_ms),
                trace: arrival.trace,
                request_id: Arc::clone(&arrival.request_id),
            };
            let caller = Caller {
                principal,
                context,
                from: arrival.from,
                room: Room::new(Arc::clone(&gateway.bodies)),
                departures: Arc::clone(&connection.departures),
            };
            let result = work(caller, request).await;
            result.and_then(|response| counted(response, gateway, &connection.departures))
        }
        Err(refusal) => Err(refusal),
    };
    drop(place);
    if let Err(Refusal::Overloaded(reason)) = &result {
        gateway.metrics.shed_total.with_label_values(&[reason]).inc();
    }
    if let Err(Refusal::TooMany { .. }) = &result {
        gateway.metrics.limited_total.with_label_values(&[class.as_str()]).inc();
    }
    let response = finish(result, visit.surface, limited.as_ref(), &arrival);
    record(gateway, visit, &arrival, (class, &name), &response);
    response
}

/// The same answer in bytes that take room until they have left.
fn counted(response: Response, gateway: &Gateway, departures: &Arc<Departures>) -> Result<Response, Refusal> {
    let (parts, body) = response.into_parts();
    let body = Outgoing::new(body, &gateway.answers, departures);
    let body = body.ok_or(Refusal::Overloaded("too many answers at one time"))?;
    Ok(Response::from_parts(parts, Body::new(body)))
}

impl Arrival {
    fn new(gateway: &Gateway, connection: &Connection, request: &Request) -> Self {
        let headers = request.headers();
        // Proxies may add a line of their own instead of going on with the last one.
        let forwarded: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or("?")).collect();
        let forwarded = forwarded.join(",");
        let trusted = &gateway.config.gateway.edge.trusted_proxies;
        let trace = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok());
        let trace: TraceParent = trace.unwrap_or_else(TraceParent::start);
        let request_id = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| is_request_id(id));
        let request_id = request_id.map_or_else(|| hex::encode(rand::random::<[u8; 16]>()), str::to_owned);
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(256).collect(),
            from: address::client(connection.address.ip(), Some(&forwarded), trusted),
            trace,
            request_id: request_id.into(),
        }
    }
}

fn is_request_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// What the door says, and of whom.
struct Admission {
    result: Result<Principal, Refusal>,
    limited: Option<Limited>,
    class: Class,
    name: Arc<str>,
}

impl Admission {
    /// Somebody who showed a good credential, or needs none. The name counts also for who is turned away.
    fn of(principal: Principal, limited: Limited, door: Door) -> Self {
        let (class, name) = (principal.class, Arc::clone(&principal.name));
        let result = limited.check().and_then(|()| match door {
            Door::Allowed(permission) if !principal.permissions.contains(&permission) => {
                Err(Refusal::Forbidden(permission))
            }
            Door::Open | Door::Known | Door::Allowed(_) => Ok(principal),
        });
        Self { result, limited: Some(limited), class, name }
    }

    /// Nobody who is known.
    fn refused(refusal: Refusal, limited: Option<Limited>) -> Self {
        Self { result: Err(refusal), limited, class: Class::Anonymous, name: "-".into() }
    }
}

async fn admit(gateway: &Gateway, door: Door, headers: &HeaderMap, connection: &Connection, from: IpAddr) -> Admission {
    let authenticated = match door {
        Door::Open => {
            let limited = gateway.limiter.take_address(from).await;
            let principal =
                Principal { class: Class::Anonymous, name: "-".into(), permissions: std::collections::BTreeSet::new() };
            return Admission::of(principal, limited, door);
        }
        Door::Known | Door::Allowed(_) => {
            gateway.authenticator.authenticate(headers, connection.certificate.as_ref()).await
        }
    };
    match authenticated {
        Ok(principal) => {
            let limited = gateway.limiter.take(&principal, from).await;
            Admission::of(principal, limited, door)
        }
        // A bad credential costs its address a request.
        Err(refusal) => {
            let limited = gateway.limiter.take_address(from).await;
            Admission::refused(limited.check().err().unwrap_or(refusal), Some(limited))
        }
    }
}

fn finish(
    result: Result<Response, Refusal>,
    surface: Surface,
    limited: Option<&Limited>,
    arrival: &Arrival,
) -> Response {
    let mut response = match (result, surface) {
        (Ok(response), _) => response,
        (Err(refusal), Surface::Rest) => refusal.into_rest(&arrival.request_id),
        (Err(refusal), Surface::Grpc) => refusal.into_grpc(),
    };
    let headers = response.headers_mut();
    if let Some(limited) = limited {
        limited.write(headers);
    }
    let mut insert = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    insert(HeaderName::from_static(REQUEST_ID), &arrival.request_id);
    insert(HeaderName::from_static(TRACEPARENT), &arrival.trace.to_string());
    insert(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    insert(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    response
}

fn record(gateway: &Gateway, visit: Visit, arrival: &Arrival, (class, name): (Class, &str), response: &Response) {
    // Of gRPC the code counts: its HTTP status is always good.
    let status = match response.headers().get("grpc-status").and_then(|code| code.to_str().ok()) {
        Some(code) => format!("grpc-{code}"),
        None => response.status().as_str().to_owned(),
    };
    let time = arrival.started.elapsed();
    let labels = [visit.name, class.as_str(), &status];
    gateway.metrics.requests_total.with_label_values(&labels).inc();
    gateway.metrics.request_seconds.with_label_values(&[visit.name]).observe(time.as_secs_f64());
    tracing::info!(
        target: "access",
        method = %arrival.method,
        path = arrival.path,
        route = visit.name,
        status,
        class = class.as_str(),
        principal = name,
        address = %arrival.from,
        duration_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        request_id = &*arrival.request_id,
        trace_id = arrival.trace.trace_id(),
        "request"
    );
}
