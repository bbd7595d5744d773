//! Where the shim listens, and how it stops without losing an answer.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::app::App;
use crate::connections::{Connections, MAX_CONNECTIONS};
use crate::socket::{self, Inherited};

/// How long a stop waits for the requests in flight.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long a stop gives idle connections to end by themselves, if nobody says so: a filter under load has used each
/// of its own by then.
pub const DRAIN: Duration = Duration::from_secs(2);

/// How to serve.
#[derive(Clone, Debug)]
pub struct Manner {
    /// How many connections may be open at once; others wait to be accepted.
    pub max_connections: u32,
    /// How long a stop gives idle connections to end by themselves.
    pub drain: Duration,
    /// Whether another shim may listen at the same address, from which this one takes over.
    pub takes_over: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self { max_connections: MAX_CONNECTIONS, drain: DRAIN, takes_over: false }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The socket that systemd passes, which it keeps while no shim runs.
    Systemd,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "systemd" {
            return Ok(Address::Systemd);
        }
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path, as in unix:/run/lanekeeper.sock".into()),
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Tcp).map_err(|_| {
                "not an address: write 127.0.0.1:7400, unix:/run/lanekeeper.sock or systemd".into()
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "http://{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Systemd => f.write_str("systemd"),
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
            let listener = socket::tcp(address, manner.takes_over)?;
            listening(&Address::Tcp(listener.local_addr()?));
            serve(listener, app, manner, shutdown).await
        }
        Address::Unix(path) => {
            let (listener, _file) = socket::unix(&path, manner.takes_over).await?;
            listening(&Address::Unix(path));
            serve_on(listener, app, manner, shutdown).await
        }
        Address::Systemd => match socket::inherited()? {
            Inherited::Tcp(listener) => {
                listening(&Address::Tcp(listener.local_addr()?));
                serve(listener, app, manner, shutdown).await
            }
            Inherited::Unix(listener) => {
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
                listening(&Address::Unix(path));
                serve_on(listener, app, manner, shutdown).await
            }
        },
    }
}

/// Answers HTTP/1.1 and HTTP/2 (cleartext, by prior knowledge) on `listener` until `shutdown` comes. Then no
/// connection is accepted any more, and callers are asked to leave with each answer. After [`Manner::drain`], or when
/// all have left, those connections are closed that are idle, and requests in flight are answered, for up to [`GRACE`].
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
    let drain = app.drain().clone();
    let (all, open) = watch::channel(());
    let listener = Connections::new(listener, manner.max_connections, drain.clone(), open);
    let (stop, stopping) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        info!("leaving: no connection is accepted any more");
        drain.begin();
        // Whether all have left or some were idle for so long, the rest is closed.
        let _ = timeout(manner.drain, all.closed()).await;
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
