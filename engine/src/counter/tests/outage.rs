//! What was spent without asking, told afterwards: a window that has taken it in is held to one that saw it all.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::units::micros;
use crate::wire::Slice;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const START: u64 = 1_000_000_000;

fn slices(dates: &[(u64, u32)], now: u64) -> Vec<Slice> {
    dates.iter().map(|&(date, tokens)| Slice { age_us: now - date, tokens }).collect()
}

fn room(counters: &mut SubjectCounters, windows: &[Window], now: u64) -> u32 {
    counters.settle(windows, STORE_BUCKETS, at(now));
    counters.room(windows)
}

fn of_each_kind(limit: u32, per: Duration) -> [[Window; 1]; 5] {
    [
        [sliding(limit, per)],
        [log(limit, per)],
        [counter(limit, per)],
        [fixed(limit, per, 0)],
        [bucket(limit, per, limit)],
    ]
}

#[test]
fn a_report_counts_once_however_often_it_comes() {
    for windows in of_each_kind(10, SECOND * 60) {
        let mut counters = SubjectCounters::default();
        let told = slices(&[(START, 2), (START + 1000, 3)], START + 2000);
        let mut record =
            |now, id| counters.record(&windows, STORE_BUCKETS, &told, id, at(now)).then_some(now);
        assert_eq!(record(START + 2000, 1), Some(START + 2000));
        assert_eq!(record(START + 2000, 1), None);
        assert_eq!(record(START + 3000, 1), None);
        assert_eq!(record(START + 3000, 2), Some(START + 3000), "another one");
        assert_eq!(room(&mut counters, &windows, START + 3000), 0);
    }
}

#[test]
fn what_is_told_counts_beyond_the_limit_and_no_longer_than_if_it_had_been_asked_for() {
    for windows in of_each_kind(10, SECOND) {
        let mut counters = SubjectCounters::default();
        assert!(take_one(&mut counters, &windows, 9, at(START)).allowed);
        let told = [Slice { age_us: 0, tokens: 8 }];
        assert!(counters.record(&windows, STORE_BUCKETS, &told, 1, at(START)));
        assert_eq!(room(&mut counters, &windows, START), 0);
        assert_eq!(room(&mut counters, &windows, START + 2_010_000), 10);
    }
}

#[test]
fn what_is_older_than_the_window_is_as_if_it_had_never_been() {
    for windows in of_each_kind(10, SECOND) {
        let mut counters = SubjectCounters::default();
        let told = slices(&[(START, 8)], START + 2_010_000);
        counters.record(&windows, STORE_BUCKETS, &told, 1, at(START + 2_010_000));
        assert_eq!(room(&mut counters, &windows, START + 2_010_000), 10);
    }
}

#[test]
fn windows_of_different_length_take_of_one_report_what_is_theirs() {
    let windows = [sliding(10, SECOND), sliding(100, SECOND * 60), fixed(1000, SECOND * 3600, 0)];
    let mut counters = SubjectCounters::default();
    let now = 3_600_000_000 * 1000 + 30_000_000;
    let told = slices(&[(now - 31_000_000, 40), (now - 20_000_000, 30), (now - 500_000, 3)], now);
    counters.record(&windows, STORE_BUCKETS, &told, 1, at(now));
    let left: Vec<u32> =
        counters.verdicts(&windows, STORE_BUCKETS, 0).iter().map(|verdict| verdict.remaining).collect();
    assert_eq!(left, [7, 27, 967]);
}

#[test]
fn a_bucket_is_repaid_between_what_is_told_and_never_twice() {
    // ten tokens, one a second
    let windows = [bucket(1, SECOND, 10)];
    let second = |seconds: u64| START + seconds * 1_000_000;
    let mut counters = SubjectCounters::default();
    assert!(take_one(&mut counters, &windows, 10, at(second(0))).allowed);
    // what one worker admitted while the rest was repaid, one a second
    let told: Vec<(u64, u32)> = (1..=5).map(|seconds| (second(seconds), 1)).collect();
    counters.record(&windows, STORE_BUCKETS, &slices(&told, second(9)), 1, at(second(9)));
    assert_eq!(room(&mut counters, &windows, second(9)), 4);
    // what another one did: the time has repaid the first
    counters.record(&windows, STORE_BUCKETS, &slices(&told[..3], second(9)), 2, at(second(9)));
    assert_eq!(room(&mut counters, &windows, second(9)), 1);
    counters.record(&windows, STORE_BUCKETS, &slices(&told, second(9)), 3, at(second(9)));
    assert_eq!(room(&mut counters, &windows, second(10)), 1, "never more than empty");
}

#[test]
fn a_hundred_and_more_reports_of_one_subject_count_and_leave_room_for_returns() {
    let windows = [sliding(1000, SECOND * 60)];
    let mut counters = SubjectCounters::default();
    for id in 0..300 {
        let told = [Slice { age_us: 0, tokens: 1 }];
        assert!(counters.record(&windows, STORE_BUCKETS, &told, id, at(START)));
    }
    assert_eq!(room(&mut counters, &windows, START), 700);
    assert!(take_one(&mut counters, &windows, 1, at(START)).allowed);
    assert_eq!(counters.give_back(&windows, STORE_BUCKETS, 1, at(START), Some(1000)), 1);
}

/// What happens to one subject: first the store is asked, then it is away and a node admits, then it is told, and asked
/// again. Each event is so long after the one before, and about so many tokens.
#[derive(Clone, Debug)]
struct Story {
    before: Vec<(u64, u32)>,
    away: Vec<(u64, u32)>,
    told_after: u64,
    afterwards: Vec<(u64, u32)>,
}

fn stories() -> impl Strategy<Value = Story> {
    let gap = || prop_oneof![Just(0u64), 0..5_000u64, 0..300_000u64, 0..2_000_000u64];
    let events = |most| prop::collection::vec((gap(), 1..5u32), 0..most);
    (events(12), events(16), gap(), events(20)).prop_map(|(before, away, told_after, afterwards)| Story {
        before,
        away,
        told_after,
        afterwards,
    })
}

/// Tells a story to the counters of a store that was away, and to `all`, which hears of each token at its moment. `all`
/// says how much room there is at least and at most.
fn tell(
    story: &Story,
    window: &Window,
    mut all: impl FnMut(Event) -> std::ops::RangeInclusive<u32>,
) -> Result<(), TestCaseError> {
    let windows = std::slice::from_ref(window);
    let (mut counters, mut now) = (SubjectCounters::default(), START);
    for (gap, tokens) in &story.before {
        now += gap;
        let tokens = (*tokens).min(room(&mut counters, windows, now));
        counters.charge(windows, STORE_BUCKETS, tokens, Duration::ZERO);
        all(Event::Asked(now, tokens));
    }
    let mut away = Vec::new();
    for (gap, tokens) in &story.away {
        now += gap;
        let tokens = (*tokens).min(window.capacity());
        away.push((now, tokens));
        all(Event::Told(now, tokens));
    }
    now += story.told_after;
    counters.record(windows, STORE_BUCKETS, &slices(&away, now), 1, at(now));
    for (gap, tokens) in &story.afterwards {
        now += gap;
        let (left, expected) = (room(&mut counters, windows, now), all(Event::Look(now)));
        prop_assert!(expected.contains(&left), "{left} are left at {now}, and not {expected:?}");
        let tokens = left.min(*tokens);
        counters.charge(windows, STORE_BUCKETS, tokens, Duration::ZERO);
        all(Event::Asked(now, tokens));
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Event {
    Asked(u64, u32),
    Told(u64, u32),
    Look(u64),
}

/// A log of every token.
#[derive(Default)]
struct Log(VecDeque<(u64, u32)>);

impl Log {
    fn hear(
        &mut self,
        event: Event,
        rooms: impl Fn(&Self, u64) -> (u32, u32),
    ) -> std::ops::RangeInclusive<u32> {
        match event {
            Event::Asked(now, tokens) | Event::Told(now, tokens) => {
                self.0.push_back((now, tokens));
                0..=u32::MAX
            }
            Event::Look(now) => {
                let (least, most) = rooms(self, now);
                least..=most
            }
        }
    }

    /// What is left of `limit` beside what `counts`.
    fn left(&self, limit: u32, counts: impl Fn(u64) -> bool) -> u32 {
        let used: u32 = self.0.iter().filter(|(when, _)| counts(*when)).map(|(_, tokens)| tokens).sum();
        limit.saturating_sub(used)
    }
}

/// A bucket of fractions of a token, as many as there are microseconds in the window.
#[derive(Clone, Copy)]
struct Bucket {
    full: u64,
    per: u64,
    limit: u64,
    level: u64,
    seen: u64,
}

impl Bucket {
    fn full(burst: u32, per: Duration, limit: u32) -> Self {
        let full = u64::from(burst) * micros(per);
        Self { full, per: micros(per), limit: limit.into(), level: full, seen: START }
    }

    fn at(&mut self, now: u64) -> u64 {
        self.level = self.full.min(self.level + (now - self.seen) * self.limit);
        self.seen = now;
        self.level
    }

    fn take(&mut self, now: u64, tokens: u32) {
        self.level = self.at(now).saturating_sub(u64::from(tokens) * self.per);
    }
}

fn span() -> impl Strategy<Value = Duration> {
    prop::sample::select(vec![1u64, 7, 256, 1000, 4999]).prop_map(Duration::from_millis)
}

proptest! {
    #[test]
    fn a_log_that_was_told_admits_exactly_what_one_admits_that_saw_it(
        story in stories(), limit in 1..20u32, per in span(),
    ) {
        let mut log_of_all = Log::default();
        tell(&story, &log(limit, per), |event| log_of_all.hear(event, |log, now| {
            let left = log.left(limit, |when| when + micros(per) > now);
            (left, left)
        }))?;
    }

    #[test]
    fn a_sliding_window_that_was_told_is_never_over_and_late_by_a_bucket_at_most(
        story in stories(), limit in 1..20u32, per in span(),
    ) {
        let width = micros(per).div_ceil(u64::from(STORE_BUCKETS));
        let mut log_of_all = Log::default();
        tell(&story, &sliding(limit, per), |event| log_of_all.hear(event, |log, now| {
            // an age that is rounded up to whole buckets is late by one and a part of another
            let least = log.left(limit, |when| when + width * u64::from(STORE_BUCKETS) + width > now);
            (least, log.left(limit, |when| when + micros(per) > now))
        }))?;
    }

    #[test]
    fn a_calendar_window_that_was_told_admits_exactly_what_one_admits_that_saw_it(
        story in stories(), limit in 1..20u32, per in span(),
    ) {
        let mut log_of_all = Log::default();
        tell(&story, &fixed(limit, per, 0), |event| log_of_all.hear(event, |log, now| {
            let left = log.left(limit, |when| when / micros(per) == now / micros(per));
            (left, left)
        }))?;
    }

    #[test]
    fn a_sliding_counter_that_was_told_estimates_as_if_no_bucket_had_held_more_than_the_limit(
        story in stories(), limit in 1..20u32, per in span(),
    ) {
        let (window, per_us) = (counter(limit, per), micros(per));
        let mut log_of_all = Log::default();
        tell(&story, &window, |event| log_of_all.hear(event, |log, now| {
            let of_bucket = |index: u64| u64::from(limit - log.left(limit, |when| when / per_us == index));
            let (current, left_ms) = (now / per_us, per_us / 1000 - now % per_us / 1000);
            let previous = of_bucket(current - 1) * left_ms;
            let used = previous.div_ceil(per_us / 1000) + of_bucket(current);
            let left = limit.saturating_sub(u32::try_from(used).unwrap());
            (left, left)
        }))?;
    }

    #[test]
    fn a_bucket_that_was_told_holds_exactly_what_one_holds_that_saw_it(
        story in stories(), limit in 1..20u32, per in span(), burst in 1..20u32,
    ) {
        let gaps = story.before.iter().chain(&story.away).map(|(gap, _)| gap);
        let told_at = START + gaps.sum::<u64>() + story.told_after;
        let bucket_of_all = Bucket::full(burst, per, limit);
        let [mut all, mut asked, mut told] = [bucket_of_all; 3];
        let mut is_told = false;
        tell(&story, &bucket(limit, per, burst), |event| {
            if let (Event::Look(_), false) = (event, is_told) {
                is_told = true;
                // one that is full again is as if fresh
                if asked.at(told_at) == all.full {
                    all = told;
                }
            }
            match event {
                Event::Asked(now, tokens) => [&mut all, &mut asked].map(|bucket| bucket.take(now, tokens)),
                Event::Told(now, tokens) => [&mut all, &mut told].map(|bucket| bucket.take(now, tokens)),
                Event::Look(_) => [(), ()],
            };
            let (Event::Asked(now, _) | Event::Told(now, _) | Event::Look(now)) = event;
            let left = u32::try_from(all.at(now) / all.per).unwrap();
            left..=left
        })?;
    }

    #[test]
    fn a_bucket_that_was_told_by_several_holds_no_more_than_one_that_saw_it(
        story in stories(), limit in 1..20u32, per in span(), burst in 1..20u32, halves: u16,
    ) {
        let windows = [bucket(limit, per, burst)];
        let (mut told, mut saw) = (SubjectCounters::default(), SubjectCounters::default());
        let mut away = [Vec::new(), Vec::new()];
        let mut now = START;
        for (at_bit, (gap, tokens)) in story.away.iter().enumerate() {
            now += gap;
            let tokens = (*tokens).min(burst);
            away[usize::from(halves >> (at_bit % 16) & 1)].push((now, tokens));
            saw.record(&windows, STORE_BUCKETS, &slices(&[(now, tokens)], now), at_bit as u64, at(now));
        }
        for (id, half) in (100..).zip(&away) {
            told.record(&windows, STORE_BUCKETS, &slices(half, now), id, at(now));
        }
        for later in [0, micros(per) / 7, micros(per)] {
            let exact = room(&mut saw, &windows, now + later);
            prop_assert!(room(&mut told, &windows, now + later) <= exact);
        }
    }

    #[test]
    fn reports_may_come_in_any_order_to_a_window_that_counts_requests(
        story in stories(), limit in 1..20u32, per in span(), other_first: bool,
    ) {
        for windows in of_each_kind(limit, per).into_iter().take(4) {
            let mut now = START;
            let mut away = Vec::new();
            for (gap, tokens) in &story.away {
                now += gap;
                away.push((now, (*tokens).min(limit)));
            }
            let halves = [0, 1].map(|half| {
                let of_half = away.iter().enumerate().filter(|(at, _)| at % 2 == half);
                of_half.map(|(_, slice)| *slice).collect::<Vec<_>>()
            });
            let (mut whole, mut split) = (SubjectCounters::default(), SubjectCounters::default());
            whole.record(&windows, STORE_BUCKETS, &slices(&away, now), 1, at(now));
            for half in [usize::from(other_first), usize::from(!other_first)] {
                split.record(&windows, STORE_BUCKETS, &slices(&halves[half], now), half as u64, at(now));
            }
            for later in [0, micros(per) / 3, micros(per), 2 * micros(per)] {
                let left = room(&mut whole, &windows, now + later);
                prop_assert_eq!(left, room(&mut split, &windows, now + later));
            }
        }
    }
}
