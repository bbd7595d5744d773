//! The sliding window: fine buckets, the oldest counted in full.
//!
//! A log of every request is exact and costs memory per request; two weighted buckets are cheap and over-admit.
//! Fine buckets never over-admit: a bucket counts in full until its last possible request has left the
//! trailing window, so the price is that a token comes back late, by at most the width of a bucket.

use std::collections::VecDeque;
use std::time::Duration;

use super::Window;
use crate::units::{Timestamp, micros};

/// The requests of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Which bucket: moments divided by the bucket's width, rounded down.
    pub index: u64,
    /// Requests charged to it; never zero.
    pub count: u64,
}

/// The counter of one subject in one window. Empty buckets are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sliding {
    buckets: VecDeque<Bucket>,
    total: u64,
}

/// The width of a bucket in microseconds, when `window` is kept in `buckets` of them.
fn width(window: &Window, buckets: u32) -> u64 {
    micros(window.per()).div_ceil(u64::from(buckets)).max(1)
}

impl Sliding {
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

    /// Forgets every bucket that no trailing window ending at `now` or later can touch.
    pub fn settle(&mut self, window: &Window, buckets: u32, now: Timestamp) {
        let current = now.as_micros() / width(window, buckets);
        while let Some(oldest) = self.buckets.front() {
            if oldest.index + u64::from(buckets) >= current {
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
        let mut free_at = now;
        for bucket in &self.buckets {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(bucket.count);
            free_at = leaves_at(bucket, window, buckets);
        }
        free_at.since(now)
    }

    /// How long until more may be charged than now: zero when the window is empty.
    pub fn reset(&self, window: &Window, buckets: u32, now: Timestamp) -> Duration {
        self.buckets.front().map_or(Duration::ZERO, |oldest| leaves_at(oldest, window, buckets).since(now))
    }

    /// Charges `cost`, dated at `dated`.
    pub fn charge(&mut self, window: &Window, buckets: u32, dated: Timestamp, cost: u32) {
        let (index, count) = (dated.as_micros() / width(window, buckets), u64::from(cost));
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

    /// Takes back a charge of `cost` dated at `dated`, as far as it is still counted.
    pub fn uncharge(&mut self, window: &Window, buckets: u32, dated: Timestamp, cost: u32) {
        let index = dated.as_micros() / width(window, buckets);
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

/// The first moment at which nothing of `bucket` is within a trailing window any more.
fn leaves_at(bucket: &Bucket, window: &Window, buckets: u32) -> Timestamp {
    Timestamp::from_micros((bucket.index + u64::from(buckets) + 1) * width(window, buckets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Algorithm;
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

    fn wait(counter: &Sliding, now: Timestamp, cost: u32) -> u64 {
        micros(counter.wait(&ten_a_second(), BUCKETS, now, cost))
    }

    fn charged(moments: &[(u64, u32)]) -> Sliding {
        let mut counter = Sliding::default();
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
        assert_eq!(counter, Sliding::default());
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
        assert_eq!(Sliding::from_buckets(counter.buckets().copied()), counter);
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
}
