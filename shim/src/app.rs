//! The HTTP side: what may be asked, by whom, and what a body must be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use futures_util::future::join3;
use lanekeeper_engine::policy::Policy;
use lanekeeper_engine::wire::{
    self, Check, CheckAnswer, DecideRequest, DecideResponse, ReturnRequest, ReturnResponse, StoreError,
};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

pub use crate::body::MAX_BODY_BYTES;
use crate::body::{Body, read};
use crate::breakers::{self, Breakers};
use crate::drain::Drain;
use crate::limits;
use crate::metrics::{self, Metrics};
use crate::nodes::Nodes;
use crate::policy::PolicyFile;
use crate::problem::Problem;
use crate::shards::Sharded;
use crate::shed::{MAX_REQUESTS, shed};
use crate::store::{NotReady, Store};

/// What is served, as OpenAPI 3.1. Written by hand: the types of the messages are the engine's, which is built into
/// the plugin and should not carry descriptions; a test holds it to the routes and to real answers.
pub const OPENAPI: &str = include_str!("../openapi.json");

/// How often a store is looked at that is waited for.
const READY_EVERY: Duration = Duration::from_millis(20);

/// The service: a store, and who may ask it.
pub struct App {
    store: Arc<Sharded>,
    nodes: Arc<Nodes>,
    breakers: Breakers,
    token: Option<String>,
    admin_token: Option<String>,
    policy: Option<Arc<PolicyFile>>,
    metrics: Metrics,
    /// Places for requests that ask the store.
    places: Semaphore,
    drain: Drain,
}

impl App {
    /// A service that anyone may ask.
    pub fn new(store: impl Store) -> Self {
        let mut metrics = Metrics::new();
        metrics.show_store(&store);
        Self {
            store: Arc::new(Sharded::new(store)),
            nodes: Arc::default(),
            breakers: Breakers::default(),
            token: None,
            admin_token: None,
            policy: None,
            metrics,
            places: Semaphore::new(MAX_REQUESTS as usize),
            drain: Drain::new(),
        }
    }

    /// A service whose decisions only those may ask for who bear `token`.
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// A service in which those who bear `token` may do what operators do. Without one nobody may.
    pub fn with_admin_token(self, token: impl Into<String>) -> Self {
        Self { admin_token: Some(token.into()), ..self }
    }

    /// A service that also knows the limits of `policy` by their names.
    pub fn with_policy(mut self, policy: Arc<PolicyFile>) -> Self {
        self.metrics.show_reloads(policy.reloads.clone());
        Self { policy: Some(policy), ..self }
    }

    /// A service that works on `most` requests at once, and refuses others at once.
    pub fn with_max_requests(self, most: u32) -> Self {
        Self { places: Semaphore::new(most as usize), ..self }
    }

    /// The service, ready to be served.
    pub fn router(self) -> Router {
        let app = Arc::new(self);
        let add = |router: Router<_>, (path, handler)| router.route(path, handler);
        guarded()
            .into_iter()
            .fold(Router::new(), add)
            .route_layer(from_fn_with_state(Arc::clone(&app), shed))
            .route_layer(from_fn_with_state(Arc::clone(&app), authorize))
            .merge(
                operators()
                    .into_iter()
                    .fold(Router::new(), add)
                    .route_layer(from_fn_with_state(Arc::clone(&app), shed))
                    .route_layer(from_fn_with_state(Arc::clone(&app), authorize_operator)),
            )
            .merge(open().into_iter().fold(Router::new(), add))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(from_fn_with_state(Arc::clone(&app), mark))
            .with_state(app)
    }

    /// Waits until the store answers, for so long at most.
    pub async fn until_ready(&self, at_most: Duration) -> Result<(), NotReady> {
        let began = Instant::now();
        loop {
            match self.store.ready().await {
                Err(_) if began.elapsed() < at_most => sleep(READY_EVERY).await,
                ready => return ready,
            }
        }
    }

    /// What is known of its leaving.
    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// The policy that holds now.
    pub(crate) fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.as_ref().map(|file| file.policy())
    }

    /// A place for one more request; `None` when there is none, which is counted.
    pub(crate) fn place(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.places.try_acquire().ok();
        if place.is_none() {
            self.metrics.record_shed();
        }
        place
    }

    /// Has the store forget these store keys.
    pub(crate) async fn reset(&self, keys: &[String]) -> Result<(), StoreError> {
        self.store.reset(keys).await
    }

    /// Asks the store, and counts what it says.
    pub(crate) async fn decide(&self, checks: &[Check], spend_within: Duration) -> Vec<CheckAnswer> {
        if checks.is_empty() {
            return Vec::new();
        }
        let asked = Instant::now();
        let decided = self.store.decide(checks, spend_within);
        let answers = match spend_within {
            Duration::ZERO => decided.await,
            // A store that has to ask more than once has no one moment to stop at.
            _ => timeout(spend_within, decided)
                .await
                .unwrap_or_else(|_| vec![CheckAnswer::Failed { error: StoreError::Timeout }; checks.len()]),
        };
        self.metrics.record(&answers, asked.elapsed());
        answers
    }
}

type Route = (&'static str, MethodRouter<Arc<App>>);

/// What only those may ask for who bear the token, while there is room for it.
fn guarded() -> [Route; 7] {
    [
        (wire::DECIDE_PATH, post(decide)),
        (wire::RETURN_PATH, post(give_back)),
        (breakers::PATH, get(breakers)),
        (limits::CAN_ALLOW, post(limits::can_allow)),
        (limits::ALLOW, post(limits::allow)),
        (limits::CAN_ALLOW_ALL, post(limits::can_allow_all)),
        (limits::ALLOW_ALL, post(limits::allow_all)),
    ]
}

/// What only those may ask for who bear the operators' token, while there is room for it.
fn operators() -> [Route; 1] {
    [(limits::RESET, post(limits::reset))]
}

/// What anybody may ask for at any time.
fn open() -> [Route; 4] {
    [
        ("/healthz", get(|| async { "ok\n" })),
        ("/readyz", get(readyz)),
        ("/metrics", get(metrics)),
        ("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) })),
    ]
}

/// The paths of all that is served.
pub fn paths() -> impl Iterator<Item = &'static str> {
    guarded().into_iter().chain(operators()).chain(open()).map(|(path, _)| path)
}

async fn decide(State(app): State<Arc<App>>, body: Body) -> Result<Json<DecideResponse>, Problem> {
    let batch: DecideRequest = read(body)?;
    batch.validate().map_err(|error| Problem::of_field(error.field, error.problem))?;
    let spend_within = Duration::from_millis(batch.spend_within_ms.into());
    // All at once cost one way to the store, which takes them in this order. Whoever returns tokens has forgotten them:
    // what the store cannot take back stays charged.
    let record =
        async { if batch.spent.is_empty() { Vec::new() } else { app.store.record(&batch.spent).await } };
    let give_back = async {
        if !batch.returns.is_empty() {
            app.store.give_back(&batch.returns).await;
        }
    };
    let (spent, (), answers) = join3(record, give_back, app.decide(&batch.checks, spend_within)).await;
    let nodes = batch.node.and_then(|node| {
        app.breakers.hear(node, batch.breakers);
        app.nodes.hear(node, &app.store)
    });
    let away =
        app.store.is_away() && answers.iter().all(|answer| matches!(answer, CheckAnswer::Failed { .. }));
    Ok(Json(DecideResponse { version: wire::VERSION, nodes, away, spent, answers }))
}

async fn give_back(State(app): State<Arc<App>>, body: Body) -> Result<Json<ReturnResponse>, Problem> {
    let message: ReturnRequest = read(body)?;
    message.validate().map_err(|error| Problem::of_field(error.field, error.problem))?;
    let returned = app.store.give_back(&message.returns).await;
    Ok(Json(ReturnResponse { version: wire::VERSION, returned }))
}

async fn breakers(State(app): State<Arc<App>>) -> Json<breakers::View> {
    Json(app.breakers.view())
}

async fn authorize(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match &app.token {
        Some(token) => admit(token, request, next).await,
        None => next.run(request).await,
    }
}

async fn authorize_operator(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(token) = &app.admin_token else {
        let missing = "nobody may do this: start the shim with --admin-token-env NAME";
        return Problem::new(StatusCode::FORBIDDEN, missing).into_response();
    };
    admit(token, request, next).await
}

/// Lets through who bears this token.
async fn admit(token: &str, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    if given.ct_eq(token.as_bytes()).into() {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed, and this is not the one");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    if app.drain.has_begun() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining: this shim leaves"));
    }
    app.store
        .ready()
        .await
        .map(|()| "ready\n")
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let text = app
        .metrics
        .text()
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("nothing is at {}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {}", uri.path()))
}

/// Marks each answer as the shim's own, and asks callers to leave when it does. In HTTP/2 that is no header: such a
/// connection is told when it is to end, and loses nothing by it.
async fn mark(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let keeps_by_header = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    if keeps_by_header && app.drain.is_leaving() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let mark = (HeaderName::from_static(wire::SHIM_HEADER), HeaderValue::from_static("1"));
    response.headers_mut().insert(mark.0, mark.1);
    response
}
