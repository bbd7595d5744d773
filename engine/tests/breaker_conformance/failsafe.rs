//! failsafe-go: `circuitbreaker_test.go`, `circuitbreaker` states, `bulkhead_test.go`.

use std::num::NonZeroU32;

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn should_reject_excessive_attempts_when_breaker_half_open() {
    let mut node = Node::new(Settings { half_open_calls: 3, ..settings() });
    node.trip_and_wait();
    let _probes = node.permits(3);
    (0..5).for_each(|_| assert_eq!(node.acquire(), Err(Why::HalfOpen)));
}

#[test]
fn should_support_time_based_failure_rate_thresholding() {
    let mut node = Node::new(Settings { min_calls: 3, window: seconds(1), ..settings() });
    node.calls(&[FAILURE, FAILURE]);
    node.pass(seconds(1));
    node.calls(&[SUCCESS, FAILURE]);
    assert_eq!(node.state(), State::Closed, "two calls in the last second");
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed, "a third failed");
    node.calls(&[FAILURE]);
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 2, calls: 4 }]);
}

#[test]
fn should_support_consecutive_failure_thresholding() {
    let consecutive_failures = NonZeroU32::new(3);
    let mut node = Node::new(Settings { consecutive_failures, ..settings() });
    node.calls(&[FAILURE, FAILURE, SUCCESS, FAILURE, FAILURE]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open);
}

#[test]
fn test_remaining_delay() {
    let mut node = Node::new(settings());
    node.trip_and_wait();
    node.now = Timestamp::from_micros(node.now.as_micros() - 5_000_000);
    assert_eq!(node.refusal().retry_after, seconds(5));
    node.pass(seconds(2));
    assert_eq!(node.refusal().retry_after, seconds(3));
    node.pass(seconds(3));
    assert!(node.acquire().is_ok());
}

/// The bulkhead: full is full, and a place that is given back is taken by the next.
#[test]
fn test_acquire_permit_when_bulkhead_full() {
    let mut node = Node::new(Settings { max_concurrent: NonZeroU32::new(2), ..settings() });
    let mut held = node.permits(2);
    assert_eq!(node.acquire(), Err(Why::Full));
    node.end(held.pop().unwrap(), FAILURE);
    let _another = node.acquire().unwrap();
    assert_eq!(node.acquire(), Err(Why::Full));
}
