//! What the model does, case by case.

use std::num::NonZeroU32;

use super::*;
use crate::window::Offset;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: Duration = Duration::from_secs(1);

fn sliding(limit: u32, per: Duration) -> Window {
    Window::new(limit, per, Algorithm::SlidingWindow).unwrap()
}

fn log(limit: u32, per: Duration) -> Window {
    Window::new(limit, per, Algorithm::SlidingLog).unwrap()
}

fn counter(limit: u32, per: Duration) -> Window {
    Window::new(limit, per, Algorithm::SlidingCounter).unwrap()
}

fn fixed(limit: u32, per: Duration, minutes: i32) -> Window {
    let offset = Offset::from_minutes(minutes).unwrap();
    Window::new(limit, per, Algorithm::FixedWindow { timezone: offset.into() }).unwrap()
}

fn bucket(limit: u32, per: Duration, burst: u32) -> Window {
    Window::new(limit, per, Algorithm::TokenBucket { burst: NonZeroU32::new(burst).unwrap() }).unwrap()
}

fn at(us: u64) -> Timestamp {
    Timestamp::from_micros(us)
}

fn take_one(counters: &mut SubjectCounters, windows: &[Window], cost: u32, now: Timestamp) -> Decision {
    decide(&mut [Charge { windows, ask: Ask::take(cost), counters }], STORE_BUCKETS, now, Duration::ZERO)
}

#[test]
fn refuses_the_eleventh_in_ten_and_admits_it_exactly_when_it_said() {
    for windows in [
        [sliding(10, SECOND)],
        [log(10, SECOND)],
        [counter(10, SECOND)],
        [fixed(10, SECOND, 0)],
        [bucket(10, SECOND, 10)],
    ] {
        let mut counters = SubjectCounters::default();
        for used in 1..=10 {
            let decision = take_one(&mut counters, &windows, 1, at(0));
            assert!(decision.allowed);
            assert_eq!(
                (decision.keys[0].windows[0].remaining, decision.keys[0].windows[0].wait),
                (10 - used, Duration::ZERO)
            );
        }
        let decision = take_one(&mut counters, &windows, 1, at(0));
        assert!(!decision.allowed);
        let wait = decision.keys[0].windows[0].wait;
        let just_before = at(0).plus(wait - Duration::from_micros(1));
        assert!(!take_one(&mut counters, &windows, 1, just_before).allowed);
        assert!(take_one(&mut counters, &windows, 1, at(0).plus(wait)).allowed);
    }
}

#[test]
fn names_a_wait_for_the_windows_that_refuse_and_none_for_the_others() {
    let windows = [sliding(100, SECOND), bucket(1, SECOND, 1)];
    let mut counters = SubjectCounters::default();
    take_one(&mut counters, &windows, 1, at(0));
    let decision = take_one(&mut counters, &windows, 1, at(0));
    assert!(!decision.allowed);
    assert_eq!(decision.keys[0].windows[0].wait, Duration::ZERO);
    assert_eq!(decision.keys[0].windows[1].wait, SECOND);
}

#[test]
fn charges_no_key_when_one_refuses() {
    let (free, full) = ([sliding(5, SECOND)], [sliding(1, SECOND)]);
    let (mut first, mut second) = (SubjectCounters::default(), SubjectCounters::default());
    take_one(&mut second, &full, 1, at(0));
    let charges = &mut [
        Charge { windows: &free, ask: Ask::take(2), counters: &mut first },
        Charge { windows: &full, ask: Ask::take(1), counters: &mut second },
    ];
    let decision = decide(charges, STORE_BUCKETS, at(0), Duration::ZERO);
    assert!(!decision.allowed);
    assert_eq!(decision.keys[0].windows[0].remaining, 5);
    assert_eq!(take_one(&mut first, &free, 5, at(0)).keys[0].windows[0].remaining, 0);
}

#[test]
fn refuses_a_cost_that_never_fits_without_counting_it() {
    for windows in [
        [sliding(3, SECOND)],
        [log(3, SECOND)],
        [counter(3, SECOND)],
        [fixed(3, SECOND, 0)],
        [bucket(3, SECOND, 3)],
    ] {
        let mut counters = SubjectCounters::default();
        assert!(!take_one(&mut counters, &windows, 4, at(0)).allowed);
        assert_eq!(take_one(&mut counters, &windows, 3, at(0)).keys[0].windows[0].remaining, 0);
    }
}

#[test]
fn time_does_not_run_backwards_and_waits_are_told_by_the_clock_that_did() {
    for windows in [
        [sliding(2, SECOND)],
        [log(2, SECOND)],
        [counter(2, SECOND)],
        [fixed(2, SECOND, 0)],
        [bucket(2, SECOND, 2)],
    ] {
        let mut ahead = SubjectCounters::default();
        take_one(&mut ahead, &windows, 1, at(5_000_000));
        let mut steady = ahead.clone();
        for _ in 0..2 {
            let back = take_one(&mut ahead, &windows, 1, at(1_000_000));
            let mut steady = take_one(&mut steady, &windows, 1, at(5_000_000));
            let told = &mut steady.keys[0].windows[0];
            told.reset += SECOND * 4;
            told.wait += if steady.allowed { Duration::ZERO } else { SECOND * 4 };
            assert_eq!(back, steady);
        }
        assert_eq!(ahead.seen, at(5_000_000));
    }
}

#[test]
fn a_window_of_another_algorithm_starts_afresh() {
    let mut counters = SubjectCounters::default();
    take_one(&mut counters, &[sliding(2, SECOND), bucket(2, SECOND, 2)], 2, at(0));
    let swapped = [bucket(2, SECOND, 2), sliding(2, SECOND)];
    assert!(take_one(&mut counters, &swapped, 2, at(0)).allowed);
    assert!(take_one(&mut counters, &[counter(2, SECOND), counter(2, SECOND)], 2, at(0)).allowed);
}

#[test]
fn grants_as_much_as_every_window_has_room_for_down_to_the_least() {
    for windows in [
        [sliding(10, SECOND), sliding(7, SECOND * 2)],
        [log(10, SECOND), log(7, SECOND * 2)],
        [counter(10, SECOND), counter(7, SECOND * 2)],
        [fixed(10, SECOND, 0), fixed(7, SECOND * 2, 0)],
        [bucket(10, SECOND, 10), bucket(7, SECOND * 2, 7)],
    ] {
        let mut counters = SubjectCounters::default();
        let mut ask = |cost, at_least| {
            let ask = Ask { at_least, ..Ask::take(cost) };
            let charge = Charge { windows: &windows, ask, counters: &mut counters };
            let decision = decide(&mut [charge], STORE_BUCKETS, at(0), Duration::ZERO);
            (decision.allowed, decision.keys[0].granted)
        };
        assert_eq!(ask(5, 1), (true, 5));
        assert_eq!(ask(5, 3), (false, 0), "two are left");
        assert_eq!(ask(5, 2), (true, 2));
        assert_eq!(ask(5, 1), (false, 0));
    }
}

#[test]
fn charges_the_keys_that_are_taken_and_not_those_that_are_looked_at() {
    let windows = [sliding(3, SECOND)];
    let (mut taken, mut looked_at) = (SubjectCounters::default(), SubjectCounters::default());
    let mut ask = |cost| {
        let charges = &mut [
            Charge { windows: &windows, ask: Ask::take(cost), counters: &mut taken },
            Charge { windows: &windows, ask: Ask::peek(3), counters: &mut looked_at },
        ];
        let decision = decide(charges, STORE_BUCKETS, at(0), Duration::ZERO);
        (decision.allowed, decision.keys.iter().map(|key| key.windows[0].remaining).collect::<Vec<_>>())
    };
    assert_eq!(ask(2), (true, vec![1, 3]));
    assert_eq!(ask(2), (false, vec![1, 3]));
    assert_eq!(ask(1), (true, vec![0, 3]));
}

#[test]
fn a_return_gives_back_once_and_only_while_its_tokens_could_be_spent() {
    for windows in [
        [sliding(5, SECOND * 60)],
        [log(5, SECOND * 60)],
        [counter(5, SECOND * 60)],
        [fixed(5, SECOND * 60, 0)],
        [bucket(5, SECOND * 60, 5)],
    ] {
        let mut counters = SubjectCounters::default();
        let charge = Charge { windows: &windows, ask: Ask::take(5), counters: &mut counters };
        assert!(decide(&mut [charge], STORE_BUCKETS, at(0), SECOND).allowed);
        let mut give_back = |tokens, id, now| {
            counters.settle(&windows, STORE_BUCKETS, at(now));
            let given = counters.give_back(&windows, STORE_BUCKETS, tokens, at(0).plus(SECOND), Some(id));
            (given, counters.room(&windows))
        };
        assert_eq!(give_back(2, 7, 500_000), (2, 2));
        assert_eq!(give_back(2, 7, 500_000), (0, 2), "the message came twice");
        assert_eq!(give_back(1, 8, 1_000_000), (1, 3), "the last moment");
        assert_eq!(give_back(1, 9, 1_000_001), (0, 3), "too late: it may have been spent");
        assert_eq!(give_back(2, 7, 1_000_001), (0, 3));
    }
}

mod days;
mod judge;
mod outage;
mod properties;
