//! The embedded store: the engine's own counters behind a lock, for one shim and for tests.
//!
//! A decision takes a few microseconds, so one lock serves; it is held for one check, not for a batch.
//! Subjects that say nothing any more have to go without a timer and without a pause: each has exactly one
//! entry in a queue ordered by when it should be looked at, and each check looks at a few of those due. A check
//! adds at most one subject for each of its keys and looks at two, so the queue cannot grow on what is idle.
//! What is not idle is bounded by a number: past it subjects that were not seen are refused, and the others go on.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lanekeeper_engine::counter::{Charge, Counter, Returns, STORE_BUCKETS, SubjectCounters, decide};
use lanekeeper_engine::units::{Timestamp, micros};
use lanekeeper_engine::window::Window;
use lanekeeper_engine::wire::{
    Check, CheckAnswer, KeyCheck, KeyReturn, KeySpent, Operation, Recorded, Returned, StoreError,
};

use crate::store::{Answering, NotReady, SPENT_WITHIN, Store};

/// Idle subjects looked at for each key of a check.
const LOOKS_PER_KEY: usize = 2;
/// How many subjects are held at most, if nobody says so: quiet ones with two windows take some 750 MB.
pub const MAX_SUBJECTS: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();

/// Counts in this process alone.
pub struct MemoryStore {
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    subjects: Mutex<Subjects>,
}

struct Subjects {
    /// How many there are at most.
    most: NonZeroUsize,
    by_key: HashMap<Arc<str>, Subject>,
    /// When to look at each subject, the soonest on top.
    idle: BinaryHeap<Reverse<(Timestamp, Arc<str>)>>,
}

#[derive(Default)]
struct Subject {
    /// The windows that the counters are of: those last asked for, then those that only an earlier check asked
    /// for, so that two nodes with two policies do not erase each other's counters.
    windows: Vec<Window>,
    counters: SubjectCounters,
}

impl MemoryStore {
    /// An empty store on the machine's clock.
    pub fn new() -> Self {
        Self::with_clock(|| {
            Timestamp::from_micros(micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
        })
    }

    /// An empty store on a clock of the caller's.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let (by_key, idle) = (HashMap::new(), BinaryHeap::new());
        Self { clock: Box::new(clock), subjects: Mutex::new(Subjects { most: MAX_SUBJECTS, by_key, idle }) }
    }

    /// The same, with another number of subjects than [`MAX_SUBJECTS`] at most.
    pub fn with_max_subjects(self, most: NonZeroUsize) -> Self {
        self.lock().most = most;
        self
    }

    /// How many subjects are held, idle ones that were not yet looked at included.
    pub fn subjects(&self) -> usize {
        self.lock().by_key.len()
    }

    fn lock(&self) -> MutexGuard<'_, Subjects> {
        // Should a decision ever panic, its own subjects start afresh; that beats refusing everyone for good.
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn decide<'a>(&'a self, checks: &'a [Check], spend_within: Duration) -> Answering<'a, Vec<CheckAnswer>> {
        let decide = |check| self.lock().decide(check, (self.clock)(), spend_within);
        Box::pin(std::future::ready(checks.iter().map(decide).collect()))
    }

    fn record<'a>(&'a self, reports: &'a [KeySpent]) -> Answering<'a, Vec<Recorded>> {
        let record = |report| self.lock().record(report, (self.clock)());
        Box::pin(std::future::ready(reports.iter().map(record).collect()))
    }

    fn give_back<'a>(&'a self, returns: &'a [KeyReturn]) -> Answering<'a, Vec<Returned>> {
        let mut subjects = self.lock();
        let now = (self.clock)();
        let give_back = |key| Returned::Tokens(subjects.give_tokens_back(key, now));
        Box::pin(std::future::ready(returns.iter().map(give_back).collect()))
    }

    fn reset<'a>(&'a self, keys: &'a [String]) -> Answering<'a, Result<(), StoreError>> {
        let mut subjects = self.lock();
        let seen = (self.clock)();
        for key in keys {
            // it goes when it is due to be looked at: it has an entry in that queue
            if let Some(subject) = subjects.by_key.get_mut(key.as_str()) {
                let returns = Returns::none_until(seen.plus(SPENT_WITHIN));
                let counters = SubjectCounters { seen, counters: Vec::new(), returns };
                *subject = Subject { windows: Vec::new(), counters };
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn ready(&self) -> Answering<'_, Result<(), NotReady>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Subjects {
    fn decide(&mut self, check: &Check, now: Timestamp, spend_within: Duration) -> CheckAnswer {
        self.forget_idle(now, check.keys.len() * LOOKS_PER_KEY);
        if !self.has_room_for(check) {
            return CheckAnswer::Failed { error: StoreError::Full };
        }
        let mut counters: Vec<SubjectCounters> =
            check.keys.iter().map(|key| self.borrow(&key.key, &key.windows)).collect();
        let mut charges: Vec<Charge<'_>> = check
            .keys
            .iter()
            .zip(&mut counters)
            .map(|(key, counters)| Charge { windows: &key.windows, ask: key.ask(), counters })
            .collect();
        let decision = decide(&mut charges, STORE_BUCKETS, now, spend_within);
        for (key, counters) in check.keys.iter().zip(counters) {
            self.give_back(&key.key, &key.windows, counters);
        }
        decision.into()
    }

    fn record(&mut self, report: &KeySpent, now: Timestamp) -> Recorded {
        self.forget_idle(now, LOOKS_PER_KEY);
        if !self.by_key.contains_key(report.key.as_str()) && self.by_key.len() >= self.most.get() {
            return Recorded::NotRecorded(StoreError::Full);
        }
        let mut counters = self.borrow(&report.key, &report.windows);
        counters.record(&report.windows, STORE_BUCKETS, &report.slices, report.id, now);
        self.give_back(&report.key, &report.windows, counters);
        Recorded::Recorded
    }

    /// Whether all could be held whom `check` would charge.
    fn has_room_for(&self, check: &Check) -> bool {
        let is_new =
            |key: &&KeyCheck| key.operation == Operation::Take && !self.by_key.contains_key(key.key.as_str());
        let new = check.keys.iter().filter(is_new).count();
        new == 0 || self.by_key.len() + new <= self.most.get()
    }

    fn give_tokens_back(&mut self, key: &KeyReturn, now: Timestamp) -> u32 {
        let Some(subject) = self.by_key.get_mut(key.key.as_str()) else { return 0 };
        let mut counters = subject.borrow(&key.windows);
        counters.settle(&key.windows, STORE_BUCKETS, now);
        let dated = Timestamp::from_micros(key.dated_us);
        let given = counters.give_back(&key.windows, STORE_BUCKETS, key.tokens, dated, Some(key.id));
        subject.give_back(&key.windows, counters);
        given
    }

    /// Takes a subject's counters out, in the order of `windows`; fresh ones for a subject that is not known.
    fn borrow(&mut self, key: &str, windows: &[Window]) -> SubjectCounters {
        self.by_key.get_mut(key).map(|subject| subject.borrow(windows)).unwrap_or_default()
    }

    /// Puts a subject's counters back; one that is new and has used nothing is not kept.
    fn give_back(&mut self, key: &str, windows: &[Window], counters: SubjectCounters) {
        if let Some(subject) = self.by_key.get_mut(key) {
            return subject.give_back(windows, counters);
        }
        let (seen, subject) = (counters.seen, Subject::new(windows, counters));
        let idle_at = subject.idle_at();
        if idle_at > seen {
            let key: Arc<str> = key.into();
            self.by_key.insert(Arc::clone(&key), subject);
            self.idle.push(Reverse((idle_at, key)));
        }
    }

    /// Looks at no more than `most` subjects that are due: forgets them, or notes when to look again.
    fn forget_idle(&mut self, now: Timestamp, most: usize) {
        for _ in 0..most {
            let Some(key) = self.next_due(now) else { return };
            let Some(subject) = self.by_key.get(&key) else { continue };
            let idle_at = subject.idle_at();
            if idle_at <= now {
                self.by_key.remove(&key);
            } else {
                self.idle.push(Reverse((idle_at, key)));
            }
        }
    }

    fn next_due(&mut self, now: Timestamp) -> Option<Arc<str>> {
        let Reverse((due, _)) = self.idle.peek()?;
        if *due > now {
            return None;
        }
        self.idle.pop().map(|Reverse((_, key))| key)
    }
}

impl Subject {
    fn new(windows: &[Window], counters: SubjectCounters) -> Self {
        Self { windows: windows.to_vec(), counters }
    }

    fn borrow(&mut self, windows: &[Window]) -> SubjectCounters {
        let counters = windows.iter().map(|window| self.remove(window)).collect();
        SubjectCounters { seen: self.counters.seen, counters, returns: mem::take(&mut self.counters.returns) }
    }

    fn remove(&mut self, window: &Window) -> Counter {
        match self.windows.iter().position(|kept| kept.unit() == window.unit()) {
            Some(at) => {
                self.windows.remove(at);
                self.counters.counters.remove(at)
            }
            None => Counter::fresh(window),
        }
    }

    fn give_back(&mut self, windows: &[Window], counters: SubjectCounters) {
        self.counters.seen = counters.seen;
        self.counters.returns = counters.returns;
        self.windows.splice(0..0, windows.iter().cloned());
        self.counters.counters.splice(0..0, counters.counters);
    }

    fn idle_at(&self) -> Timestamp {
        self.counters.idle_at(&self.windows, STORE_BUCKETS)
    }
}
