//! A service behind Envoy that fails on demand, each lane's calls in a manner of their own.
//!
//! It writes HTTP/1.1 by hand, since what breaks off in the middle no server's library would send. It keeps a [`Book`] of
//! its calls, and a test waits for what stands in it. What a manner is changed to holds for calls that hang, too.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::port::free_address;

mod book;
mod call;

pub use book::{Book, Call, most_at_once};

/// In which lane a call is, by the flag that Lanekeeper propagates: `shadow=true` in its baggage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Without the flag.
    Normal,
    /// With it.
    Shadow,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Lane::Normal, Lane::Shadow];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Lane::Normal => Lane::Shadow,
            Lane::Shadow => Lane::Normal,
        }
    }

    /// As policies and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Normal => "normal",
            Lane::Shadow => "shadow",
        }
    }

    /// The headers that put a request into it.
    pub fn headers(self) -> &'static [(&'static str, &'static [u8])] {
        match self {
            Lane::Normal => &[],
            Lane::Shadow => &[("baggage", b"shadow=true")],
        }
    }
}

/// How a call is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// With this status.
    Status(u16),
    /// With this status, after so long.
    Late(u16, Duration),
    /// As a gRPC call with a message and this status in its trailers.
    GrpcTrailers(u32),
    /// As a gRPC call with this status and nothing else.
    GrpcAlone(u32),
    /// The connection is reset before anything is said.
    ResetBefore,
    /// The connection is reset behind the headers and a part of the body.
    ResetAmid,
    /// Something that is no HTTP is said, and the connection is closed.
    Nonsense,
    /// The connection is closed before anything is said.
    Close,
    /// After the headers and a part of the body nothing more comes.
    HangAmid,
    /// Nothing is said until the manner changes; then it holds.
    Hang,
}

/// The running service; gone when dropped.
#[derive(Debug)]
pub struct Failing {
    address: SocketAddr,
    book: watch::Sender<Book>,
    // dropped without waiting: connections that Envoy keeps open would hold it for ever
    runtime: Option<Runtime>,
    listening: Option<Listening>,
}

#[derive(Debug)]
struct Listening {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

// Far above what anything takes: a wait that runs out is a failure with a name.
const PATIENCE: Duration = Duration::from_secs(60);

impl Failing {
    /// Starts it; it serves all calls well.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the service's runtime")?;
        let (address, book) = (free_address()?, watch::Sender::new(Book::default()));
        let mut service = Self { address, book, runtime: Some(runtime), listening: None };
        service.listen()?;
        Ok(service)
    }

    /// Where it listens, also while it refuses connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves a lane's calls so from now on.
    pub fn serve(&self, lane: Lane, manner: Manner) {
        self.book.send_modify(|book| book.set_manner(lane, manner));
    }

    /// Closes all connections and refuses new ones, until it is told to [`listen`](Self::listen) again.
    pub fn refuse_connections(&mut self) -> Result<()> {
        if let Some(Listening { stop, task }) = self.listening.take() {
            // one that has ended by itself need not be told
            let _ = stop.send(());
            self.runtime()?.block_on(task)?;
        }
        Ok(())
    }

    /// Takes connections, which it does from its start on.
    pub fn listen(&mut self) -> Result<()> {
        self.refuse_connections()?;
        let listener = self.runtime()?.block_on(TcpListener::bind(self.address))?;
        let (stop, stopped) = oneshot::channel();
        let task = self.runtime()?.spawn(listen(listener, self.book.clone(), stopped));
        self.listening = Some(Listening { stop, task });
        Ok(())
    }

    /// What has been called so far.
    pub fn book(&self) -> Book {
        self.book.borrow().clone()
    }

    /// Returns when the book says so; `what` names it for whoever reads the failure.
    pub fn wait(&self, what: &str, condition: impl FnMut(&Book) -> bool) -> Result<()> {
        let mut book = self.book.subscribe();
        let waited = async { tokio::time::timeout(PATIENCE, book.wait_for(condition)).await.map(drop) };
        self.runtime()?.block_on(waited).with_context(|| format!("waited in vain for {what}"))
    }

    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("the service is gone")
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(listener: TcpListener, book: watch::Sender<Book>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((connection, _)) = accepted else { break };
                connections.spawn(serve(connection, book.clone()));
            }
            // those that have ended
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(connection: TcpStream, book: watch::Sender<Book>) {
    // what it does not understand, and what is broken, it closes
    let _ = call::serve_all(connection, &book).await;
}

/// A call that is in the book, and under way until this is dropped.
struct UnderWay<'b> {
    book: &'b watch::Sender<Book>,
    number: usize,
}

impl<'b> UnderWay<'b> {
    fn begin(book: &'b watch::Sender<Book>, lane: Lane, path: String) -> Self {
        let mut number = 0;
        book.send_modify(|book| number = book.begin(lane, path, Instant::now()));
        Self { book, number }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.book.send_modify(|book| book.end(self.number, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    use super::*;

    const SHADOW: &str = "content-length: 2\r\nbaggage: shadow=true\r\n\r\nhi";

    fn call(service: &Failing, rest: &str) -> TcpStream {
        let mut client = TcpStream::connect(service.address()).unwrap();
        client.write_all(format!("GET /a?b HTTP/1.1\r\n{rest}").as_bytes()).unwrap();
        client
    }

    fn answer(client: &mut TcpStream) -> std::io::Result<String> {
        let mut bytes = vec![0; 1024];
        let count = client.read(&mut bytes)?;
        bytes.truncate(count);
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn each_lane_is_served_in_its_manner() {
        let service = Failing::start().unwrap();
        service.serve(Lane::Shadow, Manner::Status(503));
        assert!(answer(&mut call(&service, "\r\n")).unwrap().starts_with("HTTP/1.1 200 "));
        assert!(answer(&mut call(&service, SHADOW)).unwrap().starts_with("HTTP/1.1 503 "));
        let book = service.book();
        assert_eq!(Lane::ALL.map(|lane| book.calls(lane).count()), [1, 1]);
        assert_eq!(book.calls(Lane::Shadow).next().unwrap().path, "/a?b");
    }

    #[test]
    fn calls_that_hang_are_answered_in_the_next_manner_and_one_whose_caller_leaves_is_over() {
        let service = Failing::start().unwrap();
        service.serve(Lane::Normal, Manner::Hang);
        let (mut waits, leaves) = (call(&service, "\r\n"), call(&service, "\r\n"));
        service.wait("two calls", |book| book.under_way(Lane::Normal) == 2).unwrap();
        drop(leaves);
        service.wait("one to end", |book| book.under_way(Lane::Normal) == 1).unwrap();
        service.serve(Lane::Normal, Manner::Status(418));
        assert!(answer(&mut waits).unwrap().starts_with("HTTP/1.1 418 "));
        service.wait("all to end", |book| book.under_way(Lane::Normal) == 0).unwrap();
        assert_eq!(most_at_once(service.book().calls(Lane::Normal)), 2);
    }

    #[test]
    fn a_reset_is_one_and_a_refused_connection_too_until_it_listens_again() {
        let mut service = Failing::start().unwrap();
        service.serve(Lane::Normal, Manner::ResetBefore);
        let reset = answer(&mut call(&service, "\r\n")).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        service.refuse_connections().unwrap();
        let refused = TcpStream::connect(service.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        service.listen().unwrap();
        service.serve(Lane::Normal, Manner::Status(204));
        assert!(answer(&mut call(&service, "\r\n")).unwrap().starts_with("HTTP/1.1 204 "));
    }
}
