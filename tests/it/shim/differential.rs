//! The script in Redis against the engine's own arithmetic: the same questions at the same moments, and every
//! number the same.
//!
//! The moments are Redis's own, which the script tells; the windows reach from a millisecond to a year, so that
//! within a test some run over many times and others meet the largest numbers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanekeeper_engine::counter::{Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::{MAX_EXACT, MAX_LIMIT, MAX_LOG_LIMIT, MAX_PER, Window};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, Operation};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::redis::{RedisStore, Taken};
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tokio::runtime::Runtime;

use crate::support::{HOUR, PATIENT, bucket, counter, fixed, log, sliding};

const KEYS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Pause { us: u64 },
    /// A batch is asked.
    Ask { spend_within: Duration, checks: Vec<Question> },
}

/// What is done, and for each key its number, which of the case's lists of windows it is asked for, and a number that
/// makes its cost.
type Question = (Operation, Vec<(usize, usize, u32)>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let spend_within = select(vec![0, 0, 1, 3, 20, 10_000]).prop_map(Duration::from_millis);
    let cost = prop_oneof![5 => 0..3u32, 1 => any::<u32>()];
    let question = subsequence((0..KEYS).collect::<Vec<_>>(), 1..=KEYS)
        .prop_flat_map(move |keys| {
            keys.into_iter().map(|key| (Just(key), 0..2usize, cost.clone())).collect::<Vec<_>>()
        })
        .prop_shuffle();
    let operation = prop_oneof![4 => Just(Operation::Take), 1 => Just(Operation::Peek)];
    let question = (operation, question);
    let ask = (spend_within, prop::collection::vec(question, 1..4))
        .prop_map(|(spend_within, checks)| Step::Ask { spend_within, checks });
    let pause = (0..4000u64).prop_map(|us| Step::Pause { us });
    prop::collection::vec(prop_oneof![1 => pause, 6 => ask], 1..40)
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let ms = Duration::from_millis;
    let most_tokens = u32::try_from(MAX_EXACT / 31_622_400_000_000).unwrap();
    let all = vec![
        sliding(1, ms(1)),
        sliding(3, ms(2)),
        sliding(7, ms(5)),
        sliding(20, ms(30)),
        sliding(5, HOUR),
        sliding(1000, HOUR),
        sliding(MAX_LIMIT, MAX_PER),
        log(1, ms(1)),
        log(9, ms(3)),
        log(40, ms(30)),
        log(15, HOUR),
        log(MAX_LOG_LIMIT, MAX_PER),
        counter(1, ms(1)),
        counter(9, ms(4)),
        counter(40, ms(25)),
        counter(1000, ms(60)),
        counter(5, HOUR),
        counter(284_836, MAX_PER),
        fixed(2, ms(1), 0),
        fixed(3, ms(2), 1),
        fixed(9, ms(17), -210),
        fixed(50, HOUR, 30),
        fixed(50, HOUR, 0),
        fixed(MAX_LIMIT, MAX_PER, 840),
        bucket(1, ms(1), 1),
        bucket(3, ms(1), 2),
        bucket(7, ms(3), 20),
        bucket(1000, ms(7), 5),
        bucket(100, HOUR, 9),
        bucket(MAX_LIMIT, ms(1), MAX_LIMIT),
        bucket(1, MAX_PER, most_tokens),
    ];
    let count = all.len();
    subsequence(all, 1..=6.min(count)).prop_shuffle()
}

/// A Redis, and a name for each case, so that none meets what another left.
struct Side {
    runtime: Runtime,
    store: RedisStore,
    cases: AtomicU64,
    _redis: Redis,
}

impl Side {
    fn start() -> Self {
        let (runtime, redis) = (Runtime::new().unwrap(), Redis::start().unwrap());
        let store = {
            let _runtime = runtime.enter();
            RedisStore::open(&redis.url(), PATIENT).unwrap()
        };
        runtime.block_on(async {
            while store.ready().await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Self { runtime, store, cases: AtomicU64::new(0), _redis: redis }
    }

    fn ask(&self, checks: &[Check], spend_within: Duration) -> Vec<Taken> {
        let taken = self.runtime.block_on(self.store.take_with_time(checks, spend_within));
        taken.into_iter().map(|taken| taken.expect("redis decides")).collect()
    }

    /// Runs one case against `model`, which answers a check at a moment.
    fn agrees(
        &self,
        steps: &[Step],
        windows: impl Fn(usize, usize) -> Vec<Window>,
        mut model: impl FnMut(&Check, Timestamp, Duration) -> CheckAnswer,
    ) -> Result<(), TestCaseError> {
        let case = self.cases.fetch_add(1, Ordering::Relaxed);
        for step in steps {
            let (spend_within, questions) = match step {
                Step::Pause { us } => {
                    std::thread::sleep(Duration::from_micros(*us));
                    continue;
                }
                Step::Ask { spend_within, checks } => (*spend_within, checks),
            };
            let key = |&(key, list, cost): &(usize, usize, u32)| {
                let windows = windows(key, list);
                let most = windows.iter().map(Window::capacity).min().unwrap();
                KeyCheck { key: format!("case{case}:{{{key}}}"), cost: 1 + cost % most, windows }
            };
            let checks: Vec<Check> = questions
                .iter()
                .map(|(operation, keys)| Check {
                    operation: *operation,
                    keys: keys.iter().map(key).collect(),
                })
                .collect();
            for (check, taken) in checks.iter().zip(self.ask(&checks, spend_within)) {
                prop_assert_eq!(
                    taken.answer,
                    model(check, taken.at, spend_within),
                    "at {:?}: {:?}",
                    taken.at,
                    check
                );
            }
        }
        Ok(())
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, ..ProptestConfig::default() }
}

#[test]
fn the_script_answers_number_for_number_what_the_engine_answers() {
    let side = Side::start();
    let lists = prop::collection::vec(windows(), KEYS);
    proptest!(config(128), |(steps in steps(), lists in lists)| {
        let mut counters: HashMap<String, SubjectCounters> = HashMap::new();
        side.agrees(&steps, |key, _| lists[key].clone(), |check, now, spend_within| {
            let mut borrowed: Vec<SubjectCounters> =
                check.keys.iter().map(|key| counters.remove(&key.key).unwrap_or_default()).collect();
            let mut charges: Vec<Charge<'_>> = check
                .keys
                .iter()
                .zip(&mut borrowed)
                .map(|(key, counters)| Charge { windows: &key.windows, cost: key.cost, counters })
                .collect();
            let decision = decide(check.operation, &mut charges, STORE_BUCKETS, now, spend_within);
            counters.extend(check.keys.iter().map(|key| key.key.clone()).zip(borrowed));
            decision.into()
        })?;
    });
}

#[test]
fn the_embedded_store_and_redis_agree_also_when_policies_differ() {
    let side = Side::start();
    let lists = prop::collection::vec(prop::collection::vec(windows(), 2), KEYS);
    proptest!(config(128), |(steps in steps(), lists in lists)| {
        let clock = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&clock);
        let embedded = MemoryStore::with_clock(move || Timestamp::from_micros(time.load(Ordering::Relaxed)));
        let runtime = Runtime::new().unwrap();
        side.agrees(&steps, |key, list| lists[key][list].clone(), |check, now, spend_within| {
            clock.store(now.as_micros(), Ordering::Relaxed);
            runtime.block_on(embedded.decide(std::slice::from_ref(check), spend_within)).remove(0)
        })?;
    });
}
