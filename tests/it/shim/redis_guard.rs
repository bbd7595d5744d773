//! Servers that answer late are left alone until they answer in time.

use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;

use crate::support::{HOUR, Shim, allowed, batch, check, left, sliding};

/// Longer than a healthy server on a busy machine takes.
const PATIENCE: Duration = Duration::from_millis(150);
const LIMIT: u32 = 100;

fn ask(key: &str) -> Check {
    check(&[(key, 1, &[sliding(LIMIT, HOUR)])])
}

async fn shim_at(url: &str) -> Shim {
    let shim = Shim::start(App::new(RedisStore::open(url, PATIENCE).unwrap())).await;
    shim.until_ready().await;
    shim
}

/// What is said of `key`, and whether the whole store is away.
async fn answer(shim: &Shim, key: &str) -> (CheckAnswer, bool) {
    let mut answer = shim.answer(&batch(0, vec![ask(key)])).await;
    (answer.answers.remove(0), answer.away)
}

async fn until_allowed(shim: &Shim, key: &str) -> CheckAnswer {
    loop {
        match answer(shim, key).await.0 {
            CheckAnswer::Failed { .. } => tokio::time::sleep(Duration::from_millis(5)).await,
            answer => return answer,
        }
    }
}

#[tokio::test]
async fn after_five_late_answers_nobody_waits_for_a_server_that_hangs() {
    let redis = Redis::start().unwrap();
    let shim = shim_at(&redis.url()).await;
    assert_eq!(left(&answer(&shim, "k").await.0), [[LIMIT - 1]]);
    redis.freeze().unwrap();
    let late = CheckAnswer::Failed { error: StoreError::Timeout };
    for is_away in [false, false, false, false, true] {
        assert_eq!(answer(&shim, "k").await, (late.clone(), is_away));
    }
    for _ in 0..50 {
        let (answer, is_away) = answer(&shim, "k").await;
        assert!(matches!(answer, CheckAnswer::Failed { .. }) && is_away, "{answer:?}");
    }
    assert_eq!(shim.get("/readyz").await.status(), 503);
    redis.thaw().unwrap();
    let left = left(&until_allowed(&shim, "k").await)[0][0];
    assert!(left >= LIMIT - 1 - 5 - 1, "{left} left: it was asked while nobody should have");
    shim.until_ready().await;
    assert!(!answer(&shim, "other").await.1);
}

#[tokio::test]
async fn a_node_that_hangs_is_left_alone_and_the_others_are_not() {
    let cluster = Cluster::start().unwrap();
    for node in &cluster.nodes {
        node.run::<()>(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
    }
    let shim = shim_at(&cluster.url()).await;
    // on the first node, and on the third
    let (other, hangs) = ("{b}", "{a}");
    cluster.nodes[2].redis.freeze().unwrap();
    for _ in 0..5 {
        assert_eq!(answer(&shim, hangs).await, (CheckAnswer::Failed { error: StoreError::Timeout }, false));
    }
    let at = cluster.nodes[2].address;
    assert_eq!(shim.metric(&format!("lanekeeper_shim_redis_guard_open{{node=\"{at}\"}}")).await, 1.0);
    assert_eq!(answer(&shim, hangs).await, (CheckAnswer::Failed { error: StoreError::Unreachable }, false));
    for used in 1..=20 {
        assert_eq!(left(&answer(&shim, other).await.0), [[LIMIT - used]]);
    }
    cluster.nodes[2].redis.thaw().unwrap();
    allowed(&until_allowed(&shim, hangs).await);
    assert_eq!(shim.metric(&format!("lanekeeper_shim_redis_guard_open{{node=\"{at}\"}}")).await, 0.0);
}
