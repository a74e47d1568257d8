//! The layer that enforces the role table on every call of a server.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures::future::Either;
use http::{Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use crate::{roles::may_call, tls::PeerInfo};

/// Refuses each call that [`crate::roles::METHODS`] does not allow to the role of the caller's certificate:
/// PERMISSION_DENIED, or UNAUTHENTICATED when the connection did not come through [`crate::tls::incoming`].
#[derive(Clone, Copy, Debug, Default)]
pub struct AuthorizeLayer;

/// A service behind [`AuthorizeLayer`].
#[derive(Clone, Debug)]
pub struct Authorized<S> {
    inner: S,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner }
    }
}

impl<S, B, R> Service<Request<B>> for Authorized<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match check(&request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}

fn check<B>(request: &Request<B>) -> Result<(), Box<Status>> {
    let path = request.uri().path();
    let Some(peer) = request.extensions().get::<PeerInfo>() else {
        return Err(Box::new(Status::unauthenticated("the caller has no certificate")));
    };
    if may_call(peer.id.role(), path) {
        return Ok(());
    }
    tracing::warn!(path, peer = %peer.id, address = %peer.address, "refused a call: the role may not make it");
    Err(Box::new(Status::permission_denied(format!("role {} may not call {path}", peer.id.role()))))
}
