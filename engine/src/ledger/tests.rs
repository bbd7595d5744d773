use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::counter::{Charge, STORE_BUCKETS, SubjectCounters, decide};
use crate::local::CellsBroken;
use crate::window::{Algorithm, Window};
use crate::wire::StoreError;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECRET: (u64, u64) = (1, 2);
/// 1 %.
const DRIFT: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const TIMEOUT: Duration = Duration::from_millis(20);

/// What the workers of a node share.
#[derive(Default)]
struct Shared {
    cells: RefCell<BTreeMap<u32, (Vec<u8>, u32)>>,
    broken: Cell<bool>,
    reads: Cell<usize>,
}

impl Cells for Shared {
    fn read(&self, slot: u32) -> Result<(Vec<u8>, Option<u32>), CellsBroken> {
        self.reads.set(self.reads.get() + 1);
        if self.broken.get() {
            return Err(CellsBroken);
        }
        let cell = self.cells.borrow().get(&slot).cloned();
        Ok(cell.map_or((Vec::new(), None), |(bytes, version)| (bytes, Some(version))))
    }

    fn write(&self, slot: u32, bytes: &[u8], version: Option<u32>) -> Result<bool, CellsBroken> {
        let mut cells = self.cells.borrow_mut();
        let known = cells.get(&slot).map(|(_, version)| *version);
        if known != version {
            return Ok(false);
        }
        cells.insert(slot, (bytes.to_vec(), version.unwrap_or(0) + 1));
        Ok(true)
    }
}

/// A store whose clock is a minute ahead of the nodes'.
#[derive(Default)]
struct Store {
    subjects: BTreeMap<String, SubjectCounters>,
    decisions: usize,
}

const AHEAD: Duration = Duration::from_secs(60);

impl Store {
    fn decide(&mut self, check: &Check, now: Timestamp) -> CheckAnswer {
        self.decisions += 1;
        let mut counters: Vec<SubjectCounters> =
            check.keys.iter().map(|key| self.subjects.get(&key.key).cloned().unwrap_or_default()).collect();
        let mut charges: Vec<Charge<'_>> = check
            .keys
            .iter()
            .zip(&mut counters)
            .map(|(key, counters)| Charge { windows: &key.windows, ask: key.ask(), counters })
            .collect();
        let decision = decide(&mut charges, STORE_BUCKETS, now.plus(AHEAD), TIMEOUT);
        self.subjects.extend(check.keys.iter().map(|key| key.key.clone()).zip(counters));
        decision.into()
    }

    fn give_back(&mut self, returned: &KeyReturn, now: Timestamp) -> u32 {
        let counters = self.subjects.get_mut(&returned.key).unwrap();
        counters.settle(&returned.windows, STORE_BUCKETS, now.plus(AHEAD));
        let dated = Timestamp::from_micros(returned.dated_us);
        counters.give_back(&returned.windows, STORE_BUCKETS, returned.tokens, dated, Some(returned.id))
    }

    fn remaining(&self, key: &str, window: &Window) -> u32 {
        self.subjects[key].room(std::slice::from_ref(window))
    }
}

/// One worker of a node.
struct Worker<'a> {
    shared: &'a Shared,
    ledger: Ledger,
    refusals: Refusals,
    nodes: NonZeroU32,
}

#[derive(Debug, PartialEq)]
enum Judged {
    Leased,
    Remembered,
    Asked(bool),
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, number: u64) -> Self {
        let (ledger, refusals) = (Ledger::new(SECRET, number, DRIFT), Refusals::new(SECRET));
        Self { shared, ledger, refusals, nodes: NonZeroU32::MIN }
    }

    fn of_nodes(shared: &'a Shared, nodes: u32) -> Self {
        Self { nodes: NonZeroU32::new(nodes).unwrap(), ..Self::new(shared, 1) }
    }

    /// A request whose question, if there is one, is answered at once.
    fn request(&mut self, store: &mut Store, check: &Check, now: Timestamp) -> Judged {
        match self.ledger.spend(self.shared, &mut self.refusals, &[check], now) {
            Spent::Allowed(_) => Judged::Leased,
            Spent::Refused => Judged::Remembered,
            Spent::Awaits(subject) => panic!("nothing is under way about {subject}"),
            Spent::Unknown => {
                let mut check = check.clone();
                self.ledger.ask(self.shared, &mut check, self.nodes, now);
                let answer = store.decide(&check, now);
                self.ledger.hear(self.shared, &check, &answer, now, now);
                self.refusals.remember(&check, &answer, now);
                Judged::Asked(matches!(answer, CheckAnswer::Allowed { .. }))
            }
        }
    }

    /// What is due is asked and answered at once.
    fn look(&mut self, store: &mut Store, now: Timestamp) -> Due {
        let due = self.ledger.take_due(self.shared, self.nodes, now, 64);
        for returned in &due.returns {
            assert_eq!(store.give_back(returned, now), returned.tokens);
        }
        for check in &due.renewals {
            let answer = store.decide(check, now);
            self.ledger.hear(self.shared, check, &answer, now, now);
        }
        due
    }

    /// How many requests in a row are allowed without a question.
    fn leased(&mut self, check: &Check, now: Timestamp) -> usize {
        let mut spend = || self.ledger.spend(self.shared, &mut self.refusals, &[check], now);
        (0..).take_while(|_| matches!(spend(), Spent::Allowed(_))).count()
    }
}

fn window(limit: u32) -> Window {
    Window::new(limit, Duration::from_secs(60), Algorithm::SlidingWindow).unwrap()
}

fn check(keys: &[(&str, u32)]) -> Check {
    Check { keys: keys.iter().map(|(key, limit)| KeyCheck::take(*key, 1, [window(*limit)])).collect() }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + ms * 1000)
}

#[test]
fn a_subject_that_was_asked_for_once_is_spent_from_its_lease() {
    let (shared, mut store) = (Shared::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    assert_eq!(worker.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(worker.leased(&alice, at(10)), 4);
    assert_eq!(store.decisions, 1);
    assert_eq!(store.remaining("alice", &window(6000)), 5995);
}
