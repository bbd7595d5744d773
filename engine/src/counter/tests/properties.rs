//! The promises over any questions, judged by an exact log of when each token was spent.

use proptest::prelude::*;
use proptest::sample::select;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::units::micros;
use crate::window::{Calendar, Change, Timezone, Zone};

/// A question, so long after the one before (the clock may also jump back), its tokens to be spent within a
/// span; each of its tokens is spent at its own part of that span, in 256ths.
#[derive(Clone, Debug)]
struct Question {
    after_us: i64,
    cost: u32,
    spend_within: Duration,
    spent_at: [u8; 4],
}

fn questions() -> impl Strategy<Value = Vec<Question>> {
    let after_us = prop_oneof![
        4 => Just(0i64),
        4 => 0..3_000i64,
        2 => 0..200_000i64,
        1 => 0..3_000_000i64,
        1 => -2_000_000..0i64,
    ];
    let spend_within_us = prop_oneof![3 => Just(0u64), 3 => 0..20_000u64, 1 => 0..2_000_000u64];
    let spent_at = prop::array::uniform4(prop_oneof![Just(0u8), Just(255u8), any::<u8>()]);
    let question =
        (after_us, 1..=4u32, spend_within_us, spent_at).prop_map(|(after_us, cost, us, spent_at)| Question {
            after_us,
            cost,
            spend_within: Duration::from_micros(us),
            spent_at,
        });
    prop::collection::vec(question, 1..120)
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![select(vec![1u64, 7, 50, 256, 1000, 60_000]), 1..5000u64].prop_map(Duration::from_millis)
}

fn sliding_windows() -> impl Strategy<Value = Window> {
    (1..20u32, span()).prop_map(|(limit, per)| sliding(limit, per))
}

fn logs() -> impl Strategy<Value = Window> {
    (1..20u32, span()).prop_map(|(limit, per)| log(limit, per))
}

fn sliding_counters() -> impl Strategy<Value = Window> {
    (1..20u32, span()).prop_map(|(limit, per)| counter(limit, per))
}

fn fixed_windows() -> impl Strategy<Value = Window> {
    let offset = (1..20u32, span(), -720..=840i32);
    let zone = (1..20u32, span());
    prop_oneof![
        2 => offset.prop_map(|(limit, per, minutes)| fixed(limit, per, minutes)),
        1 => zone.prop_map(|(limit, per)| {
            Window::new(limit, per, Algorithm::FixedWindow { timezone: RESTLESS.into() }).unwrap()
        }),
    ]
}

/// Clocks that are put forward and back while the questions are asked.
const RESTLESS: Zone = Zone::new(
    "Test/Restless",
    7,
    &[
        Change { from: Timestamp::from_micros(1_000_000_001), ahead_s: 8 },
        Change { from: Timestamp::from_micros(1_000_700_000), ahead_s: 3 },
        Change { from: Timestamp::from_micros(1_002_000_000), ahead_s: 63 },
        Change { from: Timestamp::from_micros(1_009_999_999), ahead_s: -31 },
        Change { from: Timestamp::from_micros(1_010_000_000), ahead_s: -32 },
    ],
);

/// The number of the calendar window of `window` that a moment is in.
fn calendar(window: &Window) -> impl Fn(u64) -> i64 {
    let Algorithm::FixedWindow { timezone } = window.algorithm() else { unreachable!() };
    let (per, zoned) = (i64::try_from(micros(window.per())).unwrap(), Calendar::of(window.per(), timezone));
    move |us| match timezone {
        Timezone::Offset(offset) => {
            let local = i64::try_from(us).unwrap() + i64::from(offset.minutes()) * 60_000_000;
            local.div_euclid(per)
        }
        Timezone::Zone(_) => zoned.index(at(us)).try_into().unwrap(),
    }
}

fn token_buckets() -> impl Strategy<Value = Window> {
    (1..20u32, span(), 1..20u32).prop_map(|(limit, per, burst)| bucket(limit, per, burst))
}

fn any_windows() -> impl Strategy<Value = Vec<Window>> {
    prop::collection::vec(
        prop_oneof![sliding_windows(), logs(), sliding_counters(), fixed_windows(), token_buckets()],
        1..4,
    )
}

/// Asks every question of one subject; `each` sees the counters before, the moment, and the decision.
fn run(
    questions: &[Question],
    windows: &[Window],
    buckets: u32,
    mut each: impl FnMut(&Question, &SubjectCounters, Timestamp, &Decision, &SubjectCounters),
) {
    let mut counters = SubjectCounters::default();
    let mut now = 1_000_000_000u64;
    for question in questions {
        now = now.saturating_add_signed(question.after_us);
        let before = counters.clone();
        let charge = Charge { windows, ask: Ask::take(question.cost), counters: &mut counters };
        let decision = decide(&mut [charge], buckets, at(now), question.spend_within);
        each(question, &before, at(now), &decision, &counters);
    }
}

/// When each admitted token was spent, in order: the exact log that the promises are about.
fn spends(questions: &[Question], window: &Window, buckets: u32) -> Vec<u64> {
    let mut spends = Vec::new();
    run(questions, std::slice::from_ref(window), buckets, |question, _, _, decision, after| {
        if decision.allowed {
            let within = micros(question.spend_within);
            let spent = |part: &u8| after.seen.as_micros() + within * u64::from(*part) / 255;
            spends.extend(question.spent_at.iter().take(question.cost as usize).map(spent));
        }
    });
    spends.sort_unstable();
    spends
}

/// The same questions by an asker who spends at the moment of the decision.
fn at_once(questions: Vec<Question>) -> Vec<Question> {
    questions.into_iter().map(|question| Question { spend_within: Duration::ZERO, ..question }).collect()
}

fn buckets() -> impl Strategy<Value = u32> {
    select(vec![1u32, 2, 10, 64, STORE_BUCKETS])
}

proptest! {
    #[test]
    fn no_trailing_window_of_spends_holds_more_than_the_limit(
        questions in questions(), window in sliding_windows(), buckets in buckets(),
    ) {
        let (spends, per) = (spends(&questions, &window, buckets), micros(window.per()));
        for (first, begin) in spends.iter().enumerate() {
            let within = spends[first..].iter().take_while(|spend| **spend <= begin + per).count();
            prop_assert!(within <= window.limit() as usize, "{within} from {begin} on");
        }
    }

    #[test]
    fn no_trailing_window_of_spends_holds_more_than_the_limit_of_a_log(
        questions in questions(), window in logs(),
    ) {
        let (spends, per) = (spends(&questions, &window, STORE_BUCKETS), micros(window.per()));
        for (first, begin) in spends.iter().enumerate() {
            let within = spends[first..].iter().take_while(|spend| **spend < begin + per).count();
            prop_assert!(within <= window.limit() as usize, "{within} from {begin} on");
        }
    }

    #[test]
    fn a_log_admits_whatever_an_exact_log_admits_when_spends_are_at_once(
        questions in questions(), window in logs(),
    ) {
        let questions = at_once(questions);
        let mut exact: Vec<(u64, u32)> = Vec::new();
        run(&questions, std::slice::from_ref(&window), STORE_BUCKETS, |question, _, _, decision, after| {
            let now = after.seen.as_micros();
            exact.retain(|(spent, _)| spent + micros(window.per()) > now);
            let used: u32 = exact.iter().map(|(_, cost)| cost).sum();
            assert_eq!(decision.allowed, used + question.cost <= window.limit());
            if decision.allowed {
                exact.push((now, question.cost));
            }
        });
    }

    // The one promise of an approximation; how good it is beyond that is a matter of the traffic.
    #[test]
    fn no_trailing_window_of_spends_holds_more_than_twice_the_limit_of_a_sliding_counter(
        questions in questions(), window in sliding_counters(),
    ) {
        let (spends, per) = (spends(&questions, &window, STORE_BUCKETS), micros(window.per()));
        for of_one in spends.chunk_by(|a, b| a / per == b / per) {
            prop_assert!(of_one.len() <= window.limit() as usize, "{} from {} on", of_one.len(), of_one[0]);
        }
        for (first, begin) in spends.iter().enumerate() {
            let within = spends[first..].iter().take_while(|spend| **spend < begin + per).count();
            prop_assert!(within <= 2 * window.limit() as usize, "{within} from {begin} on");
        }
    }

    #[test]
    fn no_calendar_window_of_spends_holds_more_than_the_limit(
        questions in questions(), window in fixed_windows(),
    ) {
        let (spends, calendar) = (spends(&questions, &window, STORE_BUCKETS), calendar(&window));
        for of_one in spends.chunk_by(|a, b| calendar(*a) == calendar(*b)) {
            prop_assert!(of_one.len() <= window.limit() as usize, "{} from {} on", of_one.len(), of_one[0]);
        }
    }

    #[test]
    fn a_fixed_window_admits_whatever_its_calendar_window_has_room_for_when_spends_are_at_once(
        questions in questions(), window in fixed_windows(),
    ) {
        let questions = at_once(questions);
        let calendar = calendar(&window);
        let (mut current, mut used) = (0, 0);
        run(&questions, std::slice::from_ref(&window), STORE_BUCKETS, |question, _, _, decision, after| {
            let index = calendar(after.seen.as_micros());
            used = if index == current { used } else { 0 };
            current = index;
            assert_eq!(decision.allowed, used + question.cost <= window.limit());
            used += if decision.allowed { question.cost } else { 0 };
            assert_eq!(decision.keys[0].windows[0].remaining, window.limit() - used);
        });
    }

    #[test]
    fn no_interval_of_spends_holds_more_than_the_burst_and_what_it_refills(
        questions in questions(), window in token_buckets(),
    ) {
        let (token, rate) = window.token();
        let spends = spends(&questions, &window, STORE_BUCKETS);
        for (first, begin) in spends.iter().enumerate() {
            for (count, end) in (1u64..).zip(&spends[first..]) {
                let most = u64::from(window.capacity()) * token + (end - begin) * rate;
                prop_assert!(count * token <= most, "{count} from {begin} to {end}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_refused_until_the_moment_it_was_told_and_admitted_then(
        questions in questions(), windows in any_windows(), buckets in buckets(),
    ) {
        run(&questions, &windows, buckets, |question, _, now, decision, after| {
            let fits = windows.iter().all(|window| question.cost <= window.capacity());
            if decision.allowed || !fits {
                return;
            }
            let wait = decision.keys[0].windows.iter().map(|verdict| verdict.wait).max().unwrap();
            let ask_again = |moment| {
                let counters = &mut after.clone();
                let charge = Charge { windows: &windows, ask: Ask::take(question.cost), counters };
                decide(&mut [charge], buckets, moment, Duration::ZERO).allowed
            };
            assert!(!ask_again(now.plus(wait - Duration::from_micros(1))));
            assert!(ask_again(now.plus(wait)));
        });
    }

    #[test]
    fn more_is_left_at_the_moment_of_a_reset_and_no_sooner(
        questions in questions(), windows in any_windows(), buckets in buckets(),
    ) {
        run(&questions, &windows, buckets, |_, _, now, decision, after| {
            for (at, verdict) in decision.keys[0].windows.iter().enumerate() {
                let left_at = |moment| {
                    let mut counters = after.clone();
                    counters.settle(&windows, buckets, moment);
                    counters.verdicts(&windows, buckets, 0)[at].remaining
                };
                if verdict.reset.is_zero() {
                    assert_eq!(verdict.remaining, windows[at].capacity());
                    continue;
                }
                let reset = now.plus(verdict.reset);
                assert_eq!(left_at(Timestamp::from_micros(reset.as_micros() - 1)), verdict.remaining);
                assert!(left_at(reset) > verdict.remaining);
            }
        });
    }

    #[test]
    fn a_rejection_changes_nothing_but_the_time(
        questions in questions(), windows in any_windows(), buckets in buckets(),
    ) {
        run(&questions, &windows, buckets, |_, before, now, decision, after| {
            if !decision.allowed {
                let mut settled = before.clone();
                settled.settle(&windows, buckets, now);
                assert_eq!(&settled, after);
            }
        });
    }

    #[test]
    fn a_subject_is_as_if_fresh_from_the_moment_it_is_idle_and_no_sooner(
        questions in questions(), windows in any_windows(), buckets in buckets(),
    ) {
        run(&questions, &windows, buckets, |_, _, _, _, after| {
            let fresh_at = |moment| {
                let mut counters = after.clone();
                counters.settle(&windows, buckets, moment);
                let verdicts = counters.verdicts(&windows, buckets, 0);
                verdicts.iter().all(|verdict| verdict.reset.is_zero())
            };
            let idle_at = after.idle_at(&windows, buckets);
            assert!(fresh_at(idle_at));
            if idle_at > after.seen {
                assert!(!fresh_at(Timestamp::from_micros(idle_at.as_micros() - 1)));
            }
        });
    }

    #[test]
    fn a_charge_that_is_taken_back_leaves_no_more_than_there_was_before(
        questions in questions(), windows in any_windows(), buckets in buckets(),
    ) {
        run(&questions, &windows, buckets, |question, before, now, decision, after| {
            if !decision.allowed {
                return;
            }
            let (mut settled, mut undone) = (before.clone(), after.clone());
            settled.settle(&windows, buckets, now);
            let dated = after.seen.plus(question.spend_within);
            undone.uncharge(&windows, buckets, question.cost, dated);
            let left = |counters: &SubjectCounters| -> Vec<u32> {
                counters.verdicts(&windows, buckets, 0).iter().map(|verdict| verdict.remaining).collect()
            };
            assert_eq!(left(&settled), left(&undone));
        });
    }
}
