use std::time::Duration;

use super::*;
use crate::counter::{Charge, STORE_BUCKETS, SubjectCounters, decide};
use crate::local::MemoryCells;
use crate::window::{Algorithm, Window};
use crate::wire::StoreError;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod property;
mod sharing;
mod upkeep;

const SECRET: (u64, u64) = (1, 2);
/// 1 %.
const DRIFT: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const TIMEOUT: Duration = Duration::from_millis(20);

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
    shared: &'a MemoryCells,
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
    fn new(shared: &'a MemoryCells, number: u64) -> Self {
        let (ledger, refusals) = (Ledger::new(SECRET, number, DRIFT), Refusals::new(SECRET));
        Self { shared, ledger, refusals, nodes: NonZeroU32::MIN }
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
            let is_late = returned.dated_us < now.plus(AHEAD).as_micros();
            assert_eq!(store.give_back(returned, now), if is_late { 0 } else { returned.tokens });
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
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    assert_eq!(worker.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(worker.leased(&alice, at(10)), 4);
    assert_eq!(store.decisions, 1);
    assert_eq!(store.remaining("alice", &window(6000)), 5995);
}

#[test]
fn what_is_shown_counts_down_by_one_with_each_request() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    worker.request(&mut store, &alice, at(0));
    for remaining in [5998, 5997, 5996, 5995] {
        let Spent::Allowed(answers) = worker.ledger.spend(&shared, &mut worker.refusals, &[&alice], at(1))
        else {
            panic!("the lease is spent")
        };
        let CheckAnswer::Allowed { keys } = &answers[0] else { panic!("it is allowed") };
        assert_eq!((keys[0].granted, keys[0].windows[0].remaining), (1, remaining));
    }
}

#[test]
fn no_token_is_spent_after_its_end_by_any_clock_that_runs_within_bounds() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    worker.request(&mut store, &alice, at(0));
    // two minutes less one part in 512
    let ends = at(0).plus(Duration::from_micros(120_000_000 - 234_375));
    let just_before = Timestamp::from_micros(ends.as_micros() - 1);
    let mut twin = Worker::new(&shared, 2);
    assert_eq!((worker.leased(&alice, ends), twin.leased(&alice, ends)), (0, 0));
    assert_eq!(twin.leased(&alice, just_before), 4);
}

#[test]
fn several_keys_are_spent_together_or_not_at_all() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let both = check(&[("alice", 6000), ("shop", 6000)]);
    let (alice, shop) = (check(&[("alice", 6000)]), check(&[("shop", 6000)]));
    worker.request(&mut store, &alice, at(0));
    assert_eq!(worker.leased(&both, at(1)), 0);
    assert_eq!(worker.leased(&alice, at(1)), 4, "what was taken for alice is back");
    worker.request(&mut store, &both, at(2));
    assert_eq!((worker.leased(&both, at(2)), worker.leased(&shop, at(2))), (4, 0));
    let two = [&alice, &shop];
    assert_eq!(worker.ledger.spend(&shared, &mut worker.refusals, &two, at(3)), Spent::Unknown);
}

#[test]
fn while_a_question_is_under_way_others_wait_for_its_answer_if_they_may_hope_for_a_lease() {
    let shared = MemoryCells::default();
    let mut worker = Worker::new(&shared, 1);
    let (alice, subject) =
        (check(&[("alice", 6000)]), refusals::subject(SECRET, &check(&[("alice", 6000)]).keys[0]));
    let mut asked = alice.clone();
    let spend =
        |worker: &mut Worker<'_>| worker.ledger.spend(&shared, &mut worker.refusals, &[&alice], at(1));
    worker.ledger.ask(&shared, &mut asked, worker.nodes, at(0));
    assert_eq!(spend(&mut worker), Spent::Awaits(subject));
    assert_eq!(worker.ledger.unheard(&asked), [subject]);
    assert_eq!(spend(&mut worker), Spent::Unknown);
    // of so small a limit nothing is leased, and whoever waited for that would wait in a line
    let (few, mut store) = (check(&[("few", 3)]), Store::default());
    worker.request(&mut store, &few, at(1));
    worker.ledger.ask(&shared, &mut few.clone(), worker.nodes, at(2));
    assert_eq!(worker.ledger.spend(&shared, &mut worker.refusals, &[&few], at(2)), Spent::Unknown);
}

#[test]
fn a_check_that_only_looks_at_a_key_is_asked_as_it_is() {
    let shared = MemoryCells::default();
    let mut worker = Worker::new(&shared, 1);
    let mut peek = check(&[("alice", 6000), ("bob", 6000)]);
    peek.keys[1] = peek.keys[1].clone().peek();
    let before = peek.clone();
    assert_eq!(worker.ledger.spend(&shared, &mut worker.refusals, &[&peek], at(0)), Spent::Unknown);
    worker.ledger.ask(&shared, &mut peek, worker.nodes, at(0));
    assert_eq!(peek, before);
}

#[test]
fn an_answer_that_came_too_late_for_its_request_still_brings_its_lease_and_one_after_its_end_nothing() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    for (key, heard_ms, leased) in [("alice", 10_000, 4), ("bob", 121_000, 0)] {
        let mut asked = check(&[(key, 6000)]);
        worker.ledger.ask(&shared, &mut asked, worker.nodes, at(0));
        let answer = store.decide(&asked, at(0));
        worker.ledger.hear(&shared, &asked, &answer, at(0), at(heard_ms));
        assert_eq!(worker.leased(&check(&[(key, 6000)]), at(heard_ms)), leased, "{key}");
    }
}

#[test]
fn a_failed_check_leaves_nothing_behind() {
    let shared = MemoryCells::default();
    let mut worker = Worker::new(&shared, 1);
    let mut asked = check(&[("alice", 6000)]);
    worker.ledger.ask(&shared, &mut asked, worker.nodes, at(0));
    let failed = CheckAnswer::Failed { error: StoreError::Timeout };
    assert_eq!(worker.ledger.hear(&shared, &asked, &failed, at(0), at(1)).len(), 1);
    assert_eq!(worker.leased(&check(&[("alice", 6000)]), at(1)), 0);
}

#[test]
fn whoever_was_unused_for_longest_makes_way_and_nothing_is_spent_twice() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let most = u32::try_from(MOST).unwrap();
    let subjects = most + 1000;
    let of = |number: u32| check(&[(&format!("user{number}"), 6000)]);
    for number in 0..subjects {
        let now = at(u64::from(number) / 100);
        assert_eq!(worker.request(&mut store, &of(number), now), Judged::Asked(true));
        if number + 1 == most {
            // the first of all is in use once more before somebody has to make way
            worker.request(&mut store, &of(0), now);
        }
    }
    assert_eq!(worker.ledger.len(), MOST);
    let is_held = |number| {
        let subject = refusals::subject(SECRET, &of(number).keys[0]);
        worker.ledger.holdings.get(subject).is_some()
    };
    assert_eq!([0, 1, 1000, 1001].map(is_held), [true, false, false, true]);
    for number in (0..subjects).step_by(997) {
        let leased = worker.leased(&of(number), at(1100));
        assert!(leased <= 4, "user{number} spent {leased} of 4");
    }
}

#[test]
fn says_what_the_store_said_last_of_a_subject_to_whoever_has_not_heard_it() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let (mut worker, other) = (Worker::new(&shared, 1), Worker::new(&shared, 2));
    let asked = check(&[("alice", 100)]);
    let key = &asked.keys[0];
    let last = |worker: &Worker<'_>, since| worker.ledger.last_answer(&shared, key, since);
    assert_eq!(last(&worker, at(0)), None);
    worker.request(&mut store, &asked, at(1_000));
    let said = last(&worker, at(0)).unwrap();
    assert_eq!(said.asked_at, at(1_000));
    assert_eq!(said.windows[0].remaining, store.remaining("alice", &key.windows[0]));
    assert_eq!(last(&worker, at(1_000)), None);
    assert_eq!(last(&other, Timestamp::default()), Some(said), "whichever worker has heard it");
    let reads = shared.reads.get();
    assert_eq!((last(&worker, at(1_000)), last(&other, at(0))), (None, None));
    assert_eq!(shared.reads.get(), reads, "who has heard nothing since does not look");
}

#[test]
fn a_refusal_is_an_answer_too() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let asked = check(&[("alice", 1)]);
    for ms in [1_000, 2_000] {
        worker.request(&mut store, &asked, at(ms));
    }
    let said = worker.ledger.last_answer(&shared, &asked.keys[0], at(1_000)).unwrap();
    assert_eq!((said.asked_at, said.windows[0].remaining), (at(2_000), 0));
}
