//! Two loads on one Envoy: all that it can, and so much a second. One thread makes them, over kept connections.
//!
//! Not a whole HTTP client: it shares a core with the upstream and the store, so an answer is found by its length,
//! looked at for its status, and nothing else is read of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::future::try_join_all;
use rustix::thread::{Pid, gettid};
use tokio::sync::Mutex;

use super::users::{Kind, Requests};
use crate::cores::on_core;
use crate::driver::arrivals::arrive;
use crate::http::Connection;
use crate::samples::Waits;

/// As many clients as ask at once. Few enough that each waits for its answer a short while only, and enough that one
/// callout to the store asks for many of them.
const CONNECTIONS: u64 = 64;

/// Whom to ask, from where, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) envoy: SocketAddr,
    pub(super) core: usize,
    /// The same users come again with the same seed.
    pub(super) seed: u64,
}

/// How long answers took: to requests of busy users, and of the others.
pub(super) struct Latencies {
    pub(super) all: Waits,
    pub(super) busy: Waits,
    pub(super) others: Waits,
}

/// Asks again on each connection as soon as an answer has come, and calls `look` when `warm_up` has passed and once
/// more when `lasts` has, with the number of answers and the thread that asks.
pub(super) fn all_out<T>(
    target: &Target,
    warm_up: Duration,
    lasts: Duration,
    look: impl Fn(u64, Pid) -> Result<T>,
) -> Result<(T, T)> {
    let (answers, is_over) = (&AtomicU64::new(0), &AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let asking = scope.spawn(move || {
            let _ = tell.send(gettid());
            each_client(target, async |mut client| {
                while !is_over.load(Ordering::Relaxed) {
                    client.ask().await?;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let looked = told.recv().context("nobody asks").and_then(|thread| {
            let look = || look(answers.load(Ordering::Relaxed), thread);
            thread::sleep(warm_up);
            let before = look()?;
            thread::sleep(lasts);
            Ok((before, look()?))
        });
        is_over.store(true, Ordering::Relaxed);
        asking.join().map_err(|_| anyhow!("the load panicked"))??;
        looked
    })
}

/// How long each answer took, with requests that come at random moments whether or not others are answered. What comes
/// before `warm_up` has passed is not counted.
pub(super) fn at_rate(
    target: &Target,
    per_sec: f64,
    warm_up: Duration,
    lasts: Duration,
) -> Result<Latencies> {
    let begin = Instant::now();
    let (send, arrivals) = tokio::sync::mpsc::unbounded_channel();
    let arrivals = &Mutex::new(arrivals);
    let waits = thread::scope(|scope| {
        scope.spawn(move || {
            on_core(target.core, || {
                let tell = |came| send.send(came).is_ok();
                arrive(target.seed, |_| per_sec, begin, warm_up + lasts, tell)
            })
        });
        let asking = scope.spawn(move || {
            each_client(target, async |mut client| {
                let mut waits = Vec::new();
                loop {
                    let Some(came) = arrivals.lock().await.recv().await else { return Ok(waits) };
                    let kind = client.ask().await?;
                    let took = begin.elapsed().saturating_sub(came);
                    waits.extend((came >= warm_up).then_some((kind, took)));
                }
            })
        });
        asking.join().map_err(|_| anyhow!("the load panicked"))?
    })?;
    let waits = waits.concat();
    let of = |wanted: &[Kind]| {
        Waits::of(waits.iter().filter(|(kind, _)| wanted.contains(kind)).map(|(_, took)| *took))
    };
    Ok(Latencies { all: of(&[Kind::Busy, Kind::Other]), busy: of(&[Kind::Busy]), others: of(&[Kind::Other]) })
}

/// Does `work` for each client, all in this thread on the target's core.
fn each_client<T>(target: &Target, work: impl AsyncFn(Client) -> Result<T>) -> Result<Vec<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let work = &work;
    let clients = (0..CONNECTIONS).map(|nth| async move {
        let seed = target.seed * CONNECTIONS + nth;
        work(Client::connect(target.envoy, seed).await?).await
    });
    on_core(target.core, || runtime.block_on(try_join_all(clients)))
}

/// A client with users of its own.
struct Client {
    connection: Connection,
    requests: Requests,
}

impl Client {
    async fn connect(envoy: SocketAddr, seed: u64) -> Result<Self> {
        Ok(Self { connection: Connection::open(envoy).await?, requests: Requests::new(seed) })
    }

    /// Sends a request and waits for its answer. An error when it is refused: what is measured is requests that may
    /// pass.
    async fn ask(&mut self) -> Result<Kind> {
        let (kind, request) = self.requests.next();
        let answer = self.connection.exchange(request).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "refused: {}", String::from_utf8_lossy(answer));
        Ok(kind)
    }
}
