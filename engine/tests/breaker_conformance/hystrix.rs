//! Hystrix: `HystrixCircuitBreakerTest`.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// One probe, as there.
fn node() -> Node {
    Node::new(Settings { half_open_calls: 1, ..settings() })
}

#[test]
fn test_low_volume_does_not_trip_circuit() {
    let mut node = node();
    node.calls(&[FAILURE; 19]);
    assert_eq!(node.state(), State::Closed);
}

/// What timed out is a failure of the upstream.
#[test]
fn test_trip_circuit_on_timeouts() {
    let mut node = node();
    let timed_out = Outcome::Failure { took: seconds(1) };
    node.calls(&[timed_out; 20]);
    assert_eq!(node.acquire(), Err(Why::Open));
}

#[test]
fn test_trip_circuit_on_timeouts_above_threshold() {
    let mut node = node();
    let timed_out = Outcome::Failure { took: seconds(1) };
    node.calls(&[SUCCESS; 9]);
    node.calls(&[timed_out; 10]);
    assert_eq!(node.state(), State::Closed, "19 calls");
    node.calls(&[timed_out]);
    assert_eq!(node.state(), State::Open, "11 of 20");
}

#[test]
fn test_circuit_does_not_trip_on_failures_below_threshold() {
    let mut node = node();
    node.calls(&[SUCCESS; 11]);
    node.calls(&[FAILURE; 10]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn test_single_test_on_open_circuit_after_time_window() {
    let mut node = node();
    node.trip_and_wait();
    assert!(node.acquire().unwrap().is_probe());
    assert_eq!(node.acquire(), Err(Why::HalfOpen));
}

#[test]
fn test_circuit_closed_after_success() {
    let mut node = node();
    node.trip_and_wait();
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
    // what was counted before is forgotten
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn test_multiple_time_window_retries_before_closing_circuit() {
    let mut node = node();
    node.trip_and_wait();
    for _ in 0..3 {
        node.calls(&[FAILURE]);
        assert_eq!(node.acquire(), Err(Why::Open));
        node.pass(seconds(5));
    }
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

/// A probe whose client leaves says nothing; the next call is a probe at once, and not after another sleep window.
#[test]
fn test_unsubscription_does_not_leave_circuit_stuck_half_open() {
    let mut node = node();
    node.trip_and_wait();
    let probe = node.acquire().unwrap();
    node.end(probe, Outcome::Ignored);
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

/// A probe of which nothing is ever heard again does not keep it half-open either.
#[test]
fn test_unsubscription_that_nobody_tells_of_does_not_leave_circuit_stuck_half_open() {
    let mut node = node();
    node.trip_and_wait();
    let _lost = node.acquire().unwrap();
    node.pass(10 * seconds(5));
    let slow_patience = node.settings.slow_call.over;
    assert_eq!(node.acquire(), Err(Why::HalfOpen), "a probe may take as long as a call that is not slow");
    node.pass(slow_patience);
    assert_eq!(node.acquire(), Err(Why::Open));
    node.pass(seconds(5));
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

/// A success of a call that came before it opened does not close it; that of the probe does, whoever else is busy.
#[test]
fn test_success_closes_circuit_when_busy() {
    let mut node = node();
    let busy = node.permits(10);
    node.trip_and_wait();
    let probe = node.acquire().unwrap();
    busy.into_iter().for_each(|permit| node.end(permit, SUCCESS));
    assert_eq!(node.state(), State::HalfOpen);
    node.end(probe, SUCCESS);
    assert_eq!(node.state(), State::Closed);
}

/// `forceOpen` and `forceClosed`.
#[test]
fn properties_force_it() {
    let mut node = node();
    node.control(Control::ForceClosed);
    node.calls(&[FAILURE; 50]);
    node.control(Control::ForceOpen);
    assert_eq!(node.acquire(), Err(Why::Forced));
}
