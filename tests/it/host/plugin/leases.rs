//! Leases: most requests are decided without a question, and the store's limits hold nevertheless.

use lanekeeper_engine::wire::{CheckAnswer, DecideRequest, DecideResponse, SHIM_HEADER, StoreError, VERSION};
use lanekeeper_tests::fake_shim::ours;
use lanekeeper_tests::host::{Answer, Callout, Host, State, Stream};
use serde_json::{Value, json};

use super::{
    MS, Store, behaved, by, calls_of_a_request, decisions, fallback, leased, start, status, store_calls,
    with_store,
};

fn question(callout: &Callout) -> DecideRequest {
    serde_json::from_slice(&callout.body).unwrap()
}

/// A node of so many workers and its store, which answers at once.
fn served(policy: &Value, workers: usize) -> (Host, Store) {
    let (host, store) = (start(policy, workers), Store::new());
    store.serve(&host);
    (host, store)
}

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

fn left(stream: &Stream) -> String {
    stream.respond([(":status", "200")]).unwrap().text("ratelimit").unwrap()
}

fn renewals(host: &Host) -> u64 {
    host.counter("lanekeeper.lease_renewals_total").unwrap_or(0)
}

fn returned(host: &Host) -> u64 {
    host.counter("lanekeeper.lease_returned_tokens_total").unwrap_or(0)
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
    let (host, _) = served(&two_limits(2, 1000), 1);
    assert_eq!([0; 6].map(|_| ask(&host, 0, "u")), [200, 200, 429, 429, 429, 429]);
    let last = host.worker(0).request(by("v"));
    // two of u, and this one
    let headers = last.respond([(":status", "200")]).unwrap();
    assert!(headers.text("ratelimit-policy").unwrap().contains("\"all\""), "{headers:?}");
    assert_eq!(decisions(&host, "normal", "all", "admitted", "store"), 3);
    behaved(&host);
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
fn those_who_come_while_a_question_is_under_way_wait_for_its_answer() {
    let (host, store) = (start(&leased(1000, "local"), 1), Store::new());
    let streams: Vec<Stream> = (0..4).map(|_| host.worker(0).request(by("u"))).collect();
    assert!(streams.iter().all(|stream| stream.state() == State::Paused));
    assert_eq!(host.callouts().len(), 1);
    pump(&host, &store);
    host.advance(2 * MS);
    assert!(streams.iter().all(|stream| status(stream) == 200));
    assert_eq!(store_calls(&host, "answered"), 1);
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "lease"), 3);
    behaved(&host);
}

#[test]
fn those_for_whom_the_answer_has_no_tokens_ask_for_themselves() {
    let (host, store) = (start(&leased(3, "local"), 1), Store::new());
    let streams: Vec<Stream> = (0..10).map(|_| host.worker(0).request(by("u"))).collect();
    store.serve(&host);
    pump(&host, &store);
    host.advance(2 * MS);
    let statuses: Vec<u32> = streams.iter().map(status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    behaved(&host);
}

#[test]
fn a_question_that_fails_fails_all_who_follow_it_at_once() {
    let failed = CheckAnswer::Failed { error: StoreError::Timeout };
    let ends = [
        ("no answer in time", Answer::timeout()),
        ("connection refused", Answer::connect_failure()),
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
    ];
    for (name, end) in ends {
        let host = start(&leased(1000, "open"), 1);
        let streams: Vec<Stream> = (0..5).map(|_| host.worker(0).request(by("u"))).collect();
        host.answer(&host.callouts()[0], end);
        for stream in &streams {
            assert_eq!((status(stream), fallback(stream).as_deref()), (200, Some("open")), "{name}");
        }
        assert_eq!(host.callouts(), [], "{name}");
        behaved(&host);
    }
}

#[test]
fn nobody_waits_for_longer_than_the_timeout() {
    let (host, store) = (start(&leased(1000, "open"), 1), Store::new());
    let first = host.worker(0).request(by("u"));
    host.advance(15 * MS);
    let follower = host.worker(0).request(by("u"));
    assert_eq!(host.callouts().len(), 1);
    host.advance(5 * MS);
    // the host ends the callout, and with it both
    assert_eq!([&first, &follower].map(fallback), [Some("open".into()), Some("open".into())]);
    assert_eq!(host.callouts(), []);
    pump(&host, &store);
    behaved(&host);
}

#[test]
fn who_has_waited_for_anothers_question_waits_the_less_for_its_own() {
    let mut policy = leased(3, "open");
    policy["store"]["timeout"] = json!("100ms");
    let (host, store) = (start(&policy, 1), Store::new());
    let first = host.worker(0).request(by("u"));
    let follower = host.worker(0).request(by("u"));
    host.advance(95 * MS);
    let callout = host.callouts().remove(0);
    host.answer(&callout, store.answer(&host, &callout));
    // there was no lease to be had, so the other one has asked for itself
    assert_eq!((status(&first), follower.state(), host.callouts().len()), (200, State::Paused, 1));
    host.advance(5 * MS);
    assert_eq!(follower.state(), State::Paused);
    host.advance(25 * MS);
    assert_eq!(fallback(&follower).as_deref(), Some("open"));
    pump(&host, &store);
    assert_eq!(store_calls(&host, "answered"), 2);
    behaved(&host);
}

#[test]
fn a_stream_that_leaves_hands_its_question_to_those_who_follow() {
    let (host, store) = (start(&leased(1000, "closed"), 1), Store::new());
    // two callouts are under way, so the third waits for its turn
    let others = ["a", "b"].map(|user| host.worker(0).request(by(user)));
    let asking = host.worker(0).request(by("u"));
    let followers: Vec<Stream> = (0..3).map(|_| host.worker(0).request(by("u"))).collect();
    asking.reset();
    followers[0].reset();
    pump(&host, &store);
    host.advance(2 * MS);
    pump(&host, &store);
    host.advance(2 * MS);
    assert!(others.iter().chain(&followers[1..]).all(|stream| status(stream) == 200));
    assert_eq!(host.worker(0).contexts(), (1, 4));
    behaved(&host);
}

#[test]
fn a_thousand_followers_are_answered_in_bounded_batches() {
    let (host, store) = (start(&leased(1_000_000, "closed"), 1), Store::new());
    let streams: Vec<Stream> = (0..1000).map(|_| host.worker(0).request(by("u"))).collect();
    assert_eq!(host.callouts().len(), 1);
    for _ in 0..100 {
        pump(&host, &store);
        host.advance(MS);
    }
    assert!(streams.iter().all(|stream| status(stream) == 200));
    assert!(host.worker(0).deepest_nesting() <= 65, "{}", host.worker(0).deepest_nesting());
    behaved(&host);
}

#[test]
fn a_thousand_followers_of_a_question_that_fails_are_let_go_in_bounded_batches() {
    let host = start(&leased(1_000_000, "open"), 1);
    let streams: Vec<Stream> = (0..1000).map(|_| host.worker(0).request(by("u"))).collect();
    host.answer(&host.callouts()[0], Answer::connect_failure());
    host.advance(20 * MS);
    assert!(streams.iter().all(|stream| status(stream) == 200));
    assert!(host.worker(0).deepest_nesting() <= 65, "{}", host.worker(0).deepest_nesting());
    assert_eq!(host.callouts(), []);
    behaved(&host);
}

#[test]
fn an_open_circuit_lets_nobody_follow_and_what_is_held_is_spent() {
    let (host, store) = served(&leased(10_000, "open"), 1);
    assert_eq!(ask(&host, 0, "u"), 200);
    store.away.set(true);
    for n in 0..10 {
        ask(&host, 0, &format!("v{n}"));
    }
    assert_eq!(store_calls(&host, "unreachable"), 10);
    let (held, new) = (host.worker(0).request(by("u")), host.worker(0).request(by("w")));
    assert_eq!((fallback(&held), fallback(&new)), (None, Some("open".into())));
    behaved(&host);
}

/// A subject in steady use: so many requests a second on all workers, for so long. Gives how many waited.
fn steady(host: &Host, user: &str, every: u32, requests: usize) -> usize {
    let workers = 4;
    let before = decisions(host, "normal", "per_user", "admitted", "store");
    for n in 0..requests {
        assert_eq!(ask(host, n % workers, user), 200, "request {n}");
        host.advance(every * MS);
    }
    usize::try_from(decisions(host, "normal", "per_user", "admitted", "store") - before).unwrap()
}

#[test]
fn a_subject_in_use_is_renewed_behind_its_requests_backs() {
    let (host, _) = served(&leased(1_000_000, "local"), 4);
    steady(&host, "u", 10, 300);
    let waited = steady(&host, "u", 10, 3000);
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
    steady_on_one(&host);
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
    host.advance(122_000 * MS);
    host.reset_counts();
    host.advance(10_000 * MS);
    assert_eq!(host.calls().get("clock_time_get"), None, "nothing ticks");
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
    host.fail("proxy_get_shared_data", 10_u32, lanekeeper_tests::host::Times::Always);
    (0..10).for_each(|_| assert_eq!(ask(&host, 0, "u"), 200));
    host.heal("proxy_get_shared_data");
    host.fail("proxy_set_shared_data", 10_u32, lanekeeper_tests::host::Times::Always);
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
    steady_on_one(&host);
    host.reconfigure(&leased(10_000, "local").to_string()).unwrap();
    let asked = store_calls(&host, "answered");
    assert_eq!(ask(&host, 0, "u"), 200);
    assert_eq!(store_calls(&host, "answered"), asked);
    host.advance(1_000 * MS);
    assert_eq!(host.worker(0).contexts(), (1, 0), "the old root waits for no lease");
    behaved(&host);
}

fn steady_on_one(host: &Host) {
    for _ in 0..200 {
        assert_eq!(ask(host, 0, "u"), 200);
        host.advance(10 * MS);
    }
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
    steady_on_one(&host);
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
