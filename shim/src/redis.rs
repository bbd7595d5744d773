//! The store in Redis, and with its folder the only code that knows Redis.
//!
//! A check is one run of `lua/take.lua`, a batch is one pipeline, and no charge is ever sent twice: what may
//! have been run is not retried, whatever became of its answer. A script that Redis does not know was not run,
//! so those checks alone, and only once, go again behind a `SCRIPT LOAD`.
//!
//! | module | knows |
//! | --- | --- |
//! | [`address`] | how a server is named, and its certificates |
//! | [`link`] | one connection, and how it comes back |
//! | [`script`] | the scripts' arguments and answers, and what a Redis user needs for them |

mod address;
mod link;
mod script;

use std::time::Duration;

use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, StoreError};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

pub use self::address::{AddressError, TlsFiles};
use self::link::Link;
pub use self::script::ACL_RULES;
use self::script::{Script, decode, take_command};
use crate::store::{Answering, NotReady, Store};

/// Counts in Redis.
pub struct RedisStore {
    link: Link,
    take: Script,
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

impl RedisStore {
    /// A store at `url`, as in `redis://127.0.0.1:6379/0`, that answers each batch within `timeout`. It connects
    /// in the background, so this needs a running tokio runtime and no running Redis.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, AddressError> {
        Self::open_with(url, &TlsFiles::default(), timeout)
    }

    /// A store as [`open`](Self::open) has it, with certificates of its own for TLS.
    pub fn open_with(url: &str, tls: &TlsFiles, timeout: Duration) -> Result<Self, AddressError> {
        let link = Link::open(address::client(url, tls)?);
        Ok(Self { link, take: Script::take(), timeout })
    }

    /// What [`Store::decide`] does, and when by the store's clock.
    pub async fn take_with_time(
        &self,
        checks: &[Check],
        spend_within: Duration,
    ) -> Vec<Result<Taken, StoreError>> {
        let deadline = Instant::now() + self.timeout;
        let command = |check| take_command(self.take.hash(), check, spend_within);
        let commands: Vec<Cmd> = checks.iter().map(command).collect();
        let mut answers = self.send(&commands.iter().collect::<Vec<_>>(), deadline).await;
        let not_run: Vec<usize> = (0..answers.len()).filter(|at| is_not_run(answers.get(*at))).collect();
        if !not_run.is_empty() {
            debug!(checks = not_run.len(), "redis does not know the script: loading it");
            let load = self.take.load();
            let mut again = vec![&load];
            again.extend(not_run.iter().filter_map(|at| commands.get(*at)));
            let second = self.send(&again, deadline).await;
            for (at, answer) in not_run.into_iter().zip(second.into_iter().skip(1)) {
                if let Some(slot) = answers.get_mut(at) {
                    *slot = answer;
                }
            }
        }
        checks.iter().zip(answers).map(|(check, answer)| decode(check, answer?)).collect()
    }

    /// Sends commands as one pipeline; one answer for each.
    async fn send(&self, commands: &[&Cmd], deadline: Instant) -> Vec<Result<Value, StoreError>> {
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

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        Box::pin(self.link.ready())
    }
}

fn is_not_run(answer: Option<&Result<Value, StoreError>>) -> bool {
    matches!(answer, Some(Ok(Value::ServerError(error)))
        if RedisError::from(error.clone()).kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}
