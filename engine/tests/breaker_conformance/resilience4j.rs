//! Resilience4j: `CircuitBreakerStateMachineTest`, `CircuitBreakerMetricsTest`, `SlidingTimeWindowMetricsTest`.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// The settings of the state machine's test.
fn node() -> Node {
    Node::new(Settings {
        window: seconds(20),
        min_calls: 5,
        half_open_calls: 4,
        slow_call: SlowCall { over: seconds(4), rate: percent(50) },
        ..settings()
    })
}

const SLOW_SUCCESS: Outcome = Outcome::Success { took: Duration::from_secs(5) };
const SLOW_FAILURE: Outcome = Outcome::Failure { took: Duration::from_secs(5) };

#[test]
fn should_open_after_failure_rate_threshold_exceeded() {
    let mut node = node();
    node.calls(&[FAILURE, FAILURE, FAILURE, SUCCESS]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Open);
    assert_eq!(node.acquire(), Err(Why::Open));
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 3, calls: 5 }]);
}

#[test]
fn should_open_after_slow_call_rate_threshold_exceeded() {
    let mut node = node();
    node.calls(&[SLOW_SUCCESS, SLOW_SUCCESS, SLOW_FAILURE, SUCCESS]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[SUCCESS]);
    assert_eq!(node.causes(), [Cause::SlowRate { slow: 3, calls: 5 }]);
}

#[test]
fn should_transition_to_half_open_after_wait_duration() {
    let mut node = node();
    node.trip_and_wait();
    node.now = Timestamp::from_micros(node.now.as_micros() - 2_000_000);
    assert_eq!(node.acquire(), Err(Why::Open));
    node.pass(seconds(3));
    assert!(node.acquire().unwrap().is_probe());
    assert_eq!(node.state(), State::HalfOpen);
}

#[test]
fn should_transition_to_half_open_after_wait_interval() {
    let mut node = node();
    let backoff = Backoff { factor_thousandths: 1500, max: seconds(60) };
    node.settings = Arc::new(Settings { backoff, ..(*node.settings).clone() });
    node.trip_and_wait();
    node.calls(&[FAILURE, FAILURE]);
    node.pass(seconds(6));
    assert_eq!(node.acquire(), Err(Why::Open));
    node.pass(seconds(5));
    assert!(node.acquire().unwrap().is_probe());
}

#[test]
fn should_only_permit_four_calls_in_half_open_state() {
    let mut node = node();
    node.trip_and_wait();
    for _ in 0..2 {
        let permits = node.permits(4);
        assert_eq!(node.acquire(), Err(Why::HalfOpen));
        permits.into_iter().for_each(|permit| node.end(permit, FAILURE));
        node.pass(seconds(5));
    }
}

#[test]
fn should_increase_counter_on_release_permission() {
    let mut node = node();
    node.trip_and_wait();
    let mut permits = node.permits(4);
    node.end(permits.pop().unwrap(), Outcome::Ignored);
    let _another = node.acquire().unwrap();
    assert_eq!(node.acquire(), Err(Why::HalfOpen));
}

#[test]
fn should_transition_back_to_open_state_when_failure_is_above_threshold() {
    let mut node = node();
    node.trip_and_wait();
    let permits = node.permits(4);
    for (permit, outcome) in permits.into_iter().zip([FAILURE, FAILURE, FAILURE, SUCCESS]) {
        node.end(permit, outcome);
    }
    assert_eq!(node.state(), State::Open);
    assert_eq!(node.causes().last(), Some(&Cause::ProbesFailed));
}

#[test]
fn should_transition_back_to_open_state_when_slow_calls_are_above_threshold() {
    let mut node = node();
    node.trip_and_wait();
    let permits = node.permits(4);
    for (permit, outcome) in permits.into_iter().zip([SLOW_SUCCESS, SLOW_SUCCESS, SLOW_SUCCESS, SUCCESS]) {
        node.end(permit, outcome);
    }
    assert_eq!(node.causes().last(), Some(&Cause::ProbesSlow));
}

#[test]
fn should_transition_back_to_closed_state_when_failure_is_below_threshold() {
    let mut node = node();
    node.trip_and_wait();
    node.calls(&[FAILURE, SUCCESS, SUCCESS]);
    assert_eq!(node.state(), State::HalfOpen);
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[FAILURE, FAILURE, FAILURE, FAILURE]);
    assert_eq!(node.state(), State::Closed, "it has counted four calls, and not eight");
}

#[test]
fn should_release_permission_when_exception_ignored() {
    let mut node = node();
    node.trip_and_wait();
    node.calls(&[Outcome::Ignored; 50]);
    assert_eq!(node.state(), State::HalfOpen);
    node.permits(4);
}

#[test]
fn should_ignore_exceptions_and_then_transition_to_closed() {
    let mut node = node();
    node.trip_and_wait();
    node.calls(&[Outcome::Ignored; 4]);
    node.calls(&[SUCCESS, SUCCESS, SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn should_disable_circuit_breaker() {
    let mut node = node();
    node.control(Control::Disabled);
    (0..10).for_each(|_| assert_eq!(node.enter_as(0, NORMAL), Entry::Pass(None)));
    assert_eq!(node.causes(), []);
}

#[test]
fn should_force_open_circuit_breaker() {
    let mut node = node();
    node.control(Control::ForceOpen);
    assert_eq!(node.acquire(), Err(Why::Forced));
    node.pass(seconds(3600));
    assert_eq!(node.acquire(), Err(Why::Forced));
}

/// Metrics only is a dry run here: the state changes and is told once, and every call passes.
#[test]
fn should_record_metrics_in_metrics_only_state() {
    let mut node = node();
    node.settings = Arc::new(Settings { enforce: Share::NONE, ..(*node.settings).clone() });
    node.calls(&[FAILURE, FAILURE, FAILURE, SUCCESS, SUCCESS]);
    for _ in 0..3 {
        assert!(matches!(node.enter_as(0, NORMAL), Entry::WouldRefuse(Refusal { why: Why::Open, .. }, None)));
    }
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 3, calls: 5 }]);
}

#[test]
fn circuit_breaker_transitions_to_open_after_wait_duration_in_half_open_state() {
    let mut node = node();
    node.trip_and_wait();
    let _never_answered = node.permits(4);
    node.pass(seconds(5));
    assert_eq!(node.acquire(), Err(Why::Open));
    assert_eq!(node.causes().last(), Some(&Cause::ProbesUnanswered));
}

/// `CircuitBreakerMetricsTest`: the window slides on, and the rate falls below the threshold with it.
#[test]
fn test_circuit_breaker_metrics() {
    let mut node = Node::new(Settings { min_calls: 10, failure_rate: percent(60), ..settings() });
    let calls = [FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, SUCCESS, SUCCESS, SUCCESS, SUCCESS];
    for outcome in calls {
        node.calls(&[outcome]);
        node.pass(seconds(1));
    }
    // the two oldest failures leave while two more come: 5 of 10 in the window
    for outcome in [SUCCESS, FAILURE, FAILURE] {
        node.calls(&[outcome]);
        node.pass(seconds(1));
    }
    assert_eq!(node.state(), State::Closed);
}

/// `SlidingTimeWindowMetricsTest`: second by second, one bucket leaves.
#[test]
fn test_move_head_index_by_one() {
    for (later, state) in [(9, State::Open), (10, State::Closed)] {
        let mut node = Node::new(Settings { min_calls: 2, failure_rate: percent(100), ..settings() });
        node.calls(&[FAILURE]);
        node.pass(seconds(later));
        node.calls(&[FAILURE]);
        assert_eq!(node.state(), state, "{later} s later");
    }
}

/// `SlidingTimeWindowMetricsTest`: a gap that is longer than the window clears all of it.
#[test]
fn should_clear_sliding_time_window_metrics() {
    let mut node = Node::new(Settings { min_calls: 10, ..settings() });
    for _ in 0..9 {
        node.calls(&[FAILURE]);
        node.pass(Duration::from_millis(1111));
    }
    node.pass(seconds(100));
    node.calls(&[FAILURE; 9]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[SUCCESS]);
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 9, calls: 10 }]);
}
