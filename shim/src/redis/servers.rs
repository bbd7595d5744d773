//! The servers that hold the keys: one, or the masters of a cluster. Runs scripts there, and none of them twice.
//!
//! What is sent again was certainly not run, because the server says so: it does not know the script (NOSCRIPT),
//! another node has the slot (MOVED, ASK), or some of the keys are on their way there (TRYAGAIN). The cluster
//! client of the redis crate also repeats what it lost on the way, which may have been charged; so the routing is
//! here, over one [`Link`] for each node.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lanekeeper_engine::wire::StoreError;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::Signs;
use super::address::Place;
use super::cluster::{self, Cluster};
use super::learning::{self, Caution};
use super::link::{Link, not_connected};
use super::refusals::Refusals;
use super::replicas::Replicas;
use super::room::Admits;
use super::script::{Script, TAKE};
use crate::store::NotReady;

/// How often one call may be sent somewhere else. A slot that moves costs two or three; more is a cluster that
/// does not agree with itself.
const MOST_DETOURS: usize = 8;
/// How long keys that are on their way are given to arrive, again and again until the batch's time is over.
const KEYS_MOVE_FOR: Duration = Duration::from_millis(2);

/// One run of a script.
pub(super) struct Call {
    /// Where its keys are, if there are several places.
    pub(super) slot: Option<u16>,
    pub(super) script: &'static Script,
    pub(super) command: Cmd,
}

/// What holds the keys.
pub(super) struct Servers {
    place: Held,
    replicas: Replicas,
    refusals: Refusals,
}

enum Held {
    One(Arc<Link>),
    Cluster(Cluster),
}

/// A call on its way.
struct Attempt {
    call: usize,
    to: Arc<Link>,
    detours: usize,
    /// Whether its script is loaded first.
    loads: bool,
    /// Whether the node is to answer although the slot is not its own yet.
    asks: bool,
}

impl Attempt {
    /// Whether it asks a server for a decision that makes none yet.
    fn is_too_early(&self, calls: &[Call]) -> bool {
        let decides = |call: &Call| std::ptr::eq(call.script, &*TAKE);
        self.to.is_learning() && calls.get(self.call).is_some_and(decides)
    }
}

impl Servers {
    pub(super) fn open(place: Place, caution: Caution, signs: &Signs) -> Self {
        let place = match place {
            Place::One(server) => Held::One(Arc::new(Link::open(server, caution, signs))),
            Place::Cluster { manner, seeds } => Held::Cluster(Cluster::open(manner, seeds, caution, signs)),
        };
        Self { place, replicas: caution.replicas, refusals: signs.refusals.clone() }
    }

    /// Whether every server would answer now.
    pub(super) async fn ready(&self) -> Result<(), NotReady> {
        match &self.place {
            Held::One(link) => link.ready().await,
            Held::Cluster(cluster) => cluster.ready().await,
        }
    }

    /// Whether none of them would even be asked now.
    pub(super) fn are_away(&self) -> bool {
        match &self.place {
            Held::One(link) => link.is_away(),
            Held::Cluster(cluster) => cluster.is_away(),
        }
    }

    /// The slot of `key`, where keys in two slots cannot be in one script.
    pub(super) fn slot(&self, key: &str) -> Option<u16> {
        match &self.place {
            Held::One(_) => None,
            Held::Cluster(_) => Some(cluster::slot(key)),
        }
    }

    /// Whom the server counts that has `slot`. A call that another server is to run goes there as it is: it has the
    /// slot from then on, and the next one is asked of its own.
    pub(super) fn admits(&self, slot: Option<u16>) -> Admits {
        match (&self.place, slot) {
            (Held::One(link), _) => link.admits(),
            (Held::Cluster(cluster), Some(slot)) => cluster.admits(slot),
            (Held::Cluster(_), None) => Admits::default(),
        }
    }

    /// Whether an answer waits until replicas have what it says.
    pub(super) fn wait_for_replicas(&self) -> bool {
        self.replicas.0 > 0
    }

    /// Runs `calls`, one pipeline for each server; one answer for each call. Calls to one server run in their order.
    pub(super) async fn run(&self, calls: &[Call], deadline: Instant) -> Vec<Result<Value, StoreError>> {
        let mut answers = vec![Err(StoreError::Unreachable); calls.len()];
        let mut due = Vec::with_capacity(calls.len());
        for (at, call) in calls.iter().enumerate() {
            match timeout_at(deadline, self.link(call.slot)).await {
                Ok(Ok(to)) => due.push(Attempt { call: at, to, detours: 0, loads: false, asks: false }),
                Ok(Err(error)) => set(&mut answers, at, Err(error)),
                Err(_) => set(&mut answers, at, Err(StoreError::Timeout)),
            }
        }
        while !due.is_empty() {
            let mut again: Vec<Attempt> = Vec::new();
            let mut keys_move = false;
            for (attempt, answer) in send(calls, due, self.replicas, deadline).await {
                let at = attempt.call;
                if let Ok(Value::ServerError(error)) = &answer {
                    let error = RedisError::from(error.clone());
                    keys_move |= error.kind() == ErrorKind::Server(ServerErrorKind::TryAgain);
                    again.extend(self.detour(attempt, &error));
                }
                set(&mut answers, at, answer);
            }
            if keys_move && timeout_at(deadline, sleep(KEYS_MOVE_FOR)).await.is_err() {
                break;
            }
            again.sort_by_key(|attempt| attempt.call);
            due = again;
        }
        for answer in &answers {
            if let Ok(Value::ServerError(error)) = answer {
                self.refusals.note(&error.clone().into());
            }
        }
        answers
    }

    async fn link(&self, slot: Option<u16>) -> Result<Arc<Link>, StoreError> {
        match (&self.place, slot) {
            (Held::Cluster(cluster), Some(slot)) => cluster.owner(slot).await,
            (Held::One(link), _) => Ok(Arc::clone(link)),
            (Held::Cluster(_), None) => Err(StoreError::Unreachable),
        }
    }

    /// Where a call that was not run goes next; `None` when it is answered.
    fn detour(&self, attempt: Attempt, error: &RedisError) -> Option<Attempt> {
        let ErrorKind::Server(kind) = error.kind() else { return None };
        let detours = attempt.detours + 1;
        match (kind, &self.place) {
            (ServerErrorKind::NoScript, _) if !attempt.loads => {
                debug!("redis does not know a script: loading it");
                Some(Attempt { loads: true, ..attempt })
            }
            (ServerErrorKind::ReadOnly, _) => {
                // It was run up to its first write. A master that was made a replica stays one.
                attempt.to.leave(NotReady { code: None, ..not_connected(error) });
                None
            }
            (ServerErrorKind::TryAgain, Held::Cluster(_)) => Some(attempt),
            (ServerErrorKind::Moved | ServerErrorKind::Ask, Held::Cluster(cluster))
                if detours <= MOST_DETOURS =>
            {
                let (address, slot) = error.redirect_node()?;
                let to = cluster.link_to(address, &attempt.to)?;
                let asks = kind == ServerErrorKind::Ask;
                if !asks {
                    cluster.moved(slot, &to);
                }
                Some(Attempt { to, asks, detours, loads: false, ..attempt })
            }
            _ => None,
        }
    }
}

fn set(answers: &mut [Result<Value, StoreError>], at: usize, answer: Result<Value, StoreError>) {
    if let Some(slot) = answers.get_mut(at) {
        *slot = answer;
    }
}

/// Sends each attempt, those to one server as one pipeline.
async fn send(
    calls: &[Call],
    attempts: Vec<Attempt>,
    replicas: Replicas,
    deadline: Instant,
) -> Vec<(Attempt, Result<Value, StoreError>)> {
    let mut batches: Vec<Vec<Attempt>> = Vec::new();
    let (early, attempts): (Vec<Attempt>, Vec<Attempt>) =
        attempts.into_iter().partition(|attempt| attempt.is_too_early(calls));
    for attempt in attempts {
        let batch = batches
            .iter_mut()
            .find(|batch| batch.first().is_some_and(|first| Arc::ptr_eq(&first.to, &attempt.to)));
        match batch {
            Some(batch) => batch.push(attempt),
            None => batches.push(vec![attempt]),
        }
    }
    let sent = batches.into_iter().map(|batch| send_batch(calls, batch, replicas, deadline));
    let refused = early.into_iter().map(|attempt| (attempt, Ok(learning::refusal())));
    join_all(sent).await.into_iter().flatten().chain(refused).collect()
}

async fn send_batch(
    calls: &[Call],
    batch: Vec<Attempt>,
    replicas: Replicas,
    deadline: Instant,
) -> Vec<(Attempt, Result<Value, StoreError>)> {
    let mut scripts: Vec<&Script> = Vec::new();
    let (mut runs, mut answers_at) = (Vec::new(), Vec::new());
    let asking = redis::cmd("ASKING");
    for attempt in &batch {
        let Some(call) = calls.get(attempt.call) else { continue };
        if attempt.loads && !scripts.iter().any(|script| std::ptr::eq(*script, call.script)) {
            scripts.push(call.script);
        }
        if attempt.asks {
            runs.push(&asking);
        }
        answers_at.push(runs.len());
        runs.push(&call.command);
    }
    let loads: Vec<Cmd> = scripts.iter().map(|script| script.load()).collect();
    let wait = replicas.wait(deadline);
    let commands: Vec<&Cmd> = loads.iter().chain(runs).chain(&wait).collect();
    let link = batch.first().map(|attempt| Arc::clone(&attempt.to));
    let answers = match link {
        // It would be sent before anybody looks at the clock.
        Some(_) if deadline <= Instant::now() => Err(StoreError::Timeout),
        Some(link) => timeout_at(deadline, link.send(&commands)).await.unwrap_or(Err(StoreError::Timeout)),
        None => Err(StoreError::Unreachable),
    };
    let answer = |at: usize| match &answers {
        Ok(values) if values.len() == commands.len() => {
            let answer = values.get(loads.len() + at).cloned().ok_or(StoreError::Malformed)?;
            Ok(if wait.is_some() { replicas.hold(answer, values.last()) } else { answer })
        }
        Ok(_) => Err(StoreError::Malformed),
        Err(error) => Err(*error),
    };
    batch.into_iter().zip(answers_at.into_iter().map(answer)).collect()
}
