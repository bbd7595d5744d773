//! What do subjects take of Redis, when there are a million of them?
//!
//! A store at its fullest is not a thousand times a small one: Redis's own tables double as they grow, and a
//! subject's share of them with it. So the million is really there, asked for through the shim's own store in
//! batches as long as a shim sends them, and what counts is how much `used_memory` grew. They are quiet users, as most
//! are: a third of them ask once, a third twice and a third three times.
//!
//! The promise is [`PROMISED`]'s. Of each other algorithm an eighth of a million has to do, so that all four of
//! them take less time than it. Their share of Redis's tables is the same, since an eighth fills a table of 2¹⁷ places
//! as a million fills one of 2²⁰.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck};
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;

use crate::limits;
use crate::record::Row;

/// The algorithm that a promise is made for: the default.
pub const PROMISED: &str = "sliding_window";
/// What a million of its subjects stay below, MB.
pub const LESS_THAN_MB: f64 = 250.0;

/// Checks in one batch, as many as a shim sends at once.
const BATCH: usize = 256;
/// Batches under way at once, so that Redis has work while the next one is made.
const UNDER_WAY: usize = 2;
/// Each subject asks once, twice or three times.
const MOST_REQUESTS: u64 = 3;
/// Far longer than a batch takes: nothing is measured of how fast it is.
const PATIENT: Duration = Duration::from_secs(30);
const SPEND_WITHIN: Duration = Duration::from_millis(20);

/// How many subjects there are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    promised: u64,
    others: u64,
}

impl Size {
    /// What the figures on file are of.
    pub const FULL: Self = Self { promised: 1_000_000, others: 125_000 };
    /// For a quick look.
    pub const SHORT: Self = Self { promised: 20_000, others: 20_000 };

    /// Of an algorithm.
    pub fn subjects(&self, algorithm: &str) -> u64 {
        if algorithm == PROMISED { self.promised } else { self.others }
    }

    /// How many requests a measurement of this size takes, about.
    pub fn requests(&self) -> u64 {
        let subjects: u64 = limits::ALGORITHMS.iter().map(|algorithm| self.subjects(algorithm)).sum();
        subjects * (1 + MOST_REQUESTS) / 2
    }
}

/// What came out for one algorithm.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Its name.
    pub algorithm: String,
    /// How many subjects there were.
    pub subjects: u64,
    /// What all of them took.
    pub bytes: u64,
}

impl Memory {
    /// Measures an algorithm with so many subjects, in a Redis of its own. `asked` hears how many requests were made
    /// since it last heard.
    pub fn of(algorithm: &str, subjects: u64, asked: &dyn Fn(u64)) -> Result<Self> {
        let redis = Redis::start()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bytes = runtime.block_on(async {
            let store = RedisStore::open(&redis.url(), PATIENT)?;
            Users { store, limit: limits::ordinary(algorithm)?, cost: cost(algorithm) }
                .take(&redis, subjects, asked)
                .await
        })?;
        Ok(Self { algorithm: algorithm.to_owned(), subjects, bytes })
    }

    /// What one of them takes, and also what a million take in MB.
    pub fn bytes_per_subject(&self) -> f64 {
        self.bytes as f64 / self.subjects as f64
    }

    /// Its row in the record.
    pub fn row(&self) -> Row {
        let figures = [
            ("subjects", self.subjects as f64),
            ("used_memory_mb", self.bytes as f64 / 1e6),
            ("bytes_per_subject", self.bytes_per_subject().round()),
        ];
        Row::new(&self.algorithm, figures)
    }

    /// The promise that does not hold, in words.
    pub fn broken_promise(&self) -> Option<String> {
        let mb = self.bytes_per_subject();
        let broken = self.algorithm == PROMISED && mb >= LESS_THAN_MB;
        broken.then(|| {
            format!(
                "a million subjects of {PROMISED} take {mb:.0} MB, and less than {LESS_THAN_MB} are promised"
            )
        })
    }
}

/// What a request takes. A token bucket of which one token is gone is full again in seconds, and its key ends with
/// that; a third of the bucket keeps it for minutes.
fn cost(algorithm: &str) -> u32 {
    if algorithm == "token_bucket" { 33 } else { 1 }
}

/// Those who ask.
struct Users {
    store: RedisStore,
    limit: [Window; 2],
    cost: u32,
}

impl Users {
    /// Has so many of them ask, and returns what they take, in bytes.
    async fn take(&self, redis: &Redis, subjects: u64, asked: &dyn Fn(u64)) -> Result<u64> {
        // what the connection and the script take is no subject's
        self.ask((subjects..).take(BATCH).collect()).await?;
        let (bytes_before, keys_before) = (used_bytes(redis)?, keys(redis)?);
        for requests in 1..=MOST_REQUESTS {
            let asking: Vec<u64> =
                (0..subjects).filter(|user| user % MOST_REQUESTS + 1 >= requests).collect();
            let batches = stream::iter(asking.chunks(BATCH).map(<[u64]>::to_vec));
            batches
                .map(|batch| self.ask(batch))
                .buffer_unordered(UNDER_WAY)
                .try_for_each(|requests| {
                    asked(requests);
                    std::future::ready(Ok(()))
                })
                .await?;
        }
        let bytes = used_bytes(redis)?.saturating_sub(bytes_before);
        let left = keys(redis)?.saturating_sub(keys_before);
        ensure!(
            left == subjects,
            "of {subjects} subjects {left} are left, as windows ended meanwhile: run it again"
        );
        Ok(bytes)
    }

    /// Has each of these ask once, and returns how many they were.
    async fn ask(&self, users: Vec<u64>) -> Result<u64> {
        let checks: Vec<Check> = users.iter().map(|user| self.check(*user)).collect();
        for taken in self.store.take_with_time(&checks, SPEND_WITHIN).await {
            let answer = taken.context("the store does not decide")?.answer;
            ensure!(matches!(answer, CheckAnswer::Allowed { .. }), "a quiet user was refused: {answer:?}");
        }
        Ok(users.len() as u64)
    }

    /// Under a key as the engine makes it.
    fn check(&self, user: u64) -> Check {
        let key = format!("ads_voucher:{{u{user:07}}}:per_user");
        Check { keys: vec![KeyCheck::take(key, self.cost, self.limit.to_vec())] }
    }
}

/// What a Redis says that it uses.
pub(crate) fn used_bytes(redis: &Redis) -> Result<u64> {
    let info: String = redis::cmd("INFO").arg("memory").query(&mut redis.connect()?)?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.context("redis does not say what it uses")?.trim().parse()?)
}

fn keys(redis: &Redis) -> Result<u64> {
    Ok(redis::cmd("DBSIZE").query(&mut redis.connect()?)?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_algorithm_is_measured_with_all_its_subjects_still_there() {
        for algorithm in limits::ALGORITHMS {
            let asked = Cell::new(0);
            let memory = Memory::of(algorithm, 3000, &|requests| asked.set(asked.get() + requests)).unwrap();
            assert_eq!(asked.get(), 6000, "{algorithm}");
            assert!(memory.bytes_per_subject() > 100.0, "{memory:?}");
        }
    }

    #[test]
    fn a_promise_is_broken_from_250_mb_a_million_on_whatever_the_number_of_subjects() {
        let memory = |algorithm: &str, bytes| Memory { algorithm: algorithm.into(), subjects: 20_000, bytes };
        assert_eq!(memory(PROMISED, 4_999_999).broken_promise(), None);
        assert_eq!(memory("sliding_log", 9_000_000).broken_promise(), None);
        assert_eq!(
            memory(PROMISED, 5_000_000).broken_promise().unwrap(),
            "a million subjects of sliding_window take 250 MB, and less than 250 are promised"
        );
    }
}
