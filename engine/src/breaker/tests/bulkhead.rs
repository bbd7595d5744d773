use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MOMENT: Duration = Duration::from_millis(20);

fn node(workers: u64, most: u32) -> Node {
    Node::new(workers, Settings { max_concurrent: NonZeroU32::new(most), ..settings() })
}

/// Lets in as many as may be, through all workers in turn.
fn fill(node: &mut Node) -> Vec<(usize, Permit)> {
    let workers = node.workers.len();
    let mut held = Vec::new();
    let mut refused = 0;
    while refused < workers {
        for worker in 0..workers {
            match node.try_enter(worker) {
                Some(permit) => held.push((worker, permit)),
                None => refused += 1,
            }
        }
    }
    held
}

#[test]
fn as_many_calls_go_as_may_be_over_all_workers() {
    for (workers, most) in [(1, 1), (1, 200), (4, 3), (4, 10)] {
        let mut node = node(workers, most);
        let mut held = fill(&mut node);
        // what a worker does not use comes free in a moment
        for _ in 0..3 {
            node.pass(Duration::from_millis(100));
            (0..node.workers.len()).for_each(|worker| node.tick(worker));
            held.extend(fill(&mut node));
        }
        assert_eq!(held.len(), most as usize, "{workers} workers");
    }
}

#[test]
fn a_place_comes_free_whatever_became_of_the_call() {
    for outcome in [SUCCESS, FAILURE, Outcome::Ignored] {
        let mut node = node(2, 1);
        let held = node.let_in(0);
        assert_eq!(node.why(1), Some(Why::Full));
        node.leave(0, held, outcome);
        node.pass(MOMENT);
        node.call(1, SUCCESS);
    }
}

#[test]
fn a_place_comes_free_when_its_call_ends_in_another_state() {
    let mut node = node(1, 30);
    let held: Vec<Permit> = (0..10).map(|_| node.let_in(0)).collect();
    node.trip();
    held.into_iter().for_each(|permit| node.leave(0, permit, SUCCESS));
    node.pass(Duration::from_secs(5));
    node.calls(0, 5, SUCCESS);
    assert_eq!(fill(&mut node).len(), 30);
}

#[test]
fn a_full_bulkhead_takes_no_probe() {
    let mut node =
        Node::new(1, Settings { max_concurrent: NonZeroU32::new(1), half_open_calls: 1, ..settings() });
    let held = node.let_in(0);
    node.settings = Arc::new(Settings { max_concurrent: None, ..(*node.settings).clone() });
    node.trip();
    node.settings = Arc::new(Settings { max_concurrent: NonZeroU32::new(1), ..(*node.settings).clone() });
    node.pass(Duration::from_secs(4));
    node.tick(0);
    node.pass(Duration::from_secs(1));
    assert_eq!(node.why(0), Some(Why::Full));
    node.leave(0, held, Outcome::Ignored);
    assert!(node.let_in(0).is_probe());
}

#[test]
fn places_of_a_worker_that_died_are_free_after_five_seconds() {
    let mut node = node(2, 2);
    let _lost = [node.let_in(0), node.let_in(0)];
    node.pass(Duration::from_secs(5));
    assert_eq!(node.why(1), Some(Why::Full));
    node.pass(Duration::from_micros(1));
    let _held = [node.let_in(1), node.let_in(1)];
    assert_eq!(node.why(1), Some(Why::Full));
}

#[test]
fn a_worker_that_lives_keeps_its_places_however_long_its_calls_are() {
    let mut node = node(2, 2);
    let _held = [node.let_in(0), node.let_in(0)];
    for _ in 0..60 {
        let due = node.workers[0].next_due().unwrap();
        assert!(due <= node.now.plus(Duration::from_secs(1)));
        node.now = node.now.max(due);
        node.tick(0);
        assert_eq!(node.why(1), Some(Why::Full));
    }
}

#[test]
fn a_worker_that_was_taken_for_dead_waits_for_places_like_the_others() {
    let mut node = node(2, 2);
    let held = [node.let_in(0), node.let_in(0)];
    node.pass(Duration::from_secs(6));
    let [first, second] = [node.let_in(1), node.let_in(1)];
    assert_eq!(node.why(0), Some(Why::Full));
    node.leave(1, first, SUCCESS);
    node.leave(1, second, SUCCESS);
    node.pass(Duration::from_millis(100));
    node.tick(0);
    assert_eq!(node.why(1), Some(Why::Full), "the places of the calls that never ended are theirs again");
    held.into_iter().for_each(|permit| node.leave(0, permit, SUCCESS));
    node.pass(MOMENT);
    node.call(1, SUCCESS);
}

#[test]
fn places_ahead_of_a_worker_that_was_taken_for_dead_are_not_its_own_any_more() {
    let mut node = node(2, 8);
    node.call(0, Outcome::Ignored);
    node.pass(Duration::from_secs(6));
    let _held: Vec<Permit> = (0..8).map(|_| node.let_in(1)).collect();
    assert_eq!(node.why(0), Some(Why::Full));
}

#[test]
fn a_place_that_was_not_renewed_is_renewed_before_it_is_used() {
    let mut node = node(2, 8);
    node.call(0, Outcome::Ignored);
    node.pass(Duration::from_secs(6));
    let _held = node.let_in(0);
    let _others: Vec<Permit> = (0..7).map(|_| node.let_in(1)).collect();
    assert_eq!(node.why(1), Some(Why::Full));
}

#[test]
fn an_idle_worker_reserves_nothing_and_has_nothing_due() {
    let mut node = node(2, 1000);
    node.call(0, SUCCESS);
    for _ in 0..3 {
        node.pass(Duration::from_millis(100));
        node.tick(0);
    }
    assert_eq!(node.workers[0].next_due(), None);
    let held = fill(&mut node);
    assert!(held.len() > 900);
}

#[test]
fn a_bulkhead_with_much_free_costs_hardly_a_host_call() {
    let mut node = node(1, 200);
    let requests: u32 = 5000;
    for _ in 0..requests {
        node.call(0, SUCCESS);
        node.pass(Duration::from_millis(1));
    }
    let cost = f64::from(node.shared.calls()) / f64::from(requests);
    assert!(cost < 0.12, "{cost}");
}

#[test]
fn a_small_bulkhead_costs_four_host_calls_a_request() {
    let mut node = node(2, 2);
    for worker in [0, 1, 0, 1] {
        node.pass(Duration::from_secs(1));
        let before = node.shared.calls();
        node.call(worker, Outcome::Ignored);
        assert_eq!(node.shared.calls() - before, 4, "to reserve, and to give back");
    }
}
