//! Alibaba Sentinel Go: `circuit_breaker_test.go`, `rule_manager_test.go`, `isolation`.

use std::num::NonZeroU32;

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn node(half_open_calls: u32) -> Node {
    Node::new(Settings { min_calls: 10, half_open_calls, ..settings() })
}

#[test]
fn on_request_complete_less_than_min_request_amount() {
    let mut node = node(1);
    node.calls(&[FAILURE; 9]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn on_request_complete_probe_succeed() {
    let mut node = node(1);
    node.trip_and_wait();
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn on_request_complete_probe_failed() {
    let mut node = node(1);
    node.trip_and_wait();
    node.calls(&[FAILURE]);
    assert_eq!(node.refusal(), Refusal { why: Why::Open, retry_after: seconds(5) });
}

#[test]
fn on_request_complete_probe_num_success() {
    let mut node = node(10);
    node.trip_and_wait();
    node.calls(&[SUCCESS; 5]);
    assert_eq!(node.state(), State::HalfOpen, "half of them may fail yet");
    node.calls(&[SUCCESS]);
    assert_eq!(node.state(), State::Closed);
}

#[test]
fn on_request_complete_probe_num_failed() {
    let mut node = node(10);
    node.trip_and_wait();
    node.calls(&[SUCCESS, FAILURE, FAILURE, FAILURE, FAILURE]);
    assert_eq!(node.state(), State::HalfOpen);
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open);
}

#[test]
fn try_pass_probe() {
    let mut node = node(1);
    node.calls(&[FAILURE; 10]);
    assert_eq!(node.acquire(), Err(Why::Open));
    node.pass(seconds(5));
    let probe = node.acquire().unwrap();
    assert_eq!(node.acquire(), Err(Why::HalfOpen));
    // a rule behind the breaker turned it away: another may probe
    node.end(probe, Outcome::Ignored);
    assert!(node.acquire().unwrap().is_probe());
}

/// Slow is what took longer than allowed, and not what took as long.
#[test]
fn slow_request_ratio() {
    let slow_call = SlowCall { over: Duration::from_millis(100), rate: percent(50) };
    let mut node = Node::new(Settings { min_calls: 2, slow_call, ..settings() });
    let took = |millis| Outcome::Success { took: Duration::from_millis(millis) };
    node.calls(&[took(100), took(100), took(101)]);
    assert_eq!(node.state(), State::Closed);
    node.calls(&[took(101)]);
    assert_eq!(node.causes(), [Cause::SlowRate { slow: 2, calls: 4 }]);
}

/// A policy that is loaded again changes nothing.
#[test]
fn load_same_rules() {
    let mut node = node(1);
    node.calls(&[FAILURE; 9]);
    node.settings = Arc::new((*node.settings).clone());
    node.calls(&[FAILURE]);
    assert_eq!(node.state(), State::Open);
    node.settings = Arc::new((*node.settings).clone());
    assert_eq!(node.acquire(), Err(Why::Open));
}

/// Another threshold is held against what was counted already.
#[test]
fn reuse_stat() {
    let mut node = node(1);
    node.calls(&[FAILURE; 3]);
    node.calls(&[SUCCESS; 7]);
    assert_eq!(node.state(), State::Closed);
    node.settings = Arc::new(Settings { failure_rate: percent(25), ..(*node.settings).clone() });
    node.calls(&[SUCCESS]);
    assert_eq!(node.causes(), [Cause::FailureRate { failures: 3, calls: 11 }]);
}

/// The isolation rule: as many calls under way as the threshold says.
#[test]
fn isolation_concurrency() {
    let mut node = Node::new(Settings { max_concurrent: NonZeroU32::new(3), ..settings() });
    let mut held = node.permits(3);
    assert_eq!(node.acquire(), Err(Why::Full));
    node.end(held.pop().unwrap(), SUCCESS);
    let _another = node.acquire().unwrap();
}
