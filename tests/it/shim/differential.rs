//! The script in Redis and in Valkey against the engine's own arithmetic: the same questions at the same moments, and every
//! number the same.
//!
//! The moments are Redis's own, which the script tells.

mod models;
mod steps;
mod windows;

use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanekeeper_engine::lease::Lease;
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::{MAX_PER, Window};
use lanekeeper_engine::wire::{
    Check, CheckAnswer, DecideRequest, KeyCheck, KeyReturn, KeySpent, Operation, Slice,
};
use lanekeeper_shim::redis::{RedisStore, Taken};
use lanekeeper_tests::redis::Redis;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::support::{bucket, ready_store};
use models::{Embedded, Engine, Model};
use steps::{KEYS, Question, Step, long_steps, steps};
use windows::{long_windows, roomy_windows, windows};

/// A Redis or a Valkey, and a name for each case, so that none meets what another left.
struct Side {
    runtime: Runtime,
    store: RedisStore,
    cases: AtomicU64,
    /// What was granted in advance, each time.
    leased: Mutex<Vec<Lease>>,
    _redis: Redis,
}

impl Side {
    fn start(redis: Redis) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(ready_store(&redis));
        Self { runtime, store, cases: AtomicU64::new(0), leased: Mutex::default(), _redis: redis }
    }

    fn ask(&self, checks: &[Check], spend_within: Duration) -> Vec<Taken> {
        let taken = self.runtime.block_on(self.store.take_with_time(checks, spend_within));
        taken.into_iter().map(|taken| taken.expect("redis decides")).collect()
    }

    fn give_back(&self, back: &KeyReturn) -> (Timestamp, u32) {
        let given = self.runtime.block_on(self.store.give_back_with_time(std::slice::from_ref(back)));
        given[0].expect("redis gives back")
    }

    fn record(&self, report: &KeySpent) -> (Timestamp, bool) {
        let message = DecideRequest { spent: vec![report.clone()], ..DecideRequest::new(0, Vec::new()) };
        message.validate().expect("a report is as a filter makes it");
        let recorded = self.runtime.block_on(self.store.record_with_time(&message.spent));
        recorded[0].expect("redis records")
    }

    /// How many leases the cases met, and from which life to which, in ms.
    fn leased(&self) -> (usize, RangeInclusive<u32>) {
        let leased = self.leased.lock().unwrap();
        let lives = || leased.iter().map(|lease| lease.life_ms);
        (leased.len(), lives().min().unwrap_or(0)..=lives().max().unwrap_or(0))
    }

    /// Runs one case against `model`.
    fn agrees(
        &self,
        steps: &[Step],
        windows: impl Fn(usize, usize) -> Vec<Window>,
        model: &mut impl Model,
    ) -> Result<(), TestCaseError> {
        let case = self.cases.fetch_add(1, Ordering::Relaxed);
        let mut charged: Vec<KeyReturn> = Vec::new();
        let ask_of = |question: &Question| {
            let windows = windows(question.key, question.list);
            let most = windows.iter().map(Window::capacity).min().unwrap();
            let lease = question.lease.filter(|_| question.operation == Operation::Take);
            let cost = if lease.is_some() { question.cost % most } else { 1 + question.cost % most };
            KeyCheck {
                operation: question.operation,
                at_least: question.at_least.filter(|_| cost > 0).map(|least| 1 + least % cost),
                lease,
                ..KeyCheck::take(format!("case{case}:{{{}}}", question.key), cost, windows)
            }
        };
        for step in steps {
            match step {
                Step::Pause { us } => std::thread::sleep(Duration::from_micros(*us)),
                Step::Ask { spend_within, checks } => {
                    let check = |keys: &Vec<Question>| Check { keys: keys.iter().map(ask_of).collect() };
                    let checks: Vec<Check> = checks.iter().map(check).collect();
                    for (check, taken) in checks.iter().zip(self.ask(&checks, *spend_within)) {
                        let expected = model.decide(check, taken.at, *spend_within);
                        prop_assert_eq!(&taken.answer, &expected, "at {:?}: {:?}", taken.at, check);
                        charged.extend(charges(check, &taken.answer, *spend_within));
                        self.leased.lock().unwrap().extend(leases_of(&taken.answer));
                    }
                }
                Step::GiveBack { charge, tokens, id } => {
                    let Some(charge) = charged.iter().rev().nth(*charge) else { continue };
                    let back = KeyReturn { tokens: 1 + tokens % charge.tokens, id: *id, ..charge.clone() };
                    let (now, given) = self.give_back(&back);
                    prop_assert_eq!(given, model.give_back(&back, now), "at {:?}: {:?}", now, back);
                }
                Step::Record { key, list, spent, id } => {
                    let windows = windows(*key, *list);
                    let most = windows.iter().map(Window::capacity).max().unwrap();
                    let mut age_us = 0;
                    let slice = |(gap, tokens): &(u64, u32)| {
                        age_us += gap;
                        Slice { age_us, tokens: 1 + tokens % most }
                    };
                    let mut slices: Vec<Slice> = spent.iter().map(slice).collect();
                    slices.reverse();
                    let key = format!("case{case}:{{{key}}}");
                    let report = KeySpent { key, shards: 1, id: *id, slices, windows: windows.into() };
                    let (now, is_new) = self.record(&report);
                    let expected = model.record(&report, now);
                    prop_assert!(
                        expected.is_none_or(|expected| expected == is_new),
                        "at {now:?}: {report:?}"
                    );
                }
            }
        }
        Ok(())
    }
}

/// What `answer` says was charged, as what could be given back of it.
fn charges(check: &Check, answer: &CheckAnswer, spend_within: Duration) -> Vec<KeyReturn> {
    let CheckAnswer::Allowed { keys } = answer else { return Vec::new() };
    let keys = check.keys.iter().zip(keys).filter(|(key, _)| key.operation == Operation::Take);
    keys.flat_map(|(key, answer)| {
        let cost = Some((answer.granted, spend_within)).filter(|(granted, _)| *granted > 0);
        let lease = answer.lease.map(|lease| (lease.tokens, lease.life()));
        let charges = cost.into_iter().chain(lease);
        charges.map(|(tokens, lasts)| KeyReturn {
            key: key.key.clone(),
            shards: 1,
            shard: 0,
            tokens,
            dated_us: Timestamp::from_micros(answer.at_us).plus(lasts).as_micros(),
            id: 0,
            windows: key.windows.clone(),
        })
    })
    .collect()
}

fn leases_of(answer: &CheckAnswer) -> Vec<Lease> {
    let CheckAnswer::Allowed { keys } = answer else { return Vec::new() };
    keys.iter().filter_map(|key| key.lease).collect()
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, ..ProptestConfig::default() }
}

#[test]
fn the_script_answers_number_for_number_what_the_engine_answers() {
    agrees_with_the_engine(&Side::start(Redis::start().unwrap()));
}

#[test]
fn the_script_in_valkey_answers_number_for_number_what_the_engine_answers() {
    if let Some(valkey) = Redis::start_valkey().unwrap() {
        agrees_with_the_engine(&Side::start(valkey));
    }
}

fn agrees_with_the_engine(side: &Side) {
    let lists = prop::collection::vec(prop_oneof![windows(), roomy_windows()], KEYS);
    proptest!(config(128), |(steps in steps(), lists in lists)| {
        side.agrees(&steps, |key, _| lists[key].clone(), &mut Engine::default())?;
    });
    let (count, lives) = side.leased();
    assert!(count > 20 && lives.contains(&1000) && lives.contains(&10_000), "{count} leases of {lives:?} ms");
}

#[test]
fn the_script_answers_what_the_engine_answers_also_when_a_subject_holds_many_buckets() {
    let side = Side::start(Redis::start().unwrap());
    proptest!(config(24), |(steps in long_steps(), windows in long_windows())| {
        side.agrees(&steps, |_, _| windows.clone(), &mut Engine::default())?;
    });
    let (count, lives) = side.leased();
    assert!(count > 100, "{count} leases of {lives:?} ms");
}

#[test]
fn the_embedded_store_and_redis_agree_also_when_policies_differ() {
    let side = Side::start(Redis::start().unwrap());
    let lists = prop::collection::vec(prop::collection::vec(windows(), 2), KEYS);
    proptest!(config(128), |(steps in steps(), lists in lists)| {
        side.agrees(&steps, |key, list| lists[key][list].clone(), &mut Embedded::new())?;
    });
}

/// A moment and such a wait together are beyond 2^53, where a Lua number skips every other microsecond: a few rounds, for
/// half of the moments it would not be seen.
#[test]
fn the_script_tells_a_wait_of_centuries_to_the_microsecond() {
    let side = Side::start(Redis::start().unwrap());
    let ask = |cost| Step::Ask {
        spend_within: Duration::ZERO,
        checks: vec![vec![Question {
            key: 0,
            list: 0,
            operation: Operation::Take,
            cost,
            at_least: None,
            lease: None,
        }]],
    };
    let window = bucket(1, MAX_PER, 284);
    for _ in 0..16 {
        side.agrees(&[ask(283), ask(282)], |_, _| vec![window.clone()], &mut Engine::default()).unwrap();
    }
}
