//! The service behind Envoy: it answers every request with the same few bytes, at as little as a service can cost, so
//! that it has time left on the core that it shares.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use rustix::thread::{Pid, gettid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n";

/// Runs in a thread of its own for as long as the bench does.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) thread: Pid,
}

impl Upstream {
    /// Starts it on a free port, on the caller's cores.
    pub(crate) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            // whoever waits for it is told, or gone
            let _ = tell.send(gettid());
            runtime.block_on(serve(&listener));
        });
        Ok(Self { address, thread: told.recv().context("the upstream does not run")? })
    }
}

async fn serve(listener: &TcpListener) {
    while let Ok((connection, _)) = listener.accept().await {
        // a connection that fails is Envoy's to tell
        tokio::spawn(async move { answer(connection).await });
    }
}

/// Envoy sends the next request of a connection only after the answer to the last, and none here has a body.
async fn answer(mut connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut request = Vec::new();
    while connection.read_buf(&mut request).await? > 0 {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            connection.write_all(ANSWER).await?;
        }
    }
    Ok(())
}
