//! A service behind Envoy that tells what reached it.
//!
//! It answers 200, or the status that a request asks for ([`ANSWER`]), with what it saw as JSON, and remembers it. Bytes of header values that are no ASCII
//! are told as latin-1, one character a byte, so that nothing is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::scenario::ANSWER;

/// A running upstream; stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    // dropped without waiting: connections that Envoy keeps open would hold it for ever
    runtime: Option<Runtime>,
}

#[derive(Debug, Default)]
struct Memory {
    seen: Vec<Seen>,
    delay: Duration,
}

/// A request as it reached the service.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names and values in their order; values as latin-1.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Bytes,
}

impl Seen {
    /// All values of a header, in their order.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    fn as_json(&self) -> Value {
        json!({
            "method": self.method,
            "path": self.path,
            "headers": self.headers,
            "body_len": self.body.len(),
        })
    }
}

impl Upstream {
    /// Starts one on a free port.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the upstream's runtime")?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let memory = Arc::default();
        let router =
            Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&memory));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, memory, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What reached it so far, in the order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.memory).seen.clone()
    }

    /// Answers only this long after a request has arrived, from the next one on.
    pub fn answer_after(&self, delay: Duration) {
        lock(&self.memory).delay = delay;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(State(memory): State<Arc<Mutex<Memory>>>, request: Request) -> (StatusCode, Json<Value>) {
    let (parts, body) = request.into_parts();
    let status = parts.headers.get(ANSWER).and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), latin1(value.as_bytes())));
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        headers: headers.collect(),
        body,
    };
    let told = seen.as_json();
    let delay = {
        let mut memory = lock(&memory);
        memory.seen.push(seen);
        memory.delay
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    (status.unwrap_or(StatusCode::OK), Json(told))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}
