//! An answer that nobody waits for is not computed.

use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, DECIDE_PATH, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use reqwest::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::endless::Endless;
use crate::support::{HOUR, PATIENT, Shim, batch, check, sliding, until_ready};

fn ask() -> Check {
    check(&[("k", 1, &[sliding(10, HOUR)])])
}

fn body() -> Vec<u8> {
    serde_json::to_vec(&batch(0, vec![ask()])).unwrap()
}

#[tokio::test]
async fn a_caller_that_hung_up_is_not_worked_for() {
    let store = Endless::new();
    let shim = Shim::start(App::new(store.clone())).await;
    let mut caller = TcpStream::connect(&shim.url["http://".len()..]).await.unwrap();
    let head =
        format!("POST {DECIDE_PATH} HTTP/1.1\r\nhost: shim\r\ncontent-length: {}\r\n\r\n", body().len());
    caller.write_all(&[head.into_bytes(), body()].concat()).await.unwrap();
    store.until_working_on(1).await;
    drop(caller);
    store.until_working_on(0).await;
}

#[tokio::test]
async fn a_stream_that_was_reset_is_not_worked_for_and_the_others_are() {
    let store = Endless::new();
    let shim = Shim::start(App::new(store.clone())).await;
    let client = Client::builder().http2_prior_knowledge().build().unwrap();
    let call = || tokio::spawn(client.post(format!("{}{DECIDE_PATH}", shim.url)).body(body()).send());
    let (leaves, _stays) = (call(), call());
    store.until_working_on(2).await;
    leaves.abort();
    store.until_working_on(1).await;
}

#[tokio::test]
async fn a_batch_takes_no_longer_than_its_tokens_may_be_spent() {
    let store = Endless::new();
    let shim = Shim::start(App::new(store.clone())).await;
    let answer =
        timeout(PATIENT, shim.answer(&batch(50, vec![ask(), ask()]))).await.expect("an answer in time");
    assert_eq!(answer.answers, vec![CheckAnswer::Failed { error: StoreError::Timeout }; 2]);
    store.until_working_on(0).await;
}

#[tokio::test]
async fn redis_is_waited_for_no_longer_than_the_caller_waits() {
    let redis = Redis::start().unwrap();
    // The store's own patience is longer than the test's.
    let store = RedisStore::open(&redis.url(), PATIENT * 2).unwrap();
    until_ready(&store).await;
    redis.freeze().unwrap();
    let checks = [ask()];
    let answers = timeout(PATIENT, store.decide(&checks, Duration::from_millis(50))).await;
    assert_eq!(answers.expect("an answer in time"), [CheckAnswer::Failed { error: StoreError::Timeout }]);
    redis.thaw().unwrap();
}
