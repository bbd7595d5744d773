//! Stopping: no answer is lost, nothing new begins, and it does not take for ever.

use std::sync::Arc;
use std::time::Duration;

use lanekeeper_engine::wire::{Check, CheckAnswer, KeyReturn, KeySpent, Recorded, Returned, StoreError};
use lanekeeper_shim::app::App;
use lanekeeper_shim::listen::{GRACE, Manner};
use lanekeeper_shim::store::{Answering, NotReady, Store};
use reqwest::{Client, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{HOUR, Shim, batch, check, sliding};

/// A store that holds every question until it is let go.
#[derive(Clone)]
struct Gate {
    waiting: watch::Sender<usize>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self { waiting: watch::Sender::new(0), open: Arc::new(Semaphore::new(0)) }
    }

    async fn until_waiting(&self, count: usize) {
        self.waiting.subscribe().wait_for(|waiting| *waiting == count).await.unwrap();
    }
}

impl Store for Gate {
    fn decide<'a>(&'a self, checks: &'a [Check], _: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        Box::pin(async {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let _pass = self.open.acquire().await.unwrap();
            vec![CheckAnswer::Failed { error: StoreError::Refused }; checks.len()]
        })
    }

    fn record<'a>(&'a self, _: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        unreachable!("nothing is told here")
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

fn body() -> Vec<u8> {
    serde_json::to_vec(&batch(0, vec![check(&[("k", 1, &[sliding(10, HOUR)])])])).unwrap()
}

#[tokio::test]
async fn answers_everything_in_flight_and_accepts_nothing_more() {
    let gate = Gate::new();
    let at_once = Manner { drain: Duration::ZERO, ..Manner::default() };
    let shim = Shim::start_as(App::new(gate.clone()), at_once).await;
    let (url, address) = (format!("{}/v1/decide", shim.url), shim.url["http://".len()..].to_string());
    let mut callers = JoinSet::new();
    let http2 = Client::builder().http2_prior_knowledge().build().unwrap();
    for client in [vec![Client::new(); 10], vec![http2; 10]].concat() {
        let request = client.post(&url).body(body());
        callers.spawn(async move { request.send().await.unwrap().error_for_status().unwrap().bytes().await });
    }
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: shim\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    gate.until_waiting(20).await;

    let stopped = shim.stop();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.expect("an idle connection is closed while others are answered");
    assert!(TcpStream::connect(&address).await.is_err(), "nothing new is accepted");
    assert!(!stopped.is_finished());
    gate.open.add_permits(20);
    let answers = callers.join_all().await;
    assert_eq!(answers.into_iter().filter(|answer| answer.is_ok()).count(), 20);
    stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn stops_at_once_when_there_is_nothing_to_answer() {
    let shim = Shim::start(App::new(Gate::new())).await;
    assert_eq!(shim.get("/healthz").await.status(), StatusCode::OK);
    let began = Instant::now();
    shim.stop().await.unwrap().unwrap();
    assert!(began.elapsed() < GRACE);
}

#[tokio::test(start_paused = true)]
async fn stops_after_its_grace_when_an_answer_never_comes() {
    let gate = Gate::new();
    let shim = Shim::start(App::new(gate.clone())).await;
    let request = shim.client.post(format!("{}/v1/decide", shim.url)).body(body());
    let caller = tokio::spawn(request.send());
    gate.until_waiting(1).await;
    let began = Instant::now();
    shim.stop().await.unwrap().unwrap();
    assert!(began.elapsed() >= GRACE);
    assert!(!caller.is_finished());
}
