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
    Window::new(limit, per, Algorithm::FixedWindow { offset }).unwrap()
}

fn bucket(limit: u32, per: Duration, burst: u32) -> Window {
    Window::new(limit, per, Algorithm::TokenBucket { burst: NonZeroU32::new(burst).unwrap() }).unwrap()
}

fn at(us: u64) -> Timestamp {
    Timestamp::from_micros(us)
}

fn take_one(counters: &mut SubjectCounters, windows: &[Window], cost: u32, now: Timestamp) -> Decision {
    take(&mut [Charge { windows, cost, counters }], STORE_BUCKETS, now, Duration::ZERO)
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
                (decision.keys[0][0].remaining, decision.keys[0][0].wait),
                (10 - used, Duration::ZERO)
            );
        }
        let decision = take_one(&mut counters, &windows, 1, at(0));
        assert!(!decision.allowed);
        let wait = decision.keys[0][0].wait;
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
    assert_eq!(decision.keys[0][0].wait, Duration::ZERO);
    assert_eq!(decision.keys[0][1].wait, SECOND);
}

#[test]
fn charges_no_key_when_one_refuses() {
    let (free, full) = ([sliding(5, SECOND)], [sliding(1, SECOND)]);
    let (mut first, mut second) = (SubjectCounters::default(), SubjectCounters::default());
    take_one(&mut second, &full, 1, at(0));
    let charges = &mut [
        Charge { windows: &free, cost: 2, counters: &mut first },
        Charge { windows: &full, cost: 1, counters: &mut second },
    ];
    let decision = take(charges, STORE_BUCKETS, at(0), Duration::ZERO);
    assert!(!decision.allowed);
    assert_eq!(decision.keys[0][0].remaining, 5);
    assert_eq!(take_one(&mut first, &free, 5, at(0)).keys[0][0].remaining, 0);
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
        assert_eq!(take_one(&mut counters, &windows, 3, at(0)).keys[0][0].remaining, 0);
    }
}

#[test]
fn time_does_not_run_backwards() {
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
            assert_eq!(back, take_one(&mut steady, &windows, 1, at(5_000_000)));
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

mod properties;
