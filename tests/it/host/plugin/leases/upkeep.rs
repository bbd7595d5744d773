//! What happens to leases behind the requests' backs: they are renewed ahead of their end, and what would be missed goes
//! back.

use lanekeeper_tests::host::Host;
use serde_json::json;

use super::super::{MS, ask, behaved, by, leased, pump, question, renewals, served, store_calls};
use super::steady;

fn returned(host: &Host) -> u64 {
    host.counter("lanekeeper.lease_returned_tokens_total").unwrap_or(0)
}

#[test]
fn a_subject_in_use_is_renewed_behind_its_requests_backs() {
    let (host, _) = served(&leased(1_000_000, "local"), 4);
    steady(&host, 4, 300);
    let waited = steady(&host, 4, 3000);
    assert_eq!(waited, 0, "no request waits once the demand is known");
    assert!(renewals(&host) > 0);
    let questions = store_calls(&host, "answered");
    assert!(questions < 3300 / 20, "{questions} questions for 3300 requests");
    behaved(&host);
}

#[test]
fn renewals_wait_for_nobody_and_go_along_with_the_next_question() {
    let mut policy = leased(1_000_000, "local");
    policy["store"]["timeout"] = json!("10s");
    let (host, store) = served(&policy, 1);
    steady(&host, 1, 200);
    let use_once = || {
        assert_eq!(ask(&host, 0, "u"), 200);
        host.advance(10 * MS);
    };
    let use_until_renewed = || {
        let before = renewals(&host);
        (0..).take_while(|_| renewals(&host) == before).map(|_| use_once()).count()
    };
    use_until_renewed();
    let lasts = use_until_renewed();
    // a lease is fresh, and from now on the store takes its time
    host.answer_callouts(|_| None);
    host.worker(0).request(by("v"));
    let asked = renewals(&host);
    // a few more than last time, for no two leases are of the same size; a quarter is still left
    (0..lasts + 8).for_each(|_| use_once());
    assert_eq!((host.callouts().len(), renewals(&host)), (1, asked), "a callout is kept for whoever waits");
    host.worker(0).request(by("w"));
    let beside = question(&host.callouts()[1]);
    let costs: Vec<u32> = beside.checks.iter().map(|check| check.keys[0].cost).collect();
    assert_eq!(costs[0], 1, "whoever waits goes first");
    assert!(costs.len() > 1 && costs[1..].iter().all(|cost| *cost == 0), "{costs:?}");
    assert_eq!(renewals(&host) - asked, costs.len() as u64 - 1);
    pump(&host, &store);
    behaved(&host);
}

/// Twenty of a hundred, so that what is not spent would be missed; then `u` falls silent.
fn use_a_fifth(host: &Host) {
    for _ in 0..20 {
        assert_eq!(ask(host, 0, "u"), 200);
        host.advance(10 * MS);
    }
}

#[test]
fn unspent_tokens_go_back_shortly_before_their_end_when_they_would_be_missed() {
    let (host, _) = served(&leased(100, "local"), 1);
    use_a_fifth(&host);
    host.advance(31_000 * MS);
    assert!(returned(&host) > 0, "something was held and went back");
    host.advance(1_000 * MS);
    let quiet = store_calls(&host, "answered");
    host.advance(60_000 * MS);
    assert_eq!(store_calls(&host, "answered"), quiet, "nothing is left to do");
    behaved(&host);
}

#[test]
fn what_was_returned_is_admitted_to_others() {
    let (host, _) = served(&leased(100, "local"), 2);
    use_a_fifth(&host);
    host.advance(31_000 * MS);
    assert!(returned(&host) > 0);
    let admitted = (0..100).filter(|_| ask(&host, 1, "u") == 200).count();
    assert_eq!(admitted, 80, "all that was not spent can be");
    behaved(&host);
}

#[test]
fn the_timer_stops_when_no_lease_is_left() {
    let (host, _) = served(&leased(1000, "local"), 1);
    assert_eq!(ask(&host, 0, "u"), 200);
    let ticks = || {
        host.reset_counts();
        host.advance(10_000 * MS);
        host.calls().contains_key("clock_time_get")
    };
    assert!(ticks(), "a lease is looked after");
    host.advance(112_000 * MS);
    assert!(!ticks(), "nothing is left to look after");
    behaved(&host);
}
