//! Breakers in a real Envoy, before a service that fails on demand.

mod failures;
mod isolation;
mod mappings;
mod scenarios;
mod workers;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use lanekeeper_tests::client::{Answer, Client, TRUSTED};
use lanekeeper_tests::envoy::{Envoy, Setup};
use lanekeeper_tests::failing::{Failing, Lane};
use lanekeeper_tests::wait;
use serde_json::{Value, json};

use super::super::wait_for_streams;

/// A policy without limits and without a store, whose commands are the first parts of the paths: `/shop/7` is `shop`'s.
fn policy(commands: &[&str], resilience: Value) -> Value {
    let command = |name: &&str| json!({"command": name, "match": {"path": {"prefix": format!("/{name}/")}}});
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"baggage": "shadow", "values": ["true"]}],
            "trust": [{"source_cidr": ["127.0.0.1/32"]}],
            "propagate": [{"baggage": "shadow", "value": "true"}],
        }},
        "commands": commands.iter().map(command).collect::<Vec<_>>(),
        "resilience": resilience,
    })
}

/// A request of a lane.
fn send(client: &Client, envoy: &Envoy, lane: Lane, path: &str) -> Answer {
    client.get(&envoy.url(path), lane.headers()).unwrap()
}

/// Why a breaker has turned a request away, by its problem; `None` if it is no breaker's.
fn refusing(answer: &Answer) -> Option<(String, String)> {
    let problem: Value = serde_json::from_str(&answer.body).ok()?;
    let text = |name: &str| problem.get(name)?.as_str().map(str::to_owned);
    Some((text("breaker")?, text("lane")?))
}

/// The state of a breaker as Prometheus sees it: `0` closed, `1` half-open, `2` open.
fn state(envoy: &Envoy, lane: Lane, command: &str) -> u64 {
    let labels = [("lane", lane.name()), ("command", command)];
    envoy.admin().metric("lanekeeper_breaker_state", &labels).unwrap()
}

fn refusals(envoy: &Envoy, lane: Lane, reason: &str) -> u64 {
    let labels = [("lane", lane.name()), ("outcome", "rejected"), ("reason", reason)];
    envoy.admin().metric("lanekeeper_breaker_refusals_total", &labels).unwrap()
}

fn transitions(envoy: &Envoy, lane: Lane, to: &str) -> u64 {
    let labels = [("lane", lane.name()), ("to", to)];
    envoy.admin().metric("lanekeeper_breaker_transitions_total", &labels).unwrap()
}

/// Sends a request whose answer nobody reads; dropped, its client leaves.
fn begin(envoy: &Envoy, lane: Lane, path: &str) -> TcpStream {
    begin_with(envoy, lane, &format!("GET {path} HTTP/1.1\r\n"))
}

/// The same, with a first line and headers of its own.
fn begin_with(envoy: &Envoy, lane: Lane, head: &str) -> TcpStream {
    let mut client = TcpStream::connect(envoy.address()).unwrap();
    client.write_all(format!("{head}host: a\r\n").as_bytes()).unwrap();
    for (name, value) in lane.headers() {
        client.write_all(&[name.as_bytes(), b": ", value, b"\r\n"].concat()).unwrap();
    }
    client.write_all(b"\r\n").unwrap();
    client
}

/// So many more requests that are at the service, which must hang.
fn hold(service: &Failing, envoy: &Envoy, lane: Lane, path: &str, count: usize) -> Vec<TcpStream> {
    let before = service.book().under_way(lane);
    let clients = (0..count).map(|_| begin(envoy, lane, path)).collect();
    service.wait("calls that hang", |book| book.under_way(lane) == before + count).unwrap();
    clients
}
