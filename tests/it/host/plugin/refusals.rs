//! Refusals that are remembered, and what a node holds its clients to without its store.

use lanekeeper_tests::host::{Host, Stream};
use serde_json::json;

use super::{MS, Store, behaved, by, decisions, start, status, store_calls, with_store};

/// A worker and its store, which answers at once; `u` has used up the two of its minute.
fn full() -> (Host, Store) {
    let (host, store) = (start(&with_store(2, "local"), 1), Store::new());
    store.serve(&host);
    for expected in [200, 200, 429] {
        assert_eq!(status(&host.worker(0).request(by("u"))), expected);
    }
    (host, store)
}

fn retry_after(stream: &Stream) -> u64 {
    let lanekeeper_tests::host::State::Replied(reply) = stream.state() else { panic!("not rejected") };
    reply.headers.text("retry-after").unwrap().parse().unwrap()
}

#[test]
fn a_client_that_hammers_is_refused_without_a_question_until_the_refusal_is_old() {
    let (host, _store) = full();
    let asked = store_calls(&host, "answered");
    for _ in 0..1000 {
        assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    }
    assert_eq!(store_calls(&host, "answered"), asked);
    assert_eq!(decisions(&host, "normal", "per_user", "rejected", "remembered"), 1000);
    assert_eq!(status(&host.worker(0).request(by("v"))), 200, "others are asked for");
    host.advance(4_000 * MS);
    assert_eq!(retry_after(&host.worker(0).request(by("u"))), 57, "it is told what is left of the wait");
    // ten seconds after the answer, so that an operator's reset is heard of
    host.advance(6_000 * MS);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    assert_eq!(store_calls(&host, "answered"), asked + 2);
    behaved(&host);
}

#[test]
fn a_client_is_admitted_at_the_moment_that_the_store_named() {
    let mut policy = with_store(2, "local");
    policy["rate_limits"]["per_user"]["windows"] = json!([{"limit": 2, "per": "1s"}]);
    let (host, store) = (start(&policy, 1), Store::new());
    store.serve(&host);
    for expected in [200, 200, 429, 429] {
        assert_eq!(status(&host.worker(0).request(by("u"))), expected);
    }
    // a second, the bucket, and the 20 ms that its tokens could be spent
    host.advance(1_000 * MS);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    host.advance(30 * MS);
    assert_eq!(status(&host.worker(0).request(by("u"))), 200);
    behaved(&host);
}

#[test]
fn a_refusal_is_remembered_while_the_store_is_away() {
    let (host, store) = full();
    store.away.set(true);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    assert_eq!(store_calls(&host, "unreachable"), 0);
    behaved(&host);
}

#[test]
fn one_limit_that_is_known_to_be_full_is_enough() {
    let mut policy = with_store(2, "local");
    policy["rate_limits"]["all"] =
        json!({"keys": {"all": [{"constant": "all"}]}, "windows": [{"limit": 1000, "per": "1m"}]});
    policy["rate_limits"]["watched"] = json!({
        "keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1m"}], "enforce": "0%",
    });
    let (host, store) = (start(&policy, 1), Store::new());
    store.serve(&host);
    for expected in [200, 200, 429] {
        assert_eq!(status(&host.worker(0).request(by("u"))), expected);
    }
    let asked = store_calls(&host, "answered");
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    assert_eq!(store_calls(&host, "answered"), asked);
    // a dry run alone never rejects, and is not asked for in vain either
    assert_eq!(decisions(&host, "normal", "watched", "dry_run", "store"), 2);
    behaved(&host);
}

#[test]
fn a_request_that_only_dry_runs_would_reject_goes_on_without_a_question() {
    let mut policy = with_store(1, "local");
    policy["rate_limits"]["per_user"]["enforce"] = json!("0%");
    let (host, store) = (start(&policy, 1), Store::new());
    store.serve(&host);
    for _ in 0..10 {
        assert_eq!(status(&host.worker(0).request(by("u"))), 200);
    }
    assert_eq!(store_calls(&host, "answered"), 2);
    assert_eq!(decisions(&host, "normal", "per_user", "dry_run", "remembered"), 8);
    behaved(&host);
}

#[test]
fn a_node_without_its_store_holds_its_clients_to_its_share() {
    let (host, store) = (start(&with_store(8, "local"), 1), Store::new());
    store.nodes.set(Some(4));
    store.serve(&host);
    assert_eq!(status(&host.worker(0).request(by("v"))), 200);
    store.away.set(true);
    let statuses: Vec<u32> = (0..4).map(|_| status(&host.worker(0).request(by("u")))).collect();
    assert_eq!(statuses, [200, 200, 429, 429], "two of eight, as one of four");
    behaved(&host);
}
