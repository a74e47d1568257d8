//! Bodies in bounds: what comes in is counted against one common room, what goes out may hold a place.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::state::BODY_UNIT;

/// Why a body was not taken.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It is larger than allowed.
    #[error("the body has more than {most} bytes")]
    TooLarge {
        /// Most bytes.
        most: usize,
    },
    /// There is no room for it now.
    #[error("there is no room for bodies now")]
    NoRoom,
    /// The connection failed.
    #[error("failed to read the body: {0}")]
    Read(String),
}

/// Room that the body of one request takes, until the request is answered.
#[derive(Debug)]
pub struct Room {
    all: Arc<Semaphore>,
    taken: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Room {
    /// Nothing taken yet.
    pub fn new(all: Arc<Semaphore>) -> Arc<Self> {
        Arc::new(Self { all, taken: Mutex::new(None) })
    }

    fn take(&self, bytes: usize) -> Result<(), BodyError> {
        let units = u32::try_from(bytes.div_ceil(BODY_UNIT)).map_err(|_| BodyError::NoRoom)?;
        let permit = Arc::clone(&self.all).try_acquire_many_owned(units).map_err(|_| BodyError::NoRoom)?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.as_mut() {
            Some(before) => before.merge(permit),
            None => *taken = Some(permit),
        }
        Ok(())
    }
}

/// A body that comes in.
#[derive(Debug)]
pub struct Metered {
    inner: Body,
    room: Arc<Room>,
    read: usize,
    most: usize,
}

impl Metered {
    /// At most `most` bytes of `inner`.
    pub fn new(inner: Body, room: Arc<Room>, most: usize) -> Self {
        Self { inner, room, read: 0, most }
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(BodyError::Read(error.to_string())))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let bytes = frame.data_ref().map_or(0, Buf::remaining);
        self.read = self.read.saturating_add(bytes);
        if self.read > self.most {
            return Poll::Ready(Some(Err(BodyError::TooLarge { most: self.most })));
        }
        let taken = if bytes == 0 { Ok(()) } else { self.room.take(bytes) };
        Poll::Ready(Some(taken.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that goes out and holds something until its end.
#[derive(Debug)]
pub struct Guarded<G> {
    inner: Body,
    _guard: G,
}

impl<G> Guarded<G> {
    /// `guard` is dropped with the body.
    pub fn new(inner: Body, guard: G) -> Self {
        Self { inner, _guard: guard }
    }
}

impl<G: Unpin> HttpBody for Guarded<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::{BodyError, Metered, Room};

    #[tokio::test]
    async fn a_body_beyond_its_size_or_beyond_the_room_is_cut() {
        let all = Arc::new(Semaphore::new(4));
        let read = |size: usize, most: usize| {
            let room = Room::new(Arc::clone(&all));
            async move { (Metered::new(Body::from(vec![0; size]), Arc::clone(&room), most).collect().await, room) }
        };
        assert!(matches!(read(10, 9).await.0, Err(BodyError::TooLarge { most: 9 })));
        let (kept, room) = read(3_000, 4_000).await;
        assert!(kept.is_ok());
        assert!(matches!(read(2_000, 4_000).await.0, Err(BodyError::NoRoom)));
        drop(room);
        assert!(read(4_000, 4_000).await.0.is_ok());
        assert_eq!(all.available_permits(), 4, "all room is given back");
    }
}
