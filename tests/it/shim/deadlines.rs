//! An answer that nobody waits for is not computed.

use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, DECIDE_PATH, KeyReturn, Returned, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::{Answering, NotReady, Store};
use lanekeeper_tests::redis::Redis;
use reqwest::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::support::{HOUR, PATIENT, Shim, batch, check, sliding, until_ready};

/// A store that never answers, and says how many questions it works on.
#[derive(Clone)]
struct Endless(watch::Sender<usize>);

/// A question that is worked on, until it is dropped.
struct Work<'a>(&'a Endless);

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|working| *working -= 1);
    }
}

impl Endless {
    fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    async fn until_working_on(&self, count: usize) {
        let mut working = self.0.subscribe();
        let reached = working.wait_for(|working| *working == count);
        timeout(PATIENT, reached).await.unwrap_or_else(|_| panic!("never {count} questions")).unwrap();
    }
}

impl Store for Endless {
    fn decide<'a>(&'a self, _: &'a [Check], _: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        Box::pin(async {
            self.0.send_modify(|working| *working += 1);
            let _work = Work(self);
            std::future::pending().await
        })
    }

    fn give_back<'a>(&'a self, _: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        unreachable!("nothing is given back here")
    }

    fn reset<'a>(&'a self, _: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        unreachable!("nothing is reset here")
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        Box::pin(async { Ok(()) })
    }
}

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
