//! A policy's errors are its face, so every test states them in full: path, value and problem as one line.

use serde_json::{Value, json};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

mod any;
mod breakers;
mod document;
mod lanes;
mod limits;
mod matches;
mod resilience;
mod store;
mod versions;
mod windows;

/// The errors of `policy`, one line each; none when it loads.
fn errors(policy: &Value) -> Vec<String> {
    match Policy::from_value(policy) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(PolicyError::to_string).collect(),
    }
}

/// Holds that `policy` has these errors and no others; none when it must load.
#[track_caller]
fn check(policy: Value, expected: &[&str]) {
    assert_eq!(errors(&policy), expected, "{policy:#}");
}

/// `policy`, which must load.
#[track_caller]
fn loaded(policy: &Value) -> Policy {
    match Policy::from_value(policy) {
        Ok(policy) => policy,
        Err(errors) => panic!("{errors:#?}"),
    }
}

/// A limit of 100 requests a minute over all requests, with `more` fields.
fn limit(more: Value) -> Value {
    with(json!({"keys": {"all": {"constant": "global"}}, "windows": [{"limit": 100, "per": "1m"}]}), more)
}

/// `base` with the fields of `more` in their places.
fn with(mut base: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

/// How a limit of a loaded policy counts.
#[track_caller]
fn count(limit: &Limit) -> &Count {
    match &limit.verdict {
        LimitVerdict::Count(count) => count,
        LimitVerdict::TurnAway => panic!("{} turns away", limit.title),
    }
}

#[test]
fn a_policy_that_says_nothing_loads_with_the_normal_lane_alone() {
    let policy = loaded(&json!({"version": 1}));
    assert_eq!(policy.lanes.len(), 1);
    assert_eq!(policy.lanes[0].name, NORMAL);
    assert!(policy.lanes[0].entry.is_none() && policy.lanes[0].limits.is_empty());
    assert!(policy.store.is_none() && policy.commands.is_empty());
    assert_eq!(policy.responses, Responses::default());
}

#[test]
fn a_share_holds_as_many_chances_as_it_says() {
    assert!(!Share::NONE.holds(0));
    assert!(Share::ALL.holds(u32::MAX));
    let half = Share::from_millionths(500_000);
    assert!(half.holds(u32::MAX / 2) && !half.holds(u32::MAX / 2 + 1));
}
