//! Policies that come while calls are under way.

use std::time::Duration;

use lanekeeper_tests::host::{Host, Refused};
use serde_json::{Value, json};

use super::{
    EVEN, FULL, HALF_OPEN, HEARD, JITTER, OPEN, OPEN_FOR, behaved, call, fail, guarded, refusal, refused_as,
    start, state, succeed, told, touchy, transitions,
};

type Way = fn(&Host, &str) -> Result<(), Refused>;

/// The ways in which a policy comes: as a new root, or to the one that there is.
const WAYS: [Way; 2] = [Host::reconfigure, Host::configure_again];

fn bring(way: usize, host: &Host, policy: &Value) {
    WAYS[way](host, &policy.to_string()).unwrap();
}

/// How many more calls of all workers are let in.
fn room(host: &Host) -> usize {
    (0..40).filter(|n| refusal(&call(host, n % 4)).is_none()).count()
}

#[test]
fn an_open_breaker_stays_open_and_a_half_open_one_half_open() {
    for way in 0..WAYS.len() {
        let host = start(&guarded(&touchy()), 4);
        fail(&call(&host, 0));
        let mut other = touchy();
        other["min_calls"] = json!(30);
        bring(way, &host, &guarded(&other));
        assert!((0..4).all(|worker| refused_as(&call(&host, worker), OPEN)), "way {way}");
        host.advance(OPEN_FOR + JITTER);
        let probe = call(&host, 1);
        bring(way, &host, &guarded(&touchy()));
        assert!((0..4).all(|worker| refused_as(&call(&host, worker), HALF_OPEN)), "way {way}");
        // the probe has its permit from the policy before
        succeed(&probe);
        assert_eq!((transitions(&host, "closed"), told(&host).len()), (1, 3), "way {way}");
        host.advance(HEARD);
        assert!((0..4).all(|worker| refusal(&call(&host, worker)).is_none()), "way {way}");
        assert_eq!(state(&host), Some(0));
        behaved(&host);
    }
}

#[test]
fn what_was_counted_before_counts_after() {
    for way in 0..WAYS.len() {
        let host = start(&guarded(&json!({"min_calls": 10})), 2);
        (0..9).for_each(|n| fail(&call(&host, n % 2)));
        bring(way, &host, &guarded(&json!({"min_calls": 10, "half_open_calls": 7})));
        fail(&call(&host, 1));
        assert_eq!(
            told(&host),
            ["lanekeeper: breaker list was closed, and is open: 10 of 10 calls failed"],
            "way {way}"
        );
        behaved(&host);
    }
}

#[test]
fn calls_under_way_keep_their_places_and_give_them_back() {
    let bulkhead = |most: u32| guarded(&json!({"max_concurrent": most, "min_calls": 1000}));
    for way in 0..WAYS.len() {
        for most in [8, 6, 12] {
            let host = start(&bulkhead(8), 4);
            let held: Vec<_> = (0..6).map(|n| call(&host, n % 4)).collect();
            bring(way, &host, &bulkhead(most));
            host.advance(EVEN);
            assert_eq!(room(&host), most as usize - 6, "way {way}, {most}");
            // long after the policy came
            host.advance(Duration::from_secs(20));
            assert!(refused_as(&call(&host, 2), FULL));
            held.iter().for_each(super::Stream::reset);
            host.advance(EVEN);
            assert_eq!(room(&host), 6, "way {way}, {most}");
            behaved(&host);
        }
    }
}

#[test]
fn a_policy_that_comes_and_goes_a_hundred_times_loses_no_place() {
    for way in 0..WAYS.len() {
        let policies = [3, 4].map(|most| guarded(&json!({"max_concurrent": most, "min_calls": 100_000})));
        let host = start(&policies[0], 4);
        let mut held = Vec::new();
        for turn in 0..100 {
            host.advance(HEARD);
            held.extend((0..8).map(|n| call(&host, n % 4)).filter(|stream| refusal(stream).is_none()));
            assert!(held.len() <= 4, "turn {turn}, way {way}");
            bring(way, &host, &policies[(turn + 1) % 2]);
            let stream = held.remove(turn % held.len());
            if turn % 2 == 0 { stream.reset() } else { succeed(&stream) }
        }
        held.iter().for_each(succeed);
        host.advance(EVEN);
        assert_eq!(room(&host), 3, "way {way}");
        host.advance(Duration::from_secs(1));
        assert_eq!(host.worker(0).contexts().0, 1, "the roots before are gone");
        behaved(&host);
    }
}

#[test]
fn a_timer_runs_no_longer_than_there_is_something_to_look_after() {
    for way in 0..WAYS.len() {
        let host = start(&guarded(&json!({"max_concurrent": 2})), 1);
        let stream = call(&host, 0);
        bring(way, &host, &guarded(&json!({"max_concurrent": 3})));
        succeed(&stream);
        host.advance(Duration::from_secs(10));
        host.reset_counts();
        host.advance(Duration::from_secs(60));
        assert_eq!(host.calls().into_iter().collect::<Vec<_>>(), [], "way {way}");
        behaved(&host);
    }
}
