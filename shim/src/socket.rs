//! The sockets to listen on: new ones, or ones that are taken over.
//!
//! A new shim begins beside the old one at the same address, and the old one stops then, so that at each moment there
//! is one to connect to. At an IP address the system spreads new connections over both meanwhile (`SO_REUSEPORT`). A
//! Unix socket's file leads to the new one at once.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};
use tracing::warn;

/// How many connections may wait to be accepted; the system's own bound (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 1024;

/// Listens at `address`. Where another shim does, that is an error, unless this one takes over from it.
pub(crate) fn tcp(address: SocketAddr, takes_over: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // What remains of old connections is no reason not to listen.
    socket.set_reuseaddr(true)?;
    if takes_over {
        socket.set_reuseport(true)?;
        socket.bind(address)?;
    } else {
        socket.bind(address)?;
        // The place is taken, alone. From now on a successor may come beside.
        socket.set_reuseport(true)?;
    }
    socket.listen(BACKLOG)
}

/// Listens at `path`: in the place of a socket that nobody listens on any more, or from which this one takes over.
pub(crate) async fn unix(path: &Path, takes_over: bool) -> io::Result<(UnixListener, SocketFile)> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        let listener = UnixListener::bind(path)?;
        return Ok((listener, SocketFile::at(path)?));
    }
    if !takes_over {
        let connected = UnixStream::connect(path).await;
        if !connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
    }
    // Whoever connects meanwhile finds the old file or the new one, and never none.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let listener = UnixListener::bind(&beside)?;
    std::fs::rename(&beside, path)?;
    Ok((listener, SocketFile::at(path)?))
}

/// A socket that was opened by who started this process.
pub(crate) enum Inherited {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The first socket that systemd passed.
pub(crate) fn inherited() -> io::Result<Inherited> {
    let mut passed = ListenFd::from_env();
    if let Ok(Some(listener)) = passed.take_tcp_listener(0) {
        listener.set_nonblocking(true)?;
        return TcpListener::from_std(listener).map(Inherited::Tcp);
    }
    match passed.take_unix_listener(0)? {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(Inherited::Unix)
        }
        None => Err(io::Error::new(io::ErrorKind::NotFound, "no socket was passed (LISTEN_FDS)")),
    }
}

/// Removes the file of a Unix socket in the end, unless another one took its place.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Its device and number.
    is: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), is: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = std::fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|is| is != self.is) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}
