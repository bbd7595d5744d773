//! The store's circuit: how soon all workers leave a store alone that fails them, and how it comes back.

use std::cell::Cell;
use std::rc::Rc;

use lanekeeper_tests::fake_shim::ours;
use lanekeeper_tests::host::{Answer, Host, Level, State, Status, Stream, Times};

use super::{MS, Store, behaved, by, failing, fallback, leased, renewals, start, store_calls, with_store};

const WORKERS: usize = 4;

/// A node of four workers, and a store that nobody has asked yet.
fn node() -> (Host, Store) {
    (start(&with_store(1_000_000, "local"), WORKERS), Store::new())
}

fn turns(host: &Host, to: &str) -> u64 {
    host.counter(&format!("lanekeeper.store_circuit_transitions_total.to.{to}")).unwrap_or(0)
}

fn state(host: &Host) -> Option<u64> {
    host.gauge("lanekeeper.store_circuit_state")
}

/// Whether the store decides a request on this worker now. It must answer at once.
fn is_asked(host: &Host, worker: usize) -> bool {
    let stream = host.worker(worker).request(by("u"));
    let by_store = fallback(&stream).is_none();
    stream.end();
    by_store
}

/// How many of the workers' next requests the store decides.
fn asked(host: &Host) -> usize {
    (0..WORKERS).filter(|worker| is_asked(host, *worker)).count()
}

/// The circuit opens: ten requests, each on the next worker, find no connection. Every worker has heard of it.
fn open(host: &Host, store: &Store) {
    store.away.set(true);
    store.serve(host);
    (0..10).for_each(|n| assert!(!is_asked(host, n % WORKERS)));
    assert_eq!((store_calls(host, "unreachable"), state(host)), (10, Some(2)));
    host.advance(20 * MS);
}

/// The store is back, and a probe has found out.
fn recover(host: &Host, store: &Store) {
    store.away.set(false);
    host.advance(1000 * MS);
    assert!(is_asked(host, 0));
    assert_eq!((turns(host, "recovering"), state(host)), (1, Some(1)));
}

#[test]
fn after_ten_slow_answers_to_all_workers_nobody_asks() {
    let (host, store) = node();
    for n in 0..10 {
        let stream = host.worker(n % WORKERS).request(by("u"));
        assert_eq!((stream.state(), state(&host)), (State::Paused, Some(0)), "answer {n}");
        host.advance(11 * MS);
        host.answer(&host.callouts()[0], store.answer(&host, &host.callouts()[0]));
        assert_eq!(fallback(&stream), None, "a slow answer is used all the same");
    }
    host.advance(20 * MS);
    assert_eq!(asked(&host), 0);
    assert_eq!((store_calls(&host, "answered"), turns(&host, "open"), state(&host)), (10, 1, Some(2)));
    let warnings = host.log().into_iter().filter(|line| line.level == Level::Warn);
    let warnings: Vec<String> = warnings.map(|line| line.text).collect();
    assert_eq!(warnings.len(), 1);
    let expected = "lanekeeper: the circuit to the store lanekeeper is open: it failed, or took more than 10ms, 10 times";
    assert!(warnings[0].starts_with(expected), "{warnings:?}");
    behaved(&host);
}

#[test]
fn an_answer_in_time_to_any_worker_ends_the_row() {
    let (host, store) = node();
    store.serve(&host);
    for _ in 0..5 {
        store.away.set(true);
        (0..9).for_each(|n| assert!(!is_asked(&host, n % WORKERS)));
        store.away.set(false);
        assert!(is_asked(&host, 0));
    }
    assert_eq!((turns(&host, "open"), state(&host)), (0, Some(0)));
    behaved(&host);
}

#[test]
fn one_request_of_all_workers_probes_a_second() {
    let (host, store) = node();
    open(&host, &store);
    for second in 0..5 {
        host.advance(979 * MS);
        assert_eq!((asked(&host), store_calls(&host, "unreachable")), (0, 10 + second));
        host.advance(21 * MS);
        assert_eq!((asked(&host), store_calls(&host, "unreachable")), (0, 11 + second));
    }
    assert_eq!((turns(&host, "open"), state(&host)), (1, Some(2)), "a probe that fails is no news");
    behaved(&host);
}

#[test]
fn a_store_that_is_back_is_asked_by_a_growing_share_of_the_requests() {
    // what is counted on the node would be reported, which takes its part of the share
    let (host, store) = (start(&with_store(1_000_000, "open"), WORKERS), Store::new());
    open(&host, &store);
    recover(&host, &store);
    // 4 requests a millisecond
    let shares: Vec<usize> = (0..5)
        .map(|_| {
            let ms = |_| {
                host.advance(MS);
                asked(&host)
            };
            (0..100).map(ms).sum()
        })
        .collect();
    assert_eq!(shares, [48, 152, 248, 352, 400]);
    assert_eq!((turns(&host, "closed"), state(&host)), (1, Some(0)));
    behaved(&host);
}

#[test]
fn one_failure_while_it_recovers_opens_it_again() {
    let (host, store) = node();
    open(&host, &store);
    recover(&host, &store);
    store.away.set(true);
    host.advance(300 * MS);
    while turns(&host, "open") == 1 {
        assert!(!is_asked(&host, 1));
    }
    assert_eq!(store_calls(&host, "unreachable"), 11);
    host.advance(20 * MS);
    assert_eq!((asked(&host), store_calls(&host, "unreachable"), state(&host)), (0, 11, Some(2)));
    behaved(&host);
}

#[test]
fn a_worker_that_begins_anew_knows_the_open_circuit() {
    let (host, store) = node();
    open(&host, &store);
    host.worker(2).crash();
    host.reload(2);
    assert!(!is_asked(&host, 2));
    assert_eq!(store_calls(&host, "unreachable"), 10);
    behaved(&host);
}

#[test]
fn a_policy_that_is_replaced_leaves_the_circuit_as_it_is() {
    let (host, store) = node();
    open(&host, &store);
    host.reconfigure(&with_store(2_000_000, "local").to_string()).unwrap();
    assert_eq!((asked(&host), store_calls(&host, "unreachable"), state(&host)), (0, 10, Some(2)));
    behaved(&host);
}

#[test]
fn without_shared_data_each_worker_learns_by_itself() {
    let (host, store) = (start(&with_store(1_000_000, "open"), 2), Store::new());
    for call in ["proxy_get_shared_data", "proxy_set_shared_data"] {
        host.fail(call, Status::InternalFailure, Times::Always);
    }
    store.away.set(true);
    store.serve(&host);
    for _ in 0..30 {
        (0..2).for_each(|worker| assert!(!is_asked(&host, worker)));
    }
    assert_eq!(store_calls(&host, "unreachable"), 20);
}

#[test]
fn an_answer_that_the_whole_store_is_away_is_a_failure_and_one_with_failed_checks_is_not() {
    for (away, outcome, opened) in [(true, "away", 1), (false, "answered", 0)] {
        let (host, _) = node();
        host.answer_callouts(move |callout| Some(ours(failing(callout, away))));
        (0..10).for_each(|n| assert!(!is_asked(&host, n % WORKERS)));
        assert_eq!((store_calls(&host, outcome), turns(&host, "open")), (10, opened), "{outcome}");
        behaved(&host);
    }
}

#[test]
fn whoever_waits_to_ask_is_let_go_when_the_circuit_opens() {
    let host = start(&with_store(1_000_000, "local"), 1);
    let store = Store::new();
    store.away.set(true);
    store.serve(&host);
    (0..9).for_each(|_| assert!(!is_asked(&host, 0)));
    host.answer_callouts(|_| None);
    let streams: Vec<Stream> = (0..50).map(|_| host.worker(0).request(by("u"))).collect();
    assert_eq!((host.callouts().len(), state(&host)), (1, Some(0)));
    host.answer(&host.callouts()[0], Answer::connect_failure());
    assert_eq!((host.callouts().len(), store_calls(&host, "unreachable")), (0, 10));
    assert!(streams.iter().all(|stream| fallback(stream).as_deref() == Some("local")));
    behaved(&host);
}

#[test]
fn a_store_that_hangs_is_asked_no_more_than_one_question_too_many_by_each_other_worker() {
    let host = start(&with_store(1_000_000, "local"), 2);
    let asked = Rc::new(Cell::new(0));
    let count = Rc::clone(&asked);
    host.answer_callouts(move |_| {
        count.set(count.get() + 1);
        None
    });
    let mut streams = Vec::new();
    while state(&host) != Some(2) {
        (0..2).for_each(|worker| streams.push(host.worker(worker).request(by("u"))));
        host.advance(MS);
        assert!(streams.len() < 1000, "nobody waits for it for ever");
    }
    host.advance(20 * MS);
    // ten that open the circuit, and the one that the other worker had under way then
    assert_eq!((asked.get(), store_calls(&host, "timeout")), (11, 11));
    assert!(streams.iter().all(|stream| fallback(stream).as_deref() == Some("local")));
    behaved(&host);
}

#[test]
fn leases_that_were_due_while_the_store_was_away_are_not_all_renewed_when_it_is_back() {
    let host = start(&leased(1_000_000, "local"), 1);
    let store = Store::new();
    store.serve(&host);
    let by_all = |every: u32| {
        for n in 0..500 {
            host.worker(0).request(by(&format!("u{n}"))).end();
            if n % 10 == 0 {
                host.advance(every * MS);
            }
        }
    };
    (0..40).for_each(|_| by_all(1));
    let before = renewals(&host);
    assert!(before > 500, "500 leases are in use: {before}");
    store.away.set(true);
    (0..60).for_each(|_| by_all(1));
    assert_eq!(turns(&host, "open"), 1);
    store.away.set(false);
    while turns(&host, "recovering") == 0 {
        host.worker(0).request(by("probe")).end();
        host.advance(MS);
    }
    let at_first = renewals(&host);
    host.advance(100 * MS);
    assert!(renewals(&host) - at_first <= 64, "{} renewals", renewals(&host) - at_first);
    behaved(&host);
}
