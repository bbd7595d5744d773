//! What opens a breaker, when, and who hears of it.

use lanekeeper_tests::host::{Level, VmId};
use serde_json::json;

use super::{
    HEARD, MS, OPEN, answer, behaved, call, fail, guarded, list, refusal, refusals, refused_as, start, state,
    succeed, told, touchy, transitions,
};

#[test]
fn four_workers_trip_together_when_half_of_twenty_calls_have_failed() {
    let host = start(&guarded(&json!({})), 4);
    (0..10).for_each(|n| succeed(&call(&host, n % 4)));
    host.advance(HEARD);
    (0..9).for_each(|n| fail(&call(&host, n % 4)));
    assert_eq!((state(&host), transitions(&host, "open")), (Some(0), 0), "nine of nineteen");
    let stream = call(&host, 3);
    assert_eq!(refusal(&stream), None);
    fail(&stream);
    assert_eq!((state(&host), transitions(&host, "open")), (Some(2), 1));
    host.advance(HEARD);
    for worker in 0..4 {
        assert!(refused_as(&call(&host, worker), OPEN), "worker {worker}");
    }
    assert_eq!(refusals(&host, "rejected", "open"), 4);
    assert_eq!(told(&host), ["lanekeeper: breaker list was closed, and is open: 10 of 20 calls failed"]);
    let warned = |line: &&lanekeeper_tests::host::LogLine| line.text.contains("breaker");
    let line = host.log().iter().find(warned).cloned().unwrap();
    assert_eq!(
        (line.vm, line.level),
        (VmId::Worker(3), Level::Warn),
        "whoever saw the last failure tells it"
    );
    assert!(line.text.contains("; open for 5"), "{}", line.text);
    behaved(&host);
}

#[test]
fn a_worker_that_is_busy_with_successes_hears_of_a_trip_within_a_tenth_of_a_second() {
    let host = start(&guarded(&json!({"failure_rate": "1%"})), 4);
    let busy = || (1..4).map(|worker| call(&host, worker)).collect::<Vec<_>>();
    for _ in 0..300 {
        host.advance(MS);
        busy().iter().for_each(succeed);
    }
    while transitions(&host, "open") == 0 {
        fail(&call(&host, 0));
    }
    let tripped_at = host.monotonic();
    let mut still_let_in = busy();
    while !still_let_in.is_empty() {
        still_let_in.iter().for_each(succeed);
        host.advance(MS);
        still_let_in = busy().into_iter().filter(|stream| refusal(stream).is_none()).collect();
        assert!(host.monotonic() <= tripped_at + HEARD, "{} workers let calls in", still_let_in.len());
    }
    assert_eq!(told(&host).len(), 1, "{:?}", told(&host));
    behaved(&host);
}

#[test]
fn a_failure_that_another_worker_interrupts_while_it_is_told_still_counts() {
    let host = start(&guarded(&json!({"min_calls": 2, "failure_rate": "100%"})), 2);
    let [first, second] = [0, 1].map(|worker| call(&host, worker));
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", move |_| fail(&second));
    fail(&first);
    assert_eq!((state(&host), transitions(&host, "open")), (Some(2), 1));
    assert_eq!(told(&host), ["lanekeeper: breaker list was closed, and is open: 2 of 2 calls failed"]);
    behaved(&host);
}

#[test]
fn failures_in_a_row_trip_wherever_they_happen_and_a_success_ends_the_row() {
    let host = start(&guarded(&json!({"consecutive_failures": 3})), 3);
    for end in [500, 500, 200, 500, 500] {
        answer(&call(&host, 0), end);
    }
    assert_eq!(transitions(&host, "open"), 0);
    fail(&call(&host, 1));
    assert_eq!(told(&host), ["lanekeeper: breaker list was closed, and is open: 3 calls in a row failed"]);
    behaved(&host);
}

#[test]
fn calls_are_slow_by_what_the_upstream_took_and_else_by_the_clock() {
    let slow = json!({"min_calls": 5, "slow_call": {"over": "2s", "rate": "80%"}, "window": "1m"});
    let told_in_ms =
        |ms: &str| vec![(":status", "200".to_owned()), ("x-envoy-upstream-service-time", ms.into())];
    for (name, step, headers, is_slow) in [
        ("told", 0, told_in_ms("2001"), true),
        ("told to be just in time", 0, told_in_ms("2000"), false),
        ("told to be quick by an upstream whose body takes long", 0, told_in_ms("7"), false),
        ("measured", 2001, vec![(":status", "200".to_owned())], true),
        ("measured to be just in time", 2000, vec![(":status", "200".to_owned())], false),
    ] {
        let host = start(&guarded(&slow), 2);
        for n in 0..5 {
            let stream = host.worker(n % 2).request(list());
            host.advance(MS * step);
            stream.respond(
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>().as_slice(),
            );
            stream.end();
        }
        host.advance(HEARD);
        assert_eq!(transitions(&host, "open"), u64::from(is_slow), "{name}");
        let line = "lanekeeper: breaker list was closed, and is open: 5 of 5 calls were slow";
        assert_eq!(told(&host).first().map(String::as_str), is_slow.then_some(line), "{name}");
        behaved(&host);
    }
}

/// Where Envoy is told to suppress its headers, an upstream's own word comes through.
#[test]
fn an_upstream_that_says_it_took_days_keeps_nobody_waiting_for_days() {
    let slow = json!({"min_calls": 1, "slow_call": {"over": "2s", "rate": "100%"}});
    let host = start(&guarded(&slow), 2);
    let stream = call(&host, 0);
    stream.respond([(":status", "200"), ("x-envoy-upstream-service-time", "400000000")]);
    stream.end();
    assert!((0..2).all(|worker| refused_as(&call(&host, worker), OPEN)));
    host.advance(super::OPEN_FOR + super::JITTER);
    assert!((0..2).all(|worker| refusal(&call(&host, worker)).is_none()));
    behaved(&host);
}

#[test]
fn commands_have_breakers_of_their_own_and_requests_of_none_pass() {
    let mut policy = guarded(&touchy());
    policy["resilience"]["claim"] = touchy();
    let host = start(&policy, 1);
    fail(&call(&host, 0));
    assert!(refused_as(&call(&host, 0), OPEN));
    for path in ["/claim", "/other"] {
        let stream = host.worker(0).request(lanekeeper_tests::host::Request::get(path));
        assert_eq!(refusal(&stream), None, "{path}");
        succeed(&stream);
    }
    behaved(&host);
}
