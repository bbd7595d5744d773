//! The race that one script closes: a thousand callers at once, at a limit of a hundred.
//!
//! A limiter that looks first and charges then has a gap between its two calls, and under load everybody stands in
//! it. The variant here does so with the store's own operations, so that nothing differs but the gap.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, Operation};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use tokio::task::JoinSet;

use super::support::{HOUR, PATIENT, check, sliding};

const CALLERS: usize = 1000;
const LIMIT: u32 = 100;
const ROUNDS: usize = 100;

fn question(round: usize, operation: Operation) -> Check {
    let mut check = check(&[(&format!("race:{{{round}}}"), 1, &[sliding(LIMIT, HOUR)])]);
    check.keys[0].operation = operation;
    check
}

async fn is_allowed(store: &dyn Store, check: Check) -> bool {
    let answer = store.decide(&[check], Duration::ZERO).await.remove(0);
    matches!(answer, CheckAnswer::Allowed { .. })
}

/// How many of the callers are admitted.
async fn admitted(store: &Arc<dyn Store>, round: usize, looks_first: bool) -> usize {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let store = Arc::clone(store);
        callers.spawn(async move {
            if !looks_first {
                return is_allowed(store.as_ref(), question(round, Operation::Take)).await;
            }
            let is_admitted = is_allowed(store.as_ref(), question(round, Operation::Peek)).await;
            // others look here
            tokio::task::yield_now().await;
            if is_admitted {
                is_allowed(store.as_ref(), question(round, Operation::Take)).await;
            }
            is_admitted
        });
    }
    callers.join_all().await.into_iter().filter(|admitted| *admitted).count()
}

async fn on_redis() -> (Arc<dyn Store>, Redis) {
    let redis = Redis::start().unwrap();
    let store: Arc<dyn Store> = Arc::new(RedisStore::open(&redis.url(), PATIENT).unwrap());
    while store.ready().await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (store, redis)
}

async fn admits_exactly_the_limit(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        assert_eq!(admitted(&store, round, false).await, LIMIT as usize, "in round {round}");
    }
}

async fn admits_too_many(store: Arc<dyn Store>) {
    let admitted = admitted(&store, 0, true).await;
    assert!(admitted * 10 > LIMIT as usize * 11, "{admitted} were admitted: the race was not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_on_the_embedded_store_are_a_hundred_in_every_round() {
    admits_exactly_the_limit(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_at_once_on_redis_are_a_hundred_in_every_round() {
    let (store, _redis) = on_redis().await;
    admits_exactly_the_limit(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_on_redis_let_far_too_many_through() {
    let (store, _redis) = on_redis().await;
    admits_too_many(store).await;
}

#[tokio::test(flavor = "current_thread")]
async fn two_calls_on_the_embedded_store_let_far_too_many_through() {
    admits_too_many(Arc::new(MemoryStore::new())).await;
}
