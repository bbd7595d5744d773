//! A hundred thousand calls that end in any way at any moment, and what is left of their permits: nothing.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use lanekeeper_tests::host::{Host, Stream};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::json;

use super::ends::{Case, cases};
use super::{EVEN, HEARD, behaved, call, guarded, refusal, state, succeed};

const CALLS: u32 = 100_000;
const MOST: usize = 24;
const WORKERS: usize = 4;
/// The number that plays a run again, if it is set.
const SEED: &str = "LANEKEEPER_SEED";

fn seed() -> u64 {
    let given = std::env::var(SEED).ok().map(|text| text.parse().unwrap());
    given.unwrap_or_else(|| RandomState::new().hash_one(SEED))
}

/// Calls of four workers, and how they end.
struct Calls {
    host: Host,
    chance: Pcg64Mcg,
    cases: Vec<Case>,
    under_way: Vec<(Stream, usize)>,
    let_in: u32,
}

impl Calls {
    fn begin(&mut self) {
        let (worker, case) =
            (self.chance.random_range(0..WORKERS), self.chance.random_range(0..self.cases.len()));
        let stream = self.host.worker(worker).request((self.cases[case].request)());
        if refusal(&stream).is_none() {
            self.under_way.push((stream, case));
            self.let_in += 1;
        }
        assert!(self.under_way.len() <= MOST, "{} calls at once", self.under_way.len());
    }

    /// Half of them are reset, and the others end in their ways.
    fn end(&mut self) {
        let at = self.chance.random_range(0..self.under_way.len());
        let (stream, case) = self.under_way.swap_remove(at);
        match self.chance.random_range(0..4) {
            0 => stream.reset(),
            1 => stream.reset_by_client(),
            _ => (self.cases[case].end)(&stream),
        }
        stream.end();
    }

    fn step(&mut self) {
        // a little less than all places are taken, most of the time
        let is_beginning = self.chance.random_range(0..MOST) >= self.under_way.len() * 3 / 5;
        if is_beginning || self.under_way.is_empty() {
            self.begin()
        } else {
            self.end()
        }
        if self.chance.random_ratio(1, 4) {
            self.host.advance(Duration::from_micros(self.chance.random_range(0..4_000)));
        }
    }

    /// Nothing is under way: all places can be had, whichever worker wants them.
    fn count(&mut self) {
        while !self.under_way.is_empty() {
            self.end();
        }
        self.close();
        let worker = self.chance.random_range(0..WORKERS);
        let held: Vec<Stream> = (0..=MOST).map(|_| call(&self.host, worker)).collect();
        let let_in = held.iter().filter(|stream| refusal(stream).is_none()).count();
        assert_eq!(let_in, MOST, "worker {worker}, after {} calls", self.let_in);
        held.iter().for_each(Stream::reset);
        self.host.advance(EVEN);
    }

    /// Lets calls succeed until the breaker is closed, however it stands.
    fn close(&self) {
        for _ in 0..100 {
            self.host.advance(HEARD);
            for worker in 0..WORKERS {
                succeed(&call(&self.host, worker));
            }
            if state(&self.host) == Some(0) {
                return self.host.advance(EVEN);
            }
        }
        panic!("it does not close");
    }
}

#[test]
fn a_hundred_thousand_calls_that_end_at_random_leave_every_permit_returned() {
    let seed = seed();
    println!("{SEED}={seed} plays this run again");
    // it opens now and then, and not for long: what is turned away has no permit
    let policy = guarded(&json!({
        "max_concurrent": MOST, "min_calls": CALLS, "failure_rate": "100%", "consecutive_failures": 12,
        "open_for": "10ms", "backoff": {"max": "20ms"}, "half_open_calls": 5,
    }));
    let host = Host::builder().workers(WORKERS).seed(seed).start(&policy.to_string()).unwrap();
    let chance = Pcg64Mcg::seed_from_u64(seed);
    let mut calls = Calls { host, chance, cases: cases(), under_way: Vec::new(), let_in: 0 };
    while calls.let_in < CALLS {
        let next = calls.let_in + CALLS / 10;
        let mut steps = 0;
        while calls.let_in < next {
            calls.step();
            steps += 1;
            assert!(steps < CALLS, "{} of {CALLS} calls were let in, and no more are", calls.let_in);
        }
        calls.count();
    }
    let opened = super::transitions(&calls.host, "open");
    let full = super::refusals(&calls.host, "rejected", "full");
    assert!(opened > 5 && full > 100, "opened {opened} times and full {full} times: the run says little");
    assert!((0..WORKERS).all(|worker| calls.host.worker(worker).contexts() == (1, 0)));
    behaved(&calls.host);
}
