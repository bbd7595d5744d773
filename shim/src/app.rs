//! The HTTP side: what may be asked, by whom, and what a body must be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use lanekeeper_engine::wire::{self, DecideRequest, DecideResponse};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::metrics::{self, Metrics};
use crate::problem::Problem;
use crate::store::Store;

/// The largest body. The largest batch that a filter makes is far smaller.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// The service: a store, and who may ask it.
pub struct App {
    store: Box<dyn Store>,
    token: Option<String>,
    metrics: Metrics,
}

impl App {
    /// A service that anyone may ask.
    pub fn new(store: impl Store) -> Self {
        Self { store: Box::new(store), token: None, metrics: Metrics::new() }
    }

    /// A service whose decisions only those may ask for who bear `token`.
    pub fn with_token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let app = Arc::new(self);
        Router::new()
            .route(wire::DECIDE_PATH, post(decide))
            .route_layer(from_fn_with_state(Arc::clone(&app), authorize))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(map_response(mark))
            .with_state(app)
    }
}

async fn decide(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<DecideResponse>, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let batch = read(&body)?;
    let spend_within = Duration::from_millis(batch.spend_within_ms.into());
    let asked = Instant::now();
    let answers = app.store.decide(&batch.checks, spend_within).await;
    app.metrics.record(&answers, asked.elapsed());
    Ok(Json(DecideResponse { version: wire::VERSION, answers }))
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_BODY_BYTES} bytes are allowed"))
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "the body broke off"),
    }
}

fn read(body: &[u8]) -> Result<DecideRequest, Problem> {
    let no_json = |error: &serde_json::Error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"))
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    let batch = DecideRequest::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let batch = batch.map_err(|error| {
        if !error.is_data() {
            return no_json(&error);
        }
        match field(&track.path(), &error) {
            Some(field) => Problem::of_field(field, error.to_string()),
            None => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
        }
    })?;
    json.end().map_err(|error| no_json(&error))?;
    batch.validate().map_err(|error| Problem::of_field(error.field, error.problem))?;
    Ok(batch)
}

/// The field that an error is about; none when it is the body as a whole. A field that is missing was never on
/// the path: only the error names it.
fn field(path: &serde_path_to_error::Path, error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    match (path.iter().len(), missing) {
        (0, missing) => missing.map(str::to_owned),
        (_, Some(missing)) => Some(format!("{path}.{missing}")),
        (_, None) => Some(path.to_string()),
    }
}

async fn authorize(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(token) = &app.token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    if given.ct_eq(token.as_bytes()).into() {
        return next.run(request).await;
    }
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is needed, and this is not the one");
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
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

async fn mark(mut response: Response) -> Response {
    let mark = (HeaderName::from_static(wire::SHIM_HEADER), HeaderValue::from_static("1"));
    response.headers_mut().insert(mark.0, mark.1);
    response
}
