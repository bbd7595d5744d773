use super::*;
use crate::wire::{BreakerReport, MAX_REPORTS};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SECOND: Duration = Duration::from_secs(1);

impl Node {
    fn due(&self, worker: usize, reports: &mut Reports) -> Vec<BreakerReport> {
        reports.due(&self.workers[worker], &self.shared, self.now)
    }

    /// What it says in so many seconds, in each of which it has ten messages: when, the state, and since when.
    fn said(&mut self, worker: usize, reports: &mut Reports, seconds: u32) -> Vec<(u32, State, Option<u64>)> {
        let mut said = Vec::new();
        for second in 0..seconds {
            for _ in 0..10 {
                let due = self.due(worker, reports);
                said.extend(due.into_iter().map(|report| (second, report.state, report.for_ms)));
                self.pass(SECOND / 10);
            }
        }
        said
    }
}

#[test]
fn what_is_closed_is_said_once_a_minute_and_what_is_open_every_ten_seconds() {
    let mut node = Node::new(1, settings());
    let mut reports = Reports::default();
    assert_eq!(node.said(0, &mut reports, 2), [], "nobody has called");
    node.call(0, SUCCESS);
    let closed = State::Closed;
    assert_eq!(node.said(0, &mut reports, 121), [(0, closed, None), (60, closed, None), (120, closed, None)]);
    node.trip();
    let open = |second: u32| (second, State::Open, Some(u64::from(second) * 1000));
    assert_eq!(node.said(0, &mut reports, 21), [open(0), open(10), open(20)]);
}

#[test]
fn what_has_closed_is_said_every_ten_seconds_for_a_minute() {
    let mut node = Node::new(1, Settings { half_open_calls: 1, ..settings() });
    let mut reports = Reports::default();
    node.trip();
    node.pass(6 * SECOND);
    let probe = node.let_in(0);
    node.pass(QUICK);
    node.leave(0, probe, SUCCESS);
    let closed = |second: u32| (second, State::Closed, Some(u64::from(second) * 1000));
    let expected = [0, 10, 20, 30, 40, 50, 60, 120].map(closed);
    assert_eq!(node.said(0, &mut reports, 121), expected);
}

#[test]
fn a_change_is_said_within_a_second_under_the_owners_name_and_a_higher_generation() {
    let mut node = Node::new(1, Settings { half_open_calls: 1, ..settings() });
    let mut reports = Reports::default();
    node.call(0, SUCCESS);
    let first = node.due(0, &mut reports).remove(0);
    let named = (first.name.as_str(), first.state, first.generation, first.for_ms);
    assert_eq!(named, (OWNER, State::Closed, 0, None));
    node.calls(0, 19, FAILURE);
    assert_eq!(node.due(0, &mut reports), [], "not twice within a second");
    node.pass(SECOND);
    let tripped = node.due(0, &mut reports).remove(0);
    assert_eq!((tripped.state, tripped.for_ms), (State::Open, Some(1000)));
    node.pass(5 * SECOND);
    let probe = node.let_in(0);
    node.pass(QUICK);
    node.leave(0, probe, SUCCESS);
    node.pass(SECOND);
    let closed = node.due(0, &mut reports).remove(0);
    assert_eq!((closed.state, closed.for_ms), (State::Closed, Some(1000)));
    assert!(first.generation < tripped.generation && tripped.generation < closed.generation);
}

#[test]
fn a_worker_in_a_hurry_need_not_wait_for_the_next_look() {
    let mut node = Node::new(1, settings());
    let mut reports = Reports::default();
    node.call(0, SUCCESS);
    assert_eq!(node.due(0, &mut reports).len(), 1);
    node.calls(0, 19, FAILURE);
    reports.hurry();
    assert_eq!(node.due(0, &mut reports).remove(0).state, State::Open);
    reports.hurry();
    assert_eq!(node.due(0, &mut reports), [], "nothing is said twice for that");
}

#[test]
fn a_worker_that_nobody_calls_says_what_another_one_changed() {
    let mut node = Node::new(2, settings());
    let mut idle = Reports::default();
    node.call(1, SUCCESS);
    assert_eq!(node.said(1, &mut idle, 1), [(0, State::Closed, None)]);
    node.trip();
    node.pass(59 * SECOND);
    assert_eq!(node.said(1, &mut idle, 1), [(0, State::Open, Some(59_000))]);
    assert_eq!(node.state(1), State::Closed, "it has not seen it");
    // and it goes on with what it has seen when it cannot look
    node.shared.broken.set(true);
    node.pass(10 * SECOND);
    assert_eq!(node.said(1, &mut idle, 1), [(0, State::Closed, None)]);
}

#[test]
fn the_open_ones_go_first_when_there_are_more_than_a_message_holds() {
    let mut node = Node::new(1, settings());
    let chance = || 0;
    for number in 0..=2 * MAX_REPORTS {
        let owner = format!("c{number:03}");
        for _ in 0..if number == 300 { 20 } else { 1 } {
            let Entry::Pass(Some(permit)) =
                node.workers[0].enter(&node.shared, &owner, &node.settings, node.now, &chance)
            else {
                panic!("let in")
            };
            node.workers[0].leave(&node.shared, permit, FAILURE, node.now, &chance);
        }
    }
    let mut reports = Reports::default();
    let mut names: Vec<String> = Vec::new();
    for expected in [MAX_REPORTS, MAX_REPORTS, 1, 0] {
        let due = node.due(0, &mut reports);
        assert_eq!(due.len(), expected);
        names.extend(due.into_iter().map(|report| report.name));
        node.pass(SECOND);
    }
    assert_eq!(names[0], "c300");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 2 * MAX_REPORTS + 1);
}
