//! What is special to Redis: its script and keys.

use std::collections::BTreeMap;
use std::time::Duration;

use lanekeeper_engine::counter::{Ask, Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::lease::LeaseAsk;
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{MAX_PER, Window, Zone};
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyCheck, KeyReturn, Returned};
use lanekeeper_shim::redis::{RedisStore, Taken};
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;

use crate::hash::{Counted, Hash};
use crate::support::{
    HOUR, MINUTE, SECOND, batch, bucket, check, counter, fixed, left, log, ready_store, rejected,
    shim_on_redis, sliding, zoned,
};

async fn take_one(store: &RedisStore, key: &str, cost: u32, windows: &[Window], spend: Duration) -> Taken {
    store.take_with_time(&[check(&[(key, cost, windows)])], spend).await.remove(0).unwrap()
}

fn hash(redis: &Redis, key: &str) -> Hash {
    redis::cmd("HGETALL").arg(key).query(&mut redis.connect().unwrap()).unwrap()
}

fn run(redis: &Redis, words: &[&str]) -> redis::Value {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect().unwrap()).unwrap()
}

#[tokio::test]
async fn keeps_a_subject_in_one_hash_whose_fields_are_these() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [sliding(10, HOUR), bucket(30, MINUTE, 5), sliding(20, HOUR)];
    let at = take_one(&store, "limit:{u42}:per_user", 3, &windows, SECOND).await.at.as_micros();
    let dated = at + 1_000_000;
    let index = dated / 14_062_500;
    let idle_at = (index + 257) * 14_062_500;
    let fields = [
        ("t", at.to_string()),
        ("e", idle_at.div_ceil(1000).to_string()),
        ("s1h", format!("{index} 3")),
        ("b2000000/1", format!("6000000 {dated}")),
        ("s1h.1", format!("{index} 3")),
    ];
    let fields = fields.map(|(field, value)| (field.to_owned(), value));
    assert_eq!(hash(&redis, "limit:{u42}:per_user"), fields.into());
    assert_eq!(run(&redis, &["KEYS", "*"]), redis::Value::Array(vec![text("limit:{u42}:per_user")]));
}

#[tokio::test]
async fn names_a_zoned_window_by_its_zone_and_not_by_what_is_known_of_it() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    // clocks that one node takes to be a second ahead of where the other does, as after a law it has not heard of
    let (old, new) = (Zone::new("Test/Somewhere", 3600, &[]), Zone::new("Test/Somewhere", 3601, &[]));
    let year = |zone| [zoned(10, MAX_PER, zone)];
    take_one(&store, "k", 1, &year(old), Duration::ZERO).await;
    let names = |redis: &Redis| hash(redis, "k").into_keys().collect::<Vec<_>>();
    let known = names(&redis);
    assert!(known.contains(&"f366d@Test/Somewhere".to_owned()), "{known:?}");
    assert_eq!(left(&take_one(&store, "k", 2, &year(new), Duration::ZERO).await.answer), [[7]]);
    assert_eq!(names(&redis), known);
}

fn text(text: &str) -> redis::Value {
    redis::Value::BulkString(text.into())
}

/// When the hash expires, and when the model's counters say nothing any more, in ms.
fn expires_and_idle(redis: &Redis, key: &str, windows: &[Window], counters: &SubjectCounters) -> (i64, i64) {
    let expires: i64 = redis::cmd("PEXPIRETIME").arg(key).query(&mut redis.connect().unwrap()).unwrap();
    let idle_at = counters.idle_at(windows, STORE_BUCKETS).as_micros().div_ceil(1000);
    (expires, i64::try_from(idle_at).unwrap())
}

#[tokio::test]
async fn sets_every_hash_to_expire_when_its_windows_are_as_if_fresh() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let cases = [
        ("a", vec![sliding(10, HOUR)]),
        ("b", vec![bucket(7, HOUR, 9)]),
        ("c", vec![bucket(7, MINUTE, 9), sliding(10, MINUTE)]),
        ("d", vec![sliding(10, MINUTE), bucket(1, HOUR, 9)]),
        ("f", vec![log(10, HOUR), log(10, MINUTE)]),
        ("g", vec![counter(10, HOUR), counter(10, MINUTE)]),
        ("e", vec![fixed(10, HOUR, -210), sliding(10, MINUTE)]),
        ("h", vec![zoned(10, 24 * HOUR, Zone::named("Europe/Berlin").unwrap())]),
    ];
    // charges, two of them in advance, a look, and what is refused and charges nothing
    let lease = Some(LeaseAsk { tokens: 1, life_ms: 30_000, drift: 1_000_000, nodes: 1 });
    let (ahead, only_ahead) = (Ask { lease, ..Ask::take(2) }, Ask { lease, cost: 0, ..Ask::take(1) });
    let asks = [Ask::take(2), ahead, Ask::peek(1), Ask::take(2), only_ahead, Ask::take(7), Ask::peek(9)];
    for (key, windows) in cases {
        let mut counters = SubjectCounters::default();
        for ask in asks {
            let key_check = KeyCheck {
                operation: ask.operation,
                lease: ask.lease,
                ..KeyCheck::take(key, ask.cost, &windows[..])
            };
            let taken = store.take_with_time(&[Check { keys: vec![key_check] }], SECOND).await.remove(0);
            let charge = Charge { windows: &windows, ask, counters: &mut counters };
            let decision = decide(&mut [charge], STORE_BUCKETS, taken.unwrap().at, SECOND);
            assert_eq!(decision.allowed, ask.cost < 7, "{key}: {ask:?}");
            let (expires, idle) = expires_and_idle(&redis, key, &windows, &counters);
            assert_eq!(expires, idle, "{key}: {ask:?}");
        }
    }
}

#[tokio::test]
async fn answers_for_windows_that_pass_while_the_script_runs() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [counter(1, Duration::from_millis(1))];
    // so many that the last are charged when their windows have passed
    let names: Vec<String> = (0..1000).map(|at| format!("k{at}")).collect();
    let keys: Vec<_> = names.iter().map(|name| (name.as_str(), 1, &windows[..])).collect();
    let taken = store.take_with_time(&[check(&keys)], Duration::ZERO).await.remove(0).unwrap();
    let CheckAnswer::Allowed { keys } = taken.answer else { panic!("not allowed") };
    assert!(keys.iter().all(|key| (1..=2000).contains(&key.windows[0].reset_us)));
}

/// Three tokens of `k` that were charged at `at`, to be spent within a second.
fn three_back(at: Timestamp, windows: &[Window]) -> KeyReturn {
    let dated_us = at.plus(SECOND).as_micros();
    KeyReturn { key: "k".into(), shards: 1, shard: 0, tokens: 3, dated_us, id: 1, windows: windows.into() }
}

#[tokio::test]
async fn a_return_leaves_expiry_as_it_is() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [sliding(9, HOUR), log(9, MINUTE), bucket(9, HOUR, 9)];
    let at = take_one(&store, "k", 3, &windows, SECOND).await.at;
    let before = run(&redis, &["PEXPIRETIME", "k"]);
    assert_eq!(store.give_back(&[three_back(at, &windows)]).await, [Returned::Tokens(3)]);
    assert_eq!(run(&redis, &["PEXPIRETIME", "k"]), before, "its windows are fresh sooner than it goes");
}

#[tokio::test]
async fn does_not_let_a_short_window_shorten_the_life_of_a_long_one() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    take_one(&store, "k", 1, &[sliding(10, HOUR)], Duration::ZERO).await;
    let expires = run(&redis, &["PEXPIRETIME", "k"]);
    take_one(&store, "k", 1, &[sliding(10, SECOND)], Duration::ZERO).await;
    assert_eq!(run(&redis, &["PEXPIRETIME", "k"]), expires);
}

#[tokio::test]
async fn a_rejected_check_creates_no_key() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [sliding(1, HOUR)];
    take_one(&store, "full", 1, &windows, Duration::ZERO).await;
    let both = check(&[("new", 1, &windows), ("full", 1, &windows)]);
    rejected(&store.decide(&[both], Duration::ZERO).await[0]);
    assert_eq!(run(&redis, &["EXISTS", "new"]), redis::Value::Int(0));
}

#[tokio::test]
async fn forgets_the_buckets_that_have_passed() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [sliding(1_000_000, Duration::from_millis(2)), sliding(1_000_000, HOUR)];
    let mut last = Timestamp::default();
    for _ in 0..200 {
        last = take_one(&store, "k", 1, &windows, Duration::ZERO).await.at;
    }
    let (width, current) = (8, last.as_micros() / 8);
    assert!(last.as_micros() > width * 256, "the clock is the machine's");
    let counted = Counted::read(&hash(&redis, "k"), "s2ms");
    let live = counted.buckets.iter().filter(|(index, _)| *index + 256 >= current);
    assert_eq!(counted.total, live.map(|(_, count)| count).sum::<u64>(), "the sum is that of the buckets");
    let passed = counted.first_chunk.iter().filter(|(index, _)| *index + 256 < current).count();
    assert!(passed < counted.first_chunk.len().max(1), "a chunk goes when all of it has passed");
    assert!(counted.buckets.len() <= 257 + passed);
}

/// The entries of a log, by their numbers: date and requests.
fn log_entries(redis: &Redis, key: &str, name: &str) -> BTreeMap<u64, (u64, u32)> {
    let fields = hash(redis, key);
    let entry = |(field, value): (&String, &String)| {
        let number = field.strip_prefix(name)?.strip_prefix(':')?.parse().ok()?;
        let (date, count) = value.split_once(' ').expect("a date and a count");
        Some((number, (date.parse().unwrap(), count.parse().unwrap())))
    };
    fields.iter().filter_map(entry).collect()
}

#[tokio::test]
async fn forgets_the_entries_of_a_log_that_have_passed_however_many() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let (span, count) = (Duration::from_millis(500), 2500);
    let windows = [log(100_000, span), sliding(1_000_000, HOUR)];
    let checks = vec![check(&[("k", 1, &windows[..])]); count];
    let taken = store.take_with_time(&checks, SECOND).await;
    assert!(taken.iter().all(Result::is_ok));
    assert_eq!(log_entries(&redis, "k", "l500ms").len(), count, "none of them is a second and a half old");
    // Redis's own clock decides, so the time has to pass.
    tokio::time::sleep(SECOND + span).await;
    let last = take_one(&store, "k", 2, &windows, Duration::ZERO).await;
    let entries: Vec<_> = log_entries(&redis, "k", "l500ms").into_values().collect();
    assert_eq!(entries, [(last.at.as_micros(), 2)]);
    assert_eq!(left(&last.answer), [[99_998, 1_000_000 - 2502]]);
}

#[tokio::test]
async fn keeps_a_log_in_order_when_what_comes_later_is_dated_before_many() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [log(1000, HOUR)];
    let ahead = vec![check(&[("k", 1, &windows[..])]); 700];
    assert!(store.take_with_time(&ahead, MINUTE).await.iter().all(Result::is_ok));
    let at = take_one(&store, "k", 3, &windows, Duration::ZERO).await.at.as_micros();
    let entries: Vec<_> = log_entries(&redis, "k", "l1h").into_iter().collect();
    assert_eq!((entries.len(), entries[0]), (701, (0, (at, 3))));
    assert!(entries.iter().map(|(number, _)| *number).eq(0..701));
    assert!(entries.is_sorted_by_key(|(_, (date, _))| *date));
}

#[tokio::test]
async fn what_has_expired_is_not_made_again_by_a_return() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [sliding(9, HOUR), log(9, HOUR), bucket(9, HOUR, 9)];
    let at = take_one(&store, "k", 3, &windows, SECOND).await.at;
    run(&redis, &["DEL", "k"]);
    assert_eq!(store.give_back(&[three_back(at, &windows)]).await, [Returned::Tokens(0)]);
    assert_eq!(run(&redis, &["EXISTS", "k"]), redis::Value::Int(0));
}

#[tokio::test]
async fn time_does_not_run_backwards_for_a_subject() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    let windows = [sliding(3, MINUTE), bucket(3, MINUTE, 3)];
    let at = take_one(&store, "k", 1, &windows, Duration::ZERO).await.at;
    let mut counters = SubjectCounters::default();
    let model = |counters: &mut SubjectCounters, now| {
        let charge = Charge { windows: &windows, ask: Ask::take(1), counters };
        CheckAnswer::from(decide(&mut [charge], STORE_BUCKETS, now, Duration::ZERO))
    };
    model(&mut counters, at);
    // As after a failover from a server whose clock was half a minute ahead.
    let ahead = at.plus(MINUTE / 2);
    counters.seen = ahead;
    run(&redis, &["HSET", "k", "t", &ahead.as_micros().to_string()]);
    for _ in 0..3 {
        let taken = take_one(&store, "k", 1, &windows, Duration::ZERO).await;
        assert!(taken.at < ahead);
        assert_eq!(taken.answer, model(&mut counters, taken.at));
    }
    assert_eq!(hash(&redis, "k")["t"], ahead.as_micros().to_string());
}

#[tokio::test]
async fn a_rejection_is_a_moment_seen_too() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    take_one(&store, "k", 1, &[sliding(1, HOUR)], Duration::ZERO).await;
    let taken = take_one(&store, "k", 1, &[sliding(1, HOUR)], Duration::ZERO).await;
    rejected(&taken.answer);
    assert_eq!(hash(&redis, "k")["t"], taken.at.as_micros().to_string());
}

#[tokio::test]
async fn loads_the_script_again_and_charges_once_when_redis_has_lost_it() {
    let (shim, redis) = shim_on_redis().await;
    let ask = || check(&[("k:{a}", 1, &[sliding(10, HOUR)])]);
    assert_eq!(left(&shim.ask(ask()).await), [[9]], "a new server does not know it");
    run(&redis, &["SCRIPT", "FLUSH"]);
    let answers = shim.decide(&batch(0, vec![ask(), ask(), ask()])).await;
    assert_eq!(answers.iter().map(left).collect::<Vec<_>>(), [[[8]], [[7]], [[6]]]);
}

#[test]
fn says_what_is_wrong_with_an_address() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _runtime = runtime.enter();
    for url in ["", "http://127.0.0.1", "redis://"] {
        let error = RedisStore::open(url, Duration::from_micros(micros(SECOND))).err().unwrap().to_string();
        assert!(error.starts_with("not a Redis address: "), "{error}");
    }
}
