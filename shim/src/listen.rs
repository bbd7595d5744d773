//! Where the shim listens, and how it stops without losing an answer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::app::App;
use crate::connections::{Bounded, MAX_CONNECTIONS};

/// How long a stop waits for the requests in flight.
pub const GRACE: Duration = Duration::from_secs(10);

/// How to serve.
#[derive(Clone, Debug)]
pub struct Manner {
    /// How many connections may be open at once; others wait to be accepted.
    pub max_connections: u32,
}

impl Default for Manner {
    fn default() -> Self {
        Self { max_connections: MAX_CONNECTIONS }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path, as in unix:/run/lanekeeper.sock".into()),
            Some(path) => Ok(Address::Unix(path.into())),
            None => text
                .parse()
                .map(Address::Tcp)
                .map_err(|_| "not an address: write 127.0.0.1:7400, or unix:/run/lanekeeper.sock".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Listens at `address`, tells `listening` where exactly, and answers until `shutdown` comes; see [`serve`].
pub async fn listen(
    address: Address,
    app: App,
    manner: Manner,
    listening: impl FnOnce(&Address),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            listening(&Address::Tcp(listener.local_addr()?));
            serve(listener, app, manner, shutdown).await
        }
        Address::Unix(path) => {
            let (listener, _file) = bind_unix(&path).await?;
            listening(&Address::Unix(path));
            serve_on(listener, app, manner, shutdown).await
        }
    }
}

/// Answers HTTP/1.1 and HTTP/2 (cleartext, by prior knowledge) on `listener` until `shutdown` comes. Then no
/// connection is accepted any more, idle ones are closed, and requests in flight are answered, for up to [`GRACE`].
pub async fn serve(
    listener: TcpListener,
    app: App,
    manner: Manner,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // Answers are small and one packet each: nothing is gained by waiting for more.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            warn!(%error, "a connection may answer late");
        }
    });
    serve_on(listener, app, manner, shutdown).await
}

async fn serve_on<L>(
    listener: L,
    app: App,
    manner: Manner,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Addr: fmt::Debug,
{
    let listener = Bounded::new(listener, manner.max_connections);
    let (stop, stopping) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        info!("stopping: answering what is in flight");
        // Whoever listens has either stopped already or is told now.
        let _ = stop.send(());
    };
    let grace_is_over = async {
        if stopping.await.is_ok() {
            tokio::time::sleep(GRACE).await;
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        served = axum::serve(listener, app.router()).with_graceful_shutdown(shutdown) => served,
        () = grace_is_over => {
            warn!("stopped with requests unanswered after {GRACE:?}");
            Ok(())
        }
    }
}

/// Binds a Unix socket, in the place of one that nobody listens on any more.
async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    Ok((UnixListener::bind(path)?, SocketFile(path.into())))
}

/// Removes the file of a Unix socket in the end.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            warn!(path = %self.0.display(), %error, "cannot remove the socket's file");
        }
    }
}
