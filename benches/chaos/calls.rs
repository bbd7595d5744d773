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
    /// How many ended between two moments.
    pub(super) fn between(&self, from: Duration, until: Duration) -> u64 {
        self.by(until).saturating_sub(self.by(from))
    }

    fn by(&self, moment: Duration) -> u64 {
        let seen = self.0.partition_point(|(at, _)| *at <= moment);
        seen.checked_sub(1).and_then(|last| self.0.get(last)).map_or(0, |(_, calls)| *calls)
    }

    #[cfg(test)]
    pub(super) fn of(seen: &[(Duration, u64)]) -> Self {
        Self(seen.to_vec())
    }
}
