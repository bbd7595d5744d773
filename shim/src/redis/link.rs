//! One connection to one Redis, kept by one task.
//!
//! One task, rather than each caller that finds the connection broken: while Redis is away a caller hears so at
//! once, within its patience, and the attempts to come back are few however many callers there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_engine::wire::StoreError;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError,
    Value,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Signs;
use super::backoff::Backoff;
use super::guard::Guard;
use super::learning::{Caution, Learning};
use super::replicas::Replicas;
use super::room::Admits;
use super::sentinel::Server;
use super::{permissions, refusals};
use crate::store::NotReady;

/// How long an attempt to connect, or a sign of life, may take. Longer than a batch may: a slow answer is no
/// reason to leave a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How often an idle connection is asked for a sign of life: a peer that vanished says nothing by itself.
pub(super) const PING_EVERY: Duration = Duration::from_secs(1);
/// Commands on their way at once. Beyond it callers wait here, where giving up still means that nothing was charged.
const MOST_IN_FLIGHT: usize = 4096;

/// A connection, while there is one.
pub(super) struct Link {
    line: Arc<Line>,
    keeper: JoinHandle<()>,
}

struct Line {
    state: watch::Sender<State>,
    /// Counts the batches that were answered: signs of life, also while a `PING` waits behind others.
    answered: AtomicUsize,
    /// Why the connection is to be given up, told by whoever finds it of no use.
    broken: watch::Sender<Option<NotReady>>,
    /// Whom the server counts, as it was last known.
    admits: watch::Sender<Admits>,
    guard: Guard,
    learning: Learning,
}

#[derive(Clone)]
enum State {
    /// The first attempt is under way.
    Starting,
    Up(MultiplexedConnection),
    Down(StoreError, Arc<str>),
}

impl Link {
    /// A link that connects in the background, and again whenever it is lost. Needs a running tokio runtime.
    pub(super) fn open(server: Server, caution: Caution, signs: &Signs) -> Self {
        let line = Arc::new(Line {
            state: watch::Sender::new(State::Starting),
            answered: AtomicUsize::new(0),
            broken: watch::Sender::new(None),
            admits: watch::Sender::new(Admits::default()),
            guard: signs.guards.guard(),
            learning: Learning::new(caution.learning_period),
        });
        let keeper = tokio::spawn(Arc::clone(&line).keep(server, caution.replicas, signs.clone()));
        Self { line, keeper }
    }

    /// Sends commands as one pipeline; one answer for each. Waits for the first attempt to connect, and for no
    /// other one. An error means that any of them may have been run, but for [`StoreError::Unreachable`]: there was no
    /// connection, or its guard is open.
    pub(super) async fn send(&self, commands: &[&Cmd]) -> Result<Vec<Value>, StoreError> {
        let mut connection = self.connection().await.map_err(|not_ready| not_ready.error)?;
        let asked = self.line.guard.ask().ok_or(StoreError::Unreachable)?;
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command((*command).clone());
        }
        let answers = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await;
        let error = match answers {
            Ok(answers) => {
                self.line.answered.fetch_add(1, Ordering::Relaxed);
                asked.answered();
                return Ok(answers);
            }
            Err(error) => error,
        };
        asked.lost();
        debug!(%error, "a batch was lost");
        self.leave(NotReady::because(StoreError::Unreachable, "the connection to redis broke"));
        Err(if error.is_timeout() { StoreError::Timeout } else { StoreError::Disconnected })
    }

    /// Gives the connection up: the next one may lead to a server that does its work.
    pub(super) fn leave(&self, why: NotReady) {
        self.line.broken.send_replace(Some(why));
    }

    /// Notes that the server called `name` has taken over from another one.
    pub(super) fn took_over(&self, name: &str) {
        self.line.learning.begin(name);
    }

    /// Whether the server has taken over so recently that it decides nothing yet.
    pub(super) fn is_learning(&self) -> bool {
        self.line.learning.is_on()
    }

    /// Whom the server counts.
    pub(super) fn admits(&self) -> Admits {
        *self.line.admits.borrow()
    }

    /// Whether Redis would answer now.
    pub(super) async fn ready(&self) -> Result<(), NotReady> {
        let mut connection = self.connection().await?;
        if self.line.guard.is_open() {
            return Err(NotReady::because(StoreError::Unreachable, "redis does not answer in time"));
        }
        ping(&mut connection).await
    }

    /// Whether a batch would not even be sent, as far as is known.
    pub(super) fn is_away(&self) -> bool {
        matches!(*self.line.state.borrow(), State::Down(..)) || self.line.guard.is_open()
    }

    async fn connection(&self) -> Result<MultiplexedConnection, NotReady> {
        let mut states = self.line.state.subscribe();
        let state = states.wait_for(|state| !matches!(state, State::Starting)).await;
        match state.as_deref() {
            Ok(State::Up(connection)) => Ok(connection.clone()),
            Ok(State::Down(error, reason)) => Err(NotReady::because(*error, &**reason)),
            Ok(State::Starting) | Err(_) => Err(StoreError::Unreachable.into()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Line {
    /// Keeps a connection for ever, or until it is dropped.
    async fn keep(self: Arc<Self>, server: Server, replicas: Replicas, signs: Signs) {
        let name = server.name();
        let mut backoff = Backoff::new();
        let mut last: Option<ConnectionAddr> = None;
        loop {
            let mut lasted = Duration::ZERO;
            let NotReady { error, reason, code } = match reach(&server, replicas).await {
                Ok((at, connection)) => {
                    info!(name, address = %at.addr(), "connected to redis");
                    if last.replace(at.addr().clone()).is_some_and(|last| last != *at.addr()) {
                        self.learning.begin(&name);
                    }
                    let began = Instant::now();
                    let ended = self.use_while_alive(&server, &at, &signs, connection).await;
                    lasted = began.elapsed();
                    ended
                }
                Err(not_ready) => not_ready,
            };
            warn!(name, reason, "cannot work with redis");
            self.state.send_replace(State::Down(error, reason.into()));
            if let Some(code) = code {
                signs.refusals.count(code);
            }
            sleep(backoff.pause(lasted)).await;
        }
    }

    fn has_answered_since(&self, answered: usize) -> bool {
        self.answered.load(Ordering::Relaxed) != answered
    }

    /// Why it ended.
    async fn use_while_alive(
        &self,
        server: &Server,
        at: &ConnectionInfo,
        signs: &Signs,
        mut connection: MultiplexedConnection,
    ) -> NotReady {
        let watch_clock = signs.clocks.watch(at, connection.clone());
        let watch_guard = signs.guards.watch(at, &self.guard);
        let watch_memory = signs.shares.watch(at, connection.clone(), &self.admits);
        // Before anybody can use it, and find it broken.
        self.broken.send_replace(None);
        self.guard.begin_anew();
        let mut broken = self.broken.subscribe();
        self.state.send_replace(State::Up(connection.clone()));
        let ends = async {
            loop {
                self.guard.until_next_sign(PING_EVERY).await;
                let asked = Instant::now();
                let answered = self.answered.load(Ordering::Relaxed);
                match ping(&mut connection).await {
                    // slow, for it has much to do
                    Err(late) if late.error == StoreError::Timeout && self.has_answered_since(answered) => {}
                    Err(not_ready) => return not_ready,
                    Ok(()) => self.guard.hear(asked.elapsed()),
                }
                if server.has_moved_from(at).await {
                    return NotReady::because(StoreError::Unreachable, "Sentinel names another master");
                }
            }
        };
        tokio::select! {
            why = broken.wait_for(Option::is_some) => {
                why.ok().and_then(|why| why.clone()).unwrap_or_else(|| StoreError::Unreachable.into())
            }
            not_ready = ends => not_ready,
            never = watch_clock => match never {},
            never = watch_memory => match never {},
            never = watch_guard => match never {},
        }
    }
}

async fn reach(
    server: &Server,
    replicas: Replicas,
) -> Result<(ConnectionInfo, MultiplexedConnection), NotReady> {
    let at = server.find().await?;
    let mut connection = connect(&at).await?;
    server.check(&mut connection).await?;
    permissions::check(&mut connection, replicas).await?;
    Ok((at, connection))
}

/// A connection that has given a sign of life, so that a server which lets nobody in is not taken for one that
/// comes and goes.
pub(super) async fn connect(server: &ConnectionInfo) -> Result<MultiplexedConnection, NotReady> {
    // Each batch has a deadline of its own.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(None)
        .set_concurrency_limit(MOST_IN_FLIGHT);
    let client = Client::open(server.clone()).map_err(|error| not_connected(&error))?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(|error| not_connected(&error))?;
    ping(&mut connection).await?;
    Ok(connection)
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), NotReady> {
    match timeout(PATIENCE, connection.send_packed_command(&redis::cmd("PING"))).await {
        Ok(Ok(Value::ServerError(error))) => Err(not_connected(&error.into())),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(not_connected(&error)),
        Err(_) => Err(StoreError::Timeout.into()),
    }
}

pub(super) fn not_connected(error: &RedisError) -> NotReady {
    let code = Some(refusals::code(error));
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            let refused = NotReady::because(StoreError::Refused, "redis refused the user or the password");
            NotReady { code, ..refused }
        }
        ErrorKind::Server(_) | ErrorKind::Extension => {
            NotReady { code, ..NotReady::because(StoreError::Refused, format!("redis refused: {error}")) }
        }
        _ => NotReady::because(StoreError::Unreachable, format!("redis is unreachable: {error}")),
    }
}
