//! Probes: how many, which, and what comes of them.

use std::time::Duration;

use lanekeeper_tests::host::{Host, Request, State, Stream, VmId};
use serde_json::{Value, json};

use super::super::Store;
use super::{
    HALF_OPEN, HEARD, JITTER, MS, OPEN, OPEN_FOR, behaved, call, fail, guarded, list, refusal, refusals,
    refused_as, start, state, succeed, told, transitions, trip, waiting,
};

/// Opens at the first failure, and lets so many probes through.
fn probing(probes: u32) -> Value {
    json!({"consecutive_failures": 1, "half_open_calls": probes})
}

/// Those of so many calls of each worker that were let in.
fn let_in(host: &Host, of_each: usize) -> Vec<Stream> {
    let calls = (0..4 * of_each).map(|n| call(host, n % 4));
    calls.filter(|stream| refusal(stream).is_none()).collect()
}

#[test]
fn as_many_probes_as_are_written_go_at_once_over_four_workers() {
    let host = waiting(&probing(3));
    let probes = let_in(&host, 5);
    assert_eq!((probes.len(), transitions(&host, "half_open")), (3, 1));
    assert_eq!(refusals(&host, "rejected", "half_open"), 17);
    assert!((0..4).all(|worker| refused_as(&call(&host, worker), HALF_OPEN)));
    succeed(&probes[0]);
    host.advance(HEARD);
    assert_eq!(let_in(&host, 5).len(), 0, "one that has ended makes no room: it decides");
    probes[1..].iter().for_each(succeed);
    assert_eq!(state(&host), Some(0));
    host.advance(HEARD);
    assert_eq!(let_in(&host, 5).len(), 20);
    assert_eq!(
        told(&host)[1..],
        [
            "lanekeeper: breaker list was open, and is half_open: its time is over",
            "lanekeeper: breaker list was half_open, and is closed: its probes succeeded",
        ]
    );
    behaved(&host);
}

#[test]
fn the_last_probe_that_two_workers_want_is_one_workers() {
    let host = waiting(&probing(2));
    let first = call(&host, 2);
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", |host| {
        let second = call(host, 1);
        assert_eq!(second.state(), State::Continued);
    });
    assert!(refused_as(&call(&host, 0), HALF_OPEN));
    assert_eq!(first.state(), State::Continued);
    behaved(&host);
}

#[test]
fn two_workers_whose_calls_both_end_the_wait_make_one_transition() {
    let host = waiting(&probing(2));
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", |host| {
        assert_eq!(call(host, 1).state(), State::Continued);
    });
    assert_eq!(call(&host, 0).state(), State::Continued);
    assert_eq!((transitions(&host, "half_open"), told(&host).len()), (1, 2));
    assert!(refused_as(&call(&host, 3), HALF_OPEN));
    behaved(&host);
}

#[test]
fn a_probe_that_comes_to_nothing_makes_room_for_another_of_any_worker() {
    let host = waiting(&probing(2));
    let mut probes = let_in(&host, 1);
    for turn in 0..20 {
        assert_eq!(probes.len(), 2, "turn {turn}");
        let gone = probes.remove(turn % 2);
        if turn % 3 == 0 {
            gone.reset()
        } else {
            gone.respond_by_envoy(503, "no_healthy_upstream")
        }
        // a worker that was told to wait looks again after a moment
        host.advance(20 * MS);
        probes.extend(let_in(&host, 1));
    }
    assert_eq!((state(&host), transitions(&host, "open")), (Some(1), 1));
    probes.iter().for_each(succeed);
    assert_eq!(state(&host), Some(0));
    behaved(&host);
}

#[test]
fn probes_that_fail_open_it_for_twice_as_long() {
    let host = waiting(&json!({"consecutive_failures": 1, "half_open_calls": 4}));
    let probes = let_in(&host, 1);
    assert_eq!(probes.len(), 4);
    fail(&probes[0]);
    assert_eq!(state(&host), Some(1), "one of four is not half of them");
    fail(&probes[1]);
    assert_eq!(state(&host), Some(2), "two are, whatever the others say");
    probes[2..].iter().for_each(succeed);
    host.advance(2 * OPEN_FOR - MS);
    assert!((0..4).all(|worker| refused_as(&call(&host, worker), OPEN)));
    host.advance(MS + JITTER);
    assert_eq!(refusal(&call(&host, 3)), None);
    behaved(&host);
}

#[test]
fn a_half_open_breaker_whose_probes_are_never_answered_opens_again() {
    let host = waiting(&probing(3));
    let probes = let_in(&host, 2);
    assert_eq!(probes.len(), 3);
    succeed(&probes[0]);
    host.advance(OPEN_FOR - MS);
    assert!((0..4).all(|worker| refused_as(&call(&host, worker), HALF_OPEN)));
    host.advance(MS);
    assert!(refused_as(&call(&host, 2), OPEN));
    assert_eq!(
        told(&host).last().map(String::as_str),
        Some("lanekeeper: breaker list was half_open, and is open: its probes were never answered")
    );
    // what was let in then decides nothing now
    probes[1..].iter().for_each(succeed);
    host.advance(2 * OPEN_FOR + JITTER);
    assert_eq!((refusal(&call(&host, 0)), state(&host)), (None, Some(1)));
    behaved(&host);
}

#[test]
fn answers_to_calls_of_an_earlier_state_say_nothing() {
    let host = start(&guarded(&probing(1)), 2);
    let late = [500, 200, 500].map(|status| (status, call(&host, 1)));
    trip(&host);
    host.advance(OPEN_FOR + JITTER);
    let probe = call(&host, 0);
    for (status, stream) in &late {
        super::answer(stream, *status);
        assert_eq!(state(&host), Some(1), "{status}");
    }
    succeed(&probe);
    assert_eq!(state(&host), Some(0));
    behaved(&host);
}

/// One probe, and a limit of one request per user.
fn limited() -> Value {
    let mut policy = guarded(&probing(1));
    policy["rate_limits"] = json!({
        "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1m"}]},
    });
    policy
}

fn of(user: &str) -> Request {
    list().header("x-user", user)
}

#[test]
fn a_limit_that_rejects_a_probe_makes_room_for_another() {
    let host = start(&limited(), 2);
    fail(&host.worker(0).request(of("u")));
    host.advance(OPEN_FOR + JITTER);
    for _ in 0..10 {
        let stream = host.worker(0).request(of("u"));
        assert!(refused_as(&stream, "lanekeeper_over_limit"), "{:?}", stream.state());
    }
    assert_eq!(state(&host), Some(1));
    let probe = host.worker(1).request(of("v"));
    assert_eq!(refusal(&probe), None);
    assert!(refused_as(&host.worker(0).request(of("w")), HALF_OPEN));
    succeed(&probe);
    assert_eq!(state(&host), Some(0));
    behaved(&host);
}

#[test]
fn a_probe_that_the_store_decides_on_is_given_back_when_it_rejects_or_the_client_leaves() {
    let mut policy = limited();
    policy["store"] = json!({"cluster": "lanekeeper", "timeout": "20ms", "max_drift": 0});
    let (host, store) = (start(&policy, 1), Store::new());
    let ask = |user: &str| {
        let stream = host.worker(0).request(of(user));
        assert_eq!(stream.state(), State::Paused, "{user}");
        stream
    };
    let decide = || {
        let callout = host.callouts().remove(0);
        host.answer(&callout, store.answer(&host, &callout));
    };
    let stream = ask("u");
    decide();
    fail(&stream);
    // the refusal that the store gives now is remembered for as long as the test takes
    host.advance(Duration::from_secs(50));
    let probe = ask("u");
    assert!(
        refused_as(&host.worker(0).request(of("v")), HALF_OPEN),
        "it waits for the store, and is the probe"
    );
    decide();
    assert!(refused_as(&probe, "lanekeeper_over_limit"));
    ask("v").reset();
    decide();
    let probe = ask("w");
    decide();
    succeed(&probe);
    assert_eq!(state(&host), Some(0));
    behaved(&host);
}
