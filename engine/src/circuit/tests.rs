use super::*;
use crate::local::MemoryCells;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SETTINGS: CircuitSettings =
    CircuitSettings { failures: 3, slow: Duration::from_millis(10), probe_every: Duration::from_secs(1) };

/// Workers of one node.
struct Node<const N: usize> {
    cells: MemoryCells,
    workers: [Circuit; N],
}

impl<const N: usize> Node<N> {
    fn new() -> Self {
        Self { cells: MemoryCells::default(), workers: [(); N].map(|()| Circuit::new("store", SETTINGS)) }
    }

    fn asks(&mut self, worker: usize, ms: u64) -> bool {
        self.workers[worker].lets_through(&self.cells, at(ms))
    }

    /// The store answers at `ms` what it was asked `after` that much before.
    fn answers(&mut self, worker: usize, ms: u64, after: u64) {
        self.workers[worker].answered(&self.cells, at(ms - after), at(ms));
    }

    fn fails(&mut self, worker: usize, ms: u64) {
        self.workers[worker].failed(&self.cells, at(ms), at(ms));
    }

    fn phase(&self, worker: usize) -> Phase {
        self.workers[worker].phase()
    }

    fn turns(&mut self) -> Vec<(Phase, Phase)> {
        let turns = self.workers.iter_mut().filter_map(Circuit::take_turn);
        turns.map(|turn| (turn.from, turn.to)).collect()
    }

    /// An open circuit at 100 ms.
    fn opened() -> Self {
        let mut node = Self::new();
        (0..3).for_each(|n| node.fails(n % N, 100));
        assert_eq!(node.turns(), [(Phase::Closed, Phase::Open)]);
        node
    }

    /// One that recovers since 1101 ms.
    fn recovering() -> Self {
        let mut node = Self::opened();
        assert!(node.asks(0, 1100));
        node.answers(0, 1101, 1);
        assert_eq!(node.phase(0), Phase::Recovering);
        node
    }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

#[test]
fn opens_at_the_third_failure_in_a_row() {
    let mut node = Node::<1>::new();
    (0..2).for_each(|_| node.fails(0, 100));
    node.answers(0, 100, 10);
    (0..2).for_each(|_| node.fails(0, 100));
    assert!(node.asks(0, 100) && node.workers[0].is_closed());
    node.fails(0, 100);
    assert!(!node.asks(0, 1099) && !node.workers[0].is_closed());
}

#[test]
fn slow_answers_count_as_failures() {
    let mut node = Node::<1>::new();
    (0..3).for_each(|_| node.answers(0, 100, 11));
    assert!(!node.asks(0, 100));
}

#[test]
fn failures_count_whichever_worker_meets_them_and_the_others_know_soon() {
    let mut node = Node::<4>::new();
    assert!((0..4).all(|worker| node.asks(worker, 90)));
    (0..3).for_each(|worker| node.fails(worker, 100));
    assert!(node.asks(3, 109), "its copy is not old");
    assert!((0..4).all(|worker| !node.asks(worker, 120)));
    assert_eq!(node.turns(), [(Phase::Closed, Phase::Open)], "one worker has made the change");
}

#[test]
fn an_answer_to_one_worker_ends_the_row_of_all() {
    let mut node = Node::<2>::new();
    (0..2).for_each(|_| node.fails(0, 100));
    assert!(node.asks(1, 100));
    node.answers(1, 101, 1);
    (0..2).for_each(|_| node.fails(0, 102));
    assert!(node.workers[0].is_closed());
}

#[test]
fn a_store_that_is_well_costs_one_read_in_twenty_milliseconds_and_no_write() {
    let mut node = Node::<1>::new();
    for ms in 100..300 {
        assert!(node.asks(0, ms));
        node.answers(0, ms, 1);
    }
    assert_eq!((node.cells.reads.get(), node.cells.writes.get()), (10, 0));
}

#[test]
fn one_question_of_all_workers_probes_each_second() {
    let mut node = Node::<4>::opened();
    let probes = |node: &mut Node<4>, ms| (0..4).filter(|worker| node.asks(*worker, ms)).count();
    assert_eq!([1099, 1100, 1100].map(|ms| probes(&mut node, ms)), [0, 1, 0]);
    node.fails(0, 1120);
    assert_eq!([2119, 2120, 2121].map(|ms| probes(&mut node, ms)), [0, 1, 0]);
    assert_eq!(probes(&mut node, 3119), 0);
    assert_eq!(probes(&mut node, 3120), 1, "a probe that never ends is followed by another");
}

#[test]
fn what_no_request_waits_for_is_no_probe_and_learns_of_the_change_all_the_same() {
    let mut node = Node::<2>::opened();
    let upkeep = |node: &mut Node<2>, ms| node.workers[1].lets_upkeep_through(&node.cells, at(ms));
    assert!(!upkeep(&mut node, 1100) && !upkeep(&mut node, 1120));
    assert!(node.asks(0, 1130) && !upkeep(&mut node, 1140));
    node.answers(0, 1141, 1);
    assert!(!upkeep(&mut node, 1160));
    assert_eq!(node.phase(1), Phase::Recovering);
    assert!(upkeep(&mut node, 1541));
}

#[test]
fn what_was_asked_before_the_probe_neither_closes_it_nor_opens_it_again() {
    let mut node = Node::<1>::opened();
    node.answers(0, 101, 1);
    assert_eq!(node.phase(0), Phase::Open);
    assert!(node.asks(0, 1100));
    node.answers(0, 1105, 6);
    assert_eq!(node.phase(0), Phase::Probing);
    node.answers(0, 1120, 30);
    assert_eq!(node.phase(0), Phase::Probing);
    node.answers(0, 1106, 6);
    assert_eq!(node.phase(0), Phase::Recovering);
    node.answers(0, 1150, 60);
    assert_eq!(node.phase(0), Phase::Recovering);
}

#[test]
fn a_store_that_is_back_is_asked_little_by_little() {
    let mut node = Node::<2>::recovering();
    let share = |node: &mut Node<2>, from: u64| {
        // a question each quarter of a millisecond, from either worker in turn
        let asked = (0..400).filter(|n| {
            let now = Timestamp::from_micros(from * 1000 + n * 250);
            node.workers[usize::from(n % 2 == 1)].lets_through(&node.cells, now)
        });
        asked.count()
    };
    let shares = [1101, 1201, 1301, 1401].map(|from| share(&mut node, from));
    assert_eq!(shares, [49, 150, 250, 350]);
    assert_eq!(share(&mut node, 1501), 400);
    assert_eq!(node.phase(0), Phase::Closed);
}

#[test]
fn a_failure_while_it_recovers_opens_it_again() {
    let mut node = Node::<2>::recovering();
    node.turns();
    assert!(!node.asks(1, 1102));
    node.fails(1, 1110);
    assert!(!node.asks(0, 1121) && !node.asks(0, 2109));
    assert_eq!(node.turns(), [(Phase::Recovering, Phase::Open)]);
    assert!(node.asks(0, 2110));
}

#[test]
fn a_worker_that_begins_anew_knows_at_once() {
    let mut node = Node::<1>::opened();
    node.workers = [Circuit::new("store", SETTINGS)];
    assert!(!node.asks(0, 101));
}

#[test]
fn each_store_has_a_circuit_of_its_own() {
    let mut node = Node::<1>::opened();
    node.workers = [Circuit::new("another", SETTINGS)];
    assert!(node.asks(0, 101));
}

#[test]
fn without_shared_data_each_worker_goes_by_what_it_has_seen_itself() {
    let mut node = Node::<2>::new();
    node.cells.broken.set(true);
    (0..3).for_each(|_| node.fails(0, 100));
    assert!(!node.asks(0, 101) && node.asks(1, 101));
    assert!(node.asks(0, 1100) && !node.asks(0, 1101));
    node.answers(0, 1101, 1);
    assert!(node.asks(0, 1501));
    assert_eq!(node.turns(), [(Phase::Recovering, Phase::Closed)]);
}

#[test]
fn whoever_loses_a_race_sees_what_the_other_made_of_it() {
    let mut node = Node::<1>::opened();
    node.cells.races.set(3);
    assert!(node.asks(0, 1100));
    assert_eq!(node.phase(0), Phase::Probing);
}

#[test]
fn is_in_doubt_from_the_first_failure_until_an_answer_in_time() {
    let mut node = Node::<2>::new();
    assert!(!node.workers[0].is_in_doubt());
    node.fails(0, 100);
    assert_eq!(
        [0, 1].map(|worker| node.workers[worker].is_in_doubt()),
        [true, false],
        "the other has not looked"
    );
    node.answers(0, 110, 1);
    assert!(!node.workers[0].is_in_doubt());
}
