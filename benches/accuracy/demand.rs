//! One source that asks for ten times its limit and more, all the time.
//!
//! Its pauses are short against the window: whoever asks for everything at once and then waits for exactly one
//! window loses to any algorithm that is late at all, however little, and that is a share of its pause.

use std::fmt;
use std::time::Duration;

use lanekeeper_engine::counter::STORE_BUCKETS;
use lanekeeper_engine::units::{Timestamp, micros};
use rand::{RngExt, SeedableRng};
use rand_distr::Exp1;
use rand_pcg::Pcg64Mcg;

/// In what way it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Evenly, ten times the limit.
    Even,
    /// At random moments, ten times the limit.
    Random,
    /// In bursts at random moments, 25 times the limit.
    Bursts,
    /// In bursts right after the store's buckets begin: their charges stay longest.
    BucketStarts,
    /// In bursts right before the store's buckets end: each token that comes back there is asked for last.
    BucketEnds,
}

/// How many times the limit is asked for.
const TIMES: u32 = 10;
/// How many random bursts come in a window, on average.
const BURSTS: u32 = 500;

impl Demand {
    /// Steady, then gusty, then against the grain of the store's buckets.
    pub const ALL: [Self; 5] = [Self::Even, Self::Random, Self::Bursts, Self::BucketStarts, Self::BucketEnds];

    /// How many requests of `limit` per window come in a window, about.
    pub(super) fn about(self, limit: u32) -> u64 {
        let times = if self == Self::Bursts { 25 } else { TIMES };
        u64::from(limit) * u64::from(times)
    }

    /// When it asks, over so many windows of `limit` per `per`.
    pub(super) fn moments(self, limit: u32, per: Duration, windows: u32) -> impl Iterator<Item = Timestamp> {
        let end_us = micros(per) * u64::from(windows);
        let mut chance = Pcg64Mcg::seed_from_u64(1);
        let mut next_us = 0_f64;
        let mut bursts = 0_u64;
        let bucket_us = micros(per).div_ceil(u64::from(STORE_BUCKETS));
        let steps = f64::from(limit) * f64::from(TIMES);
        std::iter::from_fn(move || {
            let us = match self {
                Self::BucketStarts => bursts * bucket_us,
                Self::BucketEnds => (bursts + 1) * bucket_us - 1,
                Self::Even | Self::Random | Self::Bursts => next_us as u64,
            };
            bursts += 1;
            let gap: f64 = chance.sample(Exp1);
            let (step, size) = match self {
                Self::Even => (1.0 / steps, 1),
                Self::Random => (gap / steps, 1),
                Self::Bursts => (gap / f64::from(BURSTS), chance.random_range(1..=limit / 10)),
                Self::BucketStarts | Self::BucketEnds => (0.0, (limit * TIMES).div_ceil(STORE_BUCKETS)),
            };
            next_us += step * micros(per) as f64;
            (us < end_us).then_some((us, size))
        })
        .flat_map(|(us, size)| (0..size).map(move |_| Timestamp::from_micros(us)))
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Even => "even demand",
            Self::Random => "random demand",
            Self::Bursts => "random bursts",
            Self::BucketStarts => "bursts at the buckets' starts",
            Self::BucketEnds => "bursts at the buckets' ends",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER: Duration = Duration::from_secs(60);

    #[test]
    fn every_demand_asks_for_as_much_as_it_says_and_in_order() {
        for demand in Demand::ALL {
            let moments: Vec<_> = demand.moments(1000, PER, 10).collect();
            assert!(moments.is_sorted(), "{demand}");
            assert!(moments.last().unwrap().as_micros() < 600_000_000, "{demand}");
            let (asked, about) = (moments.len() as f64, demand.about(1000) as f64 * 10.0);
            assert!((0.95..1.05).contains(&(asked / about)), "{demand}: {asked} of about {about}");
        }
    }

    #[test]
    fn no_demand_pauses_for_more_than_a_fiftieth_of_the_window() {
        for demand in Demand::ALL {
            let moments: Vec<_> = demand.moments(1000, PER, 10).collect();
            let pause = moments.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
            assert!(pause <= PER / 50, "{demand}: {pause:?}");
        }
    }
}
