//! A Redis that is away, hangs, comes late, or lets everybody in and does no work.

use std::time::{Duration, Instant};

use lanekeeper_engine::wire::{CheckAnswer, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;

use crate::support::{HOUR, PATIENT, Shim, allowed, batch, check, left, shim_on_redis, sliding};

#[tokio::test]
async fn fails_at_once_while_redis_is_away_and_works_when_it_is_back() {
    let (shim, mut redis) = shim_on_redis().await;
    let ask = || check(&[("k:{a}", 1, &[sliding(10, HOUR)])]);
    allowed(&shim.ask(ask()).await);
    redis.kill();
    // The store's patience is longer than the test's: only an answer that does not wait for it comes in time.
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENT / 2, shim.ask(ask())).await.expect("an answer at once");
        assert_eq!(answer, CheckAnswer::Failed { error: StoreError::Unreachable });
    }
    assert_eq!(shim.get("/readyz").await.status(), 503);
    assert_eq!(shim.get("/healthz").await.status(), 200);
    redis.start_again().unwrap();
    shim.until_ready().await;
    assert_eq!(left(&shim.ask(ask()).await), [[9]]);
}

#[tokio::test]
async fn starts_before_its_redis_does() {
    let mut redis = Redis::start().unwrap();
    redis.kill();
    let shim = Shim::start(App::new(RedisStore::open(&redis.url(), PATIENT).unwrap())).await;
    let ask = || check(&[("k:{a}", 1, &[sliding(10, HOUR)])]);
    assert_eq!(shim.get("/readyz").await.status(), 503);
    assert_eq!(shim.ask(ask()).await, CheckAnswer::Failed { error: StoreError::Unreachable });
    redis.start_again().unwrap();
    shim.until_ready().await;
    allowed(&shim.ask(ask()).await);
}

#[tokio::test]
async fn gives_up_on_a_redis_that_hangs_and_goes_on_with_it_afterwards() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::open(&redis.url(), Duration::from_millis(500)).unwrap();
    let shim = Shim::start(App::new(store)).await;
    shim.until_ready().await;
    let ask = |key| check(&[(key, 1, &[sliding(10, HOUR)])]);
    redis.freeze().unwrap();
    let answers = shim.decide(&batch(0, vec![ask("a"), ask("b")])).await;
    assert_eq!(answers, vec![CheckAnswer::Failed { error: StoreError::Timeout }; 2]);
    redis.thaw().unwrap();
    shim.until_ready().await;
    allowed(&shim.ask(ask("c")).await);
}

#[tokio::test]
async fn asks_a_server_that_lets_everybody_in_and_does_no_work_ever_more_seldom() {
    let (shim, redis) = shim_on_redis().await;
    let mut admin = redis.connect().unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").exec(&mut admin).unwrap();
    let mut connections = || {
        let info: String = redis::cmd("INFO").arg("stats").query(&mut admin).unwrap();
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        count.parse::<u32>().unwrap()
    };
    let (before, began) = (connections(), Instant::now());
    while began.elapsed() < Duration::from_millis(1500) {
        let answer = shim.ask(check(&[("k:{a}", 1, &[sliding(10, HOUR)])])).await;
        assert_eq!(answer, CheckAnswer::Failed { error: StoreError::Refused });
    }
    let made = connections() - before;
    // The shortest pauses that chance allows.
    let mut due = 0;
    let mut at = Duration::from_millis(25);
    while at <= began.elapsed() {
        due += 1;
        at = at * 2 + Duration::from_millis(25);
    }
    assert!((1..=due).contains(&made), "{made} connections, {due} at most");
}
