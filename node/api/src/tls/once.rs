//! A dialer that connects once, and tells when that connection has ended.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

use super::Dialer;

/// Dials by another dialer, and never again. A client over it does not connect anew when its connection breaks: calls that
/// wait for one fail at once, as calls that were not sent, in place of one connect timeout after the other.
#[derive(Clone, Debug)]
pub struct OnceDialer<D> {
    dialer: D,
    end: Arc<End>,
    used: Arc<AtomicBool>,
}

impl<D: Dialer> OnceDialer<D> {
    /// A dialer, and the news of the end of its connection.
    pub fn new(dialer: D) -> (Self, Ending) {
        let (sender, receiver) = watch::channel(false);
        (Self { dialer, end: Arc::new(End(sender)), used: Arc::default() }, Ending(receiver))
    }
}

impl<D: Dialer> Dialer for OnceDialer<D> {
    type Stream = OnceStream<D::Stream>;

    async fn dial(&self) -> io::Result<Self::Stream> {
        if self.used.swap(true, Ordering::Relaxed) {
            // Whoever dials again cannot use the connection any more, whether or not it is closed already.
            self.end.has_come();
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection has ended"));
        }
        Ok(OnceStream { stream: self.dialer.dial().await?, end: Arc::clone(&self.end) })
    }

    fn target(&self) -> String {
        self.dialer.target()
    }
}

/// Whether the connection of a [`OnceDialer`] has ended.
#[derive(Clone, Debug)]
pub struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Whether it has.
    pub fn has_come(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it has.
    pub async fn come(&mut self) {
        // Nobody who could say so is left: it has.
        let _ = self.0.wait_for(|ended| *ended).await;
    }
}

#[derive(Debug)]
struct End(watch::Sender<bool>);

impl End {
    fn has_come(&self) {
        self.0.send_replace(true);
    }
}

/// The connection of a [`OnceDialer`].
#[derive(Debug)]
pub struct OnceStream<S> {
    stream: S,
    end: Arc<End>,
}

impl<S> Drop for OnceStream<S> {
    fn drop(&mut self) {
        self.end.has_come();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for OnceStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        // Said before the calls on it learn of it.
        match &result {
            Poll::Ready(Ok(())) if room > 0 && buffer.filled().len() == before => self.end.has_come(),
            Poll::Ready(Err(_)) => self.end.has_come(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for OnceStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
