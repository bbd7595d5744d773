//! A load that comes whether or not others are answered, and an account of every request of it.
//!
//! A client that waits for an answer before it asks again asks less the worse it is served, and so hides an outage. Here
//! requests come at moments of their own, over kept connections to one or several Envoys, and each is in the account:
//! when it came, when and how it was answered, or that it was lost or hung. It runs in two threads of its own, so that
//! whoever started it can meanwhile break things.

pub(crate) mod arrivals;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use futures_util::future::join_all;
use lanekeeper_engine::answer::FALLBACK_HEADER;
use lanekeeper_engine::policy::OnFailure;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant as Moment, timeout_at};

use crate::http::{Connection, Head};

/// Whom to ask, how often and for how long.
pub struct Plan {
    /// The Envoys; each is given the same number of connections.
    pub envoys: Vec<SocketAddr>,
    /// How many connections there are in all, asked in turn. A request that finds all of them taken waits for one, and
    /// its time runs.
    pub connections: usize,
    /// How many requests come a second at a moment since the begin; always more than none.
    pub per_sec: Box<dyn Fn(Duration) -> f64 + Send>,
    /// For how long they come.
    pub lasts: Duration,
    /// How long a request is waited for. Whoever waits longer hangs.
    pub patience: Duration,
    /// The moments are the same with the same seed.
    pub seed: u64,
}

/// A [patience](Plan::patience) that is far above any timeout of Lanekeeper's, and longer than the shipped Envoy's
/// `request_timeout` of 10 s, which ends what nothing else does.
pub const PATIENCE: Duration = Duration::from_secs(12);

/// A request, and what became of it. Moments are counted from the begin of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<W> {
    /// Whose it is, as who made the request said.
    pub who: W,
    /// When it came, whether or not a connection was free for it then.
    pub came: Duration,
    /// When it was over.
    pub over: Duration,
    /// How.
    pub end: End,
}

/// How a request was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Answered {
        /// Its status code.
        status: u16,
        /// What stood in for the store, if that could not be asked: the header [`FALLBACK_HEADER`].
        fallback: Option<OnFailure>,
    },
    /// Its connection broke, or none could be opened.
    Lost,
    /// No answer within its patience.
    Hung,
}

impl<W> Asked<W> {
    /// From when it came until it was over.
    pub fn took(&self) -> Duration {
        self.over.saturating_sub(self.came)
    }

    /// Its status code, if it was answered.
    pub fn status(&self) -> Option<u16> {
        match self.end {
            End::Answered { status, .. } => Some(status),
            End::Lost | End::Hung => None,
        }
    }

    /// What stood in for the store, if that could not be asked.
    pub fn fallback(&self) -> Option<OnFailure> {
        match self.end {
            End::Answered { fallback, .. } => fallback,
            End::Lost | End::Hung => None,
        }
    }
}

/// A load under way.
pub struct Driver<B> {
    begin: Instant,
    arriving: JoinHandle<Result<()>>,
    asking: JoinHandle<B>,
}

impl<B> Driver<B> {
    /// Begins at once. `request` hears when the next request comes, writes it, and says whose it is; it is asked in the
    /// order in which requests find a connection. Each of them is put into `book` as soon as it is over.
    pub fn start<W>(
        plan: Plan,
        request: impl FnMut(Duration, &mut Vec<u8>) -> W + Send + 'static,
        book: B,
    ) -> Result<Self>
    where
        W: Send + 'static,
        B: Extend<Asked<W>> + Send + 'static,
    {
        let Plan { envoys, connections, per_sec, lasts, patience, seed } = plan;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (send, arrivals) = mpsc::unbounded_channel();
        let begin = Instant::now();
        let arriving = thread::spawn(move || {
            arrivals::arrive(seed, per_sec, begin, lasts, |came| send.send(came).is_ok())
        });
        let asking = thread::spawn(move || {
            let clients = Clients {
                begin,
                patience,
                arrivals: Mutex::new(arrivals),
                request: RefCell::new(request),
                book: RefCell::new(book),
            };
            let each = envoys.iter().cycle().take(connections).map(|envoy| clients.one(*envoy));
            runtime.block_on(join_all(each));
            clients.book.into_inner()
        });
        Ok(Self { begin, arriving, asking })
    }

    /// When it began.
    pub fn begin(&self) -> Instant {
        self.begin
    }

    /// Waits until all requests have come and are over, and gives the book of them.
    pub fn finish(self) -> Result<B> {
        self.arriving.join().map_err(|_| anyhow!("who sends the requests panicked"))??;
        self.asking.join().map_err(|_| anyhow!("who awaits the answers panicked"))
    }
}

/// Those who ask, all in one thread.
struct Clients<R, B> {
    begin: Instant,
    patience: Duration,
    /// Whoever waits longest for it gets the next request, so that connections are asked in turn.
    arrivals: Mutex<mpsc::UnboundedReceiver<Duration>>,
    request: RefCell<R>,
    book: RefCell<B>,
}

impl<R, B> Clients<R, B> {
    /// Asks over one connection at a time until no more requests come.
    async fn one<W>(&self, envoy: SocketAddr)
    where
        R: FnMut(Duration, &mut Vec<u8>) -> W,
        B: Extend<Asked<W>>,
    {
        let (mut connection, mut bytes) = (None, Vec::new());
        loop {
            let Some(came) = self.arrivals.lock().await.recv().await else { return };
            bytes.clear();
            let who = (self.request.borrow_mut())(came, &mut bytes);
            let gives_up = Moment::from_std(self.begin + came + self.patience);
            let answered = timeout_at(gives_up, ask(&mut connection, envoy, &bytes)).await;
            let end = match answered {
                Ok(Ok(end)) => end,
                Ok(Err(_)) => End::Lost,
                Err(_) => End::Hung,
            };
            let over = self.begin.elapsed();
            self.book.borrow_mut().extend([Asked { who, came, over, end }]);
        }
    }
}

/// Sends a request over the connection, or a new one where there is none to be used, and waits for the answer.
async fn ask(kept: &mut Option<Connection>, envoy: SocketAddr, request: &[u8]) -> Result<End> {
    let mut connection = match kept.take().filter(|kept| !kept.is_over()) {
        Some(connection) => connection,
        None => Connection::open(envoy).await?,
    };
    let answer = connection.exchange(request).await?;
    let head = Head::of(answer)?.context("an answer has a head")?;
    let (status, named) = (head.status()?, head.header(FALLBACK_HEADER));
    let closes = head.header("connection") == Some("close");
    let modes = [OnFailure::Local, OnFailure::Open, OnFailure::Closed];
    let fallback = modes.into_iter().find(|mode| Some(mode.name()) == named);
    *kept = (!closes).then_some(connection);
    Ok(End::Answered { status, fallback })
}

#[cfg(test)]
mod tests;
