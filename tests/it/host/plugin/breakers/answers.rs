//! What a client is told that a breaker turns away.

use std::time::Duration;

use lanekeeper_tests::host::{Headers, Host, LocalReply, Request, State, Stream};
use serde_json::{Value, json};

use super::{
    FULL, HALF_OPEN, JITTER, OPEN, OPEN_FOR, behaved, call, fail, guarded, list, policy, refused_as, shadow,
    start, touchy, waiting,
};

fn reply(stream: &Stream) -> LocalReply {
    match stream.state() {
        State::Replied(reply) => reply,
        other => panic!("not turned away: {other:?}"),
    }
}

fn problem(reply: &LocalReply) -> Value {
    assert_eq!(reply.headers.text("content-type").as_deref(), Some("application/problem+json"));
    serde_json::from_slice(&reply.body).unwrap()
}

fn retry_after(headers: &Headers) -> u64 {
    headers.text("retry-after").unwrap().parse().unwrap()
}

/// Open in both lanes.
fn open() -> Host {
    let host = start(&policy(&json!({"default": touchy()})), 1);
    for request in [list(), shadow()] {
        fail(&host.worker(0).request(request));
    }
    host
}

#[test]
fn the_answer_names_the_breaker_and_the_lane() {
    let host = open();
    for (request, breaker, lane) in [(list(), "list", "normal"), (shadow(), "shadow.list", "shadow")] {
        let reply = reply(&host.worker(0).request(request));
        let body = problem(&reply);
        assert_eq!((reply.status, reply.details.as_str()), (503, OPEN));
        assert_eq!((&body["breaker"], &body["lane"]), (&json!(breaker), &json!(lane)), "{body}");
        assert_eq!((&body["status"], &body["title"]), (&json!(503), &json!("Service Unavailable")), "{body}");
        assert_eq!(body["detail"], format!("breaker {breaker} of lane {lane} is open"));
    }
    behaved(&host);
}

#[test]
fn a_grpc_client_hears_that_its_service_is_unavailable() {
    let host = open();
    let request = Request::post("/list").header("content-type", "application/grpc");
    let reply = reply(&host.worker(0).request(request));
    assert_eq!((reply.grpc_status, reply.details.as_str()), (Some(14), OPEN));
    assert_eq!(reply.headers.text("grpc-status").as_deref(), Some("14"));
    assert_eq!(reply.headers.text("grpc-message").as_deref(), Some("breaker list of lane normal is open"));
    assert!(retry_after(&reply.headers) >= OPEN_FOR.as_secs());
    behaved(&host);
}

#[test]
fn a_client_is_refused_until_the_moment_that_it_was_told_and_let_in_then() {
    let host = open();
    let wait = retry_after(&reply(&call(&host, 0)).headers);
    assert!((OPEN_FOR.as_secs()..=(OPEN_FOR + JITTER).as_secs() + 1).contains(&wait), "{wait}");
    host.advance(Duration::from_secs(wait - 2));
    assert_eq!(retry_after(&reply(&call(&host, 0)).headers), 2, "it is told what is left");
    host.advance(Duration::from_secs(2));
    assert_eq!(call(&host, 0).state(), State::Continued);
    behaved(&host);
}

#[test]
fn each_reason_has_its_own_details_and_text() {
    let full = start(&guarded(&json!({"max_concurrent": 1})), 1);
    let half_open = waiting(&touchy());
    let forced = start(&guarded(&json!({"force_open": true})), 1);
    for (host, details, text) in [
        (&full, FULL, "as many calls of list of lane normal are under way as may be"),
        (&half_open, HALF_OPEN, "breaker list of lane normal is half-open, and its probes are under way"),
        (&forced, super::FORCED, "breaker list of lane normal is held open by its operator"),
    ] {
        let under_way = call(host, 0);
        let stream = call(host, 0);
        assert!(refused_as(&stream, details), "{:?}", stream.state());
        let reply = reply(&stream);
        assert_eq!(problem(&reply)["detail"], text);
        assert!(retry_after(&reply.headers) >= 1);
        under_way.end();
        behaved(host);
    }
}

#[test]
fn what_is_turned_away_costs_no_limit_anything() {
    let mut policy = guarded(&touchy());
    policy["rate_limits"] = json!({
        "all": {"keys": {"all": [{"constant": "all"}]}, "windows": [{"limit": 2, "per": "1m"}]},
    });
    let host = start(&policy, 1);
    fail(&call(&host, 0));
    (0..10).for_each(|_| assert!(refused_as(&call(&host, 0), OPEN)));
    host.advance(OPEN_FOR + JITTER);
    let statuses = [0, 1].map(|_| {
        let stream = call(&host, 0);
        super::succeed(&stream);
        stream.reply().map_or(200, |reply| reply.status)
    });
    assert_eq!(statuses, [200, 429], "the first call, and this one");
    behaved(&host);
}
