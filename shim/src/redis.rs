//! The store in Redis, and with its folder the only code that knows Redis.
//!
//! A check is one run of `lua/take.lua`, a batch is one pipeline for each server, and no charge is ever sent
//! twice: what may have been run is not retried, whatever became of its answer.
//!
//! | module | knows |
//! | --- | --- |
//! | `address` | how servers are named, and their certificates |
//! | `sentinel` | which server is the master |
//! | `learning` | whether a server that has just taken over decides |
//! | `link` | one connection, and how it comes back |
//! | `servers` | where a call goes, and which calls were not run |
//! | `backoff` | when to try to connect again |
//! | `guard` | whether a server is asked at all |
//! | `cluster` | the nodes of a cluster and their slots |
//! | `clock` | how far the servers' clocks are off, for operators |
//! | `permissions` | whether the user may run what the scripts run |
//! | `room` | whether a server is nearly full |
//! | `refusals` | what Redis refuses, for operators |
//! | `replicas` | how many replicas an answer waits for |
//! | `run` | a check whose keys are in several places |
//! | `script` | the scripts' arguments and answers, and what a Redis user needs for them |

mod address;
mod backoff;
mod clock;
mod cluster;
mod guard;
mod learning;
mod link;
mod permissions;
mod refusals;
mod replicas;
mod room;
mod run;
mod script;
mod sentinel;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyReturn, KeySpent, Recorded, Returned, StoreError};
use prometheus_client::registry::Registry;
use redis::Value;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use self::address::Place;
pub use self::address::{AddressError, TlsFiles};
use self::clock::Clocks;
use self::guard::Guards;
use self::learning::Caution;
use self::link::PATIENCE;
use self::refusals::Refusals;
use self::replicas::Replicas;
use self::room::Shares;
use self::run::Run;
pub use self::script::{ACL_RULES, CLUSTER_ACL_RULES, SENTINEL_ACL_RULES, WAIT_ACL_RULES};
use self::script::{
    GIVE_BACK, GiveBack, NODES, NODES_KEY, RESET, SPENT, decode_given, give_back_command, nodes_command,
    reset_command, spent_command,
};
use self::servers::{Call, Servers};
use crate::store::{Answering, NotReady, Store};

/// From where on a difference between clocks is worth a warning, if nobody says so: far more than machines whose
/// clocks are kept are apart.
pub const CLOCK_WARNING: Duration = Duration::from_millis(500);

/// How Redis is spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Certificates of its own for TLS.
    pub tls: TlsFiles,
    /// Within which time each batch is answered.
    pub timeout: Duration,
    /// From which difference between its clock and this machine's on to warn.
    pub clock_warning: Duration,
    /// How many replicas must have a decision before it is answered.
    pub wait_replicas: u32,
    /// How long a server that took over by a failover decides nothing.
    pub learning_period: Duration,
}

impl Options {
    /// The usual ones, with this timeout.
    pub fn within(timeout: Duration) -> Self {
        Self {
            tls: TlsFiles::default(),
            timeout,
            clock_warning: CLOCK_WARNING,
            wait_replicas: 0,
            learning_period: Duration::ZERO,
        }
    }
}

/// Counts in Redis.
pub struct RedisStore {
    servers: Arc<Servers>,
    signs: Signs,
    timeout: Duration,
}

/// What operators can see of the servers.
#[derive(Clone)]
struct Signs {
    clocks: Clocks,
    guards: Guards,
    refusals: Refusals,
    shares: Shares,
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
    /// A store at `url` that answers each batch within `timeout`: one server, as in `redis://127.0.0.1:6379/0`, a
    /// cluster, as in `redis-cluster://10.0.0.1:6379,10.0.0.2:6379`, or the master that Sentinel names, as in
    /// `redis-sentinel://10.0.0.1:26379,10.0.0.2:26379/mymaster/0`. It connects in the background, so this needs a
    /// running tokio runtime and no running Redis.
    pub fn open(url: &str, timeout: Duration) -> Result<Self, AddressError> {
        Self::open_with(url, &Options::within(timeout))
    }

    /// A store as [`open`](Self::open) has it, with other options.
    pub fn open_with(url: &str, options: &Options) -> Result<Self, AddressError> {
        let Options { timeout, clock_warning, wait_replicas, learning_period, .. } = *options;
        let place = Place::read(url, &options.tls)?;
        let caution = Caution { replicas: Replicas(wait_replicas), learning_period };
        let signs = Signs {
            clocks: Clocks::new(clock_warning),
            guards: Guards::new(timeout),
            refusals: Refusals::default(),
            shares: Shares::default(),
        };
        Ok(Self { servers: Arc::new(Servers::open(place, caution, &signs)), signs, timeout })
    }

    /// What [`Store::decide`] does, and when by the store's clock.
    pub async fn take_with_time(
        &self,
        checks: &[Check],
        spend_within: Duration,
    ) -> Vec<Result<Taken, StoreError>> {
        self.take_within(self.timeout, checks, spend_within).await
    }

    async fn take_within(
        &self,
        patience: Duration,
        checks: &[Check],
        spend_within: Duration,
    ) -> Vec<Result<Taken, StoreError>> {
        let deadline = Instant::now() + patience;
        let mut runs: Vec<Run<'_>> =
            checks.iter().map(|check| Run::new(check, spend_within, &self.servers)).collect();
        loop {
            let (asking, calls): (Vec<&mut Run<'_>>, Vec<Call>) =
                runs.iter_mut().filter_map(|run| run.next(&self.servers).map(|call| (run, call))).unzip();
            if calls.is_empty() {
                break;
            }
            for (run, answer) in asking.into_iter().zip(self.servers.run(&calls, deadline).await) {
                run.hear(answer);
            }
        }
        self.roll_back(runs.iter().flat_map(Run::give_back).collect(), deadline).await;
        let looks: Vec<Call> = runs.iter().flat_map(Run::look).collect();
        let mut looks = self.servers.run(&looks, deadline).await.into_iter();
        runs.into_iter().map(|run| run.end(&mut looks)).collect()
    }

    /// What [`Store::give_back`] does, and when by the store's clock.
    pub async fn give_back_with_time(
        &self,
        returns: &[KeyReturn],
    ) -> Vec<Result<(Timestamp, u32), StoreError>> {
        let call = |key: &KeyReturn| {
            let give_back = GiveBack {
                key: &key.key,
                windows: &key.windows,
                tokens: key.tokens,
                dated: Timestamp::from_micros(key.dated_us),
                id: Some(key.id),
            };
            let command = give_back_command(&[give_back]);
            Call { slot: self.servers.slot(&key.key), script: &GIVE_BACK, command }
        };
        let calls: Vec<Call> = returns.iter().map(call).collect();
        let answers = self.servers.run(&calls, Instant::now() + self.timeout).await;
        answers.into_iter().map(|answer| answer.and_then(decode_given)).collect()
    }

    /// What [`Store::record`] does, when by the store's clock, and whether the report is new.
    pub async fn record_with_time(&self, reports: &[KeySpent]) -> Vec<Result<(Timestamp, bool), StoreError>> {
        let call = |report: &KeySpent| {
            let slot = self.servers.slot(&report.key);
            Call { slot, script: &SPENT, command: spent_command(report) }
        };
        let calls: Vec<Call> = reports.iter().map(call).collect();
        let answers = self.servers.run(&calls, Instant::now() + self.timeout).await;
        let decoded = answers.into_iter().map(|answer| answer.and_then(decode_given));
        decoded.map(|answer| answer.map(|(at, new)| (at, new == 1))).collect()
    }

    /// Gives back what rejected checks charged, in its own time: whoever waits for it may leave before it is done.
    async fn roll_back(&self, calls: Vec<Call>, deadline: Instant) {
        if calls.is_empty() {
            return;
        }
        let servers = Arc::clone(&self.servers);
        let done = tokio::spawn(async move {
            let failed = servers.run(&calls, Instant::now() + PATIENCE).await;
            let failed = failed.iter().filter(|answer| !matches!(answer, Ok(Value::Array(_)))).count();
            if failed > 0 {
                warn!(failed, "charges of rejected checks stay until their windows have passed");
            }
        });
        // Whether it ended in time or not, there is no more to do about it.
        let _ = timeout_at(deadline, done).await;
    }
}

impl Store for RedisStore {
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        Box::pin(async move {
            // Once the charge may not be spent any more, nobody waits for the answer.
            let patience = if spend_within.is_zero() { self.timeout } else { self.timeout.min(spend_within) };
            let taken = self.take_within(patience, checks, spend_within).await;
            taken
                .into_iter()
                .map(|taken| taken.map_or_else(|error| CheckAnswer::Failed { error }, |taken| taken.answer))
                .collect()
        })
    }

    fn record<'a>(&'a self, reports: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        Box::pin(async move {
            let waits = self.servers.wait_for_replicas();
            let recorded = |answer| match answer {
                Ok(_) => Recorded::Recorded,
                Err(error @ StoreError::Unreachable) => Recorded::NotRecorded(error),
                // replicas are missed after the script has run
                Err(error @ StoreError::Refused) if !waits => Recorded::NotRecorded(error),
                Err(error) => Recorded::Failed(error),
            };
            self.record_with_time(reports).await.into_iter().map(recorded).collect()
        })
    }

    fn give_back<'a>(&'a self, returns: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        Box::pin(async move {
            let given = self.give_back_with_time(returns).await;
            given
                .into_iter()
                .map(|given| given.map_or_else(Returned::Failed, |(_, tokens)| Returned::Tokens(tokens)))
                .collect()
        })
    }

    fn reset<'a>(&'a self, keys: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let call = |key: &String| {
                let slot = self.servers.slot(key);
                Call { slot, script: &RESET, command: reset_command(key) }
            };
            let calls: Vec<Call> = keys.iter().map(call).collect();
            let answers = self.servers.run(&calls, Instant::now() + self.timeout).await;
            answers.into_iter().try_for_each(|answer| match answer? {
                Value::Int(_) => Ok(()),
                Value::ServerError(_) => Err(StoreError::Refused),
                _ => Err(StoreError::Malformed),
            })
        })
    }

    fn count_nodes<'a>(&'a self, nodes: &'a [u64], life: Duration) -> Answering<'a, Result<u32, StoreError>> {
        Box::pin(async move {
            let slot = self.servers.slot(NODES_KEY);
            let call = Call { slot, script: &NODES, command: nodes_command(nodes, life) };
            let answers = self.servers.run(&[call], Instant::now() + self.timeout).await;
            match answers.into_iter().next().unwrap_or(Err(StoreError::Malformed))? {
                Value::Int(count) => u32::try_from(count).map_err(|_| StoreError::Malformed),
                Value::ServerError(_) => Err(StoreError::Refused),
                _ => Err(StoreError::Malformed),
            }
        })
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        Box::pin(self.servers.ready())
    }

    fn is_away(&self) -> bool {
        self.servers.are_away()
    }

    fn show(&self, registry: &mut Registry) {
        self.signs.clocks.show(registry);
        self.signs.guards.show(registry);
        self.signs.refusals.show(registry);
        self.signs.shares.show(registry);
    }
}
