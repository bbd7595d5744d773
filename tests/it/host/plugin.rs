//! The built plugin on the fake host.

mod bad_input;
mod breakers;
mod charging;
mod circuit;
mod counters;
mod leases;
mod life;
mod outage;
mod promise;
mod refusals;
mod reload;
mod scenarios;
mod store;
mod success;
mod waiting;

use std::time::Duration;

use lanekeeper_engine::wire::{
    CheckAnswer, DecideRequest, DecideResponse, Recorded, SHIM_HEADER, StoreError, VERSION,
};
use lanekeeper_tests::fake_shim::{Store, ours};
use lanekeeper_tests::host::{Answer, Callout, Host, Request, State, Stream};
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);
/// The source of what was counted on the node in the store's place.
const FALLBACK: &str = "fallback.on_failure.local";

/// `per_user`, so many a minute, without a store.
fn standalone(limit: u32) -> Value {
    json!({
        "version": 1,
        "rate_limits": {
            "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": limit, "per": "1m"}]},
        },
    })
}

/// The same with a store, whose every decision is the store's.
fn with_store(limit: u32, on_failure: &str) -> Value {
    let mut policy = standalone(limit);
    policy["store"] =
        json!({"cluster": "lanekeeper", "timeout": "20ms", "on_failure": on_failure, "max_drift": 0});
    policy
}

/// The same with leases.
fn leased(limit: u32, on_failure: &str) -> Value {
    let mut policy = with_store(limit, on_failure);
    policy["store"]["max_drift"] = json!("1%");
    policy
}

fn start(policy: &Value, workers: usize) -> Host {
    Host::start(&policy.to_string(), workers).unwrap()
}

/// The store answers that it could do nothing of what it was asked, and whether it is away.
fn failing(callout: &Callout, away: bool) -> DecideResponse {
    let question = question(callout);
    let failed = CheckAnswer::Failed { error: StoreError::Unreachable };
    let answers = question.checks.iter().map(|_| failed.clone()).collect();
    let spent = vec![Recorded::NotRecorded(StoreError::Unreachable); question.spent.len()];
    DecideResponse { version: VERSION, nodes: None, away, spent, answers }
}

/// Ways in which a question to the store, of one check, is in vain.
fn failures() -> [(&'static str, Answer); 5] {
    let failed = CheckAnswer::Failed { error: StoreError::Timeout };
    [
        ("connection refused", Answer::connect_failure()),
        ("no answer in time", Answer::timeout()),
        ("reset", Answer::reset()),
        ("not JSON", Answer::response(200, [(SHIM_HEADER, "1")], "no")),
        (
            "not decided",
            ours(DecideResponse {
                version: VERSION,
                nodes: None,
                away: false,
                spent: Vec::new(),
                answers: vec![failed],
            }),
        ),
    ]
}

/// A node of so many workers and its store, which answers at once.
fn served(policy: &Value, workers: usize) -> (Host, Store) {
    let (host, store) = (start(policy, workers), Store::new());
    store.serve(&host);
    (host, store)
}

fn by(user: &str) -> Request {
    Request::get("/").header("x-user", user)
}

/// The status that the client got, or will get from an upstream that answers 200.
fn status(stream: &Stream) -> u32 {
    match stream.state() {
        State::Continued => 200,
        State::Replied(reply) => reply.status,
        other => panic!("undecided: {other:?}"),
    }
}

/// The status of a request by `user` that this worker must decide at once.
fn ask(host: &Host, worker: usize, user: &str) -> u32 {
    let stream = host.worker(worker).request(by(user));
    let status = status(&stream);
    stream.end();
    status
}

/// Answers all callouts, also those that come of the answers.
fn pump(host: &Host, store: &Store) {
    while let Some(callout) = host.callouts().first().cloned() {
        assert!(host.answer(&callout, store.answer(host, &callout)));
    }
}

/// What a callout asks the store.
fn question(callout: &Callout) -> DecideRequest {
    serde_json::from_slice(&callout.body).unwrap()
}

fn fallback(stream: &Stream) -> Option<String> {
    match stream.state() {
        State::Continued => stream.respond([(":status", "200")]).unwrap().text("x-lanekeeper-fallback"),
        State::Replied(reply) => reply.headers.text("x-lanekeeper-fallback"),
        other => panic!("undecided: {other:?}"),
    }
}

fn decisions(host: &Host, lane: &str, limit: &str, outcome: &str, source: &str) -> u64 {
    let name =
        format!("lanekeeper.decisions_total.lane.{lane}.limit.{limit}.outcome.{outcome}.source.{source}");
    host.counter(&name).unwrap_or(0)
}

fn charges(host: &Host, lane: &str, limit: &str, outcome: &str, source: &str) -> u64 {
    let name =
        format!("lanekeeper.charges_total.lane.{lane}.limit.{limit}.outcome.{outcome}.source.{source}");
    host.counter(&name).unwrap_or(0)
}

fn store_calls(host: &Host, outcome: &str) -> u64 {
    host.counter(&format!("lanekeeper.store_calls_total.outcome.{outcome}")).unwrap_or(0)
}

fn renewals(host: &Host) -> u64 {
    host.counter("lanekeeper.lease_renewals_total").unwrap_or(0)
}

/// The host calls of one admitted request, by their names, once its metrics are defined.
fn calls_of_a_request(host: &Host) -> Vec<(&'static str, u64)> {
    for _ in 0..2 {
        host.reset_counts();
        let stream = host.worker(0).request(by("u"));
        stream.respond([(":status", "200")]);
        stream.end();
    }
    host.calls().into_iter().collect()
}

/// Nothing trapped, and nothing was done that a host answers with an assertion or a hung stream.
fn behaved(host: &Host) {
    assert_eq!(host.traps(), []);
    assert_eq!(host.misuses(), Vec::<String>::new());
}
