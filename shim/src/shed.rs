//! Shedding load: more requests at once than there is room for are refused at once, before their bodies are read.
//!
//! Whoever waits here for others waits past its own timeout soon, and the memory that the waiting take has no end.
//! Refused at once, a filter takes its `on_failure`, and has lost nothing but the way.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::problem::Problem;

/// How many requests that ask the store may be under way at once, if nobody says so. A worker of an Envoy has two at
/// most, so these are 512 workers that all wait; and if each sent the largest body there is, it would be a gigabyte.
pub(crate) const MAX_REQUESTS: u32 = 1024;

/// After how many seconds to come again. The store answers within milliseconds or not at all, so there may be room
/// at once; a second keeps those who were refused from being the load.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Refuses what there is no room for.
pub(crate) async fn shed(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(_place) = app.place() else {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way");
        return ([(header::RETRY_AFTER, RETRY_AFTER)], problem).into_response();
    };
    next.run(request).await
}
