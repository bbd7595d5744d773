//! What workers admit while the store is away, told to it once when it is back: through a real store's windows.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lanekeeper_engine::wire::KeySpent;
use lanekeeper_tests::fake_shim::ours;
use lanekeeper_tests::host::{Answer, Host, Request, State, Stream};
use serde_json::json;

use super::success::{paid, succeed};
use super::{
    MS, Store, behaved, by, failing, fallback, leased, question, served, start, status, store_calls,
    with_store,
};

fn reported(host: &Host) -> u64 {
    host.counter("lanekeeper.outage_reported_tokens_total").unwrap_or(0)
}

/// A request that must be decided at once, and by whom: the store, or the node in its place.
fn decided(host: &Host, worker: usize, request: Request) -> (u32, Option<String>) {
    let stream = host.worker(worker).request(request);
    let decided = (status(&stream), fallback(&stream));
    stream.end();
    decided
}

/// `count` requests of a user, round about the workers, that the node admits while the store is away.
fn admitted_by_the_node(host: &Host, workers: usize, user: &str, count: usize) {
    for n in 0..count {
        assert_eq!(decided(host, n % workers, by(user)), (200, Some("local".into())), "{user}, request {n}");
        host.advance(MS);
    }
}

/// What the store has left for a user, once it has taken one request more.
fn left(host: &Host, user: &str) -> String {
    let stream = host.worker(0).request(by(user));
    let headers = stream.respond([(":status", "200")]).unwrap();
    stream.end();
    assert_eq!(headers.text("x-lanekeeper-fallback"), None, "the store decides");
    headers.text("ratelimit").unwrap().split(';').nth(1).unwrap().to_owned()
}

/// The store is back: a probe finds out, and the circuit closes.
fn come_back(host: &Host, store: &Store) {
    store.away.set(false);
    host.advance(1000 * MS);
    host.worker(0).request(by("probe")).end();
    host.advance(500 * MS);
    host.worker(0).request(by("probe")).end();
}

#[test]
fn what_the_node_admitted_stands_in_the_stores_window_once_it_is_back() {
    let (host, store) = served(&with_store(1000, "local"), 1);
    assert_eq!(left(&host, "u"), "r=999");
    store.away.set(true);
    admitted_by_the_node(&host, 1, "u", 50);
    admitted_by_the_node(&host, 1, "v", 7);
    come_back(&host, &store);
    host.advance(1000 * MS);
    assert_eq!(reported(&host), 57);
    assert_eq!((left(&host, "u"), left(&host, "v")), ("r=948".into(), "r=992".into()));
    behaved(&host);
}

#[test]
fn four_workers_tell_each_what_it_admitted() {
    let (host, store) = served(&with_store(1000, "local"), 4);
    store.away.set(true);
    admitted_by_the_node(&host, 4, "u", 100);
    come_back(&host, &store);
    host.advance(2000 * MS);
    assert_eq!((reported(&host), left(&host, "u")), (100, "r=899".into()));
    behaved(&host);
}

#[test]
fn the_true_cost_is_told_whatever_it_was_to_the_nodes_counters() {
    let (host, store) = served(&with_store(1000, "local"), 1);
    store.nodes.set(Some(10));
    assert_eq!(left(&host, "u"), "r=999");
    store.away.set(true);
    admitted_by_the_node(&host, 1, "u", 20);
    come_back(&host, &store);
    host.advance(1000 * MS);
    assert_eq!(left(&host, "u"), "r=978");
    behaved(&host);
}

#[test]
fn the_keys_of_a_question_are_told_in_the_same_callout_and_count_before_it() {
    let (host, store) = served(&with_store(30, "local"), 1);
    store.away.set(true);
    admitted_by_the_node(&host, 1, "u", 30);
    come_back(&host, &store);
    // nobody has waited for a tick
    assert_eq!(decided(&host, 0, by("u")), (429, None));
    behaved(&host);
}

#[test]
fn each_lane_is_told_of_its_own() {
    let mut policy = with_store(100, "local");
    policy["lanes"] = json!({"shadow": {
        "flag": [{"header": "x-shadow", "values": ["1"]}], "trust": [{"source_cidr": ["128.0.0.0/1"]}],
    }});
    let (host, store) = (start(&policy, 1), Store::new());
    let spent = watch(&host, &store);
    let shadow = |user| by(user).header("x-shadow", "1").property(&["source", "address"], "192.0.2.1:5000");
    store.away.set(true);
    for _ in 0..3 {
        assert_eq!(decided(&host, 0, by("u")), (200, Some("local".into())));
        assert_eq!(decided(&host, 0, shadow("u")).1, Some("local".into()));
        assert_eq!(decided(&host, 0, shadow("u")).1, Some("local".into()));
        host.advance(MS);
    }
    host.advance(MS);
    (0..4).for_each(|_| drop(decided(&host, 0, by("other"))));
    come_back(&host, &store);
    host.advance(1000 * MS);
    let told =
        |lane: &str| spent.borrow().iter().filter(|report| report.key == lane).map(tokens).sum::<u32>();
    assert_eq!((told("per_user:{u}:user"), told("shadow_per_user:{u}:user")), (3, 6));
    behaved(&host);
}

fn tokens(report: &KeySpent) -> u32 {
    report.slices.iter().map(|slice| slice.tokens).sum()
}

/// Has the store serve this host, and keeps what it was told.
fn watch(host: &Host, store: &Store) -> Rc<RefCell<Vec<KeySpent>>> {
    let told: Rc<RefCell<Vec<KeySpent>>> = Rc::default();
    let (store, asked, kept) = (store.clone(), host.clone(), Rc::clone(&told));
    host.answer_callouts(move |callout| {
        if store.away.get() {
            return Some(Answer::connect_failure());
        }
        kept.borrow_mut().extend(question(callout).spent);
        Some(store.answer(&asked, callout))
    });
    told
}

#[test]
fn a_report_whose_answer_is_lost_is_told_again_and_counts_once() {
    let (host, store) = served(&with_store(1000, "local"), 1);
    store.away.set(true);
    admitted_by_the_node(&host, 1, "u", 40);
    store.away.set(false);
    // the store hears everything, and for a while none of its answers come through
    let lost: Rc<RefCell<Vec<KeySpent>>> = Rc::default();
    let (served, asked, kept) = (store.clone(), host.clone(), Rc::clone(&lost));
    host.answer_callouts(move |callout| {
        let spent = question(callout).spent;
        let answer = served.answer(&asked, callout);
        let mut of_u: Vec<KeySpent> = spent.into_iter().filter(|report| report.key.contains("{u}")).collect();
        let is_lost = !of_u.is_empty() && kept.borrow().len() < 3;
        kept.borrow_mut().append(&mut of_u);
        Some(if is_lost { Answer::timeout() } else { answer })
    });
    for _ in 0..200 {
        host.worker(0).request(by("probe")).end();
        host.advance(100 * MS);
    }
    let ids: Vec<u64> = lost.borrow().iter().map(|report| report.id).collect();
    assert!(ids.len() > 3 && ids[..4].iter().all(|id| *id == ids[0]), "{ids:?}");
    store.serve(&host);
    assert_eq!(left(&host, "u"), "r=959");
    behaved(&host);
}

#[test]
fn what_has_left_the_window_meanwhile_is_not_counted() {
    let (host, store) = served(&with_store(100, "local"), 1);
    store.away.set(true);
    admitted_by_the_node(&host, 1, "u", 20);
    host.advance(Duration::from_secs(61));
    admitted_by_the_node(&host, 1, "u", 5);
    come_back(&host, &store);
    host.advance(1000 * MS);
    assert_eq!(left(&host, "u"), "r=94");
    behaved(&host);
}

#[test]
fn charges_that_went_to_the_node_in_the_stores_place_are_told() {
    let (host, store) = served(&paid(1000, "local"), 1);
    let streams: Vec<Stream> = (0..5).map(|_| host.worker(0).request(by("u"))).collect();
    assert!(streams.iter().all(|stream| stream.state() == State::Continued));
    store.away.set(true);
    streams.iter().for_each(succeed);
    for _ in 0..10 {
        let stream = host.worker(0).request(by("u"));
        assert_eq!(status(&stream), 200);
        succeed(&stream);
    }
    come_back(&host, &store);
    host.advance(1000 * MS);
    assert_eq!((reported(&host), left(&host, "u")), (15, "r=985".into()));
    behaved(&host);
}

#[test]
fn a_node_that_nobody_asks_any_more_tells_all_the_same() {
    let (host, store) = served(&with_store(1000, "local"), 2);
    store.away.set(true);
    admitted_by_the_node(&host, 2, "u", 20);
    host.advance(5000 * MS);
    assert_eq!(reported(&host), 0);
    let while_away = store_calls(&host, "unreachable");
    assert!((10..=15).contains(&while_away), "a probe a second: {while_away}");
    store.away.set(false);
    host.advance(4000 * MS);
    assert_eq!((reported(&host), left(&host, "u")), (20, "r=979".into()));
    host.advance(2000 * MS);
    host.reset_counts();
    host.advance(2000 * MS);
    assert_eq!(host.calls().into_iter().collect::<Vec<_>>(), [], "and then it rests");
    behaved(&host);
}

#[test]
fn a_shim_that_knows_no_reports_is_told_no_more() {
    let (host, store) = served(&with_store(1000, "local"), 1);
    store.away.set(true);
    admitted_by_the_node(&host, 1, "u", 20);
    store.away.set(false);
    let (older, asked) = (store.clone(), host.clone());
    host.answer_callouts(move |callout| {
        let is_known = question(callout).spent.is_empty();
        let refused = || Answer::response(400, [("x-lanekeeper-shim", "1")], "unknown field `spent`");
        Some(if is_known { older.answer(&asked, callout) } else { refused() })
    });
    for _ in 0..50 {
        host.worker(0).request(by("u")).end();
        host.advance(100 * MS);
    }
    assert_eq!((store_calls(&host, "refused"), reported(&host)), (1, 0));
    assert_eq!(decided(&host, 0, by("u")), (200, None));
    assert_eq!(host.log().iter().filter(|line| line.text.contains("outages are not reported")).count(), 1);
    behaved(&host);
}

#[test]
fn a_policy_that_follows_tells_what_the_one_before_has_admitted() {
    let (host, store) = served(&with_store(1000, "local"), 2);
    store.away.set(true);
    admitted_by_the_node(&host, 2, "u", 30);
    let mut raised = with_store(1000, "local");
    raised["rate_limits"]["other"] =
        json!({"keys": {"k": [{"header": "x-other"}]}, "windows": [{"limit": 7, "per": "1s"}]});
    host.reconfigure(&raised.to_string()).unwrap();
    admitted_by_the_node(&host, 2, "u", 6);
    come_back(&host, &store);
    host.advance(2000 * MS);
    assert_eq!(left(&host, "u"), "r=963");
    behaved(&host);
}

#[test]
fn many_subjects_are_told_little_by_little() {
    let (host, store) = served(&with_store(1000, "local"), 1);
    let told = watch(&host, &store);
    store.away.set(true);
    for n in 0..500 {
        assert_eq!(decided(&host, 0, by(&format!("u{n}"))).0, 200);
    }
    store.away.set(false);
    host.advance(1000 * MS);
    assert_eq!(decided(&host, 0, by("probe")), (200, None));
    assert_eq!(told.borrow().len(), 0, "a probe takes nothing along");
    host.advance(399 * MS);
    assert_eq!(told.borrow().len(), 0, "requests come first");
    for looks in 1..5 {
        host.advance(20 * MS);
        assert!(told.borrow().len() <= looks * 128, "{} after {looks} looks", told.borrow().len());
    }
    host.advance(1000 * MS);
    assert_eq!((told.borrow().len(), reported(&host)), (500, 500));
    behaved(&host);
}

#[test]
fn tokens_that_are_held_in_advance_are_not_told_for_the_store_has_charged_them() {
    let (host, store) = served(&leased(100_000, "local"), 1);
    for _ in 0..50 {
        host.worker(0).request(by("u")).end();
        host.advance(MS);
    }
    let held = |host: &Host| {
        host.counter("lanekeeper.decisions_total.lane.normal.limit.per_user.outcome.admitted.source.lease")
    };
    let before = held(&host).unwrap();
    store.away.set(true);
    (0..10).for_each(|_| host.worker(0).request(by("u")).end());
    let by_leases = held(&host).unwrap() - before;
    assert!(by_leases > 0, "some are held");
    come_back(&host, &store);
    host.advance(2000 * MS);
    assert_eq!(reported(&host), 10 - by_leases);
    behaved(&host);
}

#[test]
fn an_outage_begins_with_what_the_store_said_last() {
    let (host, store) = served(&leased(10, "local"), 2);
    for n in 0..6 {
        assert_eq!(decided(&host, 0, by("u")), (200, None), "request {n}");
        host.advance(MS);
    }
    store.away.set(true);
    let mut admitted = 0;
    for _ in 0..20 {
        admitted += usize::from(decided(&host, 0, by("u")).0 == 200);
        host.advance(MS);
    }
    assert_eq!(admitted, 4);
    // whom this node has never heard of has all of it
    admitted_by_the_node(&host, 1, "v", 10);
    behaved(&host);
}

#[test]
fn until_all_workers_have_told_the_nodes_own_counters_have_to_allow_as_well() {
    let (host, store) = served(&leased(10, "local"), 2);
    // what answers and refuses is left alone by nobody, and is back at once
    host.answer_callouts(|callout| Some(ours(failing(callout, false))));
    admitted_by_the_node(&host, 2, "u", 10);
    store.serve(&host);
    // of the ten the store hears five beside this question
    assert_eq!(decided(&host, 0, by("u")), (429, None));
    assert_eq!(reported(&host), 5);
    assert_eq!(decided(&host, 1, by("u")), (429, None));
    assert_eq!(reported(&host), 10);
    // of whom nothing is to be told, the store alone decides
    assert_eq!(decided(&host, 0, by("v")), (200, None));
    behaved(&host);
}
