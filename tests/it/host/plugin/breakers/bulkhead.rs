//! `max_concurrent`: never more, and every place given back.

use std::time::Duration;

use lanekeeper_tests::host::{Host, Stream, VmId};
use serde_json::{Value, json};

use super::ends::cases;
use super::{
    EVEN, FULL, HEARD, MS, behaved, call, guarded, list, refusal, refusals, refused_as, start, succeed,
};

/// A worker is taken for gone when nothing was heard of it for so long.
const GONE: Duration = Duration::from_secs(5);

/// So many calls at once, of an upstream that may fail as it likes.
fn most(calls: u32) -> Value {
    guarded(&json!({"max_concurrent": calls, "min_calls": 1_000_000}))
}

/// Calls of the workers in turn, until each has been turned away.
fn fill(host: &Host, workers: &[usize]) -> Vec<Stream> {
    let mut held = Vec::new();
    let mut open = workers.to_vec();
    while !open.is_empty() {
        open.retain(|worker| {
            let stream = call(host, *worker);
            let is_in = refusal(&stream).is_none();
            held.extend(is_in.then_some(stream));
            is_in
        });
        assert!(held.len() < 10_000, "nothing holds them");
    }
    held
}

#[test]
fn four_workers_together_let_in_as_many_as_may_be_and_no_more() {
    for (most_calls, workers) in
        [(1, vec![0, 1, 2, 3]), (10, vec![0, 1, 2, 3]), (200, vec![2, 0]), (7, vec![3])]
    {
        let host = start(&most(most_calls), 4);
        let held = fill(&host, &workers);
        // what a worker has reserved ahead is lost to nobody: it gives back what it does not use
        host.advance(EVEN);
        let more = fill(&host, &workers);
        assert_eq!(held.len() + more.len(), most_calls as usize, "{workers:?}");
        assert!(refusals(&host, "rejected", "full") >= 2 * workers.len() as u64);
        held.iter().chain(&more).for_each(succeed);
        host.advance(EVEN);
        assert_eq!(fill(&host, &[1]).len(), most_calls as usize, "one worker can have them all");
        behaved(&host);
    }
}

#[test]
fn a_place_that_one_worker_leaves_is_anothers_after_a_moment() {
    let host = start(&most(5), 4);
    let mut held = fill(&host, &[0]);
    for turn in 0..50 {
        assert_eq!(held.len(), 5);
        succeed(&held.remove(0));
        host.advance(20 * MS);
        let worker = turn % 4;
        let next = call(&host, worker);
        assert_eq!(refusal(&next), None, "worker {worker}, turn {turn}");
        held.push(next);
        assert!(refused_as(&call(&host, (worker + 1) % 4), FULL));
    }
    behaved(&host);
}

#[test]
fn the_last_place_that_two_workers_want_is_one_workers() {
    let host = start(&most(1), 2);
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", |host| {
        assert_eq!(refusal(&call(host, 1)), None);
    });
    assert!(refused_as(&call(&host, 0), FULL));
    behaved(&host);
}

#[test]
fn a_place_comes_back_however_its_call_ends() {
    for case in cases() {
        let host = start(&most(1), 2);
        let stream = host.worker(0).request((case.request)());
        assert!(refused_as(&call(&host, 1), FULL), "{}", case.name);
        (case.end)(&stream);
        host.advance(HEARD);
        assert_eq!(refusal(&call(&host, 1)), None, "{}", case.name);
        behaved(&host);
    }
}

#[test]
fn a_place_comes_back_once_however_often_its_call_is_said_to_be_over() {
    let host = start(&most(2), 2);
    let [first, _second] = [0, 0].map(|worker| call(&host, worker));
    succeed(&first);
    for callback in ["proxy_on_done", "proxy_on_log", "proxy_on_delete", "proxy_on_done"] {
        first.force(callback, &[]);
    }
    host.advance(HEARD);
    assert_eq!(fill(&host, &[0, 1]).len(), 1);
    behaved(&host);
}

#[test]
fn a_call_that_a_limit_refuses_has_no_place() {
    let mut policy = most(2);
    policy["rate_limits"] = json!({
        "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1m"}]},
    });
    let host = start(&policy, 2);
    succeed(&host.worker(0).request(list().header("x-user", "u")));
    for worker in (0..100).map(|n| n % 2) {
        let stream = host.worker(worker).request(list().header("x-user", "u"));
        assert!(refused_as(&stream, "lanekeeper_over_limit"), "{:?}", stream.state());
    }
    host.advance(HEARD);
    assert_eq!(fill(&host, &[0, 1]).len(), 2);
    behaved(&host);
}

#[test]
fn long_calls_keep_their_places_though_nothing_else_happens() {
    let host = start(&most(3), 3);
    let held: Vec<_> = (0..3).map(|worker| call(&host, worker)).collect();
    for _ in 0..30 {
        host.advance(Duration::from_secs(20));
        assert!((0..3).all(|worker| refused_as(&call(&host, worker), FULL)));
    }
    held.iter().for_each(succeed);
    host.advance(HEARD);
    assert_eq!(fill(&host, &[0, 1, 2]).len(), 3);
    behaved(&host);
}

#[test]
fn what_a_worker_held_that_crashed_is_free_five_seconds_later() {
    for is_reloaded in [false, true] {
        let host = start(&most(6), 3);
        let lost: Vec<_> = (0..4).map(|_| call(&host, 0)).collect();
        let kept: Vec<_> = (1..3).map(|worker| call(&host, worker)).collect();
        assert!(lost.iter().chain(&kept).all(|stream| refusal(stream).is_none()));
        if is_reloaded {
            host.reload(0)
        } else {
            host.worker(0).crash()
        }
        host.advance(GONE);
        assert_eq!(fill(&host, &[1, 2]).len(), 0, "until then it may be alive");
        host.advance(20 * MS);
        let workers = if is_reloaded { vec![0, 1, 2] } else { vec![1, 2] };
        assert_eq!(fill(&host, &workers).len(), 4, "reloaded: {is_reloaded}");
        kept.iter().for_each(succeed);
        behaved(&host);
    }
}

#[test]
fn the_state_of_a_breaker_outlives_the_worker_that_tripped_it() {
    let host = start(&guarded(&super::touchy()), 2);
    super::fail(&call(&host, 0));
    host.reload(0);
    assert!((0..2).all(|worker| refused_as(&call(&host, worker), super::OPEN)));
    host.advance(super::OPEN_FOR + super::JITTER);
    succeed(&call(&host, 0));
    assert_eq!(super::state(&host), Some(0));
    behaved(&host);
}
