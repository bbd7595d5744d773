//! Many measurements as one figure.

use std::time::Duration;

/// The middle one; not a number where there is none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
}

/// How long answers took.
#[derive(Clone, Debug)]
pub(crate) struct Waits(Vec<Duration>);

impl Waits {
    pub(crate) fn of(waits: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = waits.collect();
        sorted.sort();
        Self(sorted)
    }

    /// What this share of the answers did not exceed, ms; not a number where there was none.
    pub(crate) fn ms_of(&self, share: f64) -> f64 {
        let at = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(at.saturating_sub(1)).map_or(f64::NAN, |wait| wait.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ninety_nine_of_a_hundred_do_not_exceed_the_ninety_ninth() {
        let waits = Waits::of((1..=100).rev().map(Duration::from_millis));
        assert_eq!((waits.ms_of(0.5), waits.ms_of(0.99), waits.ms_of(1.0)), (50.0, 99.0, 100.0));
        assert!(Waits::of(std::iter::empty()).ms_of(0.5).is_nan());
    }
}
