//! How many nodes there are, as every shim says it.

use std::time::Duration;

use lanekeeper_engine::wire::{DecideRequest, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;

use crate::support::{HOUR, PATIENT, Shim, batch, check, ready_store, shim_on_redis, sliding};

impl Shim {
    /// What it says to a node that asks.
    async fn nodes(&self, node: Option<u64>) -> Option<u32> {
        let ask = batch(0, vec![check(&[("{k}", 1, &[sliding(1, HOUR)])])]);
        self.answer(&DecideRequest { node, ..ask }).await.nodes
    }

    /// Asks as `nodes` until it says that there are `count`.
    async fn until_there_are(&self, count: u32, nodes: &[u64]) {
        let counted = async {
            loop {
                for node in nodes {
                    if self.nodes(Some(*node)).await == Some(count) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENT, counted).await.expect("the count does not come");
    }
}

#[tokio::test]
async fn every_shim_of_one_redis_counts_the_nodes_of_all() {
    let (first, redis) = shim_on_redis().await;
    let second = Shim::start(App::new(RedisStore::open(&redis.url(), PATIENT).unwrap())).await;
    second.until_ready().await;
    first.until_there_are(1, &[1]).await;
    second.until_there_are(3, &[2, 3]).await;
    first.until_there_are(3, &[1]).await;
    assert_eq!(first.nodes(None).await, None, "who is no node is told nothing");
}

#[tokio::test]
async fn a_store_of_one_shim_counts_whom_that_shim_hears() {
    let shim = Shim::start(App::new(MemoryStore::new())).await;
    shim.until_there_are(2, &[7, 8]).await;
}

#[tokio::test]
async fn a_node_that_was_not_told_of_for_its_life_does_not_count() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    assert_eq!(store.count_nodes(&[1, u64::MAX], HOUR).await, Ok(2));
    assert_eq!(store.count_nodes(&[1, 3], HOUR).await, Ok(3));
    let gone = async {
        while store.count_nodes(&[4], Duration::from_millis(1)).await != Ok(1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENT, gone).await.expect("they stay");
}

#[tokio::test]
async fn keeps_the_last_count_while_redis_is_away() {
    let (shim, mut redis) = shim_on_redis().await;
    shim.until_there_are(2, &[1, 2]).await;
    redis.kill();
    while shim.ask(check(&[("{k}", 1, &[sliding(1, HOUR)])])).await
        != (lanekeeper_engine::wire::CheckAnswer::Failed { error: StoreError::Unreachable })
    {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // also when it was due to be told again
    let told_again = tokio::time::Instant::now() + Duration::from_millis(1100);
    while tokio::time::Instant::now() < told_again {
        assert_eq!(shim.nodes(Some(1)).await, Some(2));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
