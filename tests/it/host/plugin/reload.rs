//! A new policy, or new code, in the midst of everything: what is known stays known, and nothing is spent twice.

use lanekeeper_tests::host::{Host, State, Stream};
use serde_json::{Value, json};

use super::{
    MS, Store, ask, behaved, by, decisions, fallback, leased, question, renewals, served, standalone, start,
    status, store_calls,
};

const WORKERS: usize = 4;

fn bring(host: &Host, policy: &Value) {
    host.reconfigure(&policy.to_string()).unwrap();
}

fn admitted(host: &Host, users: &[&str], requests: usize) -> usize {
    (0..requests).filter(|n| ask(host, n % WORKERS, users[n / WORKERS % users.len()]) == 200).count()
}

/// `limit` with another store.
fn elsewhere(limit: u32) -> Value {
    let mut policy = leased(limit, "local");
    policy["store"]["cluster"] = json!("elsewhere");
    policy
}

/// Users in steady use, and a new policy each so many requests. Gives how often the store was asked.
fn asked_of_the_store(reload_each: usize) -> u64 {
    let (host, _) = served(&leased(1_000_000, "local"), WORKERS);
    let users = ["u0", "u1", "u2", "u3", "u4"];
    for n in 0..8000 {
        assert_eq!(ask(&host, n % WORKERS, users[n / WORKERS % users.len()]), 200);
        if n % 2 == 0 {
            host.advance(MS);
        }
        if n % reload_each == reload_each - 1 {
            // another shape for the clients, and the same limits
            let mut policy = leased(1_000_000, "local");
            policy["responses"] = json!({"rejected_status": 400 + n % 100});
            bring(&host, &policy);
        }
    }
    assert_eq!(host.worker(0).contexts(), (1, 0));
    behaved(&host);
    store_calls(&host, "answered")
}

#[test]
fn leases_stay_and_the_store_is_not_asked_more() {
    let (without, with) = (asked_of_the_store(usize::MAX), asked_of_the_store(80));
    assert_eq!(with, without, "with a hundred policies, and with one");
}

#[test]
fn nothing_is_lost_and_nothing_spent_twice_whenever_a_policy_comes() {
    for each in [1, 3, 7, 20] {
        let (host, _) = served(&leased(100, "local"), WORKERS);
        let mut got = 0;
        for n in 0..300 {
            got += usize::from(ask(&host, n % WORKERS, "u") == 200);
            if n % each == 0 {
                bring(&host, &leased(100, "local"));
            }
        }
        assert_eq!(got, 100, "a policy each {each} requests");
        behaved(&host);
    }
}

#[test]
fn what_the_store_refused_is_remembered() {
    let (host, store) = served(&leased(10, "local"), WORKERS);
    admitted(&host, &["u"], 40);
    store.away.set(true);
    let before = decisions(&host, "normal", "per_user", "rejected", "remembered");
    bring(&host, &leased(10, "local"));
    (0..WORKERS).for_each(|worker| assert_eq!(ask(&host, worker, "u"), 429));
    assert_eq!(decisions(&host, "normal", "per_user", "rejected", "remembered"), before + 4);
    behaved(&host);
}

#[test]
fn the_number_of_nodes_stays_known_for_when_the_store_is_away() {
    let (host, store) = served(&leased(10, "local"), WORKERS);
    store.nodes.set(Some(5));
    (0..WORKERS).for_each(|worker| assert_eq!(ask(&host, worker, &format!("v{worker}")), 200));
    bring(&host, &leased(10, "local"));
    store.away.set(true);
    assert_eq!(admitted(&host, &["u"], 10), 2, "a fifth of the limit");
    behaved(&host);
}

#[test]
fn a_changed_limit_begins_anew_and_the_leases_of_the_old_one_are_renewed_no_more() {
    let (host, _) = served(&leased(1_000_000, "local"), WORKERS);
    let users = ["u0", "u1", "u2"];
    for _ in 0..100 {
        admitted(&host, &users, 12);
        host.advance(10 * MS);
    }
    let renewed = renewals(&host);
    assert!(renewed > 0);
    bring(&host, &leased(500, "local"));
    // the longest that a lease lives
    host.advance(130_000 * MS);
    assert_eq!(renewals(&host), renewed);
    host.answer_callouts(|_| None);
    let stream = host.worker(0).request(by("u0"));
    assert_eq!(stream.state(), State::Paused, "tokens of another limit are none of this");
    behaved(&host);
}

#[test]
fn a_changed_max_drift_holds_for_the_next_lease() {
    let (host, _) = served(&leased(1_000_000, "local"), WORKERS);
    ask(&host, 0, "u");
    let mut policy = leased(1_000_000, "local");
    policy["store"]["max_drift"] = json!("5%");
    bring(&host, &policy);
    host.answer_callouts(|_| None);
    host.worker(0).request(by("v"));
    assert_eq!(question(&host.callouts()[0]).checks[0].keys[0].lease.unwrap().drift, 50_000);
    policy["store"]["max_drift"] = json!(0);
    bring(&host, &policy);
    let strict = host.worker(1).request(by("u"));
    assert_eq!(strict.state(), State::Paused, "each decision is the store's");
    behaved(&host);
}

/// How many requests of a user in steady use the node decides by what it holds, when the store is gone after these steps.
fn left_after(steps: impl FnOnce(&Host)) -> usize {
    let (host, store) = served(&leased(1_000_000, "open"), WORKERS);
    host.set_property(&["plugin_name"], "a");
    bring(&host, &leased(1_000_000, "open"));
    steady(&host);
    store.away.set(true);
    steps(&host);
    let left = (0..2000).filter(|n| fallback_of(&host, n % WORKERS, "u").is_none()).count();
    assert!(left > 20, "there is something to be lost: {left}");
    behaved(&host);
    left
}

fn steady(host: &Host) {
    for _ in 0..200 {
        assert_eq!(admitted(host, &["u"], WORKERS), WORKERS);
        host.advance(10 * MS);
    }
}

#[test]
fn no_token_is_lost_when_a_root_ends_that_nobody_follows_upon() {
    let through_another_store = left_after(|host| {
        host.add_cluster("elsewhere");
        bring(host, &elsewhere(1_000_000));
        bring(host, &leased(1_000_000, "open"));
    });
    assert_eq!(through_another_store, left_after(|_| {}));
}

#[test]
fn of_several_filters_each_follows_upon_its_own() {
    let beside_another = left_after(|host| {
        // the one of before has a stream, and what its workers hold
        let streams = [0, 1, 2, 3].map(|worker| host.worker(worker).request(by("other")));
        host.set_property(&["plugin_name"], "b");
        bring(host, &leased(1_000_000, "open"));
        host.set_property(&["plugin_name"], "a");
        bring(host, &leased(1_000_000, "open"));
        streams.iter().for_each(Stream::end);
    });
    assert_eq!(beside_another, left_after(|_| {}));
}

fn fallback_of(host: &Host, worker: usize, user: &str) -> Option<String> {
    let stream = host.worker(worker).request(by(user));
    let fallback = fallback(&stream);
    stream.end();
    fallback
}

#[test]
fn two_stores_never_share_a_lease_or_a_refusal() {
    let (host, _) = served(&leased(1_000_000, "local"), WORKERS);
    host.add_cluster("elsewhere");
    admitted(&host, &["u"], 40);
    bring(&host, &elsewhere(1_000_000));
    host.answer_callouts(|_| None);
    let stream = host.worker(0).request(by("u"));
    assert_eq!((stream.state(), host.callouts()[0].cluster.as_str()), (State::Paused, "elsewhere"));
    behaved(&host);
}

#[test]
fn requests_that_wait_under_the_old_policy_hear_their_answer_and_so_do_those_who_follow_them() {
    let (host, store) = (start(&leased(1000, "closed"), 1), Store::new());
    let streams: Vec<Stream> = (0..5).map(|_| host.worker(0).request(by("u"))).collect();
    bring(&host, &leased(1000, "closed"));
    let asks_itself = host.worker(0).request(by("u"));
    for callout in host.callouts() {
        host.answer(&callout, store.answer(&host, &callout));
    }
    store.serve(&host);
    host.advance(3 * MS);
    assert!(streams.iter().chain([&asks_itself]).all(|stream| status(stream) == 200));
    assert!(streams.iter().all(|stream| fallback(stream).is_none()));
    streams.iter().for_each(Stream::end);
    host.advance(1000 * MS);
    assert_eq!(host.worker(0).contexts(), (1, 1), "the old root has gone");
    behaved(&host);
}

#[test]
fn the_nodes_own_counters_go_on() {
    let host = start(&standalone(10), WORKERS);
    let before = admitted(&host, &["u"], 6);
    let mut policy = standalone(10);
    policy["responses"] = json!({"body": "json"});
    bring(&host, &policy);
    assert_eq!((before, admitted(&host, &["u"], 20)), (6, 4));
    behaved(&host);
}

#[test]
fn a_refused_policy_changes_nothing() {
    let (host, store) = served(&leased(1_000_000, "local"), WORKERS);
    steady(&host);
    assert!(host.reconfigure(r#"{"version": 2}"#).is_err());
    store.away.set(true);
    (0..WORKERS).for_each(|worker| assert_eq!(fallback_of(&host, worker, "u"), None, "its lease is there"));
    behaved(&host);
}

#[test]
fn a_hundred_policies_leave_nothing_behind() {
    let (host, _) = served(&leased(1_000_000, "local"), WORKERS);
    admitted(&host, &["u"], 40);
    bring(&host, &leased(1_000_000, "local"));
    admitted(&host, &["u"], 40);
    let (metrics, shared) = (host.worker(0).metric_ids(), host.shared_keys().len());
    for _ in 0..100 {
        bring(&host, &leased(1_000_000, "local"));
        admitted(&host, &["u"], 8);
        host.advance(20 * MS);
    }
    assert_eq!((host.worker(0).metric_ids(), host.shared_keys().len()), (metrics, shared));
    assert_eq!((0..WORKERS).map(|n| host.worker(n).contexts()).collect::<Vec<_>>(), [(1, 0); WORKERS]);
    behaved(&host);
}

/// Every worker has a new VM with nothing of its own, as new code has.
fn bring_code(host: &Host) {
    (0..WORKERS).for_each(|worker| host.reload(worker));
}

#[test]
fn new_code_spends_from_the_pool_and_leaves_alone_what_it_does_not_know() {
    let (host, store) = served(&leased(1_000_000, "local"), WORKERS);
    steady(&host);
    store.away.set(true);
    let foreign = ["lanekeeper/2/lease/7", "lanekeeper/0/circuit/1", "someone/else"];
    for key in foreign {
        host.set_shared_data(key, b"\xffof another make", 0).unwrap();
    }
    bring_code(&host);
    assert_eq!(fallback_of(&host, 1, "u"), None, "the pool has tokens");
    assert_eq!(fallback_of(&host, 1, "v").as_deref(), Some("local"));
    assert!(foreign.iter().all(|key| host.shared_data(key).unwrap().0 == b"\xffof another make"));
    behaved(&host);
}

#[test]
fn new_code_counts_on() {
    let host = start(&standalone(10), WORKERS);
    let before = admitted(&host, &["u"], 6);
    bring_code(&host);
    assert_eq!((before, admitted(&host, &["u"], 20)), (6, 4));
    behaved(&host);
}
