//! Who says what was right: an exact log, or the exact envelope of a token bucket.
//!
//! It shares no arithmetic with the engine: a list of moments, and one whole number.

use std::collections::VecDeque;

use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::Window;

/// What one source was admitted, exactly.
#[derive(Clone, Debug)]
pub(super) struct Judge {
    promise: Promise,
    /// In the promise's own unit.
    capacity: u128,
    used: u128,
    most: u128,
}

#[derive(Clone, Debug)]
enum Promise {
    /// No trailing window over its limit. Of two requests exactly `per` apart a window holds one.
    Window { admitted: VecDeque<Timestamp>, per: std::time::Duration },
    /// No interval over burst + rate x its length. A request adds `per`, a microsecond takes `limit` away: what is
    /// left is the most that any interval which ends now holds beyond what refilled in it.
    Envelope { per: u128, limit: u128, last: Timestamp },
}

impl Judge {
    /// Of nothing yet, under the promise of `window`.
    pub(super) fn of(window: &Window) -> Self {
        let capacity = u128::from(window.capacity());
        if super::is_bucket(window) {
            let (per, limit) = (u128::from(micros(window.per())), u128::from(window.limit()));
            let promise = Promise::Envelope { per, limit, last: Timestamp::default() };
            return Self { promise, capacity: capacity * per, used: 0, most: 0 };
        }
        let promise = Promise::Window { admitted: VecDeque::new(), per: window.per() };
        Self { promise, capacity, used: 0, most: 0 }
    }

    /// Whether one more at `at` would be too many. Moments never go back.
    pub(super) fn is_full(&mut self, at: Timestamp) -> bool {
        match &mut self.promise {
            Promise::Window { admitted, per } => {
                while admitted.front().is_some_and(|first| first.plus(*per) <= at) {
                    admitted.pop_front();
                }
                self.used = admitted.len() as u128;
                self.used + 1 > self.capacity
            }
            Promise::Envelope { per, limit, last } => {
                let refilled = u128::from(micros(at.since(*last))) * *limit;
                (self.used, *last) = (self.used.saturating_sub(refilled), at);
                self.used + *per > self.capacity
            }
        }
    }

    /// Notes one that was admitted at `at`, rightly or not.
    pub(super) fn admit(&mut self, at: Timestamp) {
        self.is_full(at);
        match &mut self.promise {
            Promise::Window { admitted, .. } => {
                admitted.push_back(at);
                self.used += 1;
            }
            Promise::Envelope { per, .. } => self.used += *per,
        }
        self.most = self.most.max(self.used);
    }

    /// The most that was ever admitted, over what is allowed: 1 is exactly all, more is a promise broken. Of an
    /// envelope it is what any interval held beyond what refilled in it, over the burst.
    pub(super) fn most(&self) -> f64 {
        self.most as f64 / self.capacity as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits;

    fn judge(algorithm: &str) -> Judge {
        Judge::of(&limits::window(algorithm, 3, Duration::from_secs(1)).unwrap())
    }

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn admit(judge: &mut Judge, moments: &[u64]) {
        moments.iter().for_each(|us| judge.admit(at(*us)));
    }

    #[test]
    fn a_window_is_full_until_its_first_has_left_to_the_microsecond() {
        let mut judge = judge("fixed_window");
        admit(&mut judge, &[10, 11]);
        assert!(!judge.is_full(at(12)));
        admit(&mut judge, &[12]);
        assert!(judge.is_full(at(1_000_009)));
        assert!(!judge.is_full(at(1_000_010)));
        assert_eq!(judge.most(), 1.0);
    }

    #[test]
    fn what_is_admitted_beyond_a_window_is_seen() {
        let mut judge = judge("sliding_window");
        admit(&mut judge, &[0, 999_999, 999_999, 999_999]);
        assert_eq!(judge.most(), 4.0 / 3.0);
    }

    #[test]
    fn an_envelope_is_full_until_a_whole_token_has_refilled() {
        let mut judge = judge("token_bucket");
        admit(&mut judge, &[0, 0, 0]);
        assert_eq!(judge.most(), 1.0);
        assert!(judge.is_full(at(333_333)));
        assert!(!judge.is_full(at(333_334)));
        admit(&mut judge, &[333_334]);
        assert!(judge.most() <= 1.0);
        admit(&mut judge, &[333_334]);
        assert!(judge.most() > 1.0);
    }
}
