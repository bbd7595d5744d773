//! The account of a load that may last for a day: how long requests took, and how they were over, in little memory.

use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::driver::{Asked, End};

/// Times are kept to the microsecond, in three digits, up to this.
const LONGEST: Duration = Duration::from_secs(60);
const DIGITS: u8 = 3;

/// What became of all requests that came after the warm-up.
pub(super) struct Book {
    warm_up: Duration,
    times_us: Histogram<u64>,
    pub(super) requests: u64,
    /// Over a limit.
    pub(super) refused: u64,
    /// Decided by what stands in for the store.
    pub(super) fallbacks: u64,
    /// Lost, hung, or answered with anything but what a limit or the upstream says.
    pub(super) errors: u64,
}

impl Book {
    pub(super) fn new(warm_up: Duration) -> Result<Self> {
        let longest = u64::try_from(LONGEST.as_micros())?;
        let times_us = Histogram::new_with_bounds(1, longest, DIGITS).context("no such histogram")?;
        Ok(Self { warm_up, times_us, requests: 0, refused: 0, fallbacks: 0, errors: 0 })
    }

    /// What this share of the requests did not exceed, ms.
    pub(super) fn ms_of(&self, share: f64) -> f64 {
        self.times_us.value_at_quantile(share) as f64 / 1e3
    }

    fn add(&mut self, asked: &Asked<()>) {
        self.requests += 1;
        self.times_us.saturating_record(u64::try_from(asked.took().as_micros()).unwrap_or(u64::MAX));
        match asked.end {
            End::Answered { status: 200, .. } => {}
            End::Answered { status: 429, .. } => self.refused += 1,
            End::Answered { .. } | End::Lost | End::Hung => self.errors += 1,
        }
        self.fallbacks += u64::from(asked.fallback().is_some());
    }
}

impl Extend<Asked<()>> for Book {
    fn extend<I: IntoIterator<Item = Asked<()>>>(&mut self, asked: I) {
        let warm_up = self.warm_up;
        asked.into_iter().filter(|asked| asked.came >= warm_up).for_each(|asked| self.add(&asked));
    }
}

#[cfg(test)]
mod tests {
    use lanekeeper_engine::policy::OnFailure;

    use super::*;

    #[test]
    fn requests_are_counted_by_how_they_were_over_and_those_of_the_warm_up_are_not() {
        let answered = |status, fallback| End::Answered { status, fallback };
        let asked = |came, end| {
            let came = Duration::from_millis(came);
            Asked { who: (), came, over: came + Duration::from_millis(2), end }
        };
        let mut book = Book::new(Duration::from_millis(100)).unwrap();
        book.extend([
            asked(0, End::Lost),
            asked(100, answered(200, None)),
            asked(101, answered(200, Some(OnFailure::Local))),
            asked(102, answered(429, None)),
            asked(103, answered(503, None)),
            asked(104, End::Lost),
            asked(105, End::Hung),
        ]);
        assert_eq!((book.requests, book.refused, book.fallbacks, book.errors), (6, 1, 1, 3));
        assert!((book.ms_of(0.5) - 2.0).abs() < 0.01, "{}", book.ms_of(0.5));
    }
}
