//! Polly v8: `CircuitStateControllerTests`, `RollingHealthMetricsTests`, `CircuitBreakerResiliencePipelineTests`.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// One probe, as there, and a time in Open that doubles.
fn node() -> Node {
    let backoff = Backoff { factor_thousandths: 2000, max: seconds(3600) };
    Node::new(Settings { half_open_calls: 1, backoff, ..settings() })
}

#[test]
fn half_open_ensure_break_duration() {
    let mut node = node();
    node.trip_and_wait();
    node.calls(&[FAILURE]);
    assert_eq!(node.refusal(), Refusal { why: Why::Open, retry_after: seconds(10) });
}

#[test]
fn on_action_failure_async_ensure_break_duration_not_overflow() {
    let backoff = Backoff { factor_thousandths: 10_000, max: Duration::MAX };
    let mut node = Node::new(Settings { backoff, open_for: Duration::MAX, ..settings() });
    node.calls(&[FAILURE; 20]);
    node.pass(seconds(1_000_000_000));
    assert_eq!(node.acquire(), Err(Why::Open));
}

#[test]
fn break_duration_generator_ensure_half_open_attempts() {
    let mut node = node();
    node.trip_and_wait();
    for duration in [10, 20, 40, 80].map(seconds) {
        node.calls(&[FAILURE]);
        let turns = node.transitions();
        assert_eq!(turns.last().and_then(|turn| turn.open_for), Some(duration));
        node.pass(duration);
    }
    node.calls(&[SUCCESS]);
    node.trip_and_wait();
    let opened = node.transitions().into_iter().rfind(|turn| turn.to == State::Open);
    assert_eq!(opened.and_then(|turn| turn.open_for), Some(seconds(5)), "it begins anew");
}

/// A success, in each state: Closed stays so, a late one leaves Open as it is, and the probe's closes HalfOpen.
#[test]
fn on_action_success_ensure_correct_behavior() {
    let mut node = node();
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
    let late = node.acquire().unwrap();
    node.calls(&[FAILURE; 19]);
    node.end(late, SUCCESS);
    assert_eq!(node.state(), State::Open);
    node.pass(seconds(5));
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

/// Failures that come while it is open neither prolong it nor open it again.
#[test]
fn on_action_failure_while_open_does_not_extend_the_break() {
    let mut node = node();
    let late = node.permits(10);
    node.calls(&[FAILURE; 20]);
    node.pass(seconds(4));
    late.into_iter().for_each(|permit| node.end(permit, FAILURE));
    assert_eq!(node.refusal().retry_after, seconds(1));
    assert_eq!(node.causes().len(), 1);
}

#[test]
fn get_health_info_ensure_window_respected() {
    let mut node = Node::new(Settings { min_calls: 3, failure_rate: percent(100), ..settings() });
    node.calls(&[SUCCESS, SUCCESS]);
    node.pass(seconds(5));
    node.calls(&[FAILURE, FAILURE]);
    node.pass(seconds(5));
    assert_eq!(node.state(), State::Closed);
    node.calls(&[FAILURE]);
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 3, calls: 3 }], "the successes have left");
}

#[test]
fn add_circuit_breakers_with_isolated_manual_control_should_be_isolated() {
    let mut node = node();
    node.control(Control::ForceOpen);
    assert_eq!(node.acquire(), Err(Why::Forced));
    node.control(Control::Automatic);
    node.calls(&[SUCCESS]);
}
