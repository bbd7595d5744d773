//! Whose clock decides, and what is said of one that is wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::{Calendar, Zone};
use lanekeeper_engine::wire::{Check, CheckAnswer, DECIDE_PATH, DecideResponse};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::shim_process::ShimProcess;
use reqwest::Client;

use crate::support::{
    HOUR, PATIENT, Shim, batch, check, every_algorithm, left, metric, rejected, shim_on_redis, zoned,
};

const LIMIT: u32 = 10;

/// A shim that is asked over HTTP, wherever it runs.
struct Caller {
    url: String,
    client: Client,
}

impl Caller {
    fn of(shim: &ShimProcess) -> Self {
        Self { url: format!("http://{}", shim.address()), client: Client::new() }
    }

    fn in_process(shim: &Shim) -> Self {
        Self { url: shim.url.clone(), client: shim.client.clone() }
    }

    async fn ask(&self, check: Check) -> CheckAnswer {
        let body = serde_json::to_vec(&batch(0, vec![check])).unwrap();
        let answer = self.client.post(format!("{}{DECIDE_PATH}", self.url)).body(body).send().await.unwrap();
        answer.json::<DecideResponse>().await.unwrap().answers.remove(0)
    }

    /// What the metrics say of the clock of `redis`: its offset, and by how much that may be wrong, in seconds.
    async fn clock_of(&self, redis: &Redis) -> (f64, f64) {
        let node = redis.url().replace("redis+unix://", "");
        let value = async |name| metric(&self.client, &self.url, &format!("{name}{{node=\"{node}\"}}")).await;
        let offset = value("lanekeeper_shim_redis_clock_offset_seconds").await;
        (offset, value("lanekeeper_shim_redis_clock_error_seconds").await)
    }
}

/// Holds a clock to be off by as many hours as it is, as exactly as it is said to be known. Redis tells whole
/// microseconds.
#[track_caller]
fn is_off_by_hours((offset, error): (f64, f64), hours: f64) {
    assert!((offset - hours * 3600.0).abs() <= error + 1e-6, "{offset} s, known to {error} s");
    assert!(error < 30.0, "{error} s tells nothing");
}

#[tokio::test]
async fn shows_how_far_the_clock_of_redis_is_from_its_own() {
    for (redis, hours) in [
        (Redis::start().unwrap(), 0.0),
        (Redis::start_shifted("+8h").unwrap(), 8.0),
        (Redis::start_shifted("-1h").unwrap(), -1.0),
    ] {
        let shim = Shim::start(App::new(RedisStore::open(&redis.url(), PATIENT).unwrap())).await;
        let caller = Caller::in_process(&shim);
        is_off_by_hours(caller.clock_of(&redis).await, hours);
    }
}

#[tokio::test]
async fn shows_nothing_of_the_clock_of_a_redis_that_is_away() {
    let (shim, mut redis) = shim_on_redis().await;
    let caller = Caller::in_process(&shim);
    caller.clock_of(&redis).await;
    redis.kill();
    let forgotten = async {
        while shim.get("/metrics").await.text().await.unwrap().contains("_clock_offset_seconds{") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENT, forgotten).await.expect("what is not known is not shown");
}

#[tokio::test]
async fn a_shim_eight_hours_behind_says_so_once() {
    let mut redis = Redis::start().unwrap();
    let shim = ShimProcess::start_shifted(&redis.url(), "-8h").unwrap();
    let caller = Caller::of(&shim);
    is_off_by_hours(caller.clock_of(&redis).await, 8.0);
    redis.start_again().unwrap();
    let down = async {
        while !shim.log().iter().any(|line| line.contains("cannot work with redis")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENT, down).await.expect("it notices");
    is_off_by_hours(caller.clock_of(&redis).await, 8.0);
    let warnings =
        shim.log().into_iter().filter(|line| line.contains("the clock of redis")).collect::<Vec<_>>();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("offset_seconds=28") && warnings[0].contains("redis.sock"), "{warnings:?}");
}

#[tokio::test]
async fn a_caller_or_a_redis_eight_hours_off_changes_no_decision() {
    for redis in [Redis::start().unwrap(), Redis::start_shifted("+8h").unwrap()] {
        let shims = [
            ShimProcess::start(&redis.url()).unwrap(),
            ShimProcess::start_shifted(&redis.url(), "+8h").unwrap(),
            ShimProcess::start_shifted(&redis.url(), "-8h").unwrap(),
        ];
        let callers = shims.each_ref().map(Caller::of);
        for (key, window) in every_algorithm(LIMIT) {
            let ask = || check(&[(key, 1, std::slice::from_ref(&window))]);
            let mut in_turn = callers.iter().cycle();
            for used in 1..=LIMIT {
                let answer = in_turn.next().unwrap().ask(ask()).await;
                assert_eq!(left(&answer), [[LIMIT - used]], "{key}");
            }
            let mut wait_us = u64::MAX;
            for caller in in_turn.take(6) {
                let answer = rejected(&caller.ask(ask()).await)[0][0];
                assert!(answer.wait_us < wait_us, "{key}: nobody's wait jumps");
                wait_us = answer.wait_us;
            }
        }
    }
}

#[tokio::test]
async fn a_caller_months_off_ends_the_day_of_a_zone_when_it_ends() {
    let redis = Redis::start().unwrap();
    let zone = Zone::named("America/New_York").unwrap();
    let (windows, calendar) = ([zoned(LIMIT, 24 * HOUR, zone)], Calendar::of(24 * HOUR, zone.into()));
    // half a year off, clocks there are an hour off as well
    for shift in ["+0d", "-183d", "+183d", "-600d", "+600d"] {
        let shim = ShimProcess::start_shifted(&redis.url(), shift).unwrap();
        let answer = Caller::of(&shim).ask(check(&[("k", 1, &windows)])).await;
        let CheckAnswer::Allowed { keys } = answer else { panic!("not allowed: {answer:?}") };
        let at = Timestamp::from_micros(keys[0].at_us);
        let ends = at.plus(Duration::from_micros(keys[0].windows[0].reset_us));
        assert_eq!(ends, calendar.begins(calendar.index(at) + 1), "{shift}");
    }
}

#[tokio::test]
async fn a_script_that_believes_its_callers_sells_the_limit_twice_and_locks_the_right_one_out() {
    let redis = Redis::start().unwrap();
    let mut connection = redis.connect().unwrap();
    let mut is_admitted = |now: Duration| {
        let mut command = redis::cmd("EVAL");
        command.arg(include_str!("caller_clock.lua")).arg(1).arg("k");
        command.arg(micros(now)).arg(micros(HOUR)).arg(LIMIT);
        command.query::<bool>(&mut connection).unwrap()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (right, ahead) = (now, now + 8 * HOUR);
    assert_eq!((0..20).filter(|_| is_admitted(right)).count(), 10, "alone it keeps the limit");
    assert_eq!((0..20).filter(|_| is_admitted(ahead)).count(), 10, "another ten, in the same moment");
    for hours in [0, 1, 4, 8] {
        assert!(!is_admitted(right + HOUR * hours), "{hours} hours later");
    }
}
