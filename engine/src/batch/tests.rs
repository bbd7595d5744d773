use std::time::Duration;

use super::*;
use crate::breaker::State;
use crate::ledger::Due;
use crate::policy::OnFailure;
use crate::request::{Account, Counters};
use crate::window::{Algorithm, Window};
use crate::wire::{
    BreakerReport, CheckAnswer, DecideResponse, KeyAnswer, KeyCheck, KeyReturn, KeySpent, Recorded, Slice,
    VERSION, WindowAnswer,
};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn window() -> Window {
    Window::new(100, Duration::from_secs(60), Algorithm::SlidingWindow).unwrap()
}

fn check(key: &str) -> Check {
    Check { keys: vec![KeyCheck::take(key, 1, [window()])] }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn waiter(stream: u32, checks: usize) -> Waiter {
    let checks = (0..checks).map(|n| check(&format!("s{stream}.{n}"))).collect();
    Waiter { stream, checks, since: at(stream.into()) }
}

fn charge(number: usize) -> Charge {
    let counters = Counters::Store { on_failure: OnFailure::Local };
    Charge { account: Account { lane: 0, limit: number, counters }, check: check(&format!("c{number}")) }
}

fn give_back(key: &str) -> KeyReturn {
    let (key, windows) = (key.to_owned(), [window()].into());
    KeyReturn { key, shards: 1, shard: 0, tokens: 1, dated_us: 1, id: 1, windows }
}

fn returns(number: usize) -> Vec<KeyReturn> {
    vec![give_back("b"); number]
}

fn reports(number: usize) -> Vec<BreakerReport> {
    vec![BreakerReport { name: "b".into(), state: State::Open, generation: 1, for_ms: Some(2) }; number]
}

fn spent(key: &str) -> KeySpent {
    let slices = vec![Slice { age_us: 5, tokens: 1 }];
    KeySpent { key: key.into(), shards: 1, id: 1, slices, windows: [window()].into() }
}

fn keys(checks: &[Check]) -> Vec<&str> {
    checks.iter().map(|check| check.keys[0].key.as_str()).collect()
}

/// An answer that says how many are left, by which it can be told from others.
fn left(remaining: u32) -> CheckAnswer {
    let windows = vec![WindowAnswer { remaining, reset_us: 0, wait_us: 0 }];
    CheckAnswer::Allowed { keys: vec![KeyAnswer { granted: 1, at_us: 0, shard: 0, lease: None, windows }] }
}

/// A load of a charge, two streams with three checks, a renewal, a return, a report of an outage and one on a breaker.
fn load() -> Load {
    let due = Due { renewals: vec![check("r")], returns: vec![give_back("b")] };
    let (charges, streams) = (vec![charge(0)], vec![waiter(1, 1), waiter(2, 2)]);
    Load { charges, streams, due, spent: vec![spent("o")], breakers: reports(1) }
}

#[test]
fn charges_stand_first_then_streams_then_renewals_and_returns_and_reports_beside_them() {
    let call = load().into_call(7, Duration::from_millis(20), at(5));
    let question = call.question();
    assert_eq!(keys(&question.checks), ["c0", "s1.0", "s2.0", "s2.1", "r"]);
    assert_eq!((question.node, question.spend_within_ms), (Some(7), 20));
    assert_eq!((question.returns.as_slice(), &question.breakers), ([give_back("b")].as_slice(), &reports(1)));
    assert_eq!((question.spent.as_slice(), call.spent()), ([spent("o")].as_slice(), [spent("o")].as_slice()));
    assert_eq!(question.validate(), Ok(()));
    assert_eq!((keys(call.renewals()), call.asked_at()), (vec!["r"], at(5)));
}

#[test]
fn each_hears_what_was_said_to_its_own_checks() {
    let call = load().into_call(7, Duration::from_millis(20), at(5));
    let answers: Vec<CheckAnswer> = (0..5).map(left).collect();
    let spent = vec![Recorded::Recorded];
    let response =
        DecideResponse { version: VERSION, nodes: Some(3), away: false, spent, answers: answers.clone() };
    let heard = call.read(response.clone()).unwrap();
    assert_eq!(heard.charges, [left(0)]);
    assert_eq!(heard.streams, [(1, vec![left(1)]), (2, vec![left(2), left(3)])]);
    assert_eq!((heard.renewals.as_slice(), heard.nodes.unwrap().get()), ([left(4)].as_slice(), 3));
    assert!(heard.answers().eq(&answers));
    assert_eq!(heard.spent, [Recorded::Recorded]);
    assert_eq!(call.read(DecideResponse { spent: Vec::new(), ..response.clone() }), None);
    let short = DecideResponse { answers: answers[1..].to_vec(), ..response };
    assert_eq!(call.read(short), None);
}

#[test]
fn what_could_not_be_sent_comes_back_but_for_what_goes_back_and_what_is_said_again() {
    let call = load().into_call(7, Duration::from_millis(20), at(5));
    let mut expected = load();
    expected.due.returns.clear();
    expected.spent.clear();
    expected.breakers.clear();
    assert_eq!(call.into_load(), expected);
}

#[test]
fn a_stream_that_nobody_wants_any_more_is_dropped_and_told_of() {
    let mut batches = Batches::default();
    (1..=3).for_each(|stream| batches.wait(waiter(stream, 1)));
    let mut dropped = Vec::new();
    let load = batches.next(|waiter| {
        let wanted = waiter.stream != 2;
        if !wanted {
            dropped.push(waiter.stream);
        }
        wanted
    });
    let streams: Vec<u32> = load.unwrap().streams.iter().map(|waiter| waiter.stream).collect();
    assert_eq!((streams, dropped), (vec![1, 3], vec![2]));
    assert!(batches.is_idle());
}

#[test]
fn charges_leave_alone_only_while_nothing_is_under_way() {
    let mut batches = Batches::default();
    batches.owe(charge(0)).unwrap();
    let load = batches.next(|_| true).unwrap();
    assert_eq!((load.charges.len(), load.streams.len()), (1, 0));
    batches.sent(1, load.into_call(7, Duration::from_millis(20), at(0)));
    batches.owe(charge(1)).unwrap();
    assert_eq!(batches.next(|_| true), None);
    let beside = batches.with(waiter(1, 1));
    assert_eq!((beside.charges.len(), beside.streams.len()), (1, 1));
    assert!(batches.end(1).is_some() && batches.end(1).is_none());
}

#[test]
fn a_load_says_how_much_more_it_holds() {
    let mut batches = Batches::default();
    (1..=100).for_each(|stream| batches.wait(waiter(stream, 3)));
    let load = batches.next(|_| true).unwrap();
    assert_eq!((load.streams.len(), load.room()), (MAX_STREAMS, MAX_CHECKS - 3 * MAX_STREAMS));
    assert_eq!(Load { streams: vec![waiter(1, 300)], ..Load::default() }.room(), 0);
    let returns_alone = Load { due: Due { returns: returns(1), ..Due::default() }, ..Load::default() };
    let reports_alone = Load { breakers: reports(1), ..Load::default() };
    let outage_alone = Load { spent: vec![spent("o")], ..Load::default() };
    assert!(Load::default().is_empty() && !returns_alone.is_empty());
    assert!(!reports_alone.is_empty() && !outage_alone.is_empty());
    let due = Due { returns: returns(5000), ..Due::default() };
    let question = Load { due, spent: vec![spent("o"); 500], breakers: reports(5000), ..Load::default() };
    let question = question.into_call(7, Duration::from_millis(20), at(0));
    assert_eq!(question.question().validate(), Ok(()));
}

#[test]
fn whoever_has_waited_too_long_is_taken_from_the_front() {
    let mut batches = Batches::default();
    (1..=5).for_each(|stream| batches.wait(waiter(stream, 1)));
    let late = |batches: &mut Batches, ms, most| -> Vec<u32> {
        batches.waiting_since_before(at(ms), most).iter().map(|waiter| waiter.stream).collect()
    };
    assert_eq!(late(&mut batches, 4, 2), [1, 2]);
    assert_eq!(late(&mut batches, 4, 2), [3]);
    assert!(late(&mut batches, 4, 2).is_empty());
    assert!(batches.is_stuck() && batches.is_waited_for());
    assert!(batches.is_late(at(5)) && !batches.is_late(at(4)));
}

#[test]
fn whoever_has_waited_for_longer_goes_first_wherever_that_was() {
    let mut batches = Batches::default();
    for stream in [2, 3, 1] {
        batches.wait(waiter(stream, 1));
    }
    let load = batches.next(|_| true).unwrap();
    assert_eq!(load.streams.iter().map(|waiter| waiter.stream).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_stream_whose_patience_ends_before_its_callout_is_named_once() {
    let mut batches = Batches::default();
    let streams = vec![waiter(1, 1), waiter(5, 1)];
    let call = Load { streams, ..Load::default() }.into_call(7, Duration::from_millis(20), at(10));
    batches.sent(1, call);
    assert!(batches.outwaited(at(1), 10).is_empty());
    assert_eq!(batches.outwaited(at(2), 10), [1]);
    assert_eq!(batches.outwaited(at(6), 0), [0; 0]);
    assert!(batches.is_late(at(6)) && !batches.is_late(at(5)));
    assert_eq!(batches.outwaited(at(6), 10), [5]);
    assert!(batches.outwaited(at(100), 10).is_empty());
    assert!(!batches.is_late(at(100)) && batches.is_waited_for());
    assert_eq!(
        batches.end(1).unwrap().streams().collect::<Vec<_>>(),
        [1, 5],
        "what they were charged is heard"
    );
}

#[test]
fn two_callouts_are_under_way_at_once_and_one_to_a_store_in_doubt() {
    let mut batches = Batches::default();
    let room = |batches: &Batches| [false, true].map(|is_in_doubt| batches.has_room(is_in_doubt));
    for (number, has_room) in [[true, true], [true, false], [false, false]].into_iter().enumerate() {
        assert_eq!(room(&batches), has_room, "{number} under way");
        let number = u32::try_from(number).unwrap();
        let load = batches.with(waiter(number, 1));
        batches.sent(number, load.into_call(1, Duration::from_millis(20), at(0)));
    }
}
