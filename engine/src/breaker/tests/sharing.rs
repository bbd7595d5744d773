use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MOMENT: Duration = Duration::from_millis(20);

#[test]
fn workers_trip_together() {
    let mut node = Node::new(4, settings());
    for call in 0..20 {
        node.call(call % 4, FAILURE);
    }
    assert_eq!(node.state(3), State::Open, "each saw but five failures");
    node.pass(MOMENT);
    (0..4).for_each(|worker| assert_eq!(node.why(worker), Some(Why::Open)));
    let turns: Vec<_> = (0..4).flat_map(|worker| node.transitions(worker)).collect();
    assert_eq!(turns.len(), 1, "one of them tells");
}

#[test]
fn all_workers_learn_of_calls_that_went_well_within_100_ms() {
    let mut node = Node::new(2, settings());
    node.calls(0, 19, SUCCESS);
    node.pass(Duration::from_millis(100));
    assert_eq!(node.workers[0].next_due(), Some(node.now));
    node.tick(0);
    node.calls(1, 18, FAILURE);
    assert_eq!(node.state(1), State::Closed, "18 of 37");
    node.call(1, FAILURE);
    assert_eq!(node.state(1), State::Open, "19 of 38");
}

#[test]
fn a_lost_race_never_loses_a_trip() {
    let mut node = Node::new(1, settings());
    node.calls(0, 19, FAILURE);
    // more than are tried
    node.shared.races.set(150);
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Closed);
    node.shared.races.set(0);
    node.call(0, Outcome::Ignored);
    node.pass(Duration::from_millis(100));
    node.tick(0);
    assert_eq!(node.state(0), State::Open);
}

#[test]
fn a_success_ends_the_run_of_all_workers() {
    let mut node = Node::new(2, Settings { consecutive_failures: NonZeroU32::new(3), ..settings() });
    node.calls(0, 2, FAILURE);
    node.call(0, SUCCESS);
    node.calls(1, 2, FAILURE);
    assert_eq!(node.state(1), State::Closed);
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Open);
}

#[test]
fn what_a_worker_kept_to_itself_counts_for_nothing_in_a_later_state() {
    let open_for = MOMENT;
    let mut node = Node::new(2, Settings { open_for, half_open_calls: 1, ..settings() });
    node.calls(1, 10, SUCCESS);
    node.trip();
    node.pass(open_for);
    node.call(0, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
    node.calls(1, 10, FAILURE);
    assert_eq!(node.state(1), State::Closed, "10 calls, and not 20");
}

#[test]
fn probes_are_counted_over_all_workers() {
    let mut node = Node::new(4, Settings { half_open_calls: 3, ..settings() });
    node.trip();
    node.pass(Duration::from_secs(5));
    let permits: Vec<(usize, Permit)> =
        (0..40).filter_map(|call| node.try_enter(call % 4).map(|permit| (call % 4, permit))).collect();
    assert_eq!(permits.len(), 3);
    for (worker, permit) in permits {
        node.leave(worker, permit, SUCCESS);
    }
    node.pass(MOMENT);
    (0..4).for_each(|worker| node.call(worker, SUCCESS));
}

#[test]
fn breakers_of_other_owners_know_nothing_of_it() {
    let mut node = Node::new(1, settings());
    node.trip();
    let settings = Arc::clone(&node.settings);
    for number in 0..500 {
        let owner = format!("command-{number}");
        let entry = node.workers[0].enter(&node.shared, &owner, &settings, node.now, &|| 0);
        assert!(matches!(entry, Entry::Pass(Some(_))));
    }
    assert_eq!(node.why(0), Some(Why::Open));
}

#[test]
fn a_healthy_upstream_costs_less_than_one_host_call_a_request() {
    for (per_s, most) in [(100, 0.8), (1000, 0.12), (10_000, 0.05)] {
        let mut node = Node::new(1, settings());
        let requests = 5 * per_s;
        for _ in 0..requests {
            node.call(0, SUCCESS);
            node.pass(Duration::from_secs(1) / per_s);
        }
        let cost = f64::from(node.shared.calls()) / f64::from(requests);
        assert!(cost < most, "{cost} at {per_s}/s");
    }
}

#[test]
fn an_open_breaker_costs_nothing() {
    let mut node = Node::new(1, settings());
    node.trip();
    let before = node.shared.calls();
    for _ in 0..1000 {
        node.pass(Duration::from_millis(1));
        assert_eq!(node.why(0), Some(Why::Open));
    }
    assert_eq!(node.shared.calls(), before);
}

#[test]
fn calls_pass_while_the_host_does_not_do_its_part() {
    let mut node = Node::new(1, Settings { max_concurrent: NonZeroU32::new(2), ..settings() });
    let held = node.let_in(0);
    node.shared.broken.set(true);
    node.pass(MOMENT);
    (0..50).for_each(|_| assert_eq!(node.enter(0), Entry::Pass(None)));
    node.leave(0, held, FAILURE);
    node.tick(0);
    node.shared.broken.set(false);
    let _held = [node.let_in(0), node.let_in(0)];
    assert_eq!(node.why(0), Some(Why::Full));
}

#[test]
fn what_another_plugin_wrote_is_a_closed_breaker() {
    let mut node = Node::new(1, settings());
    for slot in 0..1024 {
        node.shared.write(slot, &[0xff; 300], None).unwrap();
    }
    node.trip();
    assert_eq!(node.why(0), Some(Why::Open));
}

#[test]
fn nothing_is_due_where_nothing_is_kept_back() {
    let mut node = Node::new(1, settings());
    assert_eq!(node.workers[0].next_due(), None);
    node.call(0, SUCCESS);
    node.pass(Duration::from_millis(100));
    node.tick(0);
    assert_eq!(node.workers[0].next_due(), None);
}

#[test]
fn chance_is_drawn_for_a_breaker_that_opens_and_for_nothing_else() {
    let mut node = Node::new(1, settings());
    let drawn = Cell::new(0);
    let chance = || {
        drawn.set(drawn.get() + 1);
        0
    };
    for failures in 1..=20 {
        let entry = node.workers[0].enter(&node.shared, OWNER, &node.settings, node.now, &chance);
        let Entry::Pass(Some(permit)) = entry else { panic!("it is closed") };
        node.workers[0].leave(&node.shared, permit, FAILURE, node.now, &chance);
        assert_eq!(drawn.get(), u32::from(failures == 20));
    }
}
