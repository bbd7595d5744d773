//! How exact is each algorithm?
//!
//! **Judged** on a trace of many sources: beside the engine's counters stands an exact log of what they themselves
//! admitted (what another limiter would have admitted is another history, and says nothing of this one). Wrongly
//! allowed is what they admit although that log is full, wrongly rejected what they refuse although it is not. A
//! token bucket promises something else than a window, so its judge is the envelope of that promise.
//!
//! **Pressed** by one source that asks for ten times its limit and more: what is admitted, against what an exact
//! log (or envelope) admits of the same requests. Late tokens cost the most here.

mod demand;
mod judge;
mod trace;

use std::time::Duration;

use lanekeeper_engine::counter::{Ask, Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::{Algorithm, Window, WindowError};

pub use self::demand::Demand;
use self::judge::Judge;
pub use self::trace::Trace;
use crate::limits::{self, ALGORITHMS};
use crate::record::Row;

/// The share of all requests that Cloudflare found wrongly allowed or limited by its sliding counter: 400 million
/// requests of 270,000 sources ("How we built rate limiting capable of scaling to millions of domains", 2017).
/// Their traffic is not this trace: its sources are seldom near their limits.
pub const CLOUDFLARE_WRONG: f64 = 0.000_03;
/// The most of what an exact log admits that an algorithm may refuse at full demand.
pub const MOST_UNDER_ADMISSION: f64 = 0.01;

/// The limit of each source of the trace, per [`PER`].
const TRACE_LIMIT: u32 = 100;
/// The limit of the source that asks for all it can get, per [`PER`]. Greater, because a sliding counter rounds up
/// to whole requests, which costs it up to one in each window whatever its limit.
const DEMAND_LIMIT: u32 = 500;
const PER: Duration = Duration::from_secs(60);

/// How much is replayed.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// The trace's sources and requests.
    pub trace: Trace,
    /// For how many windows the full demand lasts. What is late by 1/256 of a window in each has lost a whole window
    /// only after 257.
    pub windows: u32,
}

impl Size {
    /// What the figures on file are of.
    pub const FULL: Self = Self {
        trace: Trace { requests: 10_000_000, sources: 100_000, span: Duration::from_secs(3600), seed: 1 },
        windows: 514,
    };
    /// For a quick look, and for the tests.
    pub const SHORT: Self = Self {
        trace: Trace { requests: 100_000, sources: 1_000, span: Duration::from_secs(360), seed: 1 },
        windows: 10,
    };

    /// How many decisions a measurement of this size takes, about.
    pub fn decisions(&self) -> u64 {
        let demand: u64 =
            Demand::ALL.iter().map(|demand| demand.about(DEMAND_LIMIT) * u64::from(self.windows)).sum();
        (self.trace.requests + demand) * ALGORITHMS.len() as u64
    }
}

/// What came out for one algorithm.
#[derive(Clone, Debug, Default)]
pub struct Accuracy {
    /// Its name.
    pub algorithm: String,
    /// The requests of the trace.
    pub requests: u64,
    /// Of them, those that were admitted.
    pub admitted: u64,
    /// Of them, those admitted although the exact log of what was admitted was full.
    pub wrongly_allowed: u64,
    /// Of them, those rejected although it was not.
    pub wrongly_rejected: u64,
    /// The most ever admitted in a trailing window, over what the limit allows there.
    pub max_admitted_ratio: f64,
    /// What was refused of what an exact log admits, under each demand; zero where more was admitted.
    pub under_admission: Vec<(Demand, f64)>,
}

/// Measures every algorithm. `decided` hears how many decisions were made since it last heard.
pub fn measure(size: &Size, decided: &dyn Fn(u64)) -> Result<Vec<Accuracy>, WindowError> {
    ALGORITHMS.iter().map(|algorithm| Accuracy::of(algorithm, size, decided)).collect()
}

impl Accuracy {
    fn of(algorithm: &str, size: &Size, decided: &dyn Fn(u64)) -> Result<Self, WindowError> {
        let mut accuracy = Self { algorithm: algorithm.to_owned(), ..Self::default() };
        accuracy.replay(&limits::window(algorithm, TRACE_LIMIT, PER)?, &size.trace, decided);
        let window = limits::window(algorithm, DEMAND_LIMIT, PER)?;
        for demand in Demand::ALL {
            accuracy.press(&window, demand, size.windows, decided);
        }
        Ok(accuracy)
    }

    fn replay(&mut self, window: &Window, trace: &Trace, decided: &dyn Fn(u64)) {
        const HEARD_EVERY: u64 = 1 << 16;
        let mut sources: Vec<_> =
            std::iter::repeat_with(|| Source::new(window)).take(trace.sources).collect();
        for request in trace.requests() {
            let Some(source) = sources.get_mut(request.source) else { continue };
            let full = source.judge.is_full(request.at);
            let admitted = source.ask(window, request.at);
            self.requests += 1;
            self.admitted += u64::from(admitted);
            self.wrongly_allowed += u64::from(admitted && full);
            self.wrongly_rejected += u64::from(!admitted && !full);
            if self.requests.is_multiple_of(HEARD_EVERY) {
                decided(HEARD_EVERY);
            }
        }
        decided(self.requests % HEARD_EVERY);
        self.note_ratio(sources.iter().map(|source| source.judge.most()));
    }

    fn press(&mut self, window: &Window, demand: Demand, windows: u32, decided: &dyn Fn(u64)) {
        let (mut source, mut exact) = (Source::new(window), Judge::of(window));
        let (mut admitted, mut asked, mut fair) = (0_u64, 0, 0_u64);
        for at in demand.moments(window.limit(), PER, windows) {
            admitted += u64::from(source.ask(window, at));
            if !exact.is_full(at) {
                exact.admit(at);
                fair += 1;
            }
            asked += 1;
        }
        decided(asked);
        let under = (1.0 - admitted as f64 / fair as f64).max(0.0);
        self.under_admission.push((demand, under));
        self.note_ratio([source.judge.most()]);
    }

    fn note_ratio(&mut self, ratios: impl IntoIterator<Item = f64>) {
        self.max_admitted_ratio = ratios.into_iter().fold(self.max_admitted_ratio, f64::max);
    }

    /// The share of all requests.
    pub fn share(&self, requests: u64) -> f64 {
        requests as f64 / self.requests as f64
    }

    /// The worst under-admission of all demands.
    pub fn worst_under_admission(&self) -> f64 {
        self.under_admission.iter().map(|(_, under)| *under).fold(0.0, f64::max)
    }

    /// Its row in the record.
    pub fn row(&self) -> Row {
        Row::new(
            &self.algorithm,
            [
                ("max_admitted_ratio", self.max_admitted_ratio),
                ("under_admission", self.worst_under_admission()),
                ("wrongly_allowed", self.share(self.wrongly_allowed)),
                ("wrongly_rejected", self.share(self.wrongly_rejected)),
            ],
        )
    }

    /// The promises that do not hold, in words.
    pub fn broken_promises(&self) -> Vec<String> {
        // the two whose promise is another one: an estimate, and calendar windows
        let may_exceed = matches!(self.algorithm.as_str(), "sliding_counter" | "fixed_window");
        let most = if may_exceed { 2.0 } else { 1.0 };
        let mut broken = Vec::new();
        if self.max_admitted_ratio > most {
            broken.push(format!(
                "{} admitted {:.4} times what it may, and at most {most} is promised",
                self.algorithm, self.max_admitted_ratio
            ));
        }
        for (demand, under) in self.under_admission.iter().filter(|(_, under)| *under > MOST_UNDER_ADMISSION)
        {
            broken.push(format!(
                "{} refused {:.3} % of what an exact log admits under {demand}, and at most {} % is promised",
                self.algorithm,
                under * 100.0,
                MOST_UNDER_ADMISSION * 100.0
            ));
        }
        broken
    }
}

/// One source: the engine's counters for it, and the judge of what they admitted.
struct Source {
    counters: SubjectCounters,
    judge: Judge,
}

impl Source {
    fn new(window: &Window) -> Self {
        Self { counters: SubjectCounters::default(), judge: Judge::of(window) }
    }

    fn ask(&mut self, window: &Window, at: Timestamp) -> bool {
        let windows = std::slice::from_ref(window);
        let mut charge = [Charge { windows, ask: Ask::take(1), counters: &mut self.counters }];
        let admitted = decide(&mut charge, STORE_BUCKETS, at, Duration::ZERO).allowed;
        if admitted {
            self.judge.admit(at);
        }
        admitted
    }
}

/// Whether `window` promises an envelope, and no window.
fn is_bucket(window: &Window) -> bool {
    matches!(window.algorithm(), Algorithm::TokenBucket { .. })
}

#[cfg(test)]
mod tests;
