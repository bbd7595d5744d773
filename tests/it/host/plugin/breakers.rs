//! Breakers and bulkheads: several workers, and calls that end in every way there is.

mod answers;
mod bulkhead;
mod control;
mod ends;
mod half_open;
mod lanes;
mod random_ends;
mod reports;
mod sharing;
mod trips;
mod updates;

use std::time::Duration;

use lanekeeper_engine::breaker;
use lanekeeper_tests::host::{Host, Request, State, Stream};
use serde_json::{Value, json};

use super::{MS, behaved, start};

/// So late each worker knows what another one has seen.
const HEARD: Duration = Duration::from_millis(100);
/// So late no worker keeps places that it does not use.
const EVEN: Duration = Duration::from_millis(500);
/// How long `open_for` is where a test says nothing else.
const OPEN_FOR: Duration = Duration::from_secs(5);
/// An open breaker stays so for at most this longer than is written.
const JITTER: Duration = Duration::from_millis(500);

const OPEN: &str = "lanekeeper_breaker_open";
const HALF_OPEN: &str = "lanekeeper_breaker_half_open";
const FULL: &str = "lanekeeper_bulkhead_full";
const FORCED: &str = "lanekeeper_breaker_forced_open";

/// A policy with the commands `list` and `claim`, and the lane `shadow` beside the normal one.
fn policy(resilience: &Value) -> Value {
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["true"]}],
            "trust": [{"source_cidr": ["127.0.0.0/8"]}],
            "propagate": [{"header": "x-shadow", "value": "true"}],
        }},
        "commands": [
            {"command": "list", "match": {"path": {"prefix": "/list"}}},
            {"command": "claim", "match": {"path": {"prefix": "/claim"}}},
        ],
        "resilience": resilience,
    })
}

/// The same with a breaker of these values for `list`.
fn guarded(entry: &Value) -> Value {
    policy(&json!({"list": entry}))
}

/// Trips at the first failure.
fn touchy() -> Value {
    json!({"consecutive_failures": 1, "open_for": "5s", "half_open_calls": 1})
}

fn list() -> Request {
    Request::get("/list")
}

fn shadow() -> Request {
    list().header("x-shadow", "true")
}

fn call(host: &Host, worker: usize) -> Stream {
    host.worker(worker).request(list())
}

fn succeed(stream: &Stream) {
    answer(stream, 200);
}

fn fail(stream: &Stream) {
    answer(stream, 500);
}

fn answer(stream: &Stream, status: u32) {
    stream.respond([(":status", status.to_string())]);
    stream.end();
}

/// Why it was turned away, as access logs have it; none when it went on.
fn refusal(stream: &Stream) -> Option<String> {
    match stream.state() {
        State::Continued => None,
        State::Replied(reply) => Some(reply.details),
        other => panic!("undecided: {other:?}"),
    }
}

fn refused_as(stream: &Stream, details: &str) -> bool {
    refusal(stream).as_deref() == Some(details)
}

/// The breaker of `list`: 0 closed, 1 half-open, 2 open.
fn state(host: &Host) -> Option<u64> {
    state_in(host, "normal")
}

fn state_in(host: &Host, lane: &str) -> Option<u64> {
    host.gauge(&format!("lanekeeper.breaker_state.lane.{lane}.command.list"))
}

/// How often the breaker of `list` has become so.
fn transitions(host: &Host, to: &str) -> u64 {
    transitions_in(host, "normal", to)
}

fn transitions_in(host: &Host, lane: &str, to: &str) -> u64 {
    let name = format!("lanekeeper.breaker_transitions_total.lane.{lane}.command.list.to.{to}");
    host.counter(&name).unwrap_or(0)
}

/// How many calls of `list` were turned away so, for that reason.
fn refusals(host: &Host, outcome: &str, reason: &str) -> u64 {
    let place = "lane.normal.command.list";
    let name = format!("lanekeeper.breaker_refusals_total.{place}.outcome.{outcome}.reason.{reason}");
    host.counter(&name).unwrap_or(0)
}

/// What was logged of breakers, without how long they are open, which chance has a part in.
fn told(host: &Host) -> Vec<String> {
    let lines = host.log().into_iter().map(|line| line.text);
    let of_breakers = lines.filter(|line| line.starts_with("lanekeeper: breaker "));
    of_breakers.map(|line| line.split("; open for ").next().unwrap_or_default().to_owned()).collect()
}

/// A breaker of these values that has been tripped and may be half-open with the next call; four workers.
fn waiting(entry: &Value) -> Host {
    let host = start(&guarded(entry), 4);
    trip(&host);
    host.advance(OPEN_FOR + JITTER);
    host
}

/// Lets calls fail until the breaker of `list` is open.
fn trip(host: &Host) {
    for _ in 0..100 {
        if state(host) == Some(2) {
            return;
        }
        fail(&call(host, 0));
    }
    panic!("a hundred failures do not open it");
}
