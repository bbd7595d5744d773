use std::time::Duration;

use super::*;
use crate::counter::{Charge, STORE_BUCKETS, SubjectCounters, decide};
use crate::local::MemoryCells;
use crate::window::{Algorithm, Window};
use crate::wire::StoreError;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
fn the_workers_of_a_node_spend_one_lease() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut workers: Vec<Worker<'_>> = (0..4).map(|number| Worker::new(&shared, number)).collect();
    let alice = check(&[("alice", 6000)]);
    workers[0].request(&mut store, &alice, at(0));
    let leased: usize = workers.iter_mut().rev().map(|worker| worker.leased(&alice, at(1))).sum();
    assert_eq!((leased, store.decisions), (4, 1));
}

#[test]
fn what_one_worker_was_refused_the_others_know_until_the_moment_that_was_named() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let (mut first, mut second) = (Worker::new(&shared, 1), Worker::new(&shared, 2));
    let alice = check(&[("alice", 1)]);
    assert_eq!(first.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(first.request(&mut store, &alice, at(1)), Judged::Asked(false));
    assert_eq!(second.request(&mut store, &alice, at(2)), Judged::Remembered);
    assert_eq!(second.request(&mut store, &alice, at(10_000)), Judged::Remembered);
    assert_eq!(
        second.request(&mut store, &alice, at(10_001)),
        Judged::Asked(false),
        "ten seconds are enough"
    );
}

#[test]
fn a_pool_that_runs_low_is_renewed_by_one_worker_and_nobody_waits() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 60_000)]);
    worker.request(&mut store, &alice, at(0));
    for request in 1..2000 {
        let now = at(request * 10);
        assert_eq!(worker.request(&mut store, &alice, now), Judged::Leased, "request {request}");
        worker.look(&mut store, now);
    }
    assert!(store.decisions < 40, "{} questions", store.decisions);
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
fn near_the_limit_what_is_left_goes_back_before_its_end_and_far_from_it_nothing() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let (near, far) = (check(&[("near", 400)]), check(&[("far", 6000)]));
    for request in 0..100 {
        worker.request(&mut store, &near, at(request));
    }
    worker.request(&mut store, &far, at(100));
    let mut returned: Vec<String> = Vec::new();
    for ms in (100..60_000).step_by(20) {
        let due = worker.look(&mut store, at(ms));
        returned.extend(due.returns.into_iter().map(|back| back.key));
    }
    assert!(!returned.is_empty() && returned.iter().all(|key| key == "near"), "{returned:?}");
    assert_eq!(store.remaining("near", &window(400)), 300, "all that was not spent is there again");
    assert_eq!(worker.leased(&near, at(60_000)), 0);
}

#[test]
fn a_lease_that_was_used_is_renewed_ahead_of_its_end_and_one_that_was_not_ends() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let (quiet, gone) = (check(&[("quiet", 6000)]), check(&[("gone", 6000)]));
    worker.request(&mut store, &quiet, at(0));
    worker.request(&mut store, &gone, at(0));
    let mut renewed = 0;
    for ms in (0..480_000).step_by(20) {
        if ms % 20_000 == 0 && ms > 0 {
            assert_eq!(worker.request(&mut store, &quiet, at(ms)), Judged::Leased, "at {ms} ms");
        }
        renewed += worker.look(&mut store, at(ms)).renewals.len();
    }
    assert!((3..=8).contains(&renewed), "{renewed} renewals in eight minutes");
    assert_eq!(worker.request(&mut store, &gone, at(480_000)), Judged::Asked(true));
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
fn without_cells_a_worker_holds_its_leases_alone() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    shared.broken.set(true);
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    assert_eq!(worker.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(worker.leased(&alice, at(1)), 4);
}

#[test]
fn bytes_of_another_make_are_an_empty_pool() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    for slot in 0..super::pool::SLOTS {
        shared.slots.borrow_mut().insert(slot, (vec![0xff; 300], 1));
    }
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 6000)]);
    assert_eq!(worker.request(&mut store, &alice, at(0)), Judged::Asked(true));
    assert_eq!(worker.leased(&alice, at(1)), 4);
}

#[test]
fn a_chunk_spares_the_shared_map() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let alice = check(&[("alice", 60_000)]);
    for request in 0..2000 {
        worker.request(&mut store, &alice, at(request * 10));
        worker.look(&mut store, at(request * 10));
    }
    let before = shared.reads.get();
    for request in 2000..4000 {
        worker.request(&mut store, &alice, at(request * 10));
        worker.look(&mut store, at(request * 10));
    }
    let reads = shared.reads.get() - before;
    assert!(reads < 600, "{reads} reads for 2000 requests");
}

#[test]
fn whoever_was_unused_for_longest_makes_way_and_nothing_is_spent_twice() {
    let (shared, mut store) = (MemoryCells::default(), Store::default());
    let mut worker = Worker::new(&shared, 1);
    let subjects = u32::try_from(MOST).unwrap() + 1000;
    let of = |number: u32| check(&[(&format!("user{number}"), 6000)]);
    for number in 0..subjects {
        assert_eq!(worker.request(&mut store, &of(number), at(u64::from(number) / 100)), Judged::Asked(true));
    }
    assert_eq!(worker.ledger.len(), MOST);
    for number in (0..subjects).step_by(997) {
        let leased = worker.leased(&of(number), at(1100));
        assert!(leased <= 4, "user{number} spent {leased} of 4");
    }
}

mod property {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[derive(Clone, Debug)]
    enum Step {
        Pass {
            ms: u64,
        },
        Request {
            worker: usize,
            subject: usize,
            times: usize,
        },
        Look {
            worker: usize,
        },
        /// The worker's VM ends; the pool stays.
        Crash {
            worker: usize,
        },
        /// The node ends.
        Restart {
            node: usize,
        },
    }

    const NODES: usize = 2;
    const WORKERS: usize = 4;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => select(vec![0, 1, 20, 100, 600, 7000]).prop_map(|ms| Step::Pass { ms }),
            8 => (0..WORKERS, 0..2usize, select(vec![1, 2, 10, 60]))
                .prop_map(|(worker, subject, times)| Step::Request { worker, subject, times }),
            4 => (0..WORKERS).prop_map(|worker| Step::Look { worker }),
            1 => (0..WORKERS).prop_map(|worker| Step::Crash { worker }),
            1 => (0..NODES).prop_map(|node| Step::Restart { node }),
        ];
        proptest::collection::vec(step, 1..120)
    }

    /// Admissions of each subject, and whether any ten seconds hold more than the limit.
    #[derive(Default)]
    struct Log([Vec<u64>; 2]);

    impl Log {
        fn admit(&mut self, subject: usize, now: u64, limit: usize) -> Result<(), TestCaseError> {
            let log = &mut self.0[subject];
            log.push(now);
            let within = log.iter().filter(|at| **at + 10_000 > now).count();
            prop_assert!(within <= limit, "{within} of {limit} within ten seconds before {now}");
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(target_arch = "wasm32") { 16 } else { 256 }))]

        #[test]
        fn no_trailing_window_is_over_its_limit_over_all_workers_of_all_nodes(steps in steps(), limit in select(vec![5_u32, 100, 900])) {
            let per = Duration::from_secs(10);
            let window = Window::new(limit, per, Algorithm::SlidingWindow).unwrap();
            let checks = ["alice", "bob"].map(|key| Check { keys: vec![KeyCheck::take(key, 1, [window.clone()])] });
            let shared: [MemoryCells; NODES] = Default::default();
            let mut workers: Vec<Worker<'_>> =
                (0..WORKERS).map(|number| Worker::new(&shared[number % NODES], number as u64)).collect();
            let (mut store, mut log, mut now, mut drawn) = (Store::default(), Log::default(), 0, 100);
            let mut begin = |node: usize| {
                drawn += 1;
                Worker::new(&shared[node], drawn)
            };
            for step in steps {
                match step {
                    Step::Pass { ms } => now += ms,
                    Step::Request { worker, subject, times } => {
                        for _ in 0..times {
                            let judged = workers[worker].request(&mut store, &checks[subject], at(now));
                            if matches!(judged, Judged::Leased | Judged::Asked(true)) {
                                log.admit(subject, now, limit as usize)?;
                            }
                        }
                    }
                    Step::Look { worker } => {
                        workers[worker].look(&mut store, at(now));
                    }
                    Step::Crash { worker } => {
                        workers[worker] = begin(worker % NODES);
                    }
                    Step::Restart { node } => {
                        shared[node].slots.borrow_mut().clear();
                        for worker in (node..WORKERS).step_by(NODES) {
                            workers[worker] = begin(node);
                        }
                    }
                }
            }
        }
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
