//! The store in Redis, and the only file that knows Redis.
//!
//! A check is one run of `lua/take.lua`, a batch is one pipeline, and no charge is ever sent twice: what may
//! have been run is not retried, whatever became of its answer. A script that Redis does not know was not run,
//! so those checks alone, and only once, go again behind a `SCRIPT LOAD`.
//!
//! One task keeps one connection, rather than each caller that finds it broken: while Redis is away a caller
//! hears so at once, within its patience, and the attempts to come back are few however many callers there are.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::counter::STORE_BUCKETS;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{Unit, Window};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyAnswer, Operation, StoreError, WindowAnswer};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::store::{Answering, Store};

const TAKE: &str = concat!(include_str!("../../lua/windows.lua"), include_str!("../../lua/take.lua"));

/// How long an attempt to connect, or a sign of life, may take. Longer than a batch may: a slow answer is no
/// reason to leave a connection.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often an idle connection is asked for a sign of life: a peer that vanished says nothing by itself.
const PING_EVERY: Duration = Duration::from_secs(1);
/// The pause after a failed attempt to connect; it doubles up to the last and loses up to half by chance, so
/// that many shims do not come back in step.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Commands on their way at once. Beyond it callers wait here, where giving up still means that nothing was charged.
const MOST_IN_FLIGHT: usize = 4096;

/// Counts in Redis.
pub struct RedisStore {
    link: Arc<Link>,
    keeper: JoinHandle<()>,
    script: redis::Script,
    timeout: Duration,
}

/// A check that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The store's clock when it decided.
    pub at: Timestamp,
    /// What was decided.
    pub answer: CheckAnswer,
}

/// The address is none that Redis can be reached at.
#[derive(Debug, thiserror::Error)]
#[error("not a Redis address: {0}")]
pub struct AddressError(#[from] RedisError);

impl RedisStore {
    /// A store at `url`, as in `redis://127.0.0.1:6379/0`, that answers each batch within `timeout`. It connects
    /// in the background, so this needs a running tokio runtime and no running Redis.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, AddressError> {
        let client = Client::open(url)?;
        let link = Arc::new(Link { connection: watch::Sender::new(None), broken: Notify::new() });
        let keeper = tokio::spawn(Arc::clone(&link).keep(client));
        Ok(Self { link, keeper, script: redis::Script::new(TAKE), timeout })
    }

    /// What [`Store::decide`] does, and when by the store's clock.
    pub async fn take_with_time(
        &self,
        checks: &[Check],
        spend_within: Duration,
    ) -> Vec<Result<Taken, StoreError>> {
        let deadline = Instant::now() + self.timeout;
        let command = |check| take_command(self.script.get_hash(), check, spend_within);
        let mut answers = self.send(checks.iter().map(command).collect(), deadline).await;
        let not_run: Vec<usize> = (0..answers.len()).filter(|at| is_not_run(answers.get(*at))).collect();
        if !not_run.is_empty() {
            debug!(checks = not_run.len(), "redis does not know the script: loading it");
            let mut again = vec![load_command()];
            again.extend(not_run.iter().filter_map(|at| checks.get(*at)).map(command));
            let second = self.send(again, deadline).await;
            for (at, answer) in not_run.into_iter().zip(second.into_iter().skip(1)) {
                if let Some(slot) = answers.get_mut(at) {
                    *slot = answer;
                }
            }
        }
        checks.iter().zip(answers).map(|(check, answer)| decode(check, answer?)).collect()
    }

    /// Sends commands as one pipeline; one answer for each.
    async fn send(&self, commands: Vec<Cmd>, deadline: Instant) -> Vec<Result<Value, StoreError>> {
        let count = commands.len();
        let answers = match timeout_at(deadline, self.link.send(commands)).await {
            Ok(answers) => answers,
            Err(_) => Err(StoreError::Timeout),
        };
        match answers {
            Ok(values) if values.len() == count => values.into_iter().map(Ok).collect(),
            Ok(_) => vec![Err(StoreError::Malformed); count],
            Err(error) => vec![Err(error); count],
        }
    }
}

impl Store for RedisStore {
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        Box::pin(async move {
            let taken = self.take_with_time(checks, spend_within).await;
            taken
                .into_iter()
                .map(|taken| taken.map_or_else(|error| CheckAnswer::Failed { error }, |taken| taken.answer))
                .collect()
        })
    }

    fn ready(&self) -> Answering<'_, Result<(), StoreError>> {
        Box::pin(async {
            let connection = self.link.connection.borrow().clone();
            ping(&mut connection.ok_or(StoreError::Unreachable)?).await
        })
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// The connection, while there is one.
struct Link {
    connection: watch::Sender<Option<MultiplexedConnection>>,
    /// Told by whoever finds the connection broken.
    broken: Notify,
}

impl Link {
    async fn send(&self, commands: Vec<Cmd>) -> Result<Vec<Value>, StoreError> {
        let connection = self.connection.borrow().clone();
        let mut connection = connection.ok_or(StoreError::Unreachable)?;
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in commands {
            pipeline.add_command(command);
        }
        connection.send_packed_commands(&pipeline, 0, pipeline.len()).await.map_err(|error| {
            debug!(%error, "a batch was lost");
            self.broken.notify_waiters();
            if error.is_timeout() { StoreError::Timeout } else { StoreError::Unreachable }
        })
    }

    /// Keeps a connection for ever, or until it is dropped.
    async fn keep(self: Arc<Self>, client: Client) {
        let address = client.get_connection_info().addr().to_string();
        let mut pause = FIRST_PAUSE;
        loop {
            match connect(&client).await {
                Ok(connection) => {
                    info!(address, "connected to redis");
                    self.use_while_alive(connection).await;
                    warn!(address, "lost the connection to redis");
                    pause = FIRST_PAUSE;
                }
                Err(error) => warn!(address, %error, "cannot connect to redis"),
            }
            sleep(pause - pause.mul_f64(chance() / 2.0)).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn use_while_alive(&self, connection: MultiplexedConnection) {
        let broken = std::pin::pin!(self.broken.notified());
        let ends = async {
            while ping(&mut connection.clone()).await.is_ok() {
                sleep(PING_EVERY).await;
            }
        };
        self.connection.send_replace(Some(connection.clone()));
        tokio::select! {
            () = broken => {}
            () = ends => {}
        }
        self.connection.send_replace(None);
    }
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisError> {
    // Each batch has a deadline of its own.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(None)
        .set_concurrency_limit(MOST_IN_FLIGHT);
    client.get_multiplexed_async_connection_with_config(&config).await
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
    match timeout(PATIENCE, connection.send_packed_command(&redis::cmd("PING"))).await {
        Ok(Ok(Value::ServerError(_))) => Err(StoreError::Refused),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(StoreError::Unreachable),
        Err(_) => Err(StoreError::Timeout),
    }
}

/// A number from 0 to 1, from the seeds the standard library gives its maps.
fn chance() -> f64 {
    f64::from(u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

fn load_command() -> Cmd {
    let mut command = redis::cmd("SCRIPT");
    command.arg("LOAD").arg(TAKE);
    command
}

fn take_command(hash: &str, check: &Check, spend_within: Duration) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(hash).arg(check.keys.len());
    for key in &check.keys {
        command.arg(&key.key);
    }
    command.arg(match check.operation {
        Operation::Take => "take",
        Operation::Peek => "peek",
    });
    command.arg(micros(spend_within));
    for key in &check.keys {
        command.arg(key.cost).arg(key.windows.len());
        for (window, name) in key.windows.iter().zip(names(&key.windows)) {
            command.arg(name).arg(window.capacity());
            match window.unit() {
                Unit::Bucket { per } => command.arg(micros(per)).arg(STORE_BUCKETS),
                Unit::Entry { per } | Unit::Weighted { per } => command.arg(micros(per)).arg(0),
                Unit::Calendar { per, shift } => command.arg(micros(per)).arg(micros(shift)),
                Unit::Debt { token, rate } => command.arg(token).arg(rate),
            };
        }
    }
    command
}

/// What the fields of each window begin with: its unit, and which of those with that unit it is.
fn names(windows: &[Window]) -> impl Iterator<Item = String> {
    windows.iter().enumerate().map(|(at, window)| {
        let unit = window.unit();
        let name = match unit {
            Unit::Bucket { per } => format!("s{}", per.as_millis()),
            Unit::Entry { per } => format!("l{}", per.as_millis()),
            Unit::Weighted { per } => format!("c{}", per.as_millis()),
            Unit::Calendar { per, shift } => format!("f{}+{}", per.as_millis(), shift.as_millis()),
            Unit::Debt { token, rate } => format!("b{token}/{rate}"),
        };
        match windows.iter().take(at).filter(|earlier| earlier.unit() == unit).count() {
            0 => name,
            earlier => format!("{name}.{earlier}"),
        }
    })
}

fn is_not_run(answer: Option<&Result<Value, StoreError>>) -> bool {
    matches!(answer, Some(Ok(Value::ServerError(error)))
        if RedisError::from(error.clone()).kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}

fn decode(check: &Check, answer: Value) -> Result<Taken, StoreError> {
    let numbers = match answer {
        Value::Array(values) => values,
        Value::ServerError(error) => {
            warn!(%error, "redis refused a check");
            return Err(StoreError::Refused);
        }
        _ => return Err(StoreError::Malformed),
    };
    read(check, &mut numbers.into_iter()).ok_or(StoreError::Malformed)
}

/// Reads what `take.lua` returns, as its head says; `None` when it does not fit the check.
fn read(check: &Check, numbers: &mut dyn Iterator<Item = Value>) -> Option<Taken> {
    let at = Timestamp::from_micros(next(numbers)?);
    let allowed = match next::<u64>(numbers)? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut keys = Vec::with_capacity(check.keys.len());
    for key in &check.keys {
        let mut windows = Vec::with_capacity(key.windows.len());
        for _ in &key.windows {
            let (remaining, reset_us, wait_us) = (next(numbers)?, next(numbers)?, next(numbers)?);
            windows.push(WindowAnswer { remaining, reset_us, wait_us });
        }
        keys.push(KeyAnswer { windows });
    }
    let answer = if allowed { CheckAnswer::Allowed { keys } } else { CheckAnswer::Rejected { keys } };
    numbers.next().is_none().then_some(Taken { at, answer })
}

fn next<T: TryFrom<i64>>(numbers: &mut dyn Iterator<Item = Value>) -> Option<T> {
    match numbers.next()? {
        Value::Int(number) => number.try_into().ok(),
        _ => None,
    }
}
