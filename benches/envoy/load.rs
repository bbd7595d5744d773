//! Two loads on one Envoy: all that it can, and so much a second. One thread makes them, over kept connections.
//!
//! Not a whole HTTP client: it shares a core with the upstream and the store, so an answer is found by its length,
//! looked at for its status, and nothing else is read of it.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures_util::future::try_join_all;
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_pcg::Pcg64Mcg;
use rustix::thread::{Pid, gettid, set_current_timer_slack};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::users::{Kind, Requests};
use crate::cores::on_core;
use crate::http::length;
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
            each_connection(target, async |mut connection| {
                while !is_over.load(Ordering::Relaxed) {
                    connection.ask().await?;
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
                arrive(target.seed, per_sec, begin, warm_up + lasts, |came| send.send(came).is_ok())
            })
        });
        let asking = scope.spawn(move || {
            each_connection(target, async |mut connection| {
                let mut waits = Vec::new();
                loop {
                    let Some(came) = arrivals.lock().await.recv().await else { return Ok(waits) };
                    let kind = connection.ask().await?;
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

/// Tells of each request at the moment at which it comes, counted from `begin`, until they end or nobody listens.
fn arrive(
    seed: u64,
    per_sec: f64,
    begin: Instant,
    until: Duration,
    tell: impl Fn(Duration) -> bool,
) -> Result<()> {
    // a sleep is else prolonged by 50 us, which is half an answer
    set_current_timer_slack(NonZeroU64::new(1))?;
    let (mut chance, mut came) = (Pcg64Mcg::seed_from_u64(seed), Duration::ZERO);
    loop {
        let gap: f64 = chance.sample(Exp1);
        came += Duration::from_secs_f64(gap / per_sec);
        thread::sleep((begin + came).saturating_duration_since(Instant::now()));
        if came >= until || !tell(came) {
            return Ok(());
        }
    }
}

/// Does `work` on each connection, all in this thread on the target's core.
fn each_connection<T>(target: &Target, work: impl AsyncFn(Connection) -> Result<T>) -> Result<Vec<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let work = &work;
    let connections = (0..CONNECTIONS).map(|nth| async move {
        let seed = target.seed * CONNECTIONS + nth;
        work(Connection::open(target.envoy, seed).await?).await
    });
    on_core(target.core, || runtime.block_on(try_join_all(connections)))
}

/// A kept connection to Envoy.
struct Connection {
    stream: TcpStream,
    requests: Requests,
    answer: Vec<u8>,
}

impl Connection {
    async fn open(envoy: SocketAddr, seed: u64) -> Result<Self> {
        let stream = TcpStream::connect(envoy).await.context("Envoy lets nobody in")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, requests: Requests::new(seed), answer: Vec::new() })
    }

    /// Sends a request and waits for its answer. An error when it is refused: what is measured is requests that may
    /// pass.
    async fn ask(&mut self) -> Result<Kind> {
        let (kind, request) = self.requests.next();
        self.stream.write_all(request).await?;
        self.answer.clear();
        while length(&self.answer)?.is_none_or(|length| self.answer.len() < length) {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "Envoy hung up");
        }
        ensure!(
            self.answer.starts_with(b"HTTP/1.1 200"),
            "refused: {}",
            String::from_utf8_lossy(&self.answer)
        );
        Ok(kind)
    }
}
