//! A policy in front of a backend: asked by name over HTTP, or by requests that take the filter's way.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use lanekeeper_engine::breaker::Entry;
use lanekeeper_engine::headers::Headers;
use lanekeeper_engine::policy::LimitVerdict;
use lanekeeper_engine::request::{Facts, Judge, Request, Step};
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::Check;
use lanekeeper_shim::app::App;
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::policy::{PolicyFile, Reload};
use lanekeeper_shim::redis::RedisStore;
use lanekeeper_tests::redis::Redis;
use lanekeeper_tests::redis::cluster::Cluster;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENT, Shim, batch};

/// Every algorithm, by its name in policies.
pub(crate) const ALGORITHMS: [&str; 5] =
    ["sliding_window", "sliding_log", "sliding_counter", "token_bucket", "fixed_window"];

/// So long that no window of the calendar ends, and no token comes back, while a test runs.
pub(crate) const LONG: &str = "366d";

/// What those bear who may reset a subject.
const OPERATOR: &str = "operator";

/// What counts.
#[derive(Clone)]
pub(crate) enum Backend {
    /// The embedded store, on a clock that only the test moves.
    Embedded { now: Arc<AtomicU64> },
    /// A Redis or a Valkey.
    Redis(Arc<Redis>),
    /// A Redis Cluster.
    Cluster(Arc<Cluster>),
}

/// One server of a kind for all tests that run at the same time; the last of them ends it. A cluster takes more
/// than a second to agree with itself.
fn shared<T>(running: &Mutex<Weak<T>>, start: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
    let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = running.upgrade() {
        return Some(running);
    }
    let started = Arc::new(start()?);
    *running = Arc::downgrade(&started);
    Some(started)
}

impl Backend {
    pub(crate) fn embedded() -> Self {
        // A multiple of every span in use, so that windows of the calendar begin here.
        Self::Embedded { now: Arc::new(AtomicU64::new(micros(Duration::from_secs(366 * 86_400)))) }
    }

    pub(crate) fn redis() -> Self {
        static RUNNING: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
        Self::Redis(shared(&RUNNING, || Some(Redis::start().unwrap())).unwrap())
    }

    /// None where there is no Valkey.
    pub(crate) fn valkey() -> Option<Self> {
        static RUNNING: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
        shared(&RUNNING, || Redis::start_valkey().unwrap()).map(Self::Redis)
    }

    pub(crate) fn cluster() -> Self {
        static RUNNING: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        Self::Cluster(shared(&RUNNING, || Some(Cluster::start().unwrap())).unwrap())
    }

    async fn shim(&self, policy: &Arc<PolicyFile>) -> Arc<Shim> {
        let app = match self {
            Self::Embedded { now } => {
                let now = Arc::clone(now);
                let clock = move || Timestamp::from_micros(now.load(Ordering::Relaxed));
                App::new(MemoryStore::with_clock(clock))
            }
            Self::Redis(redis) => App::new(RedisStore::open(&redis.url(), PATIENT).unwrap()),
            Self::Cluster(cluster) => App::new(RedisStore::open(&cluster.url(), PATIENT).unwrap()),
        };
        let app = app.with_admin_token(OPERATOR).with_policy(Arc::clone(policy));
        let shim = Shim::start(app).await;
        shim.until_ready().await;
        Arc::new(shim)
    }
}

/// A shim with a policy, whose counters no other house shares.
pub(crate) struct House {
    pub(crate) shim: Arc<Shim>,
    policy: Arc<PolicyFile>,
    folder: TempDir,
    number: u64,
    backend: Backend,
}

/// What is said about a limit's only key: whether it allows, and what is left in each of its windows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    allowed: bool,
    left: Vec<u64>,
}

pub(crate) fn took(left: u64) -> Said {
    Said { allowed: true, left: vec![left] }
}

pub(crate) fn refused(left: u64) -> Said {
    Said { allowed: false, left: vec![left] }
}

/// What a client gets to see.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Seen {
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The problem that its body describes.
    #[track_caller]
    pub(crate) fn problem(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A limit for each user, `windows` as in policies.
pub(crate) fn per_user(algorithm: &str, windows: Value) -> Value {
    json!({"keys": {"user": [{"header": "x-user"}]}, "algorithm": algorithm, "windows": windows})
}

/// For each algorithm a limit of its name, which allows each user so many in a year.
pub(crate) fn of_every_algorithm(limit: u32) -> Value {
    let windows = json!([{"limit": limit, "per": LONG}]);
    ALGORITHMS.iter().map(|algorithm| (*algorithm, per_user(algorithm, windows.clone()))).collect()
}

impl House {
    /// With `limits` as its `rate_limits`.
    pub(crate) async fn open(backend: Backend, limits: Value) -> Self {
        Self::open_with(backend, json!({"rate_limits": limits})).await
    }

    /// With a whole policy.
    pub(crate) async fn open_with(backend: Backend, policy: Value) -> Self {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        fs::write(&path, apart(policy, number)).unwrap();
        let policy = Arc::new(PolicyFile::open(path).unwrap());
        let shim = backend.shim(&policy).await;
        Self { shim, policy, folder, number, backend }
    }

    /// Another shim on the same store.
    pub(crate) async fn another_shim(&self) -> Arc<Shim> {
        self.backend.shim(&self.policy).await
    }

    /// Puts other limits in the place of those that hold.
    pub(crate) fn change(&self, limits: Value) {
        let policy = apart(json!({"rate_limits": limits}), self.number);
        fs::write(self.folder.path().join("policy.json"), policy).unwrap();
        assert_eq!(self.policy.look(), Some(Reload::loaded));
    }

    /// Lets time pass for the embedded store.
    #[track_caller]
    pub(crate) fn pass(&self, span: Duration) {
        let Backend::Embedded { now } = &self.backend else {
            panic!("only the embedded store's clock moves")
        };
        now.fetch_add(micros(span), Ordering::Relaxed);
    }

    /// Charges a user.
    pub(crate) async fn take(&self, limit: &str, user: &str, cost: u32) -> Said {
        said(&self.verdict(limit, "allow", user, cost).await)
    }

    /// Asks as for a charge, and charges nothing.
    pub(crate) async fn look(&self, limit: &str, user: &str, cost: u32) -> Said {
        said(&self.verdict(limit, "can_allow", user, cost).await)
    }

    /// What is said in full.
    pub(crate) async fn verdict(&self, limit: &str, action: &str, user: &str, cost: u32) -> Value {
        let response = self.ask(limit, action, user, cost).await;
        assert_eq!(response.status(), StatusCode::OK, "{limit}");
        response.json().await.unwrap()
    }

    pub(crate) async fn ask(&self, limit: &str, action: &str, user: &str, cost: u32) -> Response {
        ask(&self.shim, limit, action, user, cost).await
    }

    /// Has a limit forget a user.
    pub(crate) async fn reset(&self, limit: &str, user: &str) {
        let url = format!("{}/v1/limits/{limit}/reset", self.shim.url);
        let body = json!({"subjects": {"user": user}}).to_string();
        let response = self.shim.client.post(url).bearer_auth(OPERATOR).body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
    }

    /// The key under which a limit counts a user, and its windows, as the filter asks for them.
    pub(crate) fn key(&self, limit: &str, user: &str) -> (String, Vec<Window>) {
        let policy = self.policy.policy();
        let found = policy.lanes[0].limits.iter().find(|known| known.name == limit).unwrap();
        let LimitVerdict::Count(count) = &found.verdict else { panic!("{limit} turns away") };
        (format!("{}:{{{user}}}:user", found.key_prefix), count.windows.to_vec())
    }

    /// A request from a client at 192.0.2.1 on the filter's way.
    pub(crate) async fn send(&self, headers: &[(&str, &str)]) -> Seen {
        self.send_from("192.0.2.1", headers).await
    }

    /// A request from a client on the filter's way: the engine asks, the shim decides, the engine answers.
    pub(crate) async fn send_from(&self, client: &str, headers: &[(&str, &str)]) -> Seen {
        let policy = self.policy.policy();
        let headers = Headers::from_pairs(headers.iter().copied());
        let facts = Facts {
            headers: &headers,
            client: &|| client.parse().ok(),
            chance: &|| u32::MAX,
            now: Timestamp::default(),
            enter: &|_, _, _| Entry::Pass(None),
        };
        let (mut request, arrival) = Request::arrive(&policy, &facts);
        let step = if arrival.step == Step::Ask {
            let checks: Vec<Check> = request.checks().cloned().collect();
            let answers = self.shim.decide(&batch(0, checks)).await;
            request.answered(&policy, Judge::Store, answers)
        } else {
            arrival.step
        };
        match step {
            Step::Continue => {
                let headers = request.answer_headers(&|| None);
                let headers = headers.map(|header| (header.name.to_owned(), header.value.clone()));
                Seen { status: 200, headers: headers.collect(), body: String::new() }
            }
            Step::Reply(reply) => {
                let headers = reply.headers.into_iter().map(|(name, value)| (name.to_owned(), value));
                Seen { status: reply.status, headers: headers.collect(), body: reply.body }
            }
            step => panic!("{step:?}"),
        }
    }
}

pub(crate) async fn ask(shim: &Shim, limit: &str, action: &str, user: &str, cost: u32) -> Response {
    let body = json!({"subjects": {"user": user}, "cost": cost});
    shim.post_to(&format!("/v1/limits/{limit}/{action}"), &body).await
}

fn said(verdict: &Value) -> Said {
    let windows = verdict["keys"]["user"]["windows"].as_array().unwrap();
    let left = windows.iter().map(|window| window["remaining"].as_u64().unwrap()).collect();
    Said { allowed: verdict["allowed"].as_bool().unwrap(), left }
}

/// A policy whose limits count where those of no other house do.
fn apart(mut policy: Value, number: u64) -> String {
    policy["version"] = json!(1);
    policy["store"] = json!({"cluster": "lanekeeper"});
    for (name, limit) in policy["rate_limits"].as_object_mut().unwrap() {
        limit["key_prefix"] = json!(format!("{name}-{number}"));
    }
    policy.to_string()
}
