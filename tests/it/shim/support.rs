//! A shim in this process, and short words for what it is asked.

use std::num::NonZeroU32;
use std::time::Duration;

use lanekeeper_engine::window::{Algorithm, MAX_PER, Offset, Window, Zone};
use lanekeeper_engine::wire::{
    Check, CheckAnswer, DECIDE_PATH, DecideRequest, DecideResponse, KeyCheck, SHIM_HEADER, StoreError,
    WindowAnswer,
};
use lanekeeper_shim::app::App;
use lanekeeper_shim::listen::{Manner, serve};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_shim::store::Store;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use reqwest::{Client, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Long enough that only a store that does not answer at all reaches it, on however busy a machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(30);

pub(crate) struct Shim {
    pub(crate) url: String,
    pub(crate) client: Client,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Shim {
    pub(crate) async fn start(app: App) -> Self {
        Self::start_as(app, Manner::default()).await
    }

    pub(crate) async fn start_as(app: App, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopping) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let stopped = async {
                // Told, or dropped with the test.
                let _ = stopping.await;
            };
            serve(listener, app, manner, stopped).await
        });
        Self { url, client: Client::new(), stop, served }
    }

    pub(crate) async fn post(&self, body: impl Into<reqwest::Body>) -> Response {
        self.client.post(format!("{}{DECIDE_PATH}", self.url)).body(body).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    /// One answer for each check.
    pub(crate) async fn decide(&self, batch: &DecideRequest) -> Vec<CheckAnswer> {
        self.answer(batch).await.answers
    }

    /// The whole answer to a batch.
    pub(crate) async fn answer(&self, batch: &DecideRequest) -> DecideResponse {
        let response = self.post(serde_json::to_vec(batch).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[SHIM_HEADER], "1");
        let response: DecideResponse = response.json().await.unwrap();
        assert!(response.fits(batch), "{response:?}");
        response
    }

    /// The answer to a single check whose tokens are spent at once.
    pub(crate) async fn ask(&self, check: Check) -> CheckAnswer {
        self.decide(&batch(0, vec![check])).await.remove(0)
    }

    /// The value of a series of its metrics, once there is one.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        metric(&self.client, &self.url, series).await
    }

    /// Waits until the store answers.
    pub(crate) async fn until_ready(&self) {
        let ready = async {
            while self.get("/readyz").await.status() != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENT, ready).await.expect("the store does not come back");
    }

    /// Tells it to stop; what it returns ends when it has.
    pub(crate) fn stop(self) -> JoinHandle<std::io::Result<()>> {
        self.stop.send(()).unwrap();
        self.served
    }
}

/// The value of a series of the metrics of the shim at `url`, once there is one.
pub(crate) async fn metric(client: &Client, url: &str, series: &str) -> f64 {
    let shown = async {
        loop {
            let metrics = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
            let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            match value {
                Some(value) => return value.parse().unwrap(),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENT, shown).await.unwrap_or_else(|_| panic!("no {series} among the metrics"))
}

/// Waits until a store answers.
pub(crate) async fn until_ready(store: &impl Store) {
    let ready = async {
        while store.ready().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENT, ready).await.expect("the store does not answer");
}

/// A store at `url`, and ready.
pub(crate) async fn store_at(url: &str) -> RedisStore {
    let store = RedisStore::open(url, PATIENT).unwrap();
    until_ready(&store).await;
    store
}

/// A store on `redis`, and ready.
pub(crate) async fn ready_store(redis: &Redis) -> RedisStore {
    store_at(&redis.url()).await
}

/// Runs each case, a function of a shim, on every store.
macro_rules! on_every_backend {
    ($($case:ident,)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::support::shim_in_memory().await).await;
            })*
        }

        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (shim, _redis) = $crate::support::shim_on_redis().await;
                super::$case(shim).await;
            })*
        }

        mod valkey {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some((shim, _valkey)) = $crate::support::shim_on_valkey().await {
                    super::$case(shim).await;
                }
            })*
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (shim, _cluster) = $crate::support::shim_on_cluster().await;
                super::$case(shim).await;
            })*
        }
    };
}
pub(crate) use on_every_backend;

/// A shim in front of its embedded store.
pub(crate) async fn shim_in_memory() -> Shim {
    Shim::start(App::new(MemoryStore::new())).await
}

/// A shim in front of a Redis of its own, and ready.
pub(crate) async fn shim_on_redis() -> (Shim, Redis) {
    let redis = Redis::start().unwrap();
    (shim_on(&redis).await, redis)
}

/// A shim in front of a Valkey of its own, and ready; none where there is no Valkey.
pub(crate) async fn shim_on_valkey() -> Option<(Shim, Redis)> {
    let valkey = Redis::start_valkey().unwrap()?;
    Some((shim_on(&valkey).await, valkey))
}

async fn shim_on(redis: &Redis) -> Shim {
    let shim = Shim::start(App::new(RedisStore::open(&redis.url(), PATIENT).unwrap())).await;
    shim.until_ready().await;
    shim
}

/// A shim in front of a Redis Cluster of its own, and ready.
pub(crate) async fn shim_on_cluster() -> (Shim, Cluster) {
    let cluster = Cluster::start().unwrap();
    let shim = Shim::start(App::new(RedisStore::open(&cluster.url(), PATIENT).unwrap())).await;
    shim.until_ready().await;
    (shim, cluster)
}

pub(crate) fn batch(spend_within_ms: u32, checks: Vec<Check>) -> DecideRequest {
    DecideRequest::new(spend_within_ms, checks)
}

pub(crate) fn check(keys: &[(&str, u32, &[Window])]) -> Check {
    let key = |&(key, cost, windows): &(&str, u32, &[Window])| KeyCheck::take(key, cost, windows);
    Check { keys: keys.iter().map(key).collect() }
}

pub(crate) fn sliding(limit: u32, per: Duration) -> Window {
    Window::new(limit, per, Algorithm::SlidingWindow).unwrap()
}

pub(crate) fn log(limit: u32, per: Duration) -> Window {
    Window::new(limit, per, Algorithm::SlidingLog).unwrap()
}

pub(crate) fn counter(limit: u32, per: Duration) -> Window {
    Window::new(limit, per, Algorithm::SlidingCounter).unwrap()
}

/// Windows that begin when those of a place so many minutes ahead of UTC do.
pub(crate) fn fixed(limit: u32, per: Duration, minutes: i32) -> Window {
    let offset = Offset::from_minutes(minutes).unwrap();
    Window::new(limit, per, Algorithm::FixedWindow { timezone: offset.into() }).unwrap()
}

/// Windows that begin when those of a place do.
pub(crate) fn zoned(limit: u32, per: Duration, zone: Zone) -> Window {
    Window::new(limit, per, Algorithm::FixedWindow { timezone: zone.into() }).unwrap()
}

pub(crate) fn bucket(limit: u32, per: Duration, burst: u32) -> Window {
    Window::new(limit, per, Algorithm::TokenBucket { burst: NonZeroU32::new(burst).unwrap() }).unwrap()
}

/// A key and a window for each algorithm, none of which ends within a test, whenever it runs.
pub(crate) fn every_algorithm(limit: u32) -> [(&'static str, Window); 5] {
    [
        ("sliding:{a}", sliding(limit, HOUR)),
        ("log:{a}", log(limit, HOUR)),
        ("counter:{a}", counter(limit, MAX_PER)),
        ("fixed:{a}", fixed(limit, MAX_PER, 0)),
        ("bucket:{a}", bucket(limit, HOUR, limit)),
    ]
}

/// What each window of each key says, after a check that was allowed.
#[track_caller]
pub(crate) fn allowed(answer: &CheckAnswer) -> Vec<Vec<WindowAnswer>> {
    let CheckAnswer::Allowed { keys } = answer else { panic!("not allowed: {answer:?}") };
    keys.iter().map(|key| key.windows.clone()).collect()
}

/// What each window of each key says, after a check that was rejected.
#[track_caller]
pub(crate) fn rejected(answer: &CheckAnswer) -> Vec<Vec<WindowAnswer>> {
    let CheckAnswer::Rejected { keys } = answer else { panic!("not rejected: {answer:?}") };
    keys.iter().map(|key| key.windows.clone()).collect()
}

/// A check of a Redis that is gone. Only the first that are sent after its end find out that the connection broke.
#[track_caller]
pub(crate) fn cut_off(answer: &CheckAnswer) {
    let CheckAnswer::Failed { error: StoreError::Unreachable | StoreError::Disconnected } = answer else {
        panic!("not cut off: {answer:?}")
    };
}

/// What is left in each window of each key, after a check that was allowed.
#[track_caller]
pub(crate) fn left(answer: &CheckAnswer) -> Vec<Vec<u32>> {
    let left = |windows: Vec<WindowAnswer>| windows.iter().map(|window| window.remaining).collect();
    allowed(answer).into_iter().map(left).collect()
}
