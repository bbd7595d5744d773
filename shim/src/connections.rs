//! A bound on connections: beyond it they wait to be accepted, where they cost the shim nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

/// How many connections may be open at once, if nobody says so: with those to Redis no more than the 1024 files that
/// a process may usually have open.
pub(crate) const MAX_CONNECTIONS: u32 = 1000;

/// A listener whose connections are so many at most.
pub(crate) struct Bounded<L> {
    listener: L,
    free: Arc<Semaphore>,
    /// Whether the last connection had to wait.
    is_full: bool,
}

impl<L> Bounded<L> {
    pub(crate) fn new(listener: L, most: u32) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(most as usize)), is_full: false }
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        let was_full = std::mem::replace(&mut self.is_full, self.free.available_permits() == 0);
        if self.is_full && !was_full {
            warn!("as many connections are open as may be: the next ones wait (--max-connections)");
        }
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(place) => place,
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = self.place().await;
        let (io, address) = self.listener.accept().await;
        (Connection { io, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection, and its place among those that may be.
pub(crate) struct Connection<Io> {
    io: Io,
    _place: OwnedSemaphorePermit,
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
