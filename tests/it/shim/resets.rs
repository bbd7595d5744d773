//! What is left of a subject that an operator has reset.

use std::time::Duration;

use lanekeeper_engine::lease::{Lease, LeaseAsk};
use lanekeeper_engine::units::micros;
use lanekeeper_engine::window::MAX_PER;
use lanekeeper_engine::wire::{CheckAnswer, KeyReturn, MAX_SPEND_WITHIN, Returned};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;

use crate::support::{HOUR, allowed, bucket, check, counter, fixed, log, ready_store, rejected, sliding};

/// A return of what was granted before a reset comes after it, and others were charged meanwhile.
async fn gives_nothing_back_that_was_granted_before(store: &dyn Store) {
    let windows =
        [sliding(40, HOUR), log(40, HOUR), counter(40, HOUR), fixed(40, MAX_PER, 0), bucket(40, HOUR, 40)];
    for (at, window) in windows.into_iter().enumerate() {
        let key = format!("k:{{{at}}}");
        let ask = |cost| [check(&[(&key, cost, std::slice::from_ref(&window))])];
        let lease = LeaseAsk { tokens: 2, life_ms: 30_000, drift: 1_000_000, nodes: 1 };
        let mut leased = ask(3);
        leased[0].keys[0].lease = Some(lease);
        let granted = store.decide(&leased, MAX_SPEND_WITHIN).await.remove(0);
        let CheckAnswer::Allowed { keys } = granted else { panic!("{granted:?}") };
        let of_cost = keys[0].at_us + micros(MAX_SPEND_WITHIN);
        let of_lease = keys[0].at_us + micros(keys[0].lease.map(Lease::life).expect("a lease"));
        store.reset(std::slice::from_ref(&key)).await.unwrap();
        allowed(&store.decide(&ask(40), Duration::ZERO).await[0]);
        let back = |tokens, dated_us, id| KeyReturn {
            key: key.clone(),
            shards: 1,
            shard: 0,
            tokens,
            dated_us,
            id,
            windows: vec![window.clone()].into(),
        };
        let given = store.give_back(&[back(3, of_cost, 1), back(2, of_lease, 2)]).await;
        assert_eq!(given, [Returned::Tokens(0); 2], "{window:?}");
        rejected(&store.decide(&ask(1), Duration::ZERO).await[0]);
    }
}

#[tokio::test]
async fn a_late_return_takes_nothing_from_whom_the_embedded_store_charged_after_a_reset() {
    gives_nothing_back_that_was_granted_before(&MemoryStore::new()).await;
}

#[tokio::test]
async fn a_late_return_takes_nothing_from_whom_redis_charged_after_a_reset() {
    let redis = Redis::start().unwrap();
    let store = ready_store(&redis).await;
    gives_nothing_back_that_was_granted_before(&store).await;
    let mut connection = redis.connect().unwrap();
    let (reset, unknown) = ("k:{reset}".to_owned(), "k:{unknown}".to_owned());
    allowed(&store.decide(&[check(&[(&reset, 5, &[sliding(5, HOUR)])])], Duration::ZERO).await[0]);
    store.reset(&[reset.clone(), unknown.clone()]).await.unwrap();
    let is_there: bool = redis::cmd("EXISTS").arg(&unknown).query(&mut connection).unwrap();
    assert!(!is_there, "what is not known is not made by a reset");
    let left_ms: i64 = redis::cmd("PTTL").arg(&reset).query(&mut connection).unwrap();
    assert!((1..=120_001).contains(&left_ms), "{left_ms}");
}
