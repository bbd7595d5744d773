use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn with(node: &mut Node, control: Control) {
    node.settings = Arc::new(Settings { control, ..(*node.settings).clone() });
}

#[test]
fn forced_open_turns_everything_away_and_keeps_the_state() {
    let mut node = Node::new(1, settings());
    with(&mut node, Control::ForceOpen);
    let refusal = Refusal { why: Why::Forced, retry_after: Duration::from_secs(5) };
    assert_eq!(node.enter(0), Entry::Refuse(refusal));
    assert_eq!(node.shared.calls(), 0);
    with(&mut node, Control::Automatic);
    node.call(0, SUCCESS);
}

#[test]
fn forced_closed_never_trips_and_closes_what_is_open() {
    let mut node = Node::new(1, Settings { consecutive_failures: NonZeroU32::new(2), ..settings() });
    node.calls(0, 2, FAILURE);
    assert_eq!(node.why(0), Some(Why::Open));
    with(&mut node, Control::ForceClosed);
    node.calls(0, 100, FAILURE);
    let turns = node.transitions(0);
    assert_eq!(turns.last(), Some(&(State::Open, State::Closed, Cause::Forced)));
    // what it counted meanwhile counts when it follows what it sees again
    with(&mut node, Control::Automatic);
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Open);
}

#[test]
fn forced_closed_holds_its_bulkhead() {
    let max_concurrent = NonZeroU32::new(1);
    let mut node = Node::new(1, Settings { max_concurrent, control: Control::ForceClosed, ..settings() });
    let _held = node.let_in(0);
    assert_eq!(node.why(0), Some(Why::Full));
}

#[test]
fn disabled_passes_everything_and_knows_nothing() {
    let mut node = Node::new(1, Settings { max_concurrent: NonZeroU32::new(1), ..settings() });
    with(&mut node, Control::Disabled);
    (0..9).for_each(|_| assert_eq!(node.enter(0), Entry::Pass(None)));
    assert_eq!(node.shared.calls(), 0);
}

#[test]
fn a_dry_run_goes_the_way_of_a_breaker_and_refuses_nothing() {
    let mut node = Node::new(1, Settings { enforce: Share::NONE, half_open_calls: 1, ..settings() });
    node.trip();
    let refusal = |why, wait| Entry::WouldRefuse(Refusal { why, retry_after: wait }, None);
    assert_eq!(node.enter(0), refusal(Why::Open, Duration::from_secs(5)));
    node.pass(Duration::from_secs(5));
    let probe = node.let_in(0);
    assert_eq!(node.enter(0), refusal(Why::HalfOpen, AGAIN_SOON));
    node.leave(0, probe, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
}

#[test]
fn what_a_full_bulkhead_would_have_refused_counts_and_takes_no_place() {
    let max_concurrent = NonZeroU32::new(1);
    let mut node = Node::new(1, Settings { enforce: Share::NONE, max_concurrent, ..settings() });
    let held = node.let_in(0);
    for _ in 0..20 {
        let Entry::WouldRefuse(refusal, Some(permit)) = node.enter(0) else { panic!("it is full") };
        assert_eq!(refusal.why, Why::Full);
        node.leave(0, permit, FAILURE);
    }
    assert_eq!(node.state(0), State::Open);
    node.leave(0, held, SUCCESS);
}

#[test]
fn chance_says_which_calls_are_refused_while_it_is_enforced_in_part() {
    let mut node = Node::new(1, Settings { enforce: Share::from_millionths(500_000), ..settings() });
    node.trip();
    node.chance = u32::MAX / 2;
    assert!(matches!(node.enter(0), Entry::Refuse(_)));
    node.chance = u32::MAX / 2 + 1;
    assert!(matches!(node.enter(0), Entry::WouldRefuse(..)));
}

#[test]
fn other_values_keep_the_state() {
    let mut node = Node::new(1, settings());
    node.trip();
    node.settings = Arc::new(Settings { min_calls: 1, window: Duration::from_secs(60), ..settings() });
    assert_eq!(node.why(0), Some(Why::Open));
}

#[test]
fn a_window_of_another_length_starts_afresh() {
    let mut node = Node::new(1, settings());
    node.calls(0, 19, FAILURE);
    node.settings = Arc::new(Settings { window: Duration::from_secs(20), ..settings() });
    node.calls(0, 19, FAILURE);
    assert_eq!(node.state(0), State::Closed);
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Open);
}

#[test]
fn fewer_probes_than_have_ended_decide_at_the_next_call() {
    let mut node = Node::new(1, settings());
    node.trip();
    node.pass(Duration::from_secs(5));
    node.calls(0, 2, SUCCESS);
    assert_eq!(node.state(0), State::HalfOpen);
    node.settings = Arc::new(Settings { half_open_calls: 2, ..settings() });
    node.call(0, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
}
