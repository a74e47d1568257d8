//! A secured connection that ends as soon as the files that are in use do not vouch for its peer any more.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

use super::{TlsMaterial, TlsStore};

/// Bytes to and from a peer whose certificate is checked anew each time that the files change. TLS itself looks only at
/// the beginning of a connection, and connections between nodes stay open for weeks.
pub struct Watched<S, A = ()> {
    stream: S,
    /// What its owner knows of it.
    about: A,
    /// None once the peer counts no more.
    trusted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Watched<S> {
    /// `changes` was subscribed to before the handshake took its files, so that no change falls between the two.
    pub(super) fn new(
        stream: S,
        store: Arc<TlsStore>,
        changes: watch::Receiver<u64>,
        counts: impl Fn(&TlsMaterial) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { stream, about: (), trusted: Some(Box::pin(untrusted(store, changes, counts))) }
    }

    /// The same that carries what its owner knows of it.
    pub(super) fn with<A>(self, about: A) -> Watched<S, A> {
        let Self { stream, about: (), trusted } = self;
        Watched { stream, about, trusted }
    }
}

impl<S, A> Watched<S, A> {
    /// The connection.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// What its owner knows of it.
    pub(super) const fn about(&self) -> &A {
        &self.about
    }

    fn poll_trust(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let ended = self.trusted.as_mut().is_none_or(|untrusted| untrusted.as_mut().poll(context).is_ready());
        if ended {
            self.trusted = None;
        }
        self.trust()
    }

    fn trust(&self) -> io::Result<()> {
        if self.trusted.is_some() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the certificate of the peer does not count any more"))
    }
}

/// Ends when the files change and the peer does not count with the new ones.
async fn untrusted(
    store: Arc<TlsStore>,
    mut changes: watch::Receiver<u64>,
    counts: impl Fn(&TlsMaterial) -> bool + Send + Sync,
) {
    // The sender lives in the store, which is held here.
    while changes.changed().await.is_ok() {
        if !counts(&store.current()) {
            return;
        }
    }
}

/// The certificates that the other side has shown, kept for later looks.
pub(super) fn shown(certificates: Option<&[CertificateDer<'_>]>) -> Vec<CertificateDer<'static>> {
    certificates.unwrap_or_default().iter().map(|certificate| certificate.clone().into_owned()).collect()
}

impl<S: fmt::Debug, A: fmt::Debug> fmt::Debug for Watched<S, A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, about, trusted } = self;
        let mut fields = formatter.debug_struct("Watched");
        fields.field("stream", stream).field("about", about).field("trusted", &trusted.is_some()).finish()
    }
}

impl<S: AsyncRead + Unpin, A: Unpin> AsyncRead for Watched<S, A> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_trust(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// Whoever writes also reads, so that writing need not wake up by itself when trust ends.
impl<S: AsyncWrite + Unpin, A: Unpin> AsyncWrite for Watched<S, A> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.trust()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.trust()?;
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
