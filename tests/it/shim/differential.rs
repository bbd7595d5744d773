//! The script in Redis and in Valkey against the engine's own arithmetic: the same questions at the same moments, and every
//! number the same.
//!
//! The moments are Redis's own, which the script tells; the windows reach from a millisecond to a year, so that
//! within a test some run over many times and others meet the largest numbers.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lanekeeper_engine::counter::{Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::lease::{Lease, LeaseAsk};
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{Change, MAX_EXACT, MAX_LIMIT, MAX_LOG_LIMIT, MAX_PER, Window, Zone};
use lanekeeper_engine::wire::{
    Check, CheckAnswer, DecideRequest, KeyCheck, KeyReturn, KeySpent, MAX_SLICES, Operation, Recorded,
    Returned, Slice,
};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::redis::{RedisStore, Taken};
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tokio::runtime::Runtime;

use crate::support::{HOUR, SECOND, bucket, counter, fixed, log, ready_store, sliding, zoned};

const KEYS: usize = 4;
const MAX_LIFE_MS: u32 = 120_000;

#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Pause { us: u64 },
    /// A batch is asked.
    Ask { spend_within: Duration, checks: Vec<Vec<Question>> },
    /// So many tokens of an earlier charge go back: the last, or so many before it. Few numbers for many returns, so
    /// that some come twice.
    GiveBack { charge: usize, tokens: u32, id: u64 },
    /// So much was spent without asking, each slice so long before the next and the last so long ago. Few numbers here
    /// too.
    Record { key: usize, list: usize, spent: Vec<(u64, u32)>, id: u64 },
}

/// One key of a check.
#[derive(Clone, Debug)]
struct Question {
    key: usize,
    /// Which of the case's lists of windows it is asked for.
    list: usize,
    operation: Operation,
    /// A number that makes its cost, and perhaps one that makes what would do.
    cost: u32,
    at_least: Option<u32>,
    /// What it asks for in advance if it takes; of those the ones with the smallest costs cost nothing.
    lease: Option<LeaseAsk>,
}

fn leases() -> impl Strategy<Value = Option<LeaseAsk>> {
    let tokens = prop_oneof![4 => 1..6u32, 2 => 1..2000u32, 1 => 1..=MAX_LIMIT, 1 => Just(MAX_LIMIT)];
    let life_ms = prop_oneof![1 => 1..200u32, 3 => 1..=MAX_LIFE_MS, 1 => Just(MAX_LIFE_MS)];
    let drift = prop_oneof![1 => Just(1), 2 => Just(10_000), 2 => 1..=1_000_000u32, 2 => Just(1_000_000)];
    let nodes = prop_oneof![3 => Just(1), 2 => 1..20u32, 1 => 1..=u32::MAX];
    let ask = (tokens, life_ms, drift, nodes).prop_map(|(tokens, life_ms, drift, nodes)| LeaseAsk {
        tokens,
        life_ms,
        drift,
        nodes,
    });
    prop_oneof![1 => Just(None), 1 => ask.prop_map(Some)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let spend_within = select(vec![0, 0, 1, 3, 20, 10_000]).prop_map(Duration::from_millis);
    let cost = || prop_oneof![5 => 0..3u32, 1 => any::<u32>()];
    let operation = || prop_oneof![6 => Just(Operation::Take), 1 => Just(Operation::Peek)];
    let at_least = || prop_oneof![2 => Just(None), 1 => any::<u32>().prop_map(Some)];
    let check = subsequence((0..KEYS).collect::<Vec<_>>(), 1..=KEYS)
        .prop_flat_map(move |keys| {
            let question = |key| {
                (Just(key), 0..2usize, operation(), cost(), at_least(), leases()).prop_map(
                    |(key, list, operation, cost, at_least, lease)| Question {
                        key,
                        list,
                        operation,
                        cost,
                        at_least,
                        lease,
                    },
                )
            };
            keys.into_iter().map(question).collect::<Vec<_>>()
        })
        .prop_shuffle();
    let ask = (spend_within, prop::collection::vec(check, 1..4))
        .prop_map(|(spend_within, checks)| Step::Ask { spend_within, checks });
    let pause = (0..4000u64).prop_map(|us| Step::Pause { us });
    let give_back = (0..6usize, prop_oneof![2 => 1..4u32, 1 => any::<u32>()], 1..30u64)
        .prop_map(|(charge, tokens, id)| Step::GiveBack { charge, tokens, id });
    let gap =
        prop_oneof![3 => 0..3_000u64, 3 => 0..100_000u64, 1 => 0..20_000_000_000u64, 1 => 0..MAX_EXACT / 16];
    let record = records(gap.boxed(), 0..KEYS, prop_oneof![4 => 0..4u32, 1 => any::<u32>()].boxed(), 30..50);
    prop::collection::vec(prop_oneof![1 => pause, 6 => ask, 2 => give_back, 2 => record], 1..40)
}

/// Reports of `keys` in slices that are so far apart and hold so many tokens, under such numbers.
fn records(
    gap: BoxedStrategy<u64>,
    keys: std::ops::Range<usize>,
    tokens: BoxedStrategy<u32>,
    ids: std::ops::Range<u64>,
) -> impl Strategy<Value = Step> {
    let spent = prop::collection::vec((gap, tokens), 1..=MAX_SLICES);
    (keys, 0..2usize, spent, ids).prop_map(|(key, list, spent, id)| Step::Record { key, list, spent, id })
}

/// One subject asked so often, and with dates so far apart, that it holds many buckets and they are read again.
fn long_steps() -> impl Strategy<Value = Vec<Step>> {
    let spend_within = select(vec![0, 0, 0, 1, 3, 20, 90]).prop_map(Duration::from_millis);
    let ask = (spend_within, 0..3u32, leases()).prop_map(|(spend_within, cost, lease)| {
        // so few, and for so short, that they do not fill the windows for the rest of the case
        let lease = lease.map(|lease| LeaseAsk {
            tokens: 1 + lease.tokens % 3,
            life_ms: 50 + lease.life_ms % 250,
            drift: 1_000_000,
            nodes: 1,
        });
        let question = Question { key: 0, list: 0, operation: Operation::Take, cost, at_least: None, lease };
        Step::Ask { spend_within, checks: vec![vec![question]] }
    });
    let pause = prop_oneof![6 => 0..300u64, 1 => 0..30_000u64].prop_map(|us| Step::Pause { us });
    let give_back = (0..60usize, 0..2u32, any::<u64>()).prop_map(|(charge, tokens, id)| Step::GiveBack {
        charge,
        tokens,
        id,
    });
    // far enough back that they come before buckets and entries that are there, and not so many that nothing is left
    let gap = prop_oneof![0..5_000u64, 0..60_000u64].boxed();
    let record = records(gap, 0..1, (0..2u32).boxed(), 0..u64::MAX);
    let steps = prop_oneof![30 => pause, 120 => ask, 60 => give_back, 4 => record];
    prop::collection::vec(steps, 300)
}

fn long_windows() -> impl Strategy<Value = Vec<Window>> {
    let ms = Duration::from_millis;
    let all = vec![
        sliding(60, ms(5)),
        sliding(200, ms(40)),
        sliding(1000, ms(120)),
        sliding(MAX_LIMIT, ms(900)),
        counter(1000, ms(10)),
        fixed(1000, ms(3), 0),
        log(200, ms(60)),
    ];
    subsequence(all, 1..=3).prop_shuffle()
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
        zoned(50, HOUR, zone("Australia/Lord_Howe")),
        zoned(5, 2 * HOUR, zone("Africa/Casablanca")),
        zoned(9, 24 * HOUR, zone("America/St_Johns")),
        zoned(MAX_LIMIT, MAX_PER, zone("Pacific/Auckland")),
        bucket(1, ms(1), 1),
        bucket(3, ms(1), 2),
        bucket(7, ms(3), 20),
        bucket(1000, ms(7), 5),
        bucket(100, HOUR, 9),
        bucket(MAX_LIMIT, ms(1), MAX_LIMIT),
        bucket(1, MAX_PER, most_tokens),
    ];
    let spans = vec![
        (3, ms(2)),
        (9, ms(17)),
        (40, Duration::from_secs(7)),
        (9, HOUR),
        (7, 2 * HOUR),
        (30, 24 * HOUR),
        (1000, MAX_PER),
    ];
    let restless = subsequence(spans, 0..=3).prop_map(|spans| {
        spans.into_iter().map(|(limit, per)| zoned(limit, per, restless(per))).collect::<Vec<_>>()
    });
    (subsequence(all, 1..=6), restless).prop_map(|(all, restless)| [all, restless].concat()).prop_shuffle()
}

/// Windows of which a lease is worth something.
fn roomy_windows() -> impl Strategy<Value = Vec<Window>> {
    let all = vec![
        sliding(6000, 60 * SECOND),
        sliding(200_000, HOUR),
        sliding(MAX_LIMIT, MAX_PER),
        log(500, HOUR),
        log(MAX_LOG_LIMIT, MAX_PER),
        counter(6000, 60 * SECOND),
        counter(284_836, MAX_PER),
        fixed(6000, 60 * SECOND, 0),
        fixed(MAX_LIMIT, MAX_PER, 840),
        zoned(6000, HOUR, zone("Australia/Lord_Howe")),
        bucket(100, SECOND, 6000),
        bucket(MAX_LIMIT, HOUR, MAX_LIMIT),
    ];
    subsequence(all, 1..=2).prop_shuffle()
}

fn zone(name: &str) -> Zone {
    Zone::named(name).unwrap()
}

/// A place where a window of `per` begins just about now, and whose clocks are put forward and back across that
/// moment while a case runs.
fn restless(per: Duration) -> Zone {
    let now = micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    // No clocks are further ahead than this, so a window of a year begins when it does.
    let until_next = micros(per) - now % micros(per);
    let ahead_s = i32::try_from(until_next.min(25 * 3_600_000_000) / 1_000_000).unwrap();
    let changes = [(3, 1), (8, -3600), (14, 1), (19, -1), (30, 1800), (55, -7), (90, 1)];
    let changes = changes.map(|(ms, by_s)| Change {
        from: Timestamp::from_micros(now + ms * 1000 + 1),
        ahead_s: ahead_s + by_s,
    });
    Zone::new("Test/Restless", ahead_s, changes.to_vec().leak())
}

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

/// What the script is held to.
trait Model {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer;
    fn give_back(&mut self, back: &KeyReturn, now: Timestamp) -> u32;
    /// Whether the report is new, if it tells.
    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Option<bool>;
}

/// The engine's counters, by their keys.
#[derive(Default)]
struct Engine(HashMap<String, SubjectCounters>);

impl Model for Engine {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer {
        let mut borrowed: Vec<SubjectCounters> =
            check.keys.iter().map(|key| self.0.remove(&key.key).unwrap_or_default()).collect();
        let mut charges: Vec<Charge<'_>> = check
            .keys
            .iter()
            .zip(&mut borrowed)
            .map(|(key, counters)| Charge { windows: &key.windows, ask: key.ask(), counters })
            .collect();
        let decision = decide(&mut charges, STORE_BUCKETS, now, spend_within);
        self.0.extend(check.keys.iter().map(|key| key.key.clone()).zip(borrowed));
        decision.into()
    }

    fn give_back(&mut self, back: &KeyReturn, now: Timestamp) -> u32 {
        let counters = self.0.get_mut(&back.key).unwrap();
        counters.settle(&back.windows, STORE_BUCKETS, now);
        let dated = Timestamp::from_micros(back.dated_us);
        counters.give_back(&back.windows, STORE_BUCKETS, back.tokens, dated, Some(back.id))
    }

    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Option<bool> {
        let counters = self.0.entry(report.key.clone()).or_default();
        Some(counters.record(&report.windows, STORE_BUCKETS, &report.slices, report.id, now))
    }
}

/// The embedded store, on a clock that is told.
struct Embedded {
    store: MemoryStore,
    clock: Arc<AtomicU64>,
    runtime: Runtime,
}

impl Embedded {
    fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&clock);
        let now = move || Timestamp::from_micros(time.load(Ordering::Relaxed));
        Self { store: MemoryStore::with_clock(now), clock, runtime: Runtime::new().unwrap() }
    }
}

impl Model for Embedded {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
        self.runtime.block_on(self.store.decide(std::slice::from_ref(check), spend_within)).remove(0)
    }

    fn give_back(&mut self, back: &KeyReturn, now: Timestamp) -> u32 {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
        match self.runtime.block_on(self.store.give_back(std::slice::from_ref(back))).remove(0) {
            Returned::Tokens(tokens) => tokens,
            Returned::Failed(error) => panic!("{error}"),
        }
    }

    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Option<bool> {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
        let recorded = self.runtime.block_on(self.store.record(std::slice::from_ref(report)));
        assert_eq!(recorded, [Recorded::Recorded]);
        None
    }
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
