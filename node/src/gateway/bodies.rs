//! Bodies in bounds: what comes in and what goes out is counted, each against one common room.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use thiserror::Error;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

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

impl Room {
    /// Gives everything back: what was read has been handed on.
    pub fn clear(&self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
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

    /// All of `inner`: its reader bounds each message, and clears the room when it has handed one on.
    pub fn endless(inner: Body, room: Arc<Room>) -> Self {
        Self::new(inner, room, usize::MAX)
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

/// Room for answers, from when they are there until they have left.
#[derive(Clone, Debug)]
pub struct AnswerRoom {
    all: Arc<Semaphore>,
    units_max: u32,
}

impl AnswerRoom {
    /// Room for so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let units_max = u32::try_from(bytes_max / BODY_UNIT).unwrap_or(u32::MAX).max(1);
        Self { all: Arc::new(Semaphore::new(units_max as usize)), units_max }
    }

    /// An answer larger than all room waits until it is alone.
    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(BODY_UNIT)).unwrap_or(u32::MAX).min(self.units_max)
    }

    /// Bytes that take room until the last of them is gone; nothing when there is none for them now.
    pub fn hold(&self, bytes: Bytes, departures: &Arc<Departures>) -> Option<Bytes> {
        if bytes.is_empty() {
            return Some(bytes);
        }
        let room = Arc::clone(&self.all).try_acquire_many_owned(self.units(bytes.len())).ok()?;
        Some(leaving(bytes, room, departures))
    }
}

/// What of the answers of one connection has not left yet.
#[derive(Debug, Default)]
pub struct Departures {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    since: BTreeMap<u64, Instant>,
    next: u64,
}

impl Departures {
    fn begin(self: &Arc<Self>) -> Departure {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, Instant::now());
        Departure { departures: Arc::clone(self), number }
    }

    /// Since when the oldest part of an answer waits.
    pub fn oldest(&self) -> Option<Instant> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.since.first_key_value().map(|(_, since)| *since)
    }
}

/// A part of an answer that waits, until this is dropped.
#[derive(Debug)]
struct Departure {
    departures: Arc<Departures>,
    number: u64,
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.departures.waiting.lock().unwrap_or_else(PoisonError::into_inner).since.remove(&self.number);
    }
}

/// Whoever holds the bytes holds their room: the connection drops them when they have left, or with itself.
struct Leaving {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
    _departure: Departure,
}

impl AsRef<[u8]> for Leaving {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn leaving(bytes: Bytes, room: OwnedSemaphorePermit, departures: &Arc<Departures>) -> Bytes {
    Bytes::from_owner(Leaving { bytes, _room: room, _departure: departures.begin() })
}

type Acquiring = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A body that goes out in counted bytes. Whole answers have their room from the beginning, parts of streams wait for
/// it.
pub struct Outgoing {
    inner: Body,
    room: AnswerRoom,
    departures: Arc<Departures>,
    /// Room of a whole answer that the connection has not asked for yet.
    reserved: Option<(OwnedSemaphorePermit, Departure)>,
    wanting: Option<(Bytes, Acquiring)>,
}

impl Outgoing {
    /// Nothing when the whole answer has no room now.
    pub fn new(inner: Body, room: &AnswerRoom, departures: &Arc<Departures>) -> Option<Self> {
        let reserved = match inner.size_hint().exact() {
            Some(bytes) if bytes > 0 => {
                let units = room.units(usize::try_from(bytes).unwrap_or(usize::MAX));
                let permit = Arc::clone(&room.all).try_acquire_many_owned(units).ok()?;
                Some((permit, departures.begin()))
            }
            Some(_) | None => None,
        };
        Some(Self { inner, room: room.clone(), departures: Arc::clone(departures), reserved, wanting: None })
    }

    fn send(&self, bytes: Bytes, room: OwnedSemaphorePermit) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(leaving(bytes, room, &self.departures)))))
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.wanting.is_none() {
            let frame = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            let bytes = match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => bytes,
                Ok(empty) => return Poll::Ready(Some(Ok(Frame::data(empty)))),
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            // The reservation is for the whole, and a whole answer is one part.
            if let Some((permit, _)) = self.reserved.take() {
                return self.send(bytes, permit);
            }
            let units = self.room.units(bytes.len());
            match Arc::clone(&self.room.all).try_acquire_many_owned(units) {
                Ok(permit) => return self.send(bytes, permit),
                Err(_) => self.wanting = Some((bytes, Box::pin(Arc::clone(&self.room.all).acquire_many_owned(units)))),
            }
        }
        let Some((_, acquiring)) = self.wanting.as_mut() else { return Poll::Ready(None) };
        match acquiring.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            // The room is never closed.
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(permit)) => match self.wanting.take() {
                Some((bytes, _)) => self.send(bytes, permit),
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.wanting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.wanting {
            None => self.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Arc};

    use axum::body::Body;
    use bytes::Bytes;
    use futures::{FutureExt, stream};
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::{AnswerRoom, BodyError, Departures, Metered, Outgoing, Room};

    #[tokio::test]
    async fn bytes_of_an_answer_take_room_until_the_last_of_them_is_gone() {
        let (room, departures) = (AnswerRoom::new(4 << 10), Arc::new(Departures::default()));
        let free = || room.all.available_permits();
        // A whole answer has its room before it is asked for, and another one that does not fit is turned away.
        let mut body = pin!(Outgoing::new(Body::from(vec![0; 3 << 10]), &room, &departures).expect("there is room"));
        assert_eq!((free(), departures.oldest().is_some()), (1, true));
        assert!(Outgoing::new(Body::from(vec![0; 2 << 10]), &room, &departures).is_none());
        assert!(room.hold(vec![0; 2 << 10].into(), &departures).is_none());
        let part = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert!(body.frame().await.is_none());
        let rest = part.slice(10..);
        drop(part);
        assert_eq!((free(), departures.oldest().is_some()), (1, true), "the connection still holds a part");

        // A stream waits for room, and goes on when there is some.
        let parts = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![1; 2 << 10]))]);
        let mut late = pin!(Outgoing::new(Body::from_stream(parts), &room, &departures).expect("takes none yet"));
        assert!(late.frame().now_or_never().is_none());
        drop(rest);
        let part = late.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!((part.len(), free()), (2 << 10, 2));
        drop(part);
        assert_eq!((free(), departures.oldest()), (4, None));
        // What is larger than all room takes all of it.
        let large = room.hold(vec![0; 9 << 10].into(), &departures).expect("is alone");
        assert_eq!((large.len(), free()), (9 << 10, 0));
    }

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
