//! What nodes say of their breakers, as an operator reads it.
//!
//! Where time has to pass the service is asked without a connection, so that the clock moves when it is told to and
//! not before.

use std::path::Path;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::Request;
use lanekeeper_engine::breaker::State;
use lanekeeper_engine::wire::{BreakerReport, DECIDE_PATH, DecideRequest, MAX_REPORTS};
use lanekeeper_shim::app::App;
use lanekeeper_shim::memory::MemoryStore;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::advance;
use tower::ServiceExt;

use crate::http::problem;
use crate::support::{HOUR, SECOND, Shim, batch, check, left, sliding};

const PATH: &str = "/v1/breakers";
/// How long a shim knows what it was told.
const LIFE_SECS: u32 = 150;

fn report(name: &str, state: State, generation: u64, for_ms: Option<u64>) -> BreakerReport {
    BreakerReport { name: name.into(), state, generation, for_ms }
}

/// A message of a node that has nothing to ask.
fn message(node: u64, breakers: Vec<BreakerReport>) -> DecideRequest {
    DecideRequest { node: Some(node), breakers, ..batch(0, Vec::new()) }
}

struct Service(Router);

impl Service {
    fn new() -> Self {
        Self(App::new(MemoryStore::new()).router())
    }

    async fn answer(&self, request: Request<Body>) -> Bytes {
        let answer = self.0.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        to_bytes(answer.into_body(), usize::MAX).await.unwrap()
    }

    async fn tell(&self, node: u64, breakers: Vec<BreakerReport>) {
        let body = serde_json::to_vec(&message(node, breakers)).unwrap();
        self.answer(Request::post(DECIDE_PATH).body(body.into()).unwrap()).await;
    }

    async fn view(&self) -> Vec<Value> {
        let view = self.answer(Request::get(PATH).body(Body::empty()).unwrap()).await;
        let view: Value = serde_json::from_slice(&view).unwrap();
        view["breakers"].as_array().unwrap().clone()
    }

    /// The state of the only breaker on the only node.
    async fn state(&self) -> Value {
        let view = self.view().await;
        assert_eq!((view.len(), view[0]["nodes"].as_array().unwrap().len()), (1, 1));
        view[0]["nodes"][0]["state"].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn shows_the_state_of_each_breaker_on_each_node_and_since_when() {
    let service = Service::new();
    assert_eq!(service.view().await, [Value::Null; 0]);
    let opened = report("shadow.ads.voucher", State::Open, 7, Some(1500));
    service.tell(u64::MAX, vec![report("ads.voucher", State::Closed, 0, None), opened]).await;
    advance(2 * SECOND).await;
    service.tell(9, vec![report("shadow.ads.voucher", State::HalfOpen, 3, Some(0))]).await;
    service.tell(8, vec![report("shadow.ads.voucher", State::Closed, 0, None)]).await;
    let expected = json!([
        {"name": "ads.voucher", "open": 0, "half_open": 0, "closed": 1, "nodes": [
            {"node": "18446744073709551615", "state": "closed"},
        ]},
        {"name": "shadow.ads.voucher", "open": 1, "half_open": 1, "closed": 1, "nodes": [
            {"node": "8", "state": "closed"},
            {"node": "9", "state": "half_open", "for_ms": 0},
            {"node": "18446744073709551615", "state": "open", "for_ms": 3500},
        ]},
    ]);
    assert_eq!(json!(service.view().await), expected);
}

#[tokio::test(start_paused = true)]
async fn the_page_on_breakers_shows_a_real_answer() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/breakers.md");
    let page = std::fs::read_to_string(page).unwrap();
    let shown = page.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```")).unwrap().0;
    let breaker = "shadow.account.core.get_account";
    let service = Service::new();
    service.tell(9_042_384_116_627_180_551, vec![report(breaker, State::Open, 1, Some(3500))]).await;
    service.tell(12_297_829_382_473_034_410, vec![report(breaker, State::Closed, 0, None)]).await;
    assert_eq!(service.answer(Request::get(PATH).body(Body::empty()).unwrap()).await, shown);
}

#[tokio::test(start_paused = true)]
async fn a_late_report_does_not_take_the_place_of_a_newer_one() {
    let service = Service::new();
    let tell = async |state, generation| service.tell(1, vec![report("c", state, generation, None)]).await;
    tell(State::HalfOpen, 5).await;
    tell(State::Open, 4).await;
    assert_eq!(service.state().await, "half_open");
    tell(State::Closed, 6).await;
    assert_eq!(service.state().await, "closed");
    // nor does it keep it alive: a node whose breaker began anew is believed then
    advance((LIFE_SECS - 1) * SECOND).await;
    tell(State::Open, 1).await;
    assert_eq!(service.state().await, "closed");
    advance(SECOND).await;
    tell(State::Open, 1).await;
    assert_eq!(service.state().await, "open");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_said_again_is_forgotten_after_the_life_of_a_node() {
    let service = Service::new();
    let reports = |for_ms| vec![report("c", State::Open, 4, Some(for_ms))];
    service.tell(1, reports(0)).await;
    service.tell(2, reports(0)).await;
    advance((LIFE_SECS - 1) * SECOND).await;
    service.tell(2, reports(149_000)).await;
    let open =
        async || service.view().await.iter().map(|breaker| breaker["open"].clone()).collect::<Vec<_>>();
    assert_eq!(open().await, [json!(2)]);
    advance(SECOND).await;
    let view = service.view().await;
    assert_eq!(view[0]["nodes"], json!([{"node": "2", "state": "open", "for_ms": 150_000}]));
    advance((LIFE_SECS - 1) * SECOND).await;
    assert_eq!(open().await, [Value::Null; 0]);
}

#[tokio::test(start_paused = true)]
async fn keeps_no_more_than_a_hundred_thousand_states_and_goes_on_with_those() {
    let service = Service::new();
    service.tell(0, vec![report("first", State::Closed, 1, None)]).await;
    let many = |node: u64| {
        (0..MAX_REPORTS).map(|name| report(&format!("c{node}.{name}"), State::Open, 1, None)).collect()
    };
    for node in 1..=100_000 / MAX_REPORTS as u64 + 1 {
        service.tell(node, many(node)).await;
    }
    assert_eq!(service.view().await.len(), 100_000);
    service.tell(0, vec![report("first", State::Open, 2, None), report("late", State::Open, 2, None)]).await;
    let view = service.view().await;
    let named = |name: &str| view.iter().find(|breaker| breaker["name"] == name);
    assert_eq!((named("first").unwrap()["open"].as_u64(), named("late")), (Some(1), None));
    advance(LIFE_SECS * SECOND).await;
    service.tell(0, vec![report("late", State::Open, 2, None)]).await;
    assert_eq!(service.view().await.len(), 1, "there is room again");
}

#[tokio::test]
async fn what_is_said_of_breakers_goes_along_with_a_question_or_alone() {
    let shim = Shim::start(App::new(MemoryStore::new())).await;
    let asked = batch(0, vec![check(&[("k", 1, &[sliding(10, HOUR)])])]);
    let breakers = vec![report("c", State::Open, 1, None)];
    let answers = shim.decide(&DecideRequest { node: Some(1), breakers, ..asked }).await;
    assert_eq!(left(&answers[0]), [[9]]);
    assert_eq!(shim.decide(&message(2, vec![report("c", State::Closed, 1, None)])).await, []);
    let view: Value = shim.get(PATH).await.json().await.unwrap();
    assert_eq!((&view["breakers"][0]["open"], &view["breakers"][0]["closed"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn is_shown_only_to_those_who_bear_the_token() {
    let shim = Shim::start(App::new(MemoryStore::new()).with_token("s3cret")).await;
    let refused = shim.get(PATH).await;
    assert_eq!(refused.headers()["www-authenticate"], "Bearer");
    problem(refused, StatusCode::UNAUTHORIZED).await;
    let request = shim.client.get(format!("{}{PATH}", shim.url)).bearer_auth("s3cret");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn names_the_field_that_is_wrong_and_believes_nothing_of_the_message() {
    let shim = Shim::start(App::new(MemoryStore::new())).await;
    let one = json!({"name": "a.B-c_9", "state": "half_open", "generation": u64::MAX, "for_ms": 1});
    let message = |breakers: Value| json!({"version": 1, "spend_within_ms": 0, "node": 1, "breakers": breakers, "checks": []});
    let wrong = |field: &str, value: Value| {
        let mut other = one.clone();
        other[field] = value;
        message(json!([one, other]))
    };
    let mut nobodys = message(json!([one]));
    nobodys.as_object_mut().unwrap().remove("node");
    let cases = [
        (wrong("name", json!("")), "breakers[1].name"),
        (wrong("name", json!("n".repeat(130))), "breakers[1].name"),
        (wrong("name", json!("a b")), "breakers[1].name"),
        (wrong("name", json!("<b>")), "breakers[1].name"),
        (wrong("name", json!("é")), "breakers[1].name"),
        (wrong("name", json!(".a")), "breakers[1].name"),
        (wrong("name", json!(1)), "breakers[1].name"),
        (wrong("state", json!("broken")), "breakers[1].state"),
        (wrong("state", json!("Open")), "breakers[1].state"),
        (wrong("generation", json!(-1)), "breakers[1].generation"),
        (wrong("generation", json!(null)), "breakers[1].generation"),
        (wrong("for_ms", json!(1.5)), "breakers[1].for_ms"),
        (wrong("for_ms", json!(u64::MAX)), "breakers[1].for_ms"),
        (wrong("since", json!(1)), "breakers[1].since"),
        (message(json!({})), "breakers"),
        (message(json!(vec![one.clone(); MAX_REPORTS + 1])), "breakers"),
        (message(json!([])), "checks"),
        (nobodys, "node"),
    ];
    for (body, field) in cases {
        let problem = problem(shim.post(body.to_string()).await, StatusCode::BAD_REQUEST).await;
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    let view = async || shim.get(PATH).await.json::<Value>().await.unwrap();
    assert_eq!(view().await, json!({"breakers": []}));
    assert_eq!(shim.post(message(json!(vec![one; MAX_REPORTS])).to_string()).await.status(), StatusCode::OK);
    assert_eq!(view().await["breakers"][0]["name"], "a.B-c_9");
}
