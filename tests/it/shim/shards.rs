//! Hot keys, spread over several store keys: exactly the limit, nothing stranded, and no key that does all the work.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{
    Check, CheckAnswer, KeyCheck, KeyReturn, KeySpent, Recorded, Returned, StoreError,
};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::shards::Sharded;
use lanekeeper_shim::store::{Answering, NotReady, Store};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use tokio::task::JoinSet;

use crate::support::{
    HOUR, MINUTE, SECOND, allowed, bucket, check, counter, fixed, log, rejected, sliding, store_at,
};

fn spread(key: &str, shards: u16, cost: u32, windows: &[Window]) -> KeyCheck {
    KeyCheck { shards, ..KeyCheck::take(key, cost, windows) }
}

fn one(key: KeyCheck) -> [Check; 1] {
    [Check { keys: vec![key] }]
}

async fn ask(store: &dyn Store, key: KeyCheck) -> CheckAnswer {
    store.decide(&one(key), Duration::ZERO).await.remove(0)
}

async fn sharded_at(url: &str) -> Sharded {
    Sharded::new(store_at(url).await)
}

/// An embedded store that counts what it is asked, and for which no time passes.
#[derive(Clone)]
struct Watched {
    store: Arc<MemoryStore>,
    asked: Arc<AtomicUsize>,
}

impl Watched {
    fn new() -> Self {
        let now = || Timestamp::from_micros(1_700_000_000_000_000);
        Self { store: Arc::new(MemoryStore::with_clock(now)), asked: Arc::default() }
    }

    /// How many checks it was asked since the last time.
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Store for Watched {
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        self.asked.fetch_add(checks.len(), Ordering::Relaxed);
        self.store.decide(checks, spend_within)
    }

    fn record<'a>(&'a self, reports: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        self.store.record(reports)
    }

    fn give_back<'a>(&'a self, returns: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        self.store.give_back(returns)
    }

    fn reset<'a>(&'a self, keys: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        self.store.reset(keys)
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        self.store.ready()
    }
}

/// A thousand callers at once at a limit of a hundred, through several shims.
async fn admits_exactly_the_limit(shims: Vec<Sharded>) {
    let shims: Vec<Arc<Sharded>> = shims.into_iter().map(Arc::new).collect();
    for (round, shards) in [2, 7, 16, 100].into_iter().enumerate() {
        let mut callers = JoinSet::new();
        for caller in 0..1000 {
            let store = Arc::clone(&shims[caller % shims.len()]);
            let key = spread(&format!("round{round}:{{global}}"), shards, 1, &[sliding(100, HOUR)]);
            callers.spawn(async move { ask(store.as_ref(), key).await });
        }
        let answers = callers.join_all().await;
        let admitted = answers.iter().filter(|answer| matches!(answer, CheckAnswer::Allowed { .. })).count();
        assert_eq!(admitted, 100, "with {shards} shards");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admits_exactly_the_limit_to_a_thousand_callers_on_the_embedded_store() {
    let store = Watched::new();
    admits_exactly_the_limit(vec![Sharded::new(store.clone()), Sharded::new(store)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admits_exactly_the_limit_to_a_thousand_callers_on_redis() {
    let redis = Redis::start().unwrap();
    let shims = vec![sharded_at(&redis.url()).await, sharded_at(&redis.url()).await];
    admits_exactly_the_limit(shims).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admits_exactly_the_limit_to_a_thousand_callers_on_a_cluster() {
    let cluster = Cluster::start().unwrap();
    let shims = vec![sharded_at(&cluster.url()).await, sharded_at(&cluster.url()).await];
    admits_exactly_the_limit(shims).await;
}

#[tokio::test]
async fn strands_nothing_by_any_algorithm() {
    for window in
        [sliding(50, HOUR), log(50, HOUR), counter(50, HOUR), fixed(50, HOUR, 0), bucket(50, HOUR, 50)]
    {
        let store = Sharded::new(Watched::new());
        let key = || spread("k:{global}", 16, 1, std::slice::from_ref(&window));
        for _ in 0..50 {
            allowed(&ask(&store, key()).await);
        }
        let refused = rejected(&ask(&store, key()).await);
        assert_eq!(refused[0][0].remaining, 0, "{window:?}");
        assert!(refused[0][0].wait_us > 0);
    }
}

#[tokio::test]
async fn a_cost_finds_the_shard_that_has_room_for_it() {
    let store = Sharded::new(Watched::new());
    let key = |cost| spread("k:{global}", 4, cost, &[sliding(40, HOUR)]);
    for _ in 0..8 {
        allowed(&ask(&store, key(4)).await);
    }
    // Two are left in each shard: four do not fit, two do, four times.
    let refused = rejected(&ask(&store, key(4)).await);
    assert_eq!(refused[0][0].remaining, 8, "all shards together");
    for _ in 0..4 {
        allowed(&ask(&store, key(2)).await);
    }
    rejected(&ask(&store, key(1)).await);
}

#[tokio::test]
async fn one_over_the_limit_costs_one_question_and_one_under_it_mostly_one() {
    let watched = Watched::new();
    let store = Sharded::new(watched.clone());
    let key = || spread("k:{global}", 16, 1, &[sliding(1600, HOUR)]);
    for _ in 0..1600 {
        allowed(&ask(&store, key()).await);
    }
    assert_eq!(watched.asked(), 1600, "evenly spread, no shard is full before the others");
    rejected(&ask(&store, key()).await);
    assert!(watched.asked() <= 16, "what each shard has was known");
    for _ in 0..100 {
        rejected(&ask(&store, key()).await);
    }
    assert_eq!(watched.asked(), 100);
}

#[tokio::test]
async fn does_not_look_around_where_another_key_rejects_as_well() {
    let watched = Watched::new();
    let store = Sharded::new(watched.clone());
    let both = || {
        let mut check = check(&[("u:{u42}", 1, &[sliding(1, HOUR)])]);
        check.keys.push(spread("k:{global}", 8, 1, &[sliding(8, HOUR)]));
        [check]
    };
    allowed(&store.decide(&both(), Duration::ZERO).await[0]);
    watched.asked();
    for _ in 0..8 {
        rejected(&store.decide(&both(), Duration::ZERO).await[0]);
    }
    assert_eq!(watched.asked(), 8);
    // None of that was charged.
    for _ in 0..7 {
        allowed(&ask(&store, spread("k:{global}", 8, 1, &[sliding(8, HOUR)])).await);
    }
    rejected(&ask(&store, spread("k:{global}", 8, 1, &[sliding(8, HOUR)])).await);
}

#[tokio::test]
async fn gives_back_to_the_shard_that_was_charged() {
    let store = Sharded::new(Watched::new());
    let windows = [sliding(8, HOUR)];
    let key = || spread("k:{global}", 8, 1, &windows);
    let mut charged = Vec::new();
    for _ in 0..8 {
        let answer = store.decide(&one(key()), SECOND).await.remove(0);
        let CheckAnswer::Allowed { keys } = answer else { panic!("{answer:?}") };
        charged.push((keys[0].shard, keys[0].at_us));
    }
    charged.sort_unstable();
    assert!(charged.iter().map(|(shard, _)| *shard).eq(0..8), "{charged:?}");
    let (shard, at_us) = charged[5];
    let back = KeyReturn {
        key: "k:{global}".into(),
        shards: 8,
        shard,
        tokens: 1,
        dated_us: at_us + 1_000_000,
        id: 1,
        windows: windows.clone().into(),
    };
    assert_eq!(store.give_back(std::slice::from_ref(&back)).await, [Returned::Tokens(1)]);
    let answer = ask(&store, key()).await;
    let CheckAnswer::Allowed { keys } = answer else { panic!("{answer:?}") };
    assert_eq!(keys[0].shard, 5);
    rejected(&ask(&store, key()).await);
}

#[tokio::test]
async fn a_policy_that_changes_a_limit_is_heard_at_once() {
    let store = Sharded::new(Watched::new());
    allowed(&ask(&store, spread("k:{global}", 2, 1, &[fixed(2, 24 * HOUR, 0)])).await);
    allowed(&ask(&store, spread("k:{global}", 2, 1, &[fixed(2, 24 * HOUR, 0)])).await);
    rejected(&ask(&store, spread("k:{global}", 2, 1, &[fixed(2, 24 * HOUR, 0)])).await);
    allowed(&ask(&store, spread("k:{global}", 2, 1, &[fixed(4, 24 * HOUR, 0)])).await);
}

/// What MONITOR shows: for each command the keys that it names.
fn keys_of_commands(redis: &Redis, lines: usize, during: impl FnOnce()) -> Vec<Vec<String>> {
    let mut monitor = UnixStream::connect(redis.url().trim_start_matches("redis+unix://")).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut reader = BufReader::new(monitor);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "+OK\r\n");
    let read = std::thread::spawn(move || {
        let mut commands = Vec::with_capacity(lines);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 0 && !line.contains("\"the-end\"") {
            let words = line.split('"').skip(1).step_by(2);
            commands.push(words.filter(|word| word.contains('{')).map(str::to_owned).collect());
            line.clear();
        }
        commands
    });
    during();
    redis::cmd("ECHO").arg("the-end").exec(&mut redis.connect().unwrap()).unwrap();
    read.join().unwrap()
}

#[test]
fn no_store_key_gets_more_than_a_tenth_of_the_commands() {
    let redis = Redis::start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(sharded_at(&redis.url()));
    let windows = [sliding(6000, MINUTE), sliding(200_000, HOUR)];
    let global = [sliding(1_000_000, MINUTE)];
    // A fixed generator: four of five requests come from a thousand users, the others from a hundred thousand.
    let mut state = 42u64;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let batches: Vec<Vec<Check>> = (0..200)
        .map(|_| {
            let user = |_| match draw(5) {
                0 => 1000 + draw(100_000),
                _ => draw(1000),
            };
            let users: Vec<u64> = (0..64).map(user).collect();
            let check = |user: u64| {
                let mut check = check(&[(&format!("load:{{u{user}}}:user"), 1, &windows[..])]);
                check.keys.push(spread("load:{global}:all", 16, 1, &global));
                check
            };
            users.into_iter().map(check).collect()
        })
        .collect();
    let commands = keys_of_commands(&redis, 200 * 64 * 10, || {
        runtime.block_on(async {
            for batch in &batches {
                store.decide(batch, Duration::ZERO).await.iter().for_each(|answer| {
                    allowed(answer);
                });
            }
        });
    });
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    for key in commands.iter().flatten() {
        *of_key.entry(key).or_default() += 1;
    }
    let (most, count) = of_key.iter().max_by_key(|(_, count)| **count).unwrap();
    let share = *count as f64 / commands.len() as f64;
    println!("{} commands, {} keys; {most} has {:.1} % of them", commands.len(), of_key.len(), share * 100.0);
    assert!(commands.len() > 200 * 64 * 2, "MONITOR was read");
    assert!(of_key.len() > 1000);
    assert!(share < 0.1, "{most} has {share}");
}

/// At twice the limit for six windows: how many are admitted.
async fn admitted_at_twice_the_limit(shards: u16) -> usize {
    let start = tokio::time::Instant::now();
    let now = move || Timestamp::from_micros(1_700_000_000_000_000).plus(start.elapsed());
    let store = Sharded::new(MemoryStore::with_clock(now));
    let mut admitted = 0;
    for _ in 0..12_000 {
        tokio::time::advance(Duration::from_millis(5)).await;
        let answer = ask(&store, spread("k:{global}", shards, 1, &[sliding(1000, 10 * SECOND)])).await;
        admitted += usize::from(matches!(answer, CheckAnswer::Allowed { .. }));
    }
    admitted
}

#[tokio::test(start_paused = true)]
async fn strands_less_than_a_hundredth_while_demand_is_twice_the_limit() {
    let whole = admitted_at_twice_the_limit(1).await;
    assert!(whole > 5900, "{whole}");
    for shards in [4, 16, 64] {
        let spread = admitted_at_twice_the_limit(shards).await;
        println!("{shards} shards admit {spread}, one key {whole}");
        assert!(spread * 100 >= whole * 99, "{shards} shards admit {spread}, one key {whole}");
    }
}
