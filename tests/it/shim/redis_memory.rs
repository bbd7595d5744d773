//! What subjects take of Redis's memory.

use std::time::Duration;

use lanekeeper_engine::wire::Check;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;

use crate::support::{HOUR, MINUTE, PATIENT, check, ready_store, sliding};

/// What a million subjects may take, in bytes: 250 MB.
const A_MILLION_TAKE: u64 = 250_000_000;
/// Checks in one batch, as many as a shim sends at once.
const BATCH: usize = 256;

fn used_memory(redis: &Redis) -> u64 {
    let info: String = redis::cmd("INFO").arg("memory").query(&mut redis.connect().unwrap()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().parse().unwrap()
}

/// The check of a quiet user: one limit of two windows, under a key as the engine makes it.
fn visit(user: u64) -> Check {
    let key = format!("ads_voucher:{{u{user:07}}}:per_user");
    check(&[(&key, 1, &[sliding(100, MINUTE), sliding(1000, HOUR)])])
}

/// Has these users ask, a third of them once, a third twice and a third three times, and returns how many bytes each
/// of them takes.
async fn bytes_per_subject(redis: &Redis, store: &RedisStore, users: u64) -> u64 {
    let ask = async |users: &[u64]| {
        let checks: Vec<Check> = users.iter().copied().map(visit).collect();
        let taken = store.take_with_time(&checks, Duration::from_millis(20)).await;
        assert!(taken.iter().all(Result::is_ok));
    };
    // what the connections and the script take is no subject's
    ask(&[u64::MAX; BATCH]).await;
    let before = used_memory(redis);
    for visits in 1..=3 {
        let asking: Vec<u64> = (0..users).filter(|user| user % 3 + 1 >= visits).collect();
        for batch in asking.chunks(BATCH) {
            ask(batch).await;
        }
    }
    (used_memory(redis) - before).div_ceil(users)
}

#[tokio::test]
async fn a_million_quiet_subjects_would_fit_into_250_megabytes() {
    let redis = Redis::start().unwrap();
    let each = bytes_per_subject(&redis, &ready_store(&redis).await, 20_000).await;
    assert!(each * 1_000_000 < A_MILLION_TAKE, "a subject takes {each} bytes");
}

/// The number in ARCHITECTURE.md is from here.
#[tokio::test]
#[ignore = "takes minutes: cargo test -p lanekeeper-tests --release --test shim -- --ignored --nocapture a_million"]
async fn a_million_quiet_subjects_fit_into_250_megabytes() {
    let redis = Redis::start().unwrap();
    let store = RedisStore::open(&redis.url(), PATIENT).unwrap();
    let each = bytes_per_subject(&redis, &store, 1_000_000).await;
    println!("a million subjects take {each} MB");
    assert!(each * 1_000_000 < A_MILLION_TAKE, "a subject takes {each} bytes");
}
