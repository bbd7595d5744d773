//! The connections: how many there may be, and how the last ones come in.
//!
//! Beyond the bound they wait to be accepted, where they cost the shim nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::drain::Drain;

/// How many connections may be open at once, if nobody says so: with those to Redis no more than the 1024 files that
/// a process may usually have open.
pub(crate) const MAX_CONNECTIONS: u32 = 1000;

/// For how long connections are still accepted once the shim is told to stop: those that were made before, and that
/// nobody else would accept.
const LAST_ONES: Duration = Duration::from_millis(10);

/// A listener whose connections are so many at most, and that closes when the shim leaves.
pub(crate) struct Connections<L> {
    /// None once it is closed.
    listener: Option<L>,
    free: Arc<Semaphore>,
    /// Whether the last connection had to wait.
    is_full: bool,
    drain: Drain,
    /// When it closes, once the shim is told to stop.
    closes_at: Option<Instant>,
    /// Held by the listener and by each connection: who waits for all of them to end has the other end.
    open: Option<watch::Receiver<()>>,
}

impl<L> Connections<L> {
    /// At most `most` at once, on `listener` until `drain` begins. `open` is dropped with the last of them.
    pub(crate) fn new(listener: L, most: u32, drain: Drain, open: watch::Receiver<()>) -> Self {
        let free = Arc::new(Semaphore::new(most as usize));
        Self { listener: Some(listener), free, is_full: false, drain, closes_at: None, open: Some(open) }
    }

    /// A place for one more; none is needed by those who come in last.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        let was_full = std::mem::replace(&mut self.is_full, self.free.available_permits() == 0);
        if self.is_full && !was_full {
            warn!("as many connections are open as may be: the next ones wait (--max-connections)");
        }
        tokio::select! {
            biased;
            place = Arc::clone(&self.free).acquire_owned() => place.ok(),
            () = self.drain.begun() => None,
        }
    }
}

impl<L: Listener> Listener for Connections<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = self.place().await;
        if let (Some(listener), Some(open)) = (&mut self.listener, &self.open) {
            let (drain, closes_at) = (&self.drain, &mut self.closes_at);
            let ends = async {
                drain.begun().await;
                sleep_until(*closes_at.get_or_insert_with(|| Instant::now() + LAST_ONES)).await;
            };
            tokio::select! {
                // first, or who comes again and again would keep it open
                biased;
                () = ends => {}
                (io, address) = listener.accept() => {
                    return (Connection { io, _place: place, _open: open.clone() }, address);
                }
            }
        }
        (self.listener, self.open) = (None, None);
        self.drain.leave();
        std::future::pending().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.as_ref().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), L::local_addr)
    }
}

/// A connection, and its place among those that may be.
pub(crate) struct Connection<Io> {
    io: Io,
    _place: Option<OwnedSemaphorePermit>,
    _open: watch::Receiver<()>,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Connection<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Connection<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
