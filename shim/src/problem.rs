//! What went wrong with a request, as RFC 9457 has it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lanekeeper_engine::wire::StoreError;
use serde::Serialize;

/// A `application/problem+json` body and its status. Its type is `about:blank`, so the title is the status.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: String,
    /// The field of the request's body that is wrong, as in `checks[2].keys[0].cost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// Why the store could not decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<StoreError>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or_default();
        Self { title, status, detail: detail.into(), field: None, error: None }
    }

    pub(crate) fn of_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).about(field)
    }

    /// The store could not decide.
    pub(crate) fn of_store(error: StoreError) -> Self {
        Self { error: Some(error), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()) }
    }

    /// The same, about this field.
    pub(crate) fn about(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// The same, about a field of `place`.
    pub(crate) fn under(self, place: &str) -> Self {
        let field = self.field.as_ref().map_or_else(|| place.to_owned(), |field| format!("{place}.{field}"));
        self.about(field)
    }
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
