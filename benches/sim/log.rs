//! The exact log: what was admitted, to the microsecond, held against what each window promises.
//!
//! It shares no arithmetic with the engine. The same code is the oracle: a limiter on one machine, without delay, that
//! admits whatever its log allows.

use std::collections::VecDeque;
use std::time::Duration;

use lanekeeper_engine::units::micros;
use lanekeeper_engine::window::{Algorithm, Window};

/// What was admitted under one window, by the clock of the simulation, which is the store's.
#[derive(Clone, Debug)]
pub(super) struct Log {
    promise: Promise,
    /// What is allowed, in the promise's unit.
    capacity: u64,
    used: u64,
    most: u64,
}

#[derive(Clone, Debug)]
enum Promise {
    /// No more than this in all: a window that is longer than the simulation.
    Total,
    /// No trailing window over its limit. Of two requests exactly `per` apart a window holds one. Moments are in
    /// microseconds, of which 32 bits hold an hour.
    Trailing { admitted: VecDeque<u32>, per: u64 },
    /// No calendar window over its limit; the epoch begins one.
    Calendar { per: u64, index: u64 },
    /// No interval over burst + rate x its length. A request adds `token`, a microsecond takes `rate` away.
    Envelope { token: u64, rate: u64, last: u64 },
}

impl Log {
    /// Of nothing yet, under the promise of `window`, in a simulation that lasts so long.
    pub(super) fn of(window: &Window, lasts: Duration) -> Self {
        let (per, limit) = (micros(window.per()), u64::from(window.limit()));
        let (promise, capacity) = match window.algorithm() {
            Algorithm::TokenBucket { burst } => {
                let promise = Promise::Envelope { token: per, rate: limit, last: 0 };
                (promise, u64::from(burst.get()) * per)
            }
            Algorithm::FixedWindow { .. } => (Promise::Calendar { per, index: 0 }, limit),
            _ if per > micros(lasts) => (Promise::Total, limit),
            _ => (Promise::Trailing { admitted: VecDeque::new(), per }, limit),
        };
        Self { promise, capacity, used: 0, most: 0 }
    }

    /// Whether one more at `at` would be too many. Moments never go back.
    pub(super) fn is_full(&mut self, at: u64) -> bool {
        self.settle(at);
        self.used + self.unit() > self.capacity
    }

    /// Notes one that was admitted, rightly or not; returns whether it was rightly.
    pub(super) fn admit(&mut self, at: u64) -> bool {
        self.settle(at);
        if let Promise::Trailing { admitted, .. } = &mut self.promise {
            admitted.push_back(u32::try_from(at).unwrap_or(u32::MAX));
        }
        self.used += self.unit();
        self.most = self.most.max(self.used);
        self.used <= self.capacity
    }

    /// The most that was ever admitted beyond what is allowed, as a share of it.
    pub(super) fn over(&self) -> f64 {
        (self.most as f64 / self.capacity as f64 - 1.0).max(0.0)
    }

    /// The same, in requests.
    pub(super) fn excess(&self) -> u64 {
        self.most.saturating_sub(self.capacity).div_ceil(self.unit())
    }

    fn unit(&self) -> u64 {
        match self.promise {
            Promise::Envelope { token, .. } => token,
            _ => 1,
        }
    }

    fn settle(&mut self, at: u64) {
        match &mut self.promise {
            Promise::Total => {}
            Promise::Trailing { admitted, per } => {
                while admitted.front().is_some_and(|first| u64::from(*first) + *per <= at) {
                    admitted.pop_front();
                }
                self.used = admitted.len() as u64;
            }
            Promise::Calendar { per, index } => {
                if at / *per != *index {
                    (*index, self.used) = (at / *per, 0);
                }
            }
            Promise::Envelope { rate, last, .. } => {
                self.used = self.used.saturating_sub((at - *last) * *rate);
                *last = at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    const SECOND: Duration = Duration::from_secs(1);

    fn log(algorithm: &str) -> Log {
        Log::of(&limits::window(algorithm, 3, SECOND).unwrap(), SECOND * 10)
    }

    fn admitted(log: &mut Log, moments: &[u64]) -> Vec<bool> {
        moments.iter().map(|us| log.admit(*us)).collect()
    }

    #[test]
    fn a_trailing_window_is_full_until_its_first_has_left_to_the_microsecond() {
        let mut log = log("sliding_window");
        assert_eq!(admitted(&mut log, &[10, 11, 12]), [true, true, true]);
        assert!(log.is_full(1_000_009));
        assert!(!log.is_full(1_000_010));
        assert_eq!((log.over(), log.excess()), (0.0, 0));
        assert_eq!(admitted(&mut log, &[1_000_010, 1_000_010]), [true, false]);
        assert_eq!((log.over(), log.excess()), (4.0 / 3.0 - 1.0, 1));
    }

    #[test]
    fn a_window_longer_than_the_simulation_lets_nothing_go() {
        let mut log = Log::of(&limits::window("sliding_log", 3, SECOND * 11).unwrap(), SECOND * 10);
        assert_eq!(admitted(&mut log, &[0, 1, 9_999_999, 9_999_999]), [true, true, true, false]);
    }

    #[test]
    fn a_calendar_window_starts_afresh() {
        let mut log = log("fixed_window");
        let moments = [999_997, 999_998, 999_999, 1_000_000, 1_000_001, 1_000_002, 1_000_003];
        assert_eq!(admitted(&mut log, &moments), [true, true, true, true, true, true, false]);
    }

    #[test]
    fn an_envelope_is_full_until_a_whole_token_has_refilled() {
        let mut log = log("token_bucket");
        assert_eq!(admitted(&mut log, &[0, 0, 0]), [true, true, true]);
        assert!(log.is_full(333_333));
        assert!(!log.is_full(333_334));
        assert_eq!(admitted(&mut log, &[333_334, 333_334]), [true, false]);
        assert_eq!(log.excess(), 1);
    }
}
