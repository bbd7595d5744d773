//! The way of a question to the shim, and of its answer back.

use std::time::Duration;

use lanekeeper_engine::batch::{Call, Heard};
use lanekeeper_engine::wire::{DECIDE_PATH, SHIM_HEADER};

use crate::host::{self, Buffer, HostError, Map};
use crate::metrics::CallEnd;

/// Where and how to ask.
pub(crate) struct Asking {
    /// The cluster of the shim.
    pub(crate) cluster: String,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
    /// The value of the `authorization` header.
    pub(crate) authorization: Option<String>,
    /// The number of this node.
    pub(crate) node: u64,
}

impl Asking {
    /// Sends a question. Gives the number by which the host will call its end.
    pub(crate) fn send(&self, call: &Call) -> Result<u32, HostError> {
        // a question is made of texts and numbers, which always have a JSON form
        let body = serde_json::to_vec(call.question()).unwrap_or_default();
        let mut headers = vec![
            (":method", "POST"),
            (":path", DECIDE_PATH),
            (":authority", self.cluster.as_str()),
            ("content-type", "application/json"),
        ];
        headers.extend(self.authorization.as_deref().map(|value| ("authorization", value)));
        host::http_call(&self.cluster, &headers, &body, self.timeout)
    }
}

/// Reads the answer that the running callback is about, if it is the shim's own. Envoy answers in its place when there
/// is no connection (503) or no answer in time (504).
pub(crate) fn read(call: &Call, has_headers: bool) -> Result<Heard, CallEnd> {
    if !has_headers {
        return Err(CallEnd::Unreachable);
    }
    let status = host::header(Map::CalloutResponse, ":status").unwrap_or_default();
    if host::header(Map::CalloutResponse, SHIM_HEADER).is_none() {
        return Err(if status == b"504" { CallEnd::TimedOut } else { CallEnd::Unreachable });
    }
    let body = host::buffer(Buffer::CalloutResponse).map_err(|_| CallEnd::Malformed)?;
    if status != b"200" {
        return Err(CallEnd::Refused);
    }
    let response = serde_json::from_slice(&body).map_err(|_| CallEnd::Malformed)?;
    call.read(response).ok_or(CallEnd::Malformed)
}

/// Whether the shim could not read the question that the running callback is about.
pub(crate) fn was_not_understood() -> bool {
    host::header(Map::CalloutResponse, ":status").is_some_and(|status| status == b"400")
}
