//! A node's clock: it begins anywhere, and runs a little fast or slow.

use std::time::Duration;

use lanekeeper_engine::units::{Timestamp, micros};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// Clocks are off by as much at most, in millionths: what crystals are sold for, and some.
const MOST_PPM: i64 = 500;
const MILLION: i64 = 1_000_000;

/// A monotonic clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: u64,
    ppm: i64,
}

impl Clock {
    /// Any clock that is not broken.
    pub(super) fn drawn(chance: &mut Pcg64Mcg) -> Self {
        Self { began: chance.random_range(0..1 << 44), ppm: chance.random_range(-MOST_PPM..=MOST_PPM) }
    }

    /// What it shows at the moment `us` of the simulation.
    pub(super) fn at(&self, us: u64) -> Timestamp {
        let drifted = i128::from(us) * i128::from(MILLION + self.ppm) / i128::from(MILLION);
        Timestamp::from_micros(self.began + u64::try_from(drifted).unwrap_or_default())
    }

    /// How long it takes until it shows `span` more: in microseconds, rounded up.
    pub(super) fn takes(&self, span: Duration) -> u64 {
        let rate = u64::try_from(MILLION + self.ppm).unwrap_or(1);
        (micros(span) * 1_000_000).div_ceil(rate)
    }
}
