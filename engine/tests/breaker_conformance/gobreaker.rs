//! sony/gobreaker v2: `gobreaker_test.go`, `distributed_gobreaker_test.go`.

use std::num::NonZeroU32;

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Any failed probe opens it, and three that succeed close it.
fn node(workers: u64) -> Node {
    let failure_rate = Share::from_millionths(600_000);
    Node::of_workers(workers, Settings { min_calls: 3, half_open_calls: 3, failure_rate, ..settings() })
}

/// As `node`, half-open, where any failure is one too many.
fn half_open() -> Node {
    let mut node = node(1);
    node.trip_and_wait();
    node.settings =
        Arc::new(Settings { failure_rate: Share::from_millionths(1), ..(*node.settings).clone() });
    node
}

#[test]
fn test_custom_circuit_breaker_trips_by_its_own_rule() {
    let mut node = node(1);
    node.calls(&[SUCCESS, FAILURE, SUCCESS, FAILURE]);
    assert_eq!(node.state(), State::Closed, "2 of 4");
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open, "3 of 5");
}

#[test]
fn test_custom_circuit_breaker_opens_again_at_the_first_failure() {
    let mut node = half_open();
    node.calls(&[SUCCESS, SUCCESS]);
    assert_eq!(node.state(), State::HalfOpen);
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open);
}

#[test]
fn test_custom_circuit_breaker_closes_after_three_successes() {
    let mut node = half_open();
    node.calls(&[SUCCESS, Outcome::Ignored, SUCCESS, Outcome::Ignored]);
    assert_eq!(node.state(), State::HalfOpen, "what is excluded is neither");
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn test_custom_circuit_breaker_turns_the_fourth_probe_away() {
    let mut node = half_open();
    let probes = node.permits(3);
    assert_eq!(node.acquire(), Err(Why::HalfOpen));
    probes.into_iter().for_each(|probe| node.end(probe, SUCCESS));
    assert_eq!(node.state(), State::Closed);
}

/// The default rule: the sixth failure in a row.
#[test]
fn test_default_ready_to_trip() {
    let consecutive_failures = NonZeroU32::new(6);
    let mut node = Node::new(Settings { min_calls: u32::MAX, consecutive_failures, ..settings() });
    node.calls(&[FAILURE; 5]);
    node.calls(&[SUCCESS]);
    node.calls(&[FAILURE; 5]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[FAILURE]);
    assert_eq!(node.causes(), [Cause::ConsecutiveFailures { failures: 6 }]);
}

/// A result that belongs to an earlier generation changes nothing.
#[test]
fn test_generation() {
    let mut node = half_open();
    let mut early = node.permits(3).into_iter();
    node.end(early.next().unwrap(), FAILURE);
    assert_eq!(node.state(), State::Open);
    node.pass(seconds(5));
    let probe = node.acquire().unwrap();
    early.by_ref().take(1).for_each(|late| node.end(late, FAILURE));
    assert_eq!(node.state(), State::HalfOpen);
    node.end(probe, SUCCESS);
    early.for_each(|late| node.end(late, SUCCESS));
    assert_eq!(node.state(), State::HalfOpen, "one success of three");
}

#[test]
fn test_rolling_window_circuit_breaker() {
    let mut node = node(1);
    node.calls(&[FAILURE, FAILURE]);
    node.pass(seconds(10));
    node.calls(&[FAILURE, FAILURE]);
    assert_eq!(node.state(), State::Closed, "no more than two in any window");
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open);
}

/// A call that ends in a crash is a reset here, and that is a failure.
#[test]
fn test_panic_in_request() {
    let mut node = half_open();
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open);
}

/// Many at once: nothing is lost, and nothing is counted twice.
#[test]
fn test_circuit_breaker_in_parallel() {
    let mut node = node(4);
    node.settings = Arc::new(Settings { min_calls: 4001, ..(*node.settings).clone() });
    for call in 0..4000 {
        let permit = node.acquire_by(call % 4).unwrap();
        node.end_by(call % 4, permit, FAILURE);
    }
    assert_eq!(node.causes(), []);
    node.calls(&[FAILURE]);
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 4001, calls: 4001 }]);
}

#[test]
fn test_is_excluded_and_is_successful_combination() {
    let mut node = node(1);
    node.calls(&[FAILURE, Outcome::Ignored, Outcome::Ignored, SUCCESS, Outcome::Ignored]);
    assert_eq!(node.state(), State::Closed, "two calls count");
    node.calls(&[FAILURE]);
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 2, calls: 3 }]);
}

/// The state lies outside the instances: when one opens, it is open for all, and for the same time.
#[test]
fn test_distributed_circuit_breaker_time_synchronization() {
    let mut node = node(2);
    node.calls(&[FAILURE, FAILURE, FAILURE]);
    assert_eq!(node.acquire_by(1), Err(Why::Open));
    node.pass(seconds(5) - QUICK);
    assert_eq!((node.acquire_by(0), node.acquire_by(1)), (Err(Why::Open), Err(Why::Open)));
    node.pass(QUICK);
    assert!(node.acquire_by(1).unwrap().is_probe());
}
