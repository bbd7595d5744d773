//! Lanes: whose calls open whose breaker.

use lanekeeper_tests::host::{Host, Request};
use serde_json::{Value, json};

use super::{
    FULL, HEARD, OPEN, behaved, fail, list, policy, refusal, refused_as, shadow, start, state_in, succeed,
    told, touchy, transitions_in,
};

fn send(host: &Host, request: fn() -> Request) -> lanekeeper_tests::host::Stream {
    host.worker(0).request(request())
}

fn with_fallback(resilience: &Value, fallback: &str) -> Value {
    let mut policy = policy(resilience);
    policy["lanes"]["shadow"]["fallback"] = json!(fallback);
    policy
}

#[test]
fn each_lane_opens_its_own_breaker_and_never_the_others() {
    type Side = (&'static str, fn() -> Request);
    let lanes: [Side; 2] = [("normal", list), ("shadow", shadow)];
    let entries = [
        json!({"list": touchy()}),
        json!({"list": touchy(), "shadow.list": {}}),
        json!({"default": touchy()}),
    ];
    for (failing, well) in [(lanes[0], lanes[1]), (lanes[1], lanes[0])] {
        for entries in &entries {
            let host = start(&policy(entries), 2);
            fail(&send(&host, failing.1));
            for _ in 0..20 {
                assert!(refused_as(&send(&host, failing.1), OPEN), "{} with {entries}", failing.0);
                let stream = send(&host, well.1);
                assert_eq!(refusal(&stream), None, "{} with {entries}", well.0);
                succeed(&stream);
            }
            host.advance(HEARD);
            assert_eq!(transitions_in(&host, failing.0, "open"), 1);
            assert_eq!((state_in(&host, failing.0), state_in(&host, well.0)), (Some(2), Some(0)));
            let name = if failing.0 == "normal" { "list" } else { "shadow.list" };
            let line = format!("lanekeeper: breaker {name} was closed, and is open: 1 calls in a row failed");
            assert_eq!(told(&host), [line]);
            behaved(&host);
        }
    }
}

#[test]
fn a_lane_has_its_own_values_and_inherits_the_others() {
    let entries = json!({
        "list": {"consecutive_failures": 3, "max_concurrent": 1},
        "shadow.list": {"consecutive_failures": 1},
    });
    let host = start(&policy(&entries), 1);
    fail(&send(&host, shadow));
    assert!(refused_as(&send(&host, shadow), OPEN));
    (0..2).for_each(|_| fail(&send(&host, list)));
    assert_eq!(state_in(&host, "normal"), Some(0));
    let entries = json!({"list": {"max_concurrent": 1}, "shadow.list": {"min_calls": 30}});
    let host = start(&policy(&entries), 1);
    for request in [list, shadow] {
        assert_eq!(refusal(&send(&host, request)), None, "a place of its own");
        assert!(refused_as(&send(&host, request), FULL));
    }
    behaved(&host);
}

#[test]
fn lanes_that_share_trip_together() {
    for (first, second) in [(list as fn() -> Request, shadow as fn() -> Request), (shadow, list)] {
        let host = start(&with_fallback(&json!({"list": touchy()}), "share"), 2);
        fail(&send(&host, first));
        assert!(refused_as(&send(&host, second), OPEN));
        for lane in ["normal", "shadow"] {
            assert_eq!((state_in(&host, lane), transitions_in(&host, lane, "open")), (Some(2), 1), "{lane}");
        }
        assert_eq!(
            told(&host),
            ["lanekeeper: breaker list was closed, and is open: 1 calls in a row failed"]
        );
        behaved(&host);
    }
}

#[test]
fn a_lane_that_shares_and_has_an_entry_of_its_own_trips_by_itself() {
    let host = start(&with_fallback(&json!({"list": touchy(), "shadow.list": {}}), "share"), 1);
    fail(&send(&host, shadow));
    assert!(refused_as(&send(&host, shadow), OPEN));
    assert_eq!(refusal(&send(&host, list)), None);
    behaved(&host);
}

#[test]
fn a_lane_that_rejects_turns_away_what_has_no_entry_of_its_own() {
    let without = start(&with_fallback(&json!({"list": touchy()}), "reject"), 1);
    assert!(refused_as(&send(&without, shadow), "lanekeeper_lane_without_entry"));
    let reply = send(&without, shadow).reply().unwrap();
    assert_eq!(reply.status, 403);
    assert_eq!(refusal(&send(&without, list)), None);
    let other = without.worker(0).request(Request::get("/claim").header("x-shadow", "true"));
    assert_eq!(refusal(&other), None, "nobody guards it in either lane");
    let with = start(&with_fallback(&json!({"list": touchy(), "shadow.list": {}}), "reject"), 1);
    assert_eq!(refusal(&send(&with, shadow)), None);
    behaved(&without);
    behaved(&with);
}
