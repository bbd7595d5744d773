//! What comes in a request's body: JSON that fits, or a problem that names the field.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The largest body. The largest batch that a filter makes is far smaller.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// A body as it came in, if it came in whole.
pub(crate) type Body = Result<Bytes, BytesRejection>;

/// Reads `body` as JSON.
pub(crate) fn read<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = body.map_err(|rejection| unreadable(&rejection))?;
    let no_json = |error: &serde_json::Error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {error}"))
    };
    let mut json = serde_json::Deserializer::from_slice(&body);
    let mut track = serde_path_to_error::Track::new();
    let value = T::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let value = value.map_err(|error| {
        if !error.is_data() {
            return no_json(&error);
        }
        match field(&track.path(), &error) {
            Some(field) => Problem::of_field(field, error.to_string()),
            None => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
        }
    })?;
    json.end().map_err(|error| no_json(&error))?;
    Ok(value)
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {MAX_BODY_BYTES} bytes are allowed"))
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "the body broke off"),
    }
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
