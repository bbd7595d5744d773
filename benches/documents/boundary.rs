//! One source around a full minute: what is admitted, and how much of it any trailing minute holds.

use std::collections::VecDeque;
use std::time::Duration;

use lanekeeper_engine::counter::{Ask, Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::window::WindowError;

use crate::limits;

/// What it may, in a minute.
pub(super) const LIMIT: u32 = 100;
/// From when to when it asks, seconds: before and after a full minute.
pub(super) const ASKS: std::ops::Range<u64> = 45..75;
const A_SECOND: u64 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// How many were admitted in the trailing minute, at each moment of `0..until` seconds at which that changes.
pub(super) fn admitted(algorithm: &str, until: f64) -> Result<Vec<(f64, f64)>, WindowError> {
    let window = [limits::window(algorithm, LIMIT, MINUTE)?];
    let mut counters = SubjectCounters::default();
    let (mut held, mut points) = (VecDeque::new(), vec![(0.0, 0.0)]);
    let asks = (ASKS.start * A_SECOND..ASKS.end * A_SECOND).map(|n| n * 1_000_000 / A_SECOND);
    let end = (until * 1e6) as u64;
    // a look in each tenth of a second shows what leaves
    let looks = (0..end / 100_000).map(|n| n * 100_000);
    let mut moments: Vec<(u64, bool)> =
        asks.map(|us| (us, true)).chain(looks.map(|us| (us, false))).collect();
    moments.sort_unstable();
    for (us, asks) in moments {
        let now = Timestamp::from_micros(us);
        while held.front().is_some_and(|first: &Timestamp| first.plus(MINUTE) <= now) {
            held.pop_front();
        }
        let mut charge = [Charge { windows: &window, ask: Ask::take(1), counters: &mut counters }];
        if asks && decide(&mut charge, STORE_BUCKETS, now, Duration::ZERO).allowed {
            held.push_back(now);
        }
        let point = (us as f64 / 1e6, held.len() as f64);
        if points.last().is_none_or(|last: &(f64, f64)| last.1 != point.1) {
            points.extend(points.last().map(|last| (point.0, last.1)));
            points.push(point);
        }
    }
    points.extend(points.last().map(|last| (until, last.1)));
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_window_admits_twice_its_limit_around_a_full_minute_and_a_sliding_one_does_not() {
        let most =
            |algorithm| admitted(algorithm, 150.0).unwrap().iter().fold(0.0, |most: f64, p| most.max(p.1));
        assert_eq!(most("fixed_window"), 200.0);
        assert_eq!(most("sliding_window"), 100.0);
    }
}
