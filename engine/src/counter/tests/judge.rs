//! Traffic that wants all it can get, judged by exact models: what is admitted too much, and what too little.
//!
//! [`properties`](super::properties) judges single questions. Here are those who take as much as there is, spend
//! only a part of it, late, and give the rest back; and a demand that never rests, against a log that forgets each
//! request at its very moment.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::select;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::units::micros;

/// Tokens that were granted: as many as asked for or fewer, of which some are spent, each at its own part of the
/// span in which it may be, in 256ths, and the rest goes back.
#[derive(Clone, Debug)]
struct Lease {
    /// After the event before.
    after_us: u64,
    want: u32,
    at_least: u32,
    spend_within_us: u64,
    /// One for each token that is spent.
    spent_at: Vec<u8>,
    /// How many events later the rest goes back, and how often that message arrives.
    given_back: Option<(usize, usize)>,
}

fn leases() -> impl Strategy<Value = Vec<Lease>> {
    let after_us = prop_oneof![3 => Just(0u64), 4 => 0..3_000u64, 2 => 0..200_000u64, 1 => 0..3_000_000u64];
    let spend_within_us = prop_oneof![1 => Just(0u64), 3 => 0..20_000u64, 2 => 0..2_000_000u64];
    let spent_at = prop::collection::vec(prop_oneof![Just(0u8), Just(255u8), any::<u8>()], 0..8);
    let given_back = prop::option::weighted(0.8, (0..4usize, 1..3usize));
    let lease = (after_us, 1..8u32, any::<u32>(), spend_within_us, spent_at, given_back);
    let lease = lease.prop_map(|(after_us, want, least, spend_within_us, spent_at, given_back)| Lease {
        after_us,
        want,
        at_least: 1 + least % want,
        spend_within_us,
        spent_at,
        given_back,
    });
    prop::collection::vec(lease, 1..120)
}

fn span() -> impl Strategy<Value = Duration> {
    select(vec![1u64, 7, 50, 256, 1000, 4999, 60_000]).prop_map(Duration::from_millis)
}

/// When each token was spent, in order, as leases are taken, spent and given back.
fn spends(leases: &[Lease], window: &Window) -> Vec<u64> {
    let windows = std::slice::from_ref(window);
    let (mut counters, mut now, mut spends) = (SubjectCounters::default(), 1_000_000_000, Vec::new());
    // before which event, under which id, how many tokens, dated when
    let mut returns: Vec<(usize, u64, u32, Timestamp)> = Vec::new();
    for (event, lease) in leases.iter().enumerate() {
        now += lease.after_us;
        counters.settle(windows, STORE_BUCKETS, at(now));
        for (_, id, tokens, dated) in returns.extract_if(.., |(before, ..)| *before <= event) {
            counters.give_back(windows, STORE_BUCKETS, tokens, dated, Some(id));
        }
        let ask = Ask { cost: lease.want, at_least: lease.at_least, ..Ask::take(1) };
        let spend_within = Duration::from_micros(lease.spend_within_us);
        let charge = Charge { windows, ask, counters: &mut counters };
        let decision = decide(&mut [charge], STORE_BUCKETS, at(now), spend_within);
        let granted = decision.keys[0].granted;
        let spent = lease.spent_at.iter().take(granted as usize);
        spends.extend(spent.clone().map(|part| now + lease.spend_within_us * u64::from(*part) / 255));
        let left = granted - u32::try_from(spent.count()).unwrap();
        if let Some((later, times)) = lease.given_back.filter(|_| left > 0) {
            let returned = (event + 1 + later, event as u64, left, at(now).plus(spend_within));
            returns.extend(std::iter::repeat_n(returned, times));
        }
    }
    spends.sort_unstable();
    spends
}

/// The most spends within a trailing window, both ends of which belong to it or not.
fn most_within(spends: &[u64], per: u64, closed: bool) -> usize {
    let ends = |begin: u64| spends.partition_point(|spend| *spend < begin + per + u64::from(closed));
    spends.iter().enumerate().map(|(first, begin)| ends(*begin) - first).max().unwrap_or_default()
}

proptest! {
    #[test]
    fn leases_that_are_spent_in_part_and_given_back_never_exceed_a_sliding_window(
        leases in leases(), limit in 1..20u32, per in span(),
    ) {
        let spends = spends(&leases, &sliding(limit, per));
        prop_assert!(most_within(&spends, micros(per), true) <= limit as usize);
    }

    #[test]
    fn leases_that_are_spent_in_part_and_given_back_never_exceed_a_log(
        leases in leases(), limit in 1..20u32, per in span(),
    ) {
        let spends = spends(&leases, &log(limit, per));
        prop_assert!(most_within(&spends, micros(per), false) <= limit as usize);
    }

    #[test]
    fn leases_that_are_spent_in_part_and_given_back_never_exceed_twice_a_sliding_counter(
        leases in leases(), limit in 1..20u32, per in span(),
    ) {
        let spends = spends(&leases, &counter(limit, per));
        prop_assert!(most_within(&spends, micros(per), false) <= 2 * limit as usize);
    }

    #[test]
    fn leases_that_are_spent_in_part_and_given_back_never_exceed_a_calendar_window(
        leases in leases(), limit in 1..20u32, per in span(),
    ) {
        let spends = spends(&leases, &fixed(limit, per, 0));
        for of_one in spends.chunk_by(|a, b| a / micros(per) == b / micros(per)) {
            prop_assert!(of_one.len() <= limit as usize, "{} from {} on", of_one.len(), of_one[0]);
        }
    }

    #[test]
    fn leases_that_are_spent_in_part_and_given_back_never_exceed_a_bucket(
        leases in leases(), limit in 1..20u32, per in span(), burst in 1..20u32,
    ) {
        let spends = spends(&leases, &bucket(limit, per, burst));
        for (first, begin) in spends.iter().enumerate() {
            for (count, end) in (1u64..).zip(&spends[first..]) {
                let most = u64::from(burst) * micros(per) + (end - begin) * u64::from(limit);
                prop_assert!(count * micros(per) <= most, "{count} from {begin} to {end}");
            }
        }
    }
}

// One charge leans on the debt of another, whose tokens come back; then as much is wanted as there is, at every moment.
#[test]
fn a_charge_that_leans_on_what_is_given_back_never_exceeds_a_bucket() {
    let second = |seconds: u64| at(seconds * 1_000_000);
    let windows = [bucket(1, 5 * SECOND, 3)];
    let take = |counters: &mut SubjectCounters, now, within| {
        let charge = Charge { windows: &windows, ask: Ask::take(1), counters };
        decide(&mut [charge], STORE_BUCKETS, second(now), SECOND * within).allowed
    };
    for (until, later, longer, returned) in (0..1296u64).map(|n| (n % 6, n / 6 % 6, n / 36 % 6, n / 216)) {
        let spent_at = later + until + longer;
        let within = |seconds: u64| u32::try_from(seconds).unwrap();
        let mut counters = SubjectCounters::default();
        assert!(take(&mut counters, 0, within(until)));
        assert!(take(&mut counters, later, within(until + longer)));
        let returned = later.max(returned);
        counters.settle(&windows, STORE_BUCKETS, second(returned));
        counters.give_back(&windows, STORE_BUCKETS, 1, second(until), Some(1));
        if returned > until {
            continue;
        }
        let mut spends = vec![spent_at];
        for now in spent_at.max(returned)..spent_at + 20 {
            while take(&mut counters, now, 0) {
                spends.push(now);
            }
        }
        for (first, begin) in spends.iter().enumerate() {
            for (count, end) in (1u64..).zip(&spends[first..]) {
                assert!(
                    count * 5 <= 3 * 5 + (end - begin),
                    "{count} from {begin} to {end}: dated {until} and {spent_at}, returned at {returned}"
                );
            }
        }
    }
}

/// A bucket of a second's window, in microseconds.
const BUCKET: u64 = 1_000_000u64.div_ceil(STORE_BUCKETS as u64);

/// How many windows a demand lasts. The edges of what is compared weigh a window at most: here a hundredth.
const LASTS: u64 = 110;

/// How far apart the moments are at which as much is wanted as there is: half a bucket to a whole one, over and over.
fn pace() -> impl Strategy<Value = Vec<u64>> {
    let gap = prop_oneof![2 => BUCKET / 2..=BUCKET, 1 => Just(BUCKET)];
    prop::collection::vec(gap, 1..40)
}

/// Those moments, over [`LASTS`] windows.
fn moments(start: u64, pace: &[u64]) -> Vec<u64> {
    let start = 1_000_000_000 + start;
    let moments = pace.iter().cycle().scan(start, |now, gap| {
        *now += gap;
        Some(*now)
    });
    moments.take_while(|now| *now < start + LASTS * micros(SECOND)).collect()
}

/// How much `window` admits at each moment to who takes all that there is.
fn admits(window: &Window, moments: &[u64]) -> Vec<u32> {
    let (windows, mut counters) = (std::slice::from_ref(window), SubjectCounters::default());
    let all = Ask { cost: window.capacity(), at_least: 1, ..Ask::take(1) };
    let mut admit = |now: &u64| {
        let charge = Charge { windows, ask: all, counters: &mut counters };
        decide(&mut [charge], STORE_BUCKETS, at(*now), Duration::ZERO).keys[0].granted
    };
    moments.iter().map(&mut admit).collect()
}

/// How much a log admits that forgets each request at its very moment.
fn log_admits(limit: u32, moments: &[u64]) -> Vec<u32> {
    let (mut kept, mut used) = (VecDeque::<(u64, u32)>::new(), 0);
    let mut admit = |now: &u64| {
        while let Some((_, gone)) = kept.pop_front_if(|(spent, _)| *spent + micros(SECOND) <= *now) {
            used -= gone;
        }
        let granted = limit - used;
        kept.push_back((*now, granted));
        used += granted;
        granted
    };
    moments.iter().map(&mut admit).collect()
}

/// How much a bucket admits that refills by fractions of a token.
fn bucket_admits(limit: u32, burst: u32, moments: &[u64]) -> Vec<u32> {
    let full = u64::from(burst) * micros(SECOND);
    let (mut level, mut seen) = (full, 0);
    let mut admit = |now: &u64| {
        level = full.min(level.saturating_add((now - seen).saturating_mul(u64::from(limit))));
        seen = *now;
        let granted = level / micros(SECOND);
        level -= granted * micros(SECOND);
        u32::try_from(granted).unwrap()
    };
    moments.iter().map(&mut admit).collect()
}

fn total(admitted: &[u32]) -> u64 {
    admitted.iter().map(|count| u64::from(*count)).sum()
}

fn limits() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), 1..20u32, 1..5000u32]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_sliding_window_admits_all_but_a_hundredth_of_what_an_exact_log_admits_at_full_demand(
        limit in limits(), start in 0..1_000_000u64, pace in pace(),
    ) {
        let moments = moments(start, &pace);
        let ours = total(&admits(&sliding(limit, SECOND), &moments));
        let exact = total(&log_admits(limit, &moments));
        prop_assert!(ours <= exact, "{ours} of {exact}");
        // what the last window is late by is not lost
        prop_assert!((ours + u64::from(limit)) * 100 >= exact * 99, "{ours} of {exact}");
    }

    #[test]
    fn a_log_admits_at_every_moment_what_an_exact_log_admits(
        limit in limits(), start in 0..1_000_000u64, pace in pace(),
    ) {
        let moments = moments(start, &pace);
        prop_assert_eq!(admits(&log(limit, SECOND), &moments), log_admits(limit, &moments));
    }

    #[test]
    fn a_bucket_admits_at_every_moment_what_a_bucket_of_fractions_admits(
        limit in limits(), burst in limits(), start in 0..1_000_000u64, pace in pace(),
    ) {
        let moments = moments(start, &pace);
        let ours = admits(&bucket(limit, SECOND, burst), &moments);
        prop_assert_eq!(ours, bucket_admits(limit, burst, &moments));
    }

    #[test]
    fn a_calendar_window_admits_its_limit_at_its_first_moment(
        limit in limits(), start in 0..1_000_000u64, pace in pace(),
    ) {
        let moments = moments(start, &pace);
        let ours = admits(&fixed(limit, SECOND, 0), &moments);
        let is_first = |at: usize| at == 0 || moments[at - 1] / 1_000_000 != moments[at] / 1_000_000;
        for (at, admitted) in ours.into_iter().enumerate() {
            prop_assert_eq!(admitted, if is_first(at) { limit } else { 0 });
        }
    }

    // Its estimate is rounded up, so that the last request of a window has no room before the window is over.
    #[test]
    fn a_sliding_counter_admits_one_request_a_window_less_than_that(
        limit in limits(), start in 0..1_000_000u64, pace in pace(),
    ) {
        let moments = moments(start, &pace);
        let ours = total(&admits(&counter(limit, SECOND), &moments));
        let exact = total(&log_admits(limit, &moments));
        prop_assert!((ours + LASTS + u64::from(limit)) * 100 >= exact * 99, "{ours} of {exact}");
    }
}

// The worst for buckets: all at the beginning of one, so that all of it counts until a window after its end.
#[test]
fn what_comes_at_the_beginning_of_a_bucket_counts_for_a_bucket_longer_than_what_comes_at_its_end() {
    let begin = 300_000 * BUCKET;
    for (moment, wait) in [(begin, 257 * BUCKET), (begin + BUCKET - 1, 256 * BUCKET + 1)] {
        let mut counters = SubjectCounters::default();
        take_one(&mut counters, &[sliding(5, SECOND)], 5, at(moment));
        let refused = take_one(&mut counters, &[sliding(5, SECOND)], 5, at(moment));
        assert_eq!(micros(refused.keys[0].windows[0].wait), wait);
    }
}
