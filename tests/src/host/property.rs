//! Properties: what Envoy's attributes say of a stream, of its response, and of the proxy.
//!
//! A test sets what it likes, on the host or on a stream. What follows from headers is worked out, and like in
//! Envoy it is only there while the headers are: in their callback, while the stream is paused, and in
//! `proxy_on_log`.

use std::collections::BTreeMap;

use super::call::Call;
use super::flow::StreamState;
use super::half::Half;
use super::headers::Headers;
use super::status::{Outcome, Status};

/// Values by path. A value can be one that Envoy fails to write down.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties(BTreeMap<Vec<u8>, Result<Vec<u8>, Status>>);

impl Properties {
    pub(super) fn set(&mut self, path: &[&str], value: Result<Vec<u8>, Status>) {
        self.0.insert(path.join("\0").into_bytes(), value);
    }

    fn get(&self, path: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        self.0.get(path).cloned()
    }
}

impl StreamState {
    /// What is known of a stream as soon as it begins.
    pub(super) fn first_properties() -> Properties {
        let mut properties = Properties::default();
        for (path, value) in [
            (["request", "protocol"], "HTTP/1.1"),
            (["source", "address"], "127.0.0.1:40000"),
            (["destination", "address"], "127.0.0.1:8080"),
        ] {
            properties.set(&path, Ok(value.into()));
        }
        properties.set(&["source", "port"], Ok(40_000_i64.to_le_bytes().into()));
        properties.set(&["destination", "port"], Ok(8_080_i64.to_le_bytes().into()));
        properties.set(&["connection", "mtls"], Ok(vec![0]));
        properties
    }

    /// Notes what a response says of itself.
    pub(super) fn note_response(&mut self, headers: &Headers, details: &str) {
        let code = headers.text(":status").and_then(|status| status.parse::<i64>().ok()).unwrap_or_default();
        self.properties.set(&["response", "code"], Ok(code.to_le_bytes().into()));
        self.properties.set(&["response", "code_details"], Ok(details.into()));
    }

    fn property(&self, path: &[u8]) -> Option<Result<Vec<u8>, Status>> {
        let held = self.properties.get(path);
        held.or_else(|| self.derived(path).map(Ok)).or_else(|| {
            let name = std::str::from_utf8(path).ok()?;
            self.filter_state.get(name).cloned().map(Ok)
        })
    }

    fn derived(&self, path: &[u8]) -> Option<Vec<u8>> {
        let path = std::str::from_utf8(path).ok()?;
        let (top, rest) = path.split_once('\0')?;
        match top {
            "request" => from_request(self.visible(&self.request)?, rest),
            "response" => from_response(self.visible(&self.response)?, rest),
            _ => None,
        }
    }

    fn visible<'a>(&self, half: &'a Half) -> Option<&'a Headers> {
        let is_there = half.headers_open || (self.logging && half.started);
        is_there.then_some(&half.headers)
    }
}

fn from_request(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    let path = || headers.get(":path").map(<[u8]>::to_vec);
    match name {
        "path" => path(),
        "url_path" => Some(path()?.split(|byte| *byte == b'?').next()?.to_vec()),
        "query" => Some(path()?.splitn(2, |byte| *byte == b'?').nth(1)?.to_vec()),
        "host" => headers.get(":authority").map(<[u8]>::to_vec),
        "scheme" => headers.get(":scheme").map(<[u8]>::to_vec),
        "method" => headers.get(":method").map(<[u8]>::to_vec),
        "id" => headers.get("x-request-id").map(<[u8]>::to_vec),
        "useragent" => headers.get("user-agent").map(<[u8]>::to_vec),
        "referer" => headers.get("referer").map(<[u8]>::to_vec),
        _ => from_headers(headers, name),
    }
}

fn from_response(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    match name {
        "grpc_status" => Some(headers.text("grpc-status")?.parse::<i64>().ok()?.to_le_bytes().into()),
        _ => from_headers(headers, name),
    }
}

/// All headers as pairs, or the values of one, joined by commas.
fn from_headers(headers: &Headers, name: &str) -> Option<Vec<u8>> {
    if name == "headers" {
        return Some(headers.encode());
    }
    let values: Vec<_> = headers.values(name.strip_prefix("headers\0")?).collect();
    Some(values.join(b",".as_slice())).filter(|_| !values.is_empty())
}

pub(super) fn get(call: &mut Call<'_, '_>) -> Outcome {
    let path = call.bytes()?;
    let value_to = call.place();
    let of_stream = call.stream().and_then(|stream| stream.borrow().property(&path));
    let found = of_stream.or_else(|| call.process.properties.borrow().get(&path));
    let value = found.ok_or(Status::NotFound)??;
    call.give(value_to, &value)
}

/// Writes filter state, which access logs read under `wasm.` and the name.
pub(super) fn set(call: &mut Call<'_, '_>) -> Outcome {
    let (name, value) = (call.bytes()?, call.bytes()?);
    let stream = call.stream().ok_or(Status::NotFound)?;
    let name = String::from_utf8_lossy(&name).into_owned();
    stream.borrow_mut().filter_state.insert(name, value);
    Ok(())
}
