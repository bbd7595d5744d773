//! Requests, tallied by when they are dated, each counted until it leaves.
//!
//! One arithmetic serves several windows; what differs is the [`Grid`] on which moments are rounded.
//!
//! A **sliding window** is kept in fine buckets, the oldest counted in full. A log of every request is exact and
//! costs memory per request; two weighted buckets are cheap and over-admit. Fine buckets never over-admit: a
//! bucket counts in full until its last possible request has left the trailing window, so the price is that a
//! token comes back late, by at most the width of a bucket.
//!
//! A **sliding log** has buckets of a microsecond, the clock's own step: an entry for each request, gone exactly
//! `per` after its date. A window is then half open: of two requests exactly `per` apart it holds one.
//!
//! A **fixed window** is a bucket as wide as the window, and nothing before it counts. A charge that is granted
//! in one window and may be spent in a later one (both ends of its span are known, not the moment) has to count
//! in each window that it may be spent in. It does: every bucket from the current one on counts, so a charge
//! counts from its grant until the window of its date has ended. Whatever may be spent in a calendar window was
//! granted in it or before, and is dated in it or later; at the last such grant all of that is in the total,
//! which the limit bounds. So no calendar window of spends is over its limit.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Algorithm, Calendar, Window};
use crate::units::{Timestamp, micros};

/// The requests of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Which bucket: moments divided by the bucket's width, rounded down.
    pub index: u64,
    /// Requests charged to it; never zero.
    pub count: u64,
}

/// The counter of one subject in one window. Empty buckets are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    buckets: VecDeque<Bucket>,
    total: u64,
}

/// How moments become buckets, and for how long a bucket counts.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// Where one bucket ends and the next begins.
    calendar: Calendar,
    /// How many buckets before the current one still count.
    behind: u64,
}

impl Grid {
    /// The grid of `window`, where a sliding window has `buckets` of them.
    fn of(window: &Window, buckets: u32) -> Self {
        let per = micros(window.per());
        match window.algorithm() {
            // a token bucket has no grid, and nobody asks for it
            Algorithm::SlidingWindow | Algorithm::TokenBucket { .. } => {
                let width = per.div_ceil(u64::from(buckets)).max(1);
                Self { calendar: Calendar::even(width), behind: u64::from(buckets) }
            }
            Algorithm::SlidingCounter => Self { calendar: Calendar::even(per), behind: 1 },
            Algorithm::SlidingLog => Self { calendar: Calendar::even(1), behind: per.saturating_sub(1) },
            Algorithm::FixedWindow { timezone } => {
                Self { calendar: Calendar::of(window.per(), timezone), behind: 0 }
            }
        }
    }

    fn index(self, moment: Timestamp) -> u64 {
        self.calendar.index(moment)
    }

    /// The first moment at which `bucket` does not count any more.
    fn leaves_at(self, bucket: &Bucket) -> Timestamp {
        self.calendar.begins(bucket.index + self.behind + 1)
    }
}

impl Tally {
    /// The counter whose buckets these are, in the order of their index.
    pub fn from_buckets(buckets: impl IntoIterator<Item = Bucket>) -> Self {
        let buckets: VecDeque<Bucket> = buckets.into_iter().collect();
        let total = buckets.iter().map(|b| b.count).fold(0, u64::saturating_add);
        Self { buckets, total }
    }

    /// The buckets in use, oldest first.
    pub fn buckets(&self) -> impl ExactSizeIterator<Item = &Bucket> {
        self.buckets.iter()
    }

    /// Forgets every bucket that does not count at `now`.
    pub fn settle(&mut self, window: &Window, buckets: u32, now: Timestamp) {
        let grid = Grid::of(window, buckets);
        let current = grid.index(now);
        while let Some(oldest) = self.buckets.front() {
            if oldest.index + grid.behind >= current {
                break;
            }
            self.total -= oldest.count;
            self.buckets.pop_front();
        }
    }

    /// What may still be charged.
    pub fn remaining(&self, window: &Window) -> u32 {
        u32::try_from(u64::from(window.limit()).saturating_sub(self.total)).unwrap_or(u32::MAX)
    }

    /// How long until `cost` fits: zero when it does.
    pub fn wait(&self, window: &Window, buckets: u32, now: Timestamp, cost: u32) -> Duration {
        let mut over = (self.total + u64::from(cost)).saturating_sub(u64::from(window.limit()));
        let (grid, mut free_at) = (Grid::of(window, buckets), now);
        for bucket in &self.buckets {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(bucket.count);
            free_at = grid.leaves_at(bucket);
        }
        free_at.since(now)
    }

    /// How long until more may be charged than now: zero when the window is empty.
    pub fn reset(&self, window: &Window, buckets: u32, now: Timestamp) -> Duration {
        let grid = Grid::of(window, buckets);
        self.buckets.front().map_or(Duration::ZERO, |oldest| grid.leaves_at(oldest).since(now))
    }

    /// Charges `cost`, dated at `dated`.
    pub fn charge(&mut self, window: &Window, buckets: u32, dated: Timestamp, cost: u32) {
        let (index, count) = (Grid::of(window, buckets).index(dated), u64::from(cost));
        self.total += count;
        match self.buckets.binary_search_by_key(&index, |b| b.index) {
            Ok(at) => {
                if let Some(bucket) = self.buckets.get_mut(at) {
                    bucket.count += count;
                }
            }
            Err(at) => self.buckets.insert(at, Bucket { index, count }),
        }
    }

    /// Charges what was spent without asking, dated and the oldest first, as far as it still counts at `now`: of all
    /// that, the youngest that the window can hold. Returns when it ceases to count.
    pub fn record(
        &mut self,
        window: &Window,
        buckets: u32,
        spent: &[(Timestamp, u32)],
        now: Timestamp,
    ) -> Option<Timestamp> {
        let (grid, mut room) = (Grid::of(window, buckets), window.capacity());
        let current = grid.index(now);
        let mut until = None;
        let counts = |dated: &Timestamp| grid.index(*dated) + grid.behind >= current;
        for (dated, tokens) in spent.iter().rev().take_while(|(dated, _)| counts(dated)) {
            let cost = room.min(*tokens);
            if cost > 0 {
                self.charge(window, buckets, *dated, cost);
                room -= cost;
                until = until.max(Some(grid.calendar.begins(grid.index(*dated) + grid.behind + 1)));
            }
        }
        until
    }

    /// Requests of the bucket that a moment is in.
    pub(super) fn count_at(&self, window: &Window, buckets: u32, moment: Timestamp) -> u64 {
        let index = Grid::of(window, buckets).index(moment);
        self.buckets.iter().find(|bucket| bucket.index == index).map_or(0, |bucket| bucket.count)
    }

    /// Takes back a charge of `cost` dated at `dated`, as far as it is still counted.
    pub fn uncharge(&mut self, window: &Window, buckets: u32, dated: Timestamp, cost: u32) {
        let index = Grid::of(window, buckets).index(dated);
        let Ok(at) = self.buckets.binary_search_by_key(&index, |b| b.index) else { return };
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let back = bucket.count.min(u64::from(cost));
        bucket.count -= back;
        self.total -= back;
        if bucket.count == 0 {
            self.buckets.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Offset;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const BUCKETS: u32 = 10;
    const SECOND: Duration = Duration::from_secs(1);

    /// Ten a second, in ten buckets of a tenth.
    fn ten_a_second() -> Window {
        Window::new(10, SECOND, Algorithm::SlidingWindow).unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    fn wait(counter: &Tally, now: Timestamp, cost: u32) -> u64 {
        micros(counter.wait(&ten_a_second(), BUCKETS, now, cost))
    }

    fn charged(moments: &[(u64, u32)]) -> Tally {
        let mut counter = Tally::default();
        for (ms, cost) in moments {
            counter.charge(&ten_a_second(), BUCKETS, at(*ms), *cost);
        }
        counter
    }

    #[test]
    fn refuses_the_eleventh_in_ten() {
        let counter = charged(&[(0, 9)]);
        assert_eq!(wait(&counter, at(0), 1), 0);
        let counter = charged(&[(0, 9), (50, 1)]);
        assert_eq!(counter.remaining(&ten_a_second()), 0);
        assert!(wait(&counter, at(50), 1) > 0);
    }

    #[test]
    fn gives_a_token_back_when_its_whole_bucket_has_left_the_window_and_no_sooner() {
        // The bucket from 0 to 99.999 ms; a request at its end has left a second after 99.999 ms.
        let window = ten_a_second();
        let mut counter = charged(&[(0, 10)]);
        assert_eq!(wait(&counter, at(50), 1), 1_050_000);
        counter.settle(&window, BUCKETS, Timestamp::from_micros(1_099_999));
        assert_eq!(counter.remaining(&window), 0);
        counter.settle(&window, BUCKETS, Timestamp::from_micros(1_100_000));
        assert_eq!(counter, Tally::default());
    }

    #[test]
    fn waits_for_as_many_buckets_as_the_cost_needs() {
        let counter = charged(&[(0, 3), (100, 3), (900, 4)]);
        assert_eq!(wait(&counter, at(900), 3), 200_000);
        assert_eq!(wait(&counter, at(900), 4), 300_000);
        assert_eq!(wait(&counter, at(900), 7), 1_100_000);
        assert_eq!(micros(counter.reset(&ten_a_second(), BUCKETS, at(900))), 200_000);
    }

    #[test]
    fn counts_a_charge_from_its_grant_until_a_window_after_its_date() {
        let window = ten_a_second();
        let mut counter = charged(&[(500, 10)]);
        counter.settle(&window, BUCKETS, at(0));
        assert_eq!(counter.remaining(&window), 0);
        counter.settle(&window, BUCKETS, Timestamp::from_micros(1_599_999));
        assert_eq!(counter.remaining(&window), 0);
        counter.settle(&window, BUCKETS, at(1600));
        assert_eq!(counter.remaining(&window), 10);
    }

    #[test]
    fn keeps_its_buckets_in_order_however_charges_are_dated() {
        let counter = charged(&[(300, 1), (100, 2), (399, 4), (0, 1)]);
        let buckets: Vec<(u64, u64)> = counter.buckets().map(|b| (b.index, b.count)).collect();
        assert_eq!(buckets, [(0, 1), (1, 2), (3, 5)]);
        assert_eq!(Tally::from_buckets(counter.buckets().copied()), counter);
    }

    #[test]
    fn takes_a_charge_back_and_never_more_than_is_counted() {
        let window = ten_a_second();
        let mut counter = charged(&[(0, 3), (200, 5)]);
        counter.uncharge(&window, BUCKETS, at(250), 2);
        assert_eq!(counter, charged(&[(0, 3), (200, 3)]));
        counter.uncharge(&window, BUCKETS, at(250), 9);
        assert_eq!(counter, charged(&[(0, 3)]));
        counter.uncharge(&window, BUCKETS, at(500), 1);
        assert_eq!(counter, charged(&[(0, 3)]));
    }

    #[test]
    fn says_nothing_is_left_where_a_limit_was_lowered_below_what_is_used() {
        let counter = charged(&[(0, 6), (100, 4)]);
        let five = Window::new(5, SECOND, Algorithm::SlidingWindow).unwrap();
        assert_eq!(counter.remaining(&five), 0);
        assert_eq!(micros(counter.wait(&five, BUCKETS, at(100), 1)), 1_000_000);
        assert_eq!(micros(counter.wait(&five, BUCKETS, at(100), 2)), 1_100_000);
    }

    #[test]
    fn gives_a_logged_request_back_exactly_when_it_has_left_the_window() {
        let window = Window::new(3, SECOND, Algorithm::SlidingLog).unwrap();
        let mut counter = Tally::default();
        for ms in [0, 10, 999] {
            counter.charge(&window, BUCKETS, at(ms), 1);
        }
        assert_eq!(micros(counter.wait(&window, BUCKETS, at(999), 1)), 1000);
        assert_eq!(micros(counter.wait(&window, BUCKETS, at(999), 3)), 1_000_000);
        counter.settle(&window, BUCKETS, Timestamp::from_micros(999_999));
        assert_eq!(counter.remaining(&window), 0);
        counter.settle(&window, BUCKETS, at(1000));
        assert_eq!(
            (counter.remaining(&window), micros(counter.reset(&window, BUCKETS, at(1000)))),
            (1, 10_000)
        );
    }

    /// Ten a day; days begin when `minutes` east of Greenwich do.
    fn ten_a_day(minutes: i32) -> Window {
        let offset = Offset::from_minutes(minutes).unwrap();
        Window::new(10, Duration::from_secs(86_400), Algorithm::FixedWindow { timezone: offset.into() })
            .unwrap()
    }

    /// A moment of the third day since the epoch, UTC.
    fn third_day(hours: u64) -> Timestamp {
        Timestamp::from_micros((2 * 24 + hours) * 3_600_000_000)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn starts_a_calendar_day_afresh_at_midnight_of_its_own_zone() {
        for (minutes, asked_at, hours_left) in [(0, 20, 4), (8 * 60, 15, 1), (8 * 60, 20, 20), (-210, 20, 7)]
        {
            let (window, now) = (ten_a_day(minutes), third_day(asked_at));
            let mut counter = Tally::default();
            counter.charge(&window, BUCKETS, now, 10);
            let wait = counter.wait(&window, BUCKETS, now, 1);
            let half_an_hour = if minutes % 60 == 0 { Duration::ZERO } else { HOUR / 2 };
            assert_eq!(wait, HOUR * hours_left + half_an_hour, "{minutes} min, {asked_at}:00");
            assert_eq!(counter.reset(&window, BUCKETS, now), wait);
            counter.settle(&window, BUCKETS, now.plus(wait - Duration::from_micros(1)));
            assert_eq!(counter.remaining(&window), 0);
            counter.settle(&window, BUCKETS, now.plus(wait));
            assert_eq!(counter, Tally::default());
        }
    }

    #[test]
    fn counts_what_may_be_spent_after_midnight_on_both_days() {
        let (window, evening) = (ten_a_day(0), third_day(23));
        let mut counter = Tally::default();
        counter.charge(&window, BUCKETS, evening, 3);
        counter.charge(&window, BUCKETS, evening.plus(HOUR), 4);
        assert_eq!(counter.remaining(&window), 3);
        assert_eq!(counter.wait(&window, BUCKETS, evening, 6), HOUR);
        counter.settle(&window, BUCKETS, third_day(24));
        assert_eq!(counter.remaining(&window), 6);
        assert_eq!(counter.wait(&window, BUCKETS, third_day(24), 7), 24 * HOUR);
    }
}
