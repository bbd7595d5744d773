//! The race that one script closes: a thousand callers at once, at a limit of a hundred.
//!
//! A limiter that looks first and charges then has a gap between its two calls, and under load everybody stands in
//! it. The variant here does so with the store's own operations, so that nothing differs but the gap.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::lease::LeaseAsk;
use lanekeeper_engine::wire::{Check, CheckAnswer, Operation};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use tokio::task::JoinSet;

use super::support::{HOUR, check, sliding, store_at};

const CALLERS: usize = 1000;
const BATCH: usize = 10;
const LIMIT: u32 = 100;
const ROUNDS: usize = 100;

fn question(round: usize, operation: Operation) -> Check {
    let mut check = check(&[(&format!("race:{{{round}}}"), 1, &[sliding(LIMIT, HOUR)])]);
    check.keys[0].operation = operation;
    check
}

async fn are_allowed(store: &dyn Store, checks: &[Check]) -> Vec<bool> {
    let answers = store.decide(checks, Duration::ZERO).await;
    answers.iter().map(|answer| matches!(answer, CheckAnswer::Allowed { .. })).collect()
}

/// How many of the callers are admitted, who come in batches as those do that wait at one filter.
async fn admitted(store: &Arc<dyn Store>, round: usize) -> usize {
    let mut batches = JoinSet::new();
    for _ in 0..CALLERS / BATCH {
        let (store, batch) = (Arc::clone(store), vec![question(round, Operation::Take); BATCH]);
        batches.spawn(async move { are_allowed(store.as_ref(), &batch).await });
    }
    batches.join_all().await.concat().into_iter().filter(|admitted| *admitted).count()
}

/// How many of the callers believe that they are, if each looks first and charges then.
async fn admitted_by_two_calls(store: &Arc<dyn Store>) -> usize {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let store = Arc::clone(store);
        callers.spawn(async move {
            let is_admitted = are_allowed(store.as_ref(), &[question(0, Operation::Peek)]).await == [true];
            // others look here
            tokio::task::yield_now().await;
            if is_admitted {
                are_allowed(store.as_ref(), &[question(0, Operation::Take)]).await;
            }
            is_admitted
        });
    }
    callers.join_all().await.into_iter().filter(|admitted| *admitted).count()
}

async fn on_redis() -> (Arc<dyn Store>, Redis) {
    let redis = Redis::start().unwrap();
    (Arc::new(store_at(&redis.url()).await) as Arc<dyn Store>, redis)
}

async fn admits_exactly_the_limit(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        assert_eq!(admitted(&store, round).await, LIMIT as usize, "in round {round}");
    }
}

async fn admits_too_many(store: Arc<dyn Store>) {
    let admitted = admitted_by_two_calls(&store).await;
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
async fn a_thousand_at_once_on_a_cluster_are_a_hundred_in_every_round() {
    let cluster = Cluster::start().unwrap();
    admits_exactly_the_limit(Arc::new(store_at(&cluster.url()).await) as Arc<dyn Store>).await;
}

/// How many tokens the callers are granted, of whom each asks for some in advance.
async fn granted(store: &Arc<dyn Store>, round: usize) -> u32 {
    let lease = Some(LeaseAsk { tokens: 7, life_ms: 30_000, drift: 1_000_000, nodes: 1 });
    let mut batches = JoinSet::new();
    for _ in 0..CALLERS / BATCH {
        let (store, mut batch) = (Arc::clone(store), vec![question(round, Operation::Take); BATCH]);
        batch.iter_mut().for_each(|check| check.keys[0].lease = lease);
        batches.spawn(async move { store.decide(&batch, Duration::ZERO).await });
    }
    let tokens = |answer: CheckAnswer| match answer {
        CheckAnswer::Allowed { keys } => keys[0].granted + keys[0].lease.map_or(0, |lease| lease.tokens),
        CheckAnswer::Rejected { .. } => 0,
        CheckAnswer::Failed { error } => panic!("{error}"),
    };
    batches.join_all().await.concat().into_iter().map(tokens).sum()
}

async fn grants_exactly_the_limit(store: Arc<dyn Store>) {
    for round in 0..ROUNDS {
        assert_eq!(granted(&store, round).await, LIMIT, "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_leases_at_once_on_the_embedded_store_are_a_hundred_tokens_in_every_round() {
    grants_exactly_the_limit(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_leases_at_once_on_redis_are_a_hundred_tokens_in_every_round() {
    let (store, _redis) = on_redis().await;
    grants_exactly_the_limit(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_leases_at_once_on_a_cluster_are_a_hundred_tokens_in_every_round() {
    let cluster = Cluster::start().unwrap();
    grants_exactly_the_limit(Arc::new(store_at(&cluster.url()).await) as Arc<dyn Store>).await;
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
