//! Leases: most requests are decided without a question, and the store's limits hold nevertheless.

mod followers;
mod upkeep;

use lanekeeper_engine::wire::SHIM_HEADER;
use lanekeeper_tests::host::{Answer, Callout, Host, Status, Stream, Times};
use serde_json::{Value, json};

use super::{
    MS, Store, ask, behaved, by, calls_of_a_request, decisions, leased, question, renewals, served, start,
    status, store_calls, with_store,
};

fn left(stream: &Stream) -> String {
    stream.respond([(":status", "200")]).unwrap().text("ratelimit").unwrap()
}

/// `u` in steady use, by so many requests in turn to all of so many workers. Gives how many waited for the store.
fn steady(host: &Host, workers: usize, requests: usize) -> u64 {
    let before = decisions(host, "normal", "per_user", "admitted", "store");
    for n in 0..requests {
        assert_eq!(ask(host, n % workers, "u"), 200, "request {n}");
        host.advance(10 * MS);
    }
    decisions(host, "normal", "per_user", "admitted", "store") - before
}

#[test]
fn the_requests_after_the_first_need_no_question_and_their_answers_count_down() {
    let (host, _) = served(&leased(1000, "local"), 1);
    let remaining: Vec<String> = (0..5).map(|_| left(&host.worker(0).request(by("u")))).collect();
    let expected = [999, 998, 997, 996, 995].map(|r| format!(r#""per_user";r={r};"#));
    assert!(remaining.iter().zip(&expected).all(|(left, start)| left.starts_with(start)), "{remaining:?}");
    assert_eq!(store_calls(&host, "answered"), 1 + renewals(&host));
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "store"), 1);
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "lease"), 4);
    behaved(&host);
}

#[test]
fn a_client_on_one_connection_gets_all_of_its_limit_and_sees_a_small_one_fall_by_one() {
    for limit in [1, 10, 50, 300] {
        let (host, _) = served(&leased(limit, "local"), 2);
        for expected in (0..limit).rev() {
            let stream = host.worker(0).request(by("u"));
            assert_eq!(status(&stream), 200, "{expected} of {limit} should be left");
            let shown = left(&stream);
            // of larger ones some may be on their way back, and is seen again a moment later
            let is_small = limit <= 50;
            let falls = shown.starts_with(&format!(r#""per_user";r={expected};"#));
            assert!(falls || !is_small, "{expected} of {limit} should be left: {shown}");
            stream.end();
            host.advance(MS);
        }
        assert_eq!(ask(&host, 0, "u"), 429);
        behaved(&host);
    }
}

#[test]
fn without_drift_every_decision_is_the_stores() {
    let (host, _) = served(&with_store(1000, "local"), 1);
    (0..5).for_each(|_| assert_eq!(ask(&host, 0, "u"), 200));
    assert_eq!(store_calls(&host, "answered"), 5);
    assert!(host.shared_keys().iter().all(|key| !key.starts_with(b"lanekeeper/1/lease/")));
    behaved(&host);
}

#[test]
fn as_many_are_admitted_as_the_limit_says_and_a_refusal_is_known_to_all_workers() {
    let (host, store) = served(&leased(100, "local"), 4);
    let admitted = (0..400).filter(|n| {
        host.advance(MS);
        ask(&host, n % 4, "u") == 200
    });
    assert_eq!(admitted.count(), 100, "no window has passed, and nothing has to be left");
    let asked = store_calls(&host, "answered");
    assert!(asked < 40, "{asked} questions");
    assert_eq!(decisions(&host, "normal", "per_user", "rejected", "store"), 1);
    assert_eq!(decisions(&host, "normal", "per_user", "rejected", "remembered"), 299);
    // the last word of the store is the node's
    store.away.set(true);
    (0..4).for_each(|worker| assert_eq!(ask(&host, worker, "u"), 429));
    behaved(&host);
}

#[test]
fn a_worker_spends_what_another_one_was_granted() {
    let (host, _) = served(&leased(10_000, "local"), 4);
    for round in 0..2 {
        for worker in 0..4 {
            assert_eq!(ask(&host, worker, "u"), 200, "round {round}");
        }
    }
    assert!(store_calls(&host, "answered") <= 2, "{}", store_calls(&host, "answered"));
    behaved(&host);
}

#[test]
fn a_refusal_that_one_worker_heard_costs_the_others_no_question() {
    let (host, _) = served(&leased(2, "local"), 2);
    assert_eq!([0, 0, 0].map(|worker| ask(&host, worker, "u")), [200, 200, 429]);
    let asked = store_calls(&host, "answered");
    assert_eq!(ask(&host, 1, "u"), 429);
    assert_eq!(store_calls(&host, "answered"), asked);
    assert_eq!(decisions(&host, "normal", "per_user", "rejected", "remembered"), 1);
    behaved(&host);
}

/// `per_user` and `all`, whose limits are these.
fn two_limits(per_user: u32, all: u32) -> Value {
    let mut policy = leased(per_user, "local");
    policy["rate_limits"]["all"] =
        json!({"keys": {"all": [{"constant": "all"}]}, "windows": [{"limit": all, "per": "1m"}]});
    policy
}

#[test]
fn several_limits_are_spent_all_or_none() {
    let (host, store) = served(&two_limits(1000, 10_000), 1);
    (0..3).for_each(|_| assert_eq!(ask(&host, 0, "u"), 200));
    assert_eq!(store_calls(&host, "answered"), 1);
    // v has nothing yet, so the store is asked for both limits
    assert_eq!(ask(&host, 0, "v"), 200);
    assert_eq!(store_calls(&host, "answered"), 2);
    store.away.set(true);
    // w cannot be asked for, and costs `all` nothing of what is held
    (0..50).for_each(|_| assert_eq!(ask(&host, 0, "w"), 200, "by the node's counters"));
    assert_eq!(ask(&host, 0, "u"), 200);
    assert_eq!(decisions(&host, "normal", "all", "admitted", "lease"), 3);
    behaved(&host);
}

#[test]
fn a_limit_that_is_full_costs_the_others_nothing() {
    // how many others find room beside `u`, who has asked so many times over the two that it has
    let others = |refused: usize| {
        let (host, _) = served(&two_limits(2, 200), 1);
        assert_eq!([0; 2].map(|_| ask(&host, 0, "u")), [200, 200]);
        (0..refused).for_each(|_| assert_eq!(ask(&host, 0, "u"), 429));
        let admitted = (0..300).filter(|n| ask(&host, 0, &format!("v{n}")) == 200).count();
        behaved(&host);
        admitted
    };
    let (without, with) = (others(0), others(20));
    assert!((196..=198).contains(&without), "{without}: all but what `u` took, and the drift");
    assert_eq!(with, without);
}

#[test]
fn a_dry_run_that_is_over_its_limit_is_no_obstacle_to_the_others() {
    let mut policy = two_limits(1, 10_000);
    policy["rate_limits"]["per_user"]["enforce"] = json!("0%");
    let (host, _) = served(&policy, 1);
    for _ in 0..20 {
        assert_eq!(ask(&host, 0, "u"), 200);
    }
    let asked = store_calls(&host, "answered");
    assert!(asked <= 6, "{asked} questions");
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "store"), 1);
    assert!(decisions(&host, "normal", "per_user", "dry_run", "remembered") > 10);
    assert!(decisions(&host, "normal", "all", "admitted", "lease") > 10);
    behaved(&host);
}

#[test]
fn a_limit_that_only_looks_is_asked_each_time() {
    let mut policy = leased(1000, "local");
    policy["rate_limits"]["per_user"]["consume"] = json!("on_success");
    let (host, _) = served(&policy, 1);
    (0..5).for_each(|_| assert_eq!(ask(&host, 0, "u"), 200));
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "store"), 5);
    behaved(&host);
}

#[test]
fn a_late_answer_brings_tokens_though_its_own_request_may_not_use_it() {
    let (host, store) = (start(&leased(1000, "closed"), 1), Store::new());
    let stream = host.worker(0).request(by("u"));
    let callout = host.callouts().remove(0);
    let answer = store.answer(&host, &callout);
    host.advance(19 * MS);
    host.before_next(callout.vm, "clock_time_get", |host| host.advance(2 * MS));
    host.answer(&callout, answer);
    assert_eq!(status(&stream), 503);
    assert_eq!(store_calls(&host, "late"), 1);
    assert_eq!(status(&host.worker(0).request(by("u"))), 200);
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "lease"), 1);
}

#[test]
fn a_lease_that_was_not_asked_for_or_is_larger_is_no_answer() {
    let lies: [fn(&mut Value); 4] = [
        |key| key["lease"]["tokens"] = json!(1_000_000),
        |key| key["lease"]["tokens"] = json!(0),
        |key| key["lease"]["life_ms"] = json!(u32::MAX),
        |key| key["lease"]["life_ms"] = json!(-1),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let host = start(&leased(1000, "closed"), 1);
        let stream = host.worker(0).request(by("u"));
        let callout = host.callouts().remove(0);
        let windows = json!([{"remaining": 999, "reset_us": 1, "wait_us": 0}]);
        let mut key =
            json!({"granted": 1, "at_us": 5, "lease": {"tokens": 1, "life_ms": 100}, "windows": windows});
        lie(&mut key);
        let body = json!({"version": 1, "answers": [{"outcome": "allowed", "keys": [key]}]});
        host.answer(&callout, Answer::response(200, [(SHIM_HEADER, "1")], body.to_string()));
        assert_eq!((status(&stream), store_calls(&host, "malformed")), (503, 1), "{n}");
        behaved(&host);
    }
}

#[test]
fn a_pool_that_is_garbage_or_fails_costs_questions_and_nothing_else() {
    let (host, _) = served(&leased(1000, "local"), 2);
    assert_eq!(ask(&host, 0, "u"), 200);
    let pools: Vec<Vec<u8>> =
        host.shared_keys().into_iter().filter(|key| key.starts_with(b"lanekeeper/1/lease/")).collect();
    assert_eq!(pools.len(), 1);
    for bytes in [&b""[..], b"\xff", &[0xff; 300], &[0; 300]] {
        host.set_shared_data(&pools[0], bytes, 0).unwrap();
        assert_eq!(ask(&host, 1, "u"), 200);
    }
    host.fail("proxy_get_shared_data", Status::InternalFailure, Times::Always);
    (0..10).for_each(|_| assert_eq!(ask(&host, 0, "u"), 200));
    host.heal("proxy_get_shared_data");
    host.fail("proxy_set_shared_data", Status::InternalFailure, Times::Always);
    (0..10).for_each(|_| assert_eq!(ask(&host, 1, "u"), 200));
    behaved(&host);
}

#[test]
fn what_workers_held_is_lost_with_them_and_nothing_is_sold_twice() {
    let (host, _) = served(&leased(100, "local"), 2);
    let before = (0..20).filter(|n| ask(&host, n % 2, "u") == 200).count();
    (0..2).for_each(|worker| host.reload(worker));
    let after = (0..200).filter(|n| ask(&host, n % 2, "u") == 200).count();
    assert!((80..=100).contains(&(before + after)), "{before} and {after}");
    behaved(&host);
}

#[test]
fn a_new_policy_spends_on_from_the_pool_of_the_old_one() {
    let (host, _) = served(&leased(10_000, "local"), 1);
    steady(&host, 1, 200);
    host.reconfigure(&leased(10_000, "local").to_string()).unwrap();
    let asked = store_calls(&host, "answered");
    assert_eq!(ask(&host, 0, "u"), 200);
    assert_eq!(store_calls(&host, "answered"), asked);
    host.advance(1_000 * MS);
    assert_eq!(host.worker(0).contexts(), (1, 0), "the old root waits for no lease");
    behaved(&host);
}

#[test]
fn the_number_of_nodes_that_the_store_says_goes_with_the_next_lease() {
    let (host, store) = (start(&leased(1000, "local"), 1), Store::new());
    store.nodes.set(Some(7));
    let nodes = |callout: &Callout| question(callout).checks[0].keys[0].lease.unwrap().nodes;
    host.worker(0).request(by("u"));
    let first = host.callouts().remove(0);
    assert_eq!(nodes(&first), 1);
    host.answer(&first, store.answer(&host, &first));
    host.worker(0).request(by("v"));
    assert_eq!(nodes(&host.callouts()[0]), 7);
    behaved(&host);
}

#[test]
fn a_request_under_a_lease_makes_few_host_calls() {
    let (host, _) = served(&leased(1_000_000, "local"), 1);
    steady(&host, 1, 200);
    let expected = [
        ("clock_time_get", 1),
        ("proxy_add_header_map_value", 2),
        ("proxy_get_header_map_pairs", 1),
        ("proxy_increment_metric", 1),
    ];
    // now and then a worker takes its next chunk from the pool: one compare-and-swap
    let taken = [
        ("clock_time_get", 1),
        ("proxy_add_header_map_value", 2),
        ("proxy_get_header_map_pairs", 1),
        ("proxy_get_shared_data", 1),
        ("proxy_increment_metric", 1),
        ("proxy_set_shared_data", 1),
    ];
    let all: Vec<_> = (0..10).map(|_| calls_of_a_request(&host)).collect();
    assert!(all.iter().all(|calls| *calls == expected || *calls == taken), "{all:?}");
    let without = all.iter().filter(|calls| **calls == expected).count();
    assert!(without >= 8, "{without} of 10 took nothing from the pool");
}
