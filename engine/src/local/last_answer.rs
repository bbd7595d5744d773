//! What the store said last of a subject, and what a node's counters make of it once the store is away.
//!
//! The store says how much is left, and when more will be: when the oldest of what it counted leaves. So the oldest is
//! dated by the answer, the youngest is no younger than the question, and what lies between is taken to have come
//! evenly. Of a fixed window all leaves at once. A token bucket and a sliding counter need no dates: how fast they empty
//! goes by how full they are.

use super::BUCKETS;
use crate::counter::{Counter, SubjectCounters};
use crate::units::{Timestamp, micros};
use crate::window::{Algorithm, Window};
use crate::wire::WindowAnswer;

/// Into how many parts what came evenly is divided: a token is off by at most one in so many of the window.
const PARTS: u32 = 16;

/// What the store said last of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAnswer {
    /// When it was asked, by the node's clock.
    pub asked_at: Timestamp,
    /// One for each window.
    pub windows: Vec<WindowAnswer>,
}

impl LastAnswer {
    /// Charges counters at `now` with what they lack of it: in each window that of the two stands which leaves less.
    /// `windows` are those that the store was asked for, and `kept` the same as the node keeps them.
    pub(super) fn charge(
        &self,
        windows: &[Window],
        kept: &[Window],
        counters: &mut SubjectCounters,
        now: Timestamp,
    ) {
        counters.settle(kept, BUCKETS, now);
        let counters = kept.iter().zip(&mut counters.counters);
        for ((said, window), (kept, counter)) in self.windows.iter().zip(windows).zip(counters) {
            let counted = self.counted(said, window, kept, now);
            if counted.remaining(kept, now) < counter.remaining(kept, now) {
                *counter = counted;
            }
        }
    }

    /// A counter that has counted what the store had.
    fn counted(&self, said: &WindowAnswer, window: &Window, kept: &Window, now: Timestamp) -> Counter {
        let used = window.capacity().saturating_sub(said.remaining);
        let mut counter = Counter::fresh(kept);
        let dated = self.dated(used, said, window);
        match &mut counter {
            Counter::Tally(counter) => drop(counter.record(kept, BUCKETS, &dated, now)),
            Counter::Weighted(counter) => drop(counter.record(kept, &dated, now)),
            Counter::TokenBucket(counter) => drop(counter.record(kept, &dated, now)),
        }
        counter
    }

    /// When how much of it was charged, the oldest first.
    fn dated(&self, used: u32, said: &WindowAnswer, window: &Window) -> Vec<(Timestamp, u32)> {
        let oldest = self.asked_at.as_micros().saturating_add(said.reset_us);
        let oldest = oldest.saturating_sub(micros(window.per())).min(self.asked_at.as_micros());
        let (parts, oldest) = match window.algorithm() {
            Algorithm::TokenBucket { .. } | Algorithm::SlidingCounter => (1, self.asked_at.as_micros()),
            Algorithm::FixedWindow { .. } => (1, oldest),
            Algorithm::SlidingWindow | Algorithm::SlidingLog => (used.clamp(1, PARTS), oldest),
        };
        let (parts, used) = (u64::from(parts), u64::from(used));
        let span = self.asked_at.as_micros() - oldest;
        let part = |part: u64| {
            let dated = oldest + span * part / (parts - 1).max(1);
            let tokens = used * (part + 1) / parts - used * part / parts;
            (Timestamp::from_micros(dated), u32::try_from(tokens).unwrap_or(u32::MAX))
        };
        (0..parts).map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::window::Offset;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Asked in the hundredth second.
    fn answer(remaining: u32, reset_seconds: u64) -> LastAnswer {
        let window = WindowAnswer { remaining, reset_us: reset_seconds * 1_000_000, wait_us: 0 };
        LastAnswer { asked_at: at(100), windows: vec![window] }
    }

    /// What is left at these moments of counters that are charged with an answer in the hundred and first second.
    fn left<const N: usize>(
        said: &LastAnswer,
        window: &Window,
        kept: &Window,
        seconds: [u64; N],
    ) -> [u32; N] {
        let mut counters = SubjectCounters::default();
        let [windows, kept] = [window, kept].map(std::slice::from_ref);
        said.charge(windows, kept, &mut counters, at(101));
        seconds.map(|second| {
            counters.settle(kept, BUCKETS, at(second));
            counters.room(kept)
        })
    }

    #[test]
    fn what_a_sliding_window_had_counted_leaves_evenly_from_the_reset_on() {
        let window = Window::new(100, MINUTE, Algorithm::SlidingWindow).unwrap();
        // of 32 the oldest came at second 70, and two with each two seconds from then on; each leaves late by a second at most
        let seconds = [101, 129, 131, 133, 145, 159, 161];
        assert_eq!(left(&answer(68, 30), &window, &window, seconds), [68, 68, 70, 72, 84, 98, 100]);
        assert_eq!(left(&answer(99, 30), &window, &window, [101, 129, 131]), [99, 99, 100]);
        assert_eq!(left(&answer(100, 0), &window, &window, [101]), [100]);
    }

    #[test]
    fn what_was_dated_ahead_counts_for_a_window_from_the_question_on() {
        let window = Window::new(100, MINUTE, Algorithm::SlidingWindow).unwrap();
        assert_eq!(left(&answer(0, 65), &window, &window, [101, 159, 161]), [0, 0, 100]);
    }

    #[test]
    fn a_fixed_window_is_used_up_until_it_ends() {
        let fixed =
            Window::new(100, MINUTE, Algorithm::FixedWindow { timezone: Offset::default().into() }).unwrap();
        assert_eq!(left(&answer(40, 20), &fixed, &fixed.as_sliding(), [101, 119, 121]), [40, 40, 100]);
    }

    #[test]
    fn a_token_bucket_fills_from_the_question_on() {
        let bucket =
            Window::new(60, MINUTE, Algorithm::TokenBucket { burst: NonZeroU32::new(60).unwrap() }).unwrap();
        assert_eq!(left(&answer(10, 1), &bucket, &bucket, [101, 110, 149, 150, 200]), [11, 20, 59, 60, 60]);
    }

    #[test]
    fn a_sliding_counter_is_as_full_as_the_store_said_and_weighs_less_in_the_next_window() {
        let window = Window::new(100, MINUTE, Algorithm::SlidingCounter).unwrap();
        assert_eq!(left(&answer(40, 1), &window, &window, [101, 119, 150, 180]), [40, 40, 70, 100]);
    }

    #[test]
    fn counters_that_have_counted_more_stand() {
        let windows = [10, 20].map(|limit| Window::new(limit, MINUTE, Algorithm::SlidingWindow).unwrap());
        let mut counters = SubjectCounters::default();
        counters.settle(&windows, BUCKETS, at(90));
        counters.charge(&windows, BUCKETS, 8, Duration::ZERO);
        let of = |remaining| WindowAnswer { remaining, reset_us: 30_000_000, wait_us: 0 };
        let said = LastAnswer { asked_at: at(100), windows: vec![of(5), of(1)] };
        said.charge(&windows, &windows, &mut counters, at(101));
        let left = counters.verdicts(&windows, BUCKETS, 1).into_iter().map(|verdict| verdict.remaining);
        assert_eq!(left.collect::<Vec<_>>(), [2, 1]);
    }
}
