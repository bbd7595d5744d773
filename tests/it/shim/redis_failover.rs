//! A replica whose clock is wrong becomes the master.

use std::time::Duration;

use lanekeeper_engine::counter::{Ask, Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::CheckAnswer;
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::{RedisStore, Taken};
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::sentinel::{Setup, Watched};

use crate::support::{
    HOUR, MINUTE, PATIENT, Shim, check, every_algorithm, left, rejected, sliding, until_ready,
};

const LIMIT: u32 = 10;

fn run<T: redis::FromRedisValue>(redis: &Redis, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query(&mut redis.connect().unwrap()).unwrap()
}

async fn take_one(store: &RedisStore, key: &str, window: &Window) -> Taken {
    let check = check(&[(key, 1, std::slice::from_ref(window))]);
    store.take_with_time(&[check], Duration::ZERO).await.remove(0).unwrap()
}

/// A subject of the engine's, which is asked what the store is asked.
struct Model<'a> {
    window: &'a Window,
    counters: SubjectCounters,
}

impl Model<'_> {
    fn take(&mut self, now: Timestamp) -> CheckAnswer {
        let windows = std::slice::from_ref(self.window);
        let charge = Charge { windows, ask: Ask::take(1), counters: &mut self.counters };
        decide(&mut [charge], STORE_BUCKETS, now, Duration::ZERO).into()
    }
}

#[tokio::test]
async fn a_master_an_hour_behind_holds_time_still_for_those_it_took_over() {
    let mut watched = Watched::start_as(&Setup { replica_clock: Some("-1h"), ..Setup::default() }).unwrap();
    let store = RedisStore::open(&watched.url(), PATIENT).unwrap();
    until_ready(&store).await;
    let windows = every_algorithm(LIMIT);
    let mut subjects = Vec::new();
    for (key, window) in &windows {
        let mut model = Model { window, counters: SubjectCounters::default() };
        let mut seen = Timestamp::default();
        for _ in 0..6 {
            let Taken { at, answer } = take_one(&store, key, window).await;
            assert_eq!(answer, model.take(at));
            seen = at;
        }
        subjects.push((key, model, seen));
    }
    watched.settle().unwrap();
    watched.servers[0].kill();
    until_ready(&store).await;
    for (key, mut model, seen) in subjects {
        for used in 7..=LIMIT + 3 {
            let Taken { at, answer } = take_one(&store, key, model.window).await;
            assert!(at.plus(59 * MINUTE) < seen, "the new master's clock is behind");
            if used <= LIMIT {
                assert_eq!(left(&answer), [[LIMIT - used]], "{key}");
            } else {
                let wait = Duration::from_micros(rejected(&answer)[0][0].wait_us);
                assert!(wait > 59 * MINUTE, "{key}: the hour has to be waited for as well");
            }
            assert_eq!(answer, model.take(at), "{key}: as if no time had passed");
        }
        let stored: u64 = run(&watched.servers[1], &["HGET", key, "t"]);
        assert_eq!(stored, seen.as_micros(), "{key}: its time stands still");
        let idle = model.counters.idle_at(std::slice::from_ref(model.window), STORE_BUCKETS);
        let expires: u64 = run(&watched.servers[1], &["PEXPIRETIME", key]);
        assert_eq!(expires, idle.as_micros().div_ceil(1000), "{key}: it is kept for as long as it counts");
    }
    // Whom it does not know yet it counts by its own clock.
    let window = sliding(LIMIT, HOUR);
    let (first, last) = (take_one(&store, "new", &window).await, take_one(&store, "new", &window).await);
    assert_eq!((left(&first.answer), left(&last.answer)), (vec![vec![9]], vec![vec![8]]));
    assert_eq!(run::<u64>(&watched.servers[1], &["HGET", "new", "t"]), last.at.as_micros());
}

#[tokio::test]
async fn a_master_an_hour_ahead_lets_windows_pass_early_and_was_seen_before() {
    let mut watched = Watched::start_as(&Setup { replica_clock: Some("+1h"), ..Setup::default() }).unwrap();
    let shim = Shim::start(App::new(RedisStore::open(&watched.url(), PATIENT).unwrap())).await;
    shim.until_ready().await;
    let replica = watched.addresses[1];
    let offset =
        shim.metric(&format!("lanekeeper_shim_redis_clock_offset_seconds{{node=\"{replica}\"}}")).await;
    let error =
        shim.metric(&format!("lanekeeper_shim_redis_clock_error_seconds{{node=\"{replica}\"}}")).await;
    assert!((offset - 3600.0).abs() <= error + 1e-6, "{offset} s, known to {error} s");

    let short = || check(&[("short:{a}", LIMIT, &[sliding(LIMIT, HOUR / 2)])]);
    let long = || check(&[("long:{a}", LIMIT, &[sliding(LIMIT, HOUR * 2)])]);
    for check in [short(), long()] {
        assert_eq!(left(&shim.ask(check).await), [[0]]);
    }
    let wait_us = rejected(&shim.ask(long()).await)[0][0].wait_us;
    watched.settle().unwrap();
    watched.servers[0].kill();
    shim.until_ready().await;
    assert_eq!(left(&shim.ask(short()).await), [[0]], "its window was over at once");
    let waits_now = rejected(&shim.ask(long()).await)[0][0].wait_us;
    assert!(Duration::from_micros(wait_us - waits_now) > HOUR, "an hour of this one, no more");
    assert!(Duration::from_micros(waits_now) > 58 * MINUTE);
}
