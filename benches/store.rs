//! How many decisions a second does the shim give, and how far is that from what Redis itself could?
//!
//! The built shim runs on one core, as it would beside Envoy, and is asked as the filter asks: batches over a few
//! kept connections. Redis has the other core. Its **ceiling** is the same script with the same arguments, as the
//! shim really sends them, straight from `redis-benchmark` in pipelines as long as a batch. Whoever asks runs on the
//! shim's core and takes its share of it; in front of the embedded store there is no Redis, and it has the other one.
//!
//! Each figure is the median of several rounds. A round measures the ceiling and the shim one right after the other,
//! and their ratio is taken within it: on a machine that others share, minutes differ more than algorithms do.

mod asker;
mod busy;
mod ceiling;
mod load;
mod question;

use std::time::Duration;

use anyhow::{Context, Result};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::shim_process::ShimProcess;

use self::asker::Asker;
pub use self::busy::REQUESTS as BUSY;
use self::ceiling::Ceiling;
use self::question::Question;
use crate::cores::{Cores, on_core};
use crate::limits::ALGORITHMS;
use crate::memory::used_bytes;
use crate::record::Row;
use crate::samples::{Waits, median};

/// The least share of the ceiling that is the goal.
pub const LEAST_OF_CEILING: f64 = 0.7;
/// What 99 % of the decisions are to stay below at half load, ms.
pub const MOST_P99_MS: f64 = 2.0;

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How often all that the shim can is asked of it, and for how long.
    rounds: (u32, Duration),
    /// How often half of it, and for how long. Shorter and more often: one pause of 10 ms, in which the machine did
    /// something else, is the p99 of a whole second.
    calm_rounds: (u32, Duration),
    /// Among how many subjects the decisions are spread.
    subjects: u64,
    /// How many subjects are held while memory is measured.
    held: u64,
}

impl Size {
    /// What the figures on file are of.
    pub const FULL: Self = Self {
        rounds: (5, Duration::from_millis(1200)),
        calm_rounds: (11, Duration::from_millis(400)),
        subjects: 10_000,
        held: 100_000,
    };
    /// For a quick look.
    pub const SHORT: Self = Self {
        rounds: (1, Duration::from_millis(300)),
        calm_rounds: (3, Duration::from_millis(200)),
        subjects: 10_000,
        held: 10_000,
    };

    /// How often progress is heard of.
    pub fn steps(&self) -> u64 {
        u64::from(self.rounds.0 + self.calm_rounds.0 + 1) * (ALGORITHMS.len() * BACKENDS.len()) as u64
    }
}

/// Where the decisions are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Redis,
    Embedded,
}

const BACKENDS: [Backend; 2] = [Backend::Redis, Backend::Embedded];

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Embedded => "embedded",
        }
    }
}

/// What came out for one algorithm on one backend: a sample for each round.
#[derive(Clone, Debug)]
pub struct Speed {
    /// `<algorithm>/<backend>`.
    pub case: String,
    /// With as many full batches under way as two workers send.
    per_sec: Vec<f64>,
    /// Of what Redis gives by itself, in the same round.
    of_ceiling: Vec<f64>,
    /// At half of that, from the moment a request came until its answer was there.
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    bytes_per_subject: f64,
    /// With [`BUSY`] requests spread over its window; only Redis says it.
    bytes_per_busy_subject: Option<f64>,
}

/// Measures every algorithm on every backend. `step` is heard after each load.
pub fn measure(size: &Size, step: &dyn Fn()) -> Result<Vec<Speed>> {
    let bench = Bench::start(*size)?;
    let mut measured = Vec::new();
    for algorithm in ALGORITHMS {
        let question = Question::new(algorithm)?;
        for backend in BACKENDS {
            let mut speed = Speed::new(algorithm, backend, bench.bytes_per_subject(&question, backend)?);
            if backend == Backend::Redis {
                let shim = bench.shim(backend)?;
                speed.bytes_per_busy_subject = Some(busy::bytes(algorithm, &shim, &bench.redis)?);
            }
            measured.push((backend, question.clone(), speed));
            step();
        }
    }
    for _ in 0..size.rounds.0 {
        let mut ceiling = 0.0;
        for (backend, question, speed) in &mut measured {
            // every algorithm's Redis comes first
            if *backend == Backend::Redis {
                ceiling = bench.ceiling(question)?;
            }
            let per_sec = bench.all_out(question, *backend)?;
            speed.per_sec.push(per_sec);
            speed.of_ceiling.push(per_sec / ceiling);
            step();
        }
    }
    for _ in 0..size.calm_rounds.0 {
        for (backend, question, speed) in &mut measured {
            let waits = bench.at_rate(question, *backend, median(&speed.per_sec) / 2.0)?;
            speed.p50_ms.push(waits.ms_of(0.5));
            speed.p99_ms.push(waits.ms_of(0.99));
            step();
        }
    }
    Ok(measured.into_iter().map(|(_, _, speed)| speed).collect())
}

/// What runs all the time: a Redis, on the second core. Shims come and go on the first.
struct Bench {
    size: Size,
    cores: Cores,
    redis: Redis,
}

impl Bench {
    fn start(size: Size) -> Result<Self> {
        let cores = Cores::find()?;
        let redis = on_core(cores.second, Redis::start)?;
        Ok(Self { size, cores, redis })
    }

    /// A shim in front of an empty store.
    fn shim(&self, backend: Backend) -> Result<ShimProcess> {
        let store = match backend {
            Backend::Redis => {
                self.forget_all()?;
                self.redis.url()
            }
            Backend::Embedded => "memory".to_owned(),
        };
        on_core(self.cores.first, || ShimProcess::start(&store))
    }

    /// Where whoever asks runs.
    fn askers_core(&self, backend: Backend) -> usize {
        match backend {
            Backend::Redis => self.cores.first,
            Backend::Embedded => self.cores.second,
        }
    }

    fn ceiling(&self, question: &Question) -> Result<f64> {
        let shim = self.shim(Backend::Redis)?;
        let ceiling = Ceiling::overhear(&self.redis, || Asker::connect(shim.address())?.ask(question, &[0]))?;
        self.forget_all()?;
        ceiling.per_sec(self.cores.first, self.size.subjects, self.size.rounds.1)
    }

    fn all_out(&self, question: &Question, backend: Backend) -> Result<f64> {
        let shim = self.shim(backend)?;
        let core = self.askers_core(backend);
        load::all_out(shim.address(), core, question, self.size.subjects, self.size.rounds.1)
    }

    fn at_rate(&self, question: &Question, backend: Backend, per_sec: f64) -> Result<Waits> {
        let shim = self.shim(backend)?;
        let core = self.askers_core(backend);
        load::at_rate(shim.address(), core, question, self.size.subjects, per_sec, self.size.calm_rounds.1)
    }

    /// What a subject takes that has made one request. The embedded store's is what the whole shim grew by.
    fn bytes_per_subject(&self, question: &Question, backend: Backend) -> Result<f64> {
        let shim = self.shim(backend)?;
        let mut asker = Asker::connect(shim.address())?;
        // what the first batch makes either way
        asker.ask(question, &(self.size.held..self.size.held + 64).collect::<Vec<_>>())?;
        let memory = || match backend {
            Backend::Redis => used_bytes(&self.redis),
            Backend::Embedded => resident_bytes(&shim),
        };
        let before = memory()?;
        let subjects: Vec<u64> = (0..self.size.held).collect();
        for batch in subjects.chunks(question::MOST_CHECKS) {
            asker.ask(question, batch)?;
        }
        Ok(memory()?.saturating_sub(before) as f64 / self.size.held as f64)
    }

    fn forget_all(&self) -> Result<()> {
        Ok(redis::cmd("FLUSHALL").exec(&mut self.redis.connect()?)?)
    }
}

fn resident_bytes(shim: &ShimProcess) -> Result<u64> {
    let pid = shim.pid().context("the shim is down")?;
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let resident: u64 = pages.split_whitespace().nth(1).context("statm has no second number")?.parse()?;
    Ok(resident * rustix::param::page_size() as u64)
}

impl Speed {
    fn new(algorithm: &str, backend: Backend, bytes_per_subject: f64) -> Self {
        let (per_sec, of_ceiling, p50_ms, p99_ms) = Default::default();
        let case = format!("{algorithm}/{}", backend.name());
        Self { case, per_sec, of_ceiling, p50_ms, p99_ms, bytes_per_subject, bytes_per_busy_subject: None }
    }

    /// Its row in the record.
    pub fn row(&self) -> Row {
        let figures = [
            ("decisions_per_sec", median(&self.per_sec).round()),
            ("ceiling_ratio", median(&self.of_ceiling)),
            ("p50_ms", median(&self.p50_ms)),
            ("p99_ms", median(&self.p99_ms)),
            ("bytes_per_subject", self.bytes_per_subject.round()),
        ];
        let busy = self.bytes_per_busy_subject.map(|bytes| ("bytes_per_busy_subject", bytes.round()));
        Row::new(&self.case, figures.into_iter().chain(busy))
    }

    /// The goals that are missed, in words.
    pub fn missed_goals(&self) -> Vec<String> {
        let (of_ceiling, p99_ms) = (median(&self.of_ceiling), median(&self.p99_ms));
        let mut missed = Vec::new();
        if of_ceiling < LEAST_OF_CEILING {
            missed.push(format!(
                "{} gives {of_ceiling:.2} of what Redis does, and the goal is {LEAST_OF_CEILING}",
                self.case
            ));
        }
        if p99_ms >= MOST_P99_MS {
            missed.push(format!(
                "{} has a p99 of {p99_ms:.2} ms at half load, and the goal is {MOST_P99_MS} ms",
                self.case
            ));
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_on_redis_and_one_alone_answer_all_that_a_bench_asks() {
        let moment = Duration::from_millis(50);
        let size = Size { rounds: (1, moment), calm_rounds: (1, moment), subjects: 100_000, held: 1000 };
        let bench = Bench::start(size).unwrap();
        let question = Question::new("sliding_window").unwrap();
        // what Redis is asked is what the shim asks it, or it would refuse
        assert!(bench.ceiling(&question).unwrap() > 0.0);
        for backend in BACKENDS {
            assert!(bench.all_out(&question, backend).unwrap() > 0.0);
            assert!(bench.at_rate(&question, backend, 100.0).unwrap().ms_of(0.99) > 0.0);
        }
        assert!(bench.bytes_per_subject(&question, Backend::Redis).unwrap() > 100.0);
        bench.bytes_per_subject(&question, Backend::Embedded).unwrap();
    }

    #[test]
    fn a_missed_goal_is_named() {
        let mut speed = Speed::new("sliding_log", Backend::Redis, 100.0);
        (speed.of_ceiling, speed.p99_ms) = (vec![0.71, 0.7, 0.5], vec![1.9, 1.99, 9.0]);
        assert_eq!(speed.missed_goals(), Vec::<String>::new());
        (speed.of_ceiling, speed.p99_ms) = (vec![0.69], vec![2.0]);
        assert_eq!(
            speed.missed_goals(),
            [
                "sliding_log/redis gives 0.69 of what Redis does, and the goal is 0.7",
                "sliding_log/redis has a p99 of 2.00 ms at half load, and the goal is 2 ms",
            ]
        );
    }
}
