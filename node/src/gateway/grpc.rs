//! gRPC as the nodes offer it: the calls of the table go through unchanged, health and reflection are answered here.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response, routing::post};
use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::header;
use node_api::{
    deadline::{TIMEOUT, timeout_ms},
    proto::{FILE_DESCRIPTOR_SET, MESSAGE_BYTES_MAX},
};
use tonic::{
    Status, Streaming,
    body::Body as TonicBody,
    server::{Grpc, ServerStreamingService, StreamingService, UnaryService},
};
use tonic_health::server::HealthReporter;
use tower::{Service, ServiceExt};

use super::{
    backends::RawCodec,
    bodies::{Guarded, Metered},
    calls::{CALLS, Call, CallRule, Shape, Tier},
    entrance::{self, Caller, Door, Surface, Visit},
    refusal::Refusal,
    state::Gateway,
};

/// Services that reflection and health name, and the tier without which they are of no use.
pub const SERVICES: [(&str, Tier); 5] = [
    ("althing.v1.Transactions", Tier::Submit),
    ("althing.v1.Accounts", Tier::Read),
    ("althing.v1.Blocks", Tier::Read),
    ("althing.v1.Validators", Tier::Read),
    ("althing.v1.Node", Tier::Read),
];

/// The routes of all calls, of health and of reflection, and whom to tell what health answers.
pub fn router(gateway: &Arc<Gateway>) -> Result<(Router, HealthReporter), tonic_reflection::server::Error> {
    let mut router = Router::new();
    for rule in CALLS {
        let gateway = Arc::clone(gateway);
        router = router.route(rule.path, post(move |request: Request| forward(gateway, rule, request)));
    }
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    for (service, _) in SERVICES {
        reflection = reflection.with_service_name(service);
    }
    router = router.route("/grpc.health.v1.Health/{method}", open(gateway, "grpc.health", health));
    let path = "/grpc.reflection.v1.ServerReflection/{method}";
    Ok((router.route(path, open(gateway, "grpc.reflection", reflection.build_v1()?)), reporter))
}

/// A service that anybody may ask, within the limits of addresses.
fn open<S>(gateway: &Arc<Gateway>, name: &'static str, service: S) -> axum::routing::MethodRouter
where
    S: Service<http::Request<Body>, Response = http::Response<TonicBody>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug,
{
    let gateway = Arc::clone(gateway);
    post(move |request: Request| async move {
        let visit = Visit { name, surface: Surface::Grpc, door: Door::Open };
        let most = gateway_body_max(&gateway);
        let shared = Arc::clone(&gateway);
        entrance::enter(&gateway, visit, request, |caller, request| async move {
            let place = caller.stream_place(&shared)?;
            let request = request.map(|body| Body::new(Metered::new(body, caller.room, most)));
            match service.oneshot(request).await {
                Ok(response) => Ok(response.map(|body| Body::new(Guarded::new(Body::new(body), place)))),
                Err(error) => Err(Refusal::Backend(Status::internal(format!("{error:?}")))),
            }
        })
        .await
    })
}

fn gateway_body_max(gateway: &Gateway) -> usize {
    gateway.config.gateway.limits.body_bytes_max
}

async fn forward(gateway: Arc<Gateway>, rule: &'static CallRule, request: Request) -> Response {
    // What a request needs beyond its row is known once it is decoded.
    let door = if rule.call == Call::GetAccount { Door::Known } else { Door::Allowed(rule.permission) };
    let visit = Visit { name: rule.path, surface: Surface::Grpc, door };
    let shared = Arc::clone(&gateway);
    entrance::enter(&gateway, visit, request, |caller, request| async move {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return Err(Refusal::MediaType("application/grpc"));
        }
        let wait_ms = request.headers().get(TIMEOUT).and_then(|value| timeout_ms(value.to_str().ok()?));
        let context = caller.context_within(&shared, wait_ms);
        let deadline = context.deadline;
        let caller = Caller { context, ..caller };
        let most = gateway_body_max(&shared);
        let room = Arc::clone(&caller.room);
        let request = request.map(|body| match rule.shape {
            Shape::Unary | Shape::ServerStream => Metered::new(body, room, most),
            Shape::BothStreams => Metered::endless(body, room),
        });
        let mut grpc = Grpc::new(RawCodec).max_decoding_message_size(most).max_encoding_message_size(MESSAGE_BYTES_MAX);
        let place = match rule.shape {
            Shape::Unary => None,
            Shape::ServerStream | Shape::BothStreams => Some(caller.stream_place(&shared)?),
        };
        if rule.shape == Shape::BothStreams {
            // No bound on the whole: each message has one, waits for its turn in the limit, and nothing is read ahead.
            let mut grpc =
                Grpc::new(RawCodec).max_decoding_message_size(most).max_encoding_message_size(MESSAGE_BYTES_MAX);
            let answer = grpc.streaming(Forwarder { gateway: shared, rule, caller }, request).await;
            return Ok(answer.map(|body| Body::new(Guarded::new(Body::new(body), place))));
        }
        let forwarder = Forwarder { gateway: shared, rule, caller };
        match rule.shape {
            Shape::Unary => {
                let answer = grpc.unary(forwarder, request);
                // The body may come slowly; the call itself watches the same time.
                let answer = tokio::time::timeout_at(deadline + Duration::from_secs(1), answer).await;
                Ok(answer.map_err(|_| Refusal::SlowBody)?.map(Body::new))
            }
            Shape::ServerStream | Shape::BothStreams => {
                let answer = grpc.server_streaming(forwarder, request);
                let answer = tokio::time::timeout_at(deadline + Duration::from_secs(1), answer).await;
                let answer = answer.map_err(|_| Refusal::SlowBody)?;
                Ok(answer.map(|body| Body::new(Guarded::new(Body::new(body), place))))
            }
        }
    })
    .await
}

/// Hands one message on.
struct Forwarder {
    gateway: Arc<Gateway>,
    rule: &'static CallRule,
    caller: Caller,
}

impl Forwarder {
    fn check(&self, message: &Bytes) -> Result<(), Status> {
        let decoded = self.rule.call.check(message);
        decoded.map_err(|error| Refusal::Invalid(error.to_string()).into_status())?;
        self.caller.needs(self.rule.call.permission(message)).map_err(Refusal::into_status)
    }
}

impl UnaryService<Bytes> for Forwarder {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let message = request.into_inner();
        let checked = self.check(&message);
        let (gateway, rule, caller) = (Arc::clone(&self.gateway), self.rule, self.caller.clone());
        Box::pin(async move {
            checked?;
            let result = gateway.backends.unary(rule, message.clone(), &caller.context).await;
            super::rest::audit(&caller, rule.call, &message, result.as_ref().err());
            let answer = result.map_err(|status| Refusal::Backend(status).into_status())?;
            let answer = gateway.answers.hold(answer, &caller.departures);
            let full = || {
                let reason = "too many answers at one time";
                gateway.metrics.shed_total.with_label_values(&[reason]).inc();
                Refusal::Overloaded(reason).into_status()
            };
            Ok(tonic::Response::new(answer.ok_or_else(full)?))
        })
    }
}

impl ServerStreamingService<Bytes> for Forwarder {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let message = request.into_inner();
        let checked = self.check(&message);
        let (gateway, rule, caller) = (Arc::clone(&self.gateway), self.rule, self.caller.clone());
        Box::pin(async move {
            checked?;
            let stream = gateway.backends.stream(rule, message, &caller.context).await;
            let stream = stream.map_err(|status| Refusal::Backend(status).into_status())?;
            let stream = stream.map(|item| item.map_err(|status| Refusal::Backend(status).into_status()));
            let stop = gateway.stop.clone();
            let stream = stream.take_until(async move { stop.cancelled().await });
            Ok(tonic::Response::new(stream.boxed()))
        })
    }
}

impl StreamingService<Bytes> for Forwarder {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let (gateway, rule, caller) = (Arc::clone(&self.gateway), self.rule, self.caller.clone());
        let sender = (Arc::clone(&gateway), caller.clone());
        let messages = stream::unfold((request.into_inner(), sender), move |(mut messages, sender)| async move {
            let message = messages.message().await.ok().flatten()?;
            let (gateway, caller) = &sender;
            // The stream ends here, as a node would end it.
            rule.call.check(&message).ok()?;
            while let Some(wait) = gateway.limiter.take(&caller.principal, caller.from).await.wait() {
                tokio::time::sleep(wait).await;
            }
            super::rest::audit(caller, rule.call, &message, None);
            caller.room.clear();
            Some((message, (messages, sender)))
        });
        Box::pin(async move {
            let answers = gateway.backends.duplex(rule, messages.boxed(), &caller.context).await;
            let answers = answers.map_err(|status| Refusal::Backend(status).into_status())?;
            let answers = answers.map(|item| item.map_err(|status| Refusal::Backend(status).into_status()));
            let stop = gateway.stop.clone();
            Ok(tonic::Response::new(answers.take_until(async move { stop.cancelled().await }).boxed()))
        })
    }
}
