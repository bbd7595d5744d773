//! How many questions to the store have ended, moment by moment, as the filter counts them itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lanekeeper_tests::envoy::Admin;

/// Asks Envoy again and again.
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Calls>>,
}

/// How many had ended by some moments, in their order.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<(Duration, u64)>);

/// Often enough to count what ends while a request waits for the store, and seldom enough to cost next to nothing.
const PAUSE: Duration = Duration::from_millis(5);
const METRIC: &str = "lanekeeper_store_calls_total";

impl Watch {
    /// Begins; moments are counted from `begin`.
    pub(super) fn start(admin: Admin, begin: Instant) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut calls = Calls::default();
            while !told.load(Ordering::Relaxed) {
                calls.0.push((begin.elapsed(), admin.metric(METRIC, &[])?));
                thread::sleep(PAUSE);
            }
            Ok(calls)
        });
        Self { is_over, thread }
    }

    /// What was seen until now.
    pub(super) fn finish(self) -> Result<Calls> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("who watches Envoy panicked"))?
    }
}

impl Calls {
    /// How many were seen to end between two moments: not those that ended before it was looked for the first time after
    /// `from`.
    pub(super) fn between(&self, from: Duration, until: Duration) -> u64 {
        let first = self.0.partition_point(|(at, _)| *at < from);
        let behind = self.0.partition_point(|(at, _)| *at <= until);
        let seen = self.0.get(first..behind).unwrap_or_default();
        seen.first().zip(seen.last()).map_or(0, |((_, first), (_, last))| last - first)
    }

    #[cfg(test)]
    pub(super) fn of(seen: &[(Duration, u64)]) -> Self {
        Self(seen.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_before_the_first_look_is_not_counted_and_what_ends_after_the_last_neither() {
        let ms = Duration::from_millis;
        let calls = Calls::of(&[(ms(0), 5), (ms(10), 7), (ms(20), 12), (ms(30), 13)]);
        assert_eq!(calls.between(ms(1), ms(29)), 5);
        assert_eq!(calls.between(ms(10), ms(30)), 6);
        assert_eq!(calls.between(ms(21), ms(29)), 0);
    }
}
