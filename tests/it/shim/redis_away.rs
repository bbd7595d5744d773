//! A Redis that is away, hangs, comes late, or lets everybody in and does no work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lanekeeper_engine::wire::{CheckAnswer, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::{
    HOUR, PATIENT, Shim, allowed, batch, check, cut_off, left, shim_on_redis, sliding, store_at,
};

#[tokio::test]
async fn fails_at_once_while_redis_is_away_and_works_when_it_is_back() {
    let (shim, mut redis) = shim_on_redis().await;
    let ask = || check(&[("k:{a}", 1, &[sliding(10, HOUR)])]);
    allowed(&shim.ask(ask()).await);
    redis.kill();
    // The store's patience is longer than the test's: only an answer that does not wait for it comes in time.
    for _ in 0..3 {
        let answer = tokio::time::timeout(PATIENT / 2, shim.ask(ask())).await.expect("an answer at once");
        cut_off(&answer);
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
    let (mut due, mut pause) = (0, Duration::from_millis(25));
    let mut at = pause;
    while at <= began.elapsed() {
        due += 1;
        pause = (pause * 2).min(Duration::from_millis(125));
        at += pause;
    }
    assert!((1..=due).contains(&made), "{made} connections, {due} at most");
}

/// A way to `redis` on which every answer is late by `late`, once it is told to be.
async fn slow_way(redis: &Redis, is_slow: Arc<AtomicBool>, late: Duration) -> String {
    let socket = redis.url().trim_start_matches("redis+unix://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_redis, mut to_redis) = UnixStream::connect(&socket).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_redis).await });
            let (answers, mut on_their_way) = mpsc::unbounded_channel();
            let is_slow = Arc::clone(&is_slow);
            tokio::spawn(async move {
                while let Some((due, bytes)) = on_their_way.recv().await {
                    tokio::time::sleep_until(due).await;
                    let bytes: Vec<u8> = bytes;
                    if to_client.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
            });
            tokio::spawn(async move {
                let mut bytes = vec![0; 65_536];
                while let Ok(count @ 1..) = from_redis.read(&mut bytes).await {
                    let late = if is_slow.load(Ordering::Relaxed) { late } else { Duration::ZERO };
                    let _ = answers.send((tokio::time::Instant::now() + late, bytes[..count].to_vec()));
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_redis_with_much_to_do_is_slow_and_not_away() {
    let redis = Redis::start().unwrap();
    let is_slow = Arc::new(AtomicBool::new(false));
    // longer than a sign of life may take
    let url = slow_way(&redis, Arc::clone(&is_slow), Duration::from_millis(1200)).await;
    let store = Arc::new(store_at(&url).await);
    is_slow.store(true, Ordering::Relaxed);
    let mut callers = JoinSet::new();
    // through two signs of life
    for _ in 0..40 {
        let store = Arc::clone(&store);
        let ask = [check(&[("k:{a}", 1, &[sliding(100, HOUR)])])];
        callers.spawn(async move { store.decide(&ask, Duration::ZERO).await.remove(0) });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for answer in callers.join_all().await {
        allowed(&answer);
    }
}
