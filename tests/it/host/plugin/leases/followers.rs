//! Followers: whoever comes while a question about its subject is under way waits for the answer instead of asking
//! again. What was asked must then do for all of them, also when it fails, comes late, or loses whoever asked.

use lanekeeper_tests::host::{Answer, State, Stream};
use serde_json::json;

use super::super::{
    MS, Store, ask, behaved, by, decisions, failures, fallback, leased, pump, served, start, status,
    store_calls,
};

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
    for (name, end) in failures() {
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
fn a_question_whose_time_is_up_lets_its_followers_go_with_it() {
    let host = start(&leased(1000, "open"), 1);
    let first = host.worker(0).request(by("u"));
    host.advance(15 * MS);
    let follower = host.worker(0).request(by("u"));
    assert_eq!(host.callouts().len(), 1);
    host.advance(5 * MS);
    // the host ends the callout, and with it both
    assert_eq!([&first, &follower].map(fallback), [Some("open".into()), Some("open".into())]);
    assert_eq!(host.callouts(), []);
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
    // whoever asked now would have to wait
    host.answer_callouts(|_| None);
    let [held, new, next] = ["u", "w", "w"].map(|user| fallback(&host.worker(0).request(by(user))));
    assert_eq!((held, new, next), (None, Some("open".into()), Some("open".into())));
    assert_eq!(host.callouts(), []);
    behaved(&host);
}
