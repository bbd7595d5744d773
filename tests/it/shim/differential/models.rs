//! What the script is held to: the engine's arithmetic by itself, and the embedded store around it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanekeeper_engine::counter::{Charge, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::units::Timestamp;
use lanekeeper_engine::wire::{Check, CheckAnswer, KeyReturn, KeySpent, Recorded, Returned};
use lanekeeper_shim::memory::MemoryStore;
use lanekeeper_shim::store::Store;
use tokio::runtime::Runtime;

/// What the script is held to.
pub(super) trait Model {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer;
    fn give_back(&mut self, back: &KeyReturn, now: Timestamp) -> u32;
    /// Whether the report is new, if it tells.
    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Option<bool>;
}

/// The engine's counters, by their keys.
#[derive(Default)]
pub(super) struct Engine(HashMap<String, SubjectCounters>);

impl Model for Engine {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer {
        let mut borrowed: Vec<SubjectCounters> =
            check.keys.iter().map(|key| self.0.remove(&key.key).unwrap_or_default()).collect();
        let mut charges: Vec<Charge<'_>> = check
            .keys
            .iter()
            .zip(&mut borrowed)
            .map(|(key, counters)| Charge { windows: &key.windows, ask: key.ask(), counters })
            .collect();
        let decision = decide(&mut charges, STORE_BUCKETS, now, spend_within);
        self.0.extend(check.keys.iter().map(|key| key.key.clone()).zip(borrowed));
        decision.into()
    }

    fn give_back(&mut self, back: &KeyReturn, now: Timestamp) -> u32 {
        let counters = self.0.get_mut(&back.key).unwrap();
        counters.settle(&back.windows, STORE_BUCKETS, now);
        let dated = Timestamp::from_micros(back.dated_us);
        counters.give_back(&back.windows, STORE_BUCKETS, back.tokens, dated, Some(back.id))
    }

    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Option<bool> {
        let counters = self.0.entry(report.key.clone()).or_default();
        Some(counters.record(&report.windows, STORE_BUCKETS, &report.slices, report.id, now))
    }
}

/// The embedded store, on a clock that is told.
pub(super) struct Embedded {
    store: MemoryStore,
    clock: Arc<AtomicU64>,
    runtime: Runtime,
}

impl Embedded {
    pub(super) fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&clock);
        let now = move || Timestamp::from_micros(time.load(Ordering::Relaxed));
        Self { store: MemoryStore::with_clock(now), clock, runtime: Runtime::new().unwrap() }
    }
}

impl Model for Embedded {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
        self.runtime.block_on(self.store.decide(std::slice::from_ref(check), spend_within)).remove(0)
    }

    fn give_back(&mut self, back: &KeyReturn, now: Timestamp) -> u32 {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
        match self.runtime.block_on(self.store.give_back(std::slice::from_ref(back))).remove(0) {
            Returned::Tokens(tokens) => tokens,
            Returned::Failed(error) => panic!("{error}"),
        }
    }

    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Option<bool> {
        self.clock.store(now.as_micros(), Ordering::Relaxed);
        let recorded = self.runtime.block_on(self.store.record(std::slice::from_ref(report)));
        assert_eq!(recorded, [Recorded::Recorded]);
        None
    }
}
