//! Two loads as two workers of Envoy make them: all that they can, and so much a second.
//!
//! A worker has two callouts under way. Who comes meanwhile waits, and the next callout asks for all of them, as the
//! filter does it; so the batches are small while there is little to ask, and full when there is much.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_pcg::Pcg64Mcg;

use super::asker::Asker;
use super::question::{MOST_CHECKS, Question};
use crate::cores::on_core;
use crate::samples::Waits;

const WORKERS: u64 = 2;
const CALLS_PER_WORKER: u64 = 2;
/// What comes first is not measured: connections, scripts, the first pages of memory.
const WARM_UP: Duration = Duration::from_millis(100);

/// Decisions a second, with every callout full and sent as soon as there is one to spare.
pub(super) fn all_out(
    shim: SocketAddr,
    core: usize,
    question: &Question,
    subjects: u64,
    lasts: Duration,
) -> Result<f64> {
    let begin = Instant::now() + WARM_UP;
    let calls = each_call(core, |call| {
        let (mut asker, mut chance) = (Asker::connect(shim)?, Pcg64Mcg::seed_from_u64(call));
        let (mut batch, mut decisions) = ([0; MOST_CHECKS], 0_u64);
        loop {
            batch.fill_with(|| chance.random_range(0..subjects));
            let asked = Instant::now();
            asker.ask(question, &batch)?;
            let answered = begin.elapsed();
            decisions += if asked < begin { 0 } else { batch.len() as u64 };
            if answered >= lasts && decisions > 0 {
                return Ok((decisions, answered));
            }
        }
    })?;
    let decisions: u64 = calls.iter().map(|(decisions, _)| decisions).sum();
    let until = calls.iter().map(|(_, answered)| *answered).max().unwrap_or(lasts);
    Ok(decisions as f64 / until.as_secs_f64())
}

/// How long each decision took, with requests that come at random moments whether or not others are answered.
pub(super) fn at_rate(
    shim: SocketAddr,
    core: usize,
    question: &Question,
    subjects: u64,
    per_sec: f64,
    lasts: Duration,
) -> Result<Waits> {
    let begin = Instant::now() + WARM_UP;
    let workers: Vec<Mutex<Arrivals>> =
        (0..WORKERS).map(|worker| Mutex::new(Arrivals::new(worker, per_sec / WORKERS as f64))).collect();
    let waits = each_call(core, |call| {
        let (mut asker, mut chance) = (Asker::connect(shim)?, Pcg64Mcg::seed_from_u64(call));
        let (mut batch, mut waits) = (Vec::new(), Vec::new());
        let arrivals = usize::try_from(call % WORKERS).ok().and_then(|worker| workers.get(worker));
        let arrivals = arrivals.ok_or_else(|| anyhow!("a call belongs to a worker"))?;
        loop {
            let came = match arrivals.lock() {
                Ok(mut arrivals) => arrivals.next(begin),
                Err(_) => break,
            };
            if came.first().is_none_or(|first| *first > lasts) {
                break;
            }
            batch.clear();
            batch.extend(came.iter().map(|_| chance.random_range(0..subjects)));
            asker.ask(question, &batch)?;
            let answered = begin.elapsed();
            waits.extend(came.iter().map(|came| answered.saturating_sub(*came)));
        }
        Ok(waits)
    })?;
    Ok(Waits::of(waits.into_iter().flatten()))
}

/// Does `work` for each callout that may be under way, each in a thread on this core.
fn each_call<T: Send>(core: usize, work: impl Fn(u64) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let call = |call| scope.spawn(move || on_core(core, || work(call)));
        let threads: Vec<_> = (0..WORKERS * CALLS_PER_WORKER).map(call).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|ended| ended.map_err(|_| anyhow!("an asker panicked"))?).collect()
    })
}

/// The requests of one worker: when each comes, from the beginning of the load on.
struct Arrivals {
    chance: Pcg64Mcg,
    per_sec: f64,
    next: Duration,
}

impl Arrivals {
    fn new(worker: u64, per_sec: f64) -> Self {
        Self { chance: Pcg64Mcg::seed_from_u64(worker), per_sec, next: Duration::ZERO }
    }

    /// Waits for the next request; it, and all who came by then, as far as one callout asks for them.
    fn next(&mut self, begin: Instant) -> Vec<Duration> {
        thread::sleep((begin + self.next).saturating_duration_since(Instant::now()));
        let (now, mut came) = (begin.elapsed(), Vec::new());
        while came.is_empty() || (self.next <= now && came.len() < MOST_CHECKS) {
            came.push(self.next);
            let gap: f64 = self.chance.sample(Exp1);
            self.next += Duration::from_secs_f64(gap / self.per_sec);
        }
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_while_nobody_could_ask_is_asked_for_at_once_and_up_to_a_full_callout() {
        let mut arrivals = Arrivals::new(0, 1000.0);
        // a second ago, so that a thousand have come
        let begin = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let came = arrivals.next(begin);
        assert_eq!((came.len(), came[0]), (MOST_CHECKS, Duration::ZERO));
        assert!(came.is_sorted());
        assert!(arrivals.next(begin)[0] >= *came.last().unwrap());
    }
}
