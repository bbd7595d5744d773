use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn probing(half_open_calls: u32) -> Node {
    let mut node = Node::new(1, Settings { half_open_calls, ..settings() });
    node.trip();
    node.pass(Duration::from_secs(5));
    node.transitions(0);
    node
}

#[test]
fn trips_at_the_rate_and_not_below() {
    let mut node = Node::new(1, settings());
    node.calls(0, 11, SUCCESS);
    node.calls(0, 10, FAILURE);
    assert_eq!(node.state(0), State::Closed, "10 of 21");
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Open, "11 of 22");
    let cause = Cause::FailureRate { failures: 11, calls: 22 };
    assert_eq!(node.transitions(0), [(State::Closed, State::Open, cause)]);
    assert!(node.transitions(0).is_empty(), "told once");
}

#[test]
fn fewer_calls_than_the_minimum_trip_nothing() {
    let mut node = Node::new(1, settings());
    node.calls(0, 19, FAILURE);
    assert_eq!(node.state(0), State::Closed);
    node.call(0, SUCCESS);
    assert_eq!(node.state(0), State::Open, "a success that makes up the minimum trips as well");
}

#[test]
fn what_left_the_window_counts_no_more() {
    let mut node = Node::new(1, settings());
    node.calls(0, 19, FAILURE);
    node.pass(Duration::from_secs(10));
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Closed);
}

#[test]
fn a_call_is_slow_when_it_took_longer_than_written() {
    for (took, state) in [(Duration::from_secs(2), State::Closed), (LATE, State::Open)] {
        let mut node = Node::new(1, settings());
        node.calls(0, 4, SUCCESS);
        node.calls(0, 15, Outcome::Success { took });
        assert_eq!(node.state(0), State::Closed, "15 of 19 are too few calls");
        node.call(0, Outcome::Success { took });
        assert_eq!(node.state(0), state, "{took:?}");
    }
}

#[test]
fn failures_in_a_row_trip_whatever_their_share() {
    let mut node = Node::new(1, Settings { consecutive_failures: NonZeroU32::new(3), ..settings() });
    node.calls(0, 100, SUCCESS);
    for _ in 0..2 {
        node.calls(0, 2, FAILURE);
        node.call(0, SUCCESS);
    }
    assert_eq!(node.state(0), State::Closed);
    node.calls(0, 3, FAILURE);
    let cause = Cause::ConsecutiveFailures { failures: 3 };
    assert_eq!(node.transitions(0), [(State::Closed, State::Open, cause)]);
}

#[test]
fn is_open_for_its_time_and_says_how_long() {
    let mut node = Node::new(1, settings());
    node.trip();
    let refusal = |wait| Entry::Refuse(Refusal { why: Why::Open, retry_after: wait });
    assert_eq!(node.enter(0), refusal(Duration::from_secs(5)));
    node.pass(Duration::from_micros(4_999_999));
    assert_eq!(node.enter(0), refusal(Duration::from_micros(1)));
    node.pass(Duration::from_micros(1));
    assert!(node.let_in(0).is_probe());
    assert_eq!(node.state(0), State::HalfOpen);
}

#[test]
fn chance_makes_it_longer_by_a_tenth_and_half_a_second_at_most() {
    for (open_for, longest) in [(1000, 1100), (60_000, 60_500)] {
        let open_for = Duration::from_millis(open_for);
        let mut node = Node::new(1, Settings { open_for, ..settings() });
        node.chance = u32::MAX;
        node.trip();
        let opened = node.workers[0].take_transitions()[0].open_for;
        assert_eq!(opened, Some(Duration::from_micros(longest * 1000 - 1)));
    }
}

#[test]
fn opens_for_longer_each_time_until_it_closes() {
    let mut node = probing(1);
    for seconds in [10, 20, 40, 60, 60] {
        node.call(0, FAILURE);
        assert_eq!(node.state(0), State::Open);
        node.pass(Duration::from_secs(seconds) - QUICK);
        assert_eq!(node.why(0), Some(Why::Open), "{seconds} s");
        node.pass(QUICK);
    }
    node.call(0, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
    node.trip();
    assert_eq!(node.enter(0), Entry::Refuse(Refusal { why: Why::Open, retry_after: Duration::from_secs(5) }));
}

#[test]
fn so_many_probes_go_and_no_more() {
    let mut node = probing(3);
    let permits = [0; 3].map(|worker| node.let_in(worker));
    assert!(permits.iter().all(Permit::is_probe));
    assert_eq!(node.why(0), Some(Why::HalfOpen));
}

#[test]
fn probes_decide_as_soon_as_those_that_are_missing_cannot_change_it() {
    let ended = |outcomes: &[Outcome]| {
        let mut node = probing(5);
        let mut permits: Vec<Permit> = (0..5).map(|_| node.let_in(0)).collect();
        outcomes.iter().for_each(|outcome| node.leave(0, permits.pop().unwrap(), *outcome));
        node.state(0)
    };
    let slow = Outcome::Success { took: LATE };
    assert_eq!(ended(&[FAILURE, SUCCESS, FAILURE, SUCCESS]), State::HalfOpen);
    assert_eq!(ended(&[FAILURE, SUCCESS, FAILURE, SUCCESS, SUCCESS]), State::Closed, "40 %");
    assert_eq!(ended(&[FAILURE, SUCCESS, FAILURE, FAILURE]), State::Open, "60 % at least");
    assert_eq!(ended(&[SUCCESS, SUCCESS]), State::HalfOpen, "60 % may fail yet");
    assert_eq!(ended(&[SUCCESS, SUCCESS, SUCCESS]), State::Closed, "40 % at most");
    assert_eq!(ended(&[slow, slow, slow]), State::HalfOpen, "80 % may be slow");
    assert_eq!(ended(&[slow, slow, slow, slow]), State::Open);
}

#[test]
fn a_probe_that_says_nothing_gives_its_permit_to_another() {
    let mut node = probing(1);
    for _ in 0..3 {
        let probe = node.let_in(0);
        assert_eq!(node.why(0), Some(Why::HalfOpen));
        node.leave(0, probe, Outcome::Ignored);
    }
    node.call(0, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
}

#[test]
fn probes_that_are_never_answered_open_it_again() {
    let mut node = probing(2);
    let _first = node.let_in(0);
    node.pass(Duration::from_secs(60));
    let _last = node.let_in(0);
    node.pass(Duration::from_secs(5) - QUICK);
    assert_eq!(node.why(0), Some(Why::HalfOpen));
    node.pass(QUICK);
    assert_eq!(
        node.enter(0),
        Entry::Refuse(Refusal { why: Why::Open, retry_after: Duration::from_secs(10) })
    );
    let turns = node.transitions(0);
    assert_eq!(turns.last(), Some(&(State::HalfOpen, State::Open, Cause::ProbesUnanswered)));
}

#[test]
fn a_late_answer_counts_if_nobody_has_come_meanwhile_and_given_it_up() {
    let mut node = probing(2);
    let probes = [node.let_in(0), node.let_in(0)];
    node.pass(Duration::from_secs(3600));
    for probe in probes {
        assert_eq!(node.state(0), State::HalfOpen);
        node.leave(0, probe, SUCCESS);
    }
    assert_eq!(node.state(0), State::Closed);
}

#[test]
fn what_ends_in_a_later_state_says_nothing() {
    let mut node = Node::new(1, Settings { half_open_calls: 1, ..settings() });
    let early: Vec<Permit> = (0..30).map(|_| node.let_in(0)).collect();
    node.trip();
    node.pass(Duration::from_secs(5));
    let probe = node.let_in(0);
    let mut early = early.into_iter();
    early.by_ref().take(15).for_each(|permit| node.leave(0, permit, FAILURE));
    assert_eq!(node.state(0), State::HalfOpen);
    node.leave(0, probe, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
    early.for_each(|permit| node.leave(0, permit, FAILURE));
    node.calls(0, 19, SUCCESS);
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Closed, "1 of 20, and not 16 of 35");
}

#[test]
fn a_late_probe_of_an_earlier_half_open_says_nothing() {
    let mut node = probing(1);
    let late = node.let_in(0);
    node.pass(Duration::from_secs(5));
    assert_eq!(node.why(0), Some(Why::Open));
    node.pass(Duration::from_secs(10));
    let probe = node.let_in(0);
    node.leave(0, late, SUCCESS);
    assert_eq!(node.state(0), State::HalfOpen);
    node.leave(0, probe, SUCCESS);
    assert_eq!(node.state(0), State::Closed);
}

#[test]
fn an_ignored_call_counts_as_none() {
    let mut node = Node::new(1, settings());
    node.calls(0, 19, FAILURE);
    node.calls(0, 1000, Outcome::Ignored);
    assert_eq!(node.state(0), State::Closed);
}

#[test]
fn the_first_failure_can_trip_it() {
    let mut node = Node::new(1, Settings { min_calls: 1, failure_rate: Share::ALL, ..settings() });
    node.call(0, FAILURE);
    assert_eq!(node.state(0), State::Open);
}

#[test]
fn the_end_of_time_is_no_trouble() {
    let open_for = Duration::MAX;
    let mut node = Node::new(
        1,
        Settings { open_for, backoff: Backoff { factor_thousandths: 10_000, max: open_for }, ..settings() },
    );
    node.trip();
    assert_eq!(node.why(0), Some(Why::Open));
    node.now = Timestamp::from_micros(u64::MAX);
    node.try_enter(0);
    node.tick(0);
}
