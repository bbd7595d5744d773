//! The fields of an entry of `resilience`: their values, their ranges and what they inherit.

use std::num::NonZeroU32;
use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::breaker::{Backoff, Control, Failures, Settings, SlowCall};

/// A policy with the commands `a` and `b`, a shadow lane and these entries.
pub(super) fn with_breakers(entries: Value) -> Value {
    json!({
        "version": 1,
        "lanes": {"shadow": {"flag": [{"header": "x-shadow", "values": ["true"]}], "trust": ["everyone"]}},
        "commands": [
            {"command": "a", "match": {"path": {"prefix": "/a"}}},
            {"command": "b", "match": {"path": {"prefix": "/b"}}},
        ],
        "resilience": entries,
    })
}

/// The values of the breaker `title` of `policy`, which must load.
#[track_caller]
pub(super) fn settings(policy: &Policy, title: &str) -> Settings {
    let breaker = policy.lanes.iter().flat_map(|lane| &lane.breakers).find(|breaker| breaker.title == title);
    match &breaker.unwrap().verdict {
        BreakerVerdict::Guard(settings) => Settings::clone(settings),
        BreakerVerdict::TurnAway => panic!("{title} turns away"),
    }
}

/// The values of an entry that says `entry` alone.
#[track_caller]
fn alone(entry: Value) -> Settings {
    settings(&loaded(&with_breakers(json!({"a": entry}))), "a")
}

/// Holds that `entry` has these errors, each told without the path that leads to it.
#[track_caller]
fn check_entry(entry: Value, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|error| format!("resilience.a.{error}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(with_breakers(json!({"a": entry})), &expected);
}

fn percent(percent: u32) -> Share {
    Share::from_millionths(percent * 10_000)
}

#[test]
fn an_entry_that_says_nothing_has_the_values_of_the_language() {
    let expected = Settings {
        window: Duration::from_secs(10),
        min_calls: 20,
        failure_rate: percent(50),
        slow_call: SlowCall { over: Duration::from_secs(2), rate: percent(80) },
        consecutive_failures: None,
        open_for: Duration::from_secs(5),
        backoff: Backoff { factor_thousandths: 2000, max: Duration::from_secs(60) },
        half_open_calls: 5,
        max_concurrent: None,
        failures: Failures {
            server_errors: true,
            connect: true,
            reset: true,
            timeout: true,
            grpc: vec![4, 13, 14],
        },
        control: Control::Automatic,
        enforce: Share::ALL,
    };
    assert_eq!(alone(json!({})), expected);
}

#[test]
fn every_field_is_read() {
    let expected = Settings {
        window: Duration::from_secs(3600),
        min_calls: 1,
        failure_rate: Share::from_millionths(1),
        slow_call: SlowCall { over: Duration::from_millis(1), rate: Share::ALL },
        consecutive_failures: NonZeroU32::new(7),
        open_for: Duration::from_millis(10),
        backoff: Backoff { factor_thousandths: 1500, max: Duration::from_millis(10) },
        half_open_calls: 1,
        max_concurrent: NonZeroU32::new(200),
        failures: Failures {
            server_errors: false,
            connect: false,
            reset: true,
            timeout: false,
            grpc: vec![1, 16],
        },
        control: Control::ForceClosed,
        enforce: Share::NONE,
    };
    let entry = json!({
        "window": "1h",
        "min_calls": 1,
        "failure_rate": "0.0001%",
        "slow_call": {"over": "1ms", "rate": "100%"},
        "consecutive_failures": 7,
        "open_for": "10ms",
        "backoff": {"factor": 1.5, "max": "10ms"},
        "half_open_calls": 1,
        "max_concurrent": 200,
        "failures": ["reset", {"grpc": ["UNAUTHENTICATED", "CANCELLED"]}],
        "force_open": false,
        "force_closed": true,
        "disabled": false,
        "enforce": "0%",
    });
    assert_eq!(alone(entry), expected);
    assert_eq!(alone(json!({"force_open": true})).control, Control::ForceOpen);
    assert_eq!(alone(json!({"disabled": true})).control, Control::Disabled);
}

#[test]
fn what_an_entry_leaves_out_is_the_commands_then_the_defaults_then_the_languages() {
    let policy = loaded(&with_breakers(json!({
        "default": {
            "min_calls": 1,
            "half_open_calls": 1,
            "window": "1s",
            "slow_call": {"over": "1s", "rate": "10%"},
            "backoff": {"max": "2m"},
            "consecutive_failures": 9,
        },
        "a": {"min_calls": 2, "half_open_calls": 2, "slow_call": {"over": "2s"}, "backoff": {"factor": 3}},
        "shadow.a": {"min_calls": 3, "slow_call": {"rate": "30%"}, "consecutive_failures": 0},
        "shadow.b": {"failure_rate": "5%", "failures": ["connect"]},
    })));
    let (a, b) = (settings(&policy, "a"), settings(&policy, "b"));
    let (shadow_a, shadow_b) = (settings(&policy, "shadow.a"), settings(&policy, "shadow.b"));
    let all = [&a, &b, &shadow_a, &shadow_b];
    assert_eq!(all.map(|settings| settings.min_calls), [2, 1, 3, 1]);
    assert_eq!(all.map(|settings| settings.half_open_calls), [2, 1, 2, 1]);
    assert_eq!(all.map(|settings| settings.window.as_secs()), [1; 4]);
    assert_eq!(all.map(|settings| settings.slow_call.over.as_secs()), [2, 1, 2, 1]);
    assert_eq!(all.map(|settings| settings.slow_call.rate), [10, 10, 30, 10].map(percent));
    assert_eq!(all.map(|settings| settings.backoff.factor_thousandths), [3000, 2000, 3000, 2000]);
    assert_eq!(all.map(|settings| settings.backoff.max.as_secs()), [120; 4]);
    assert_eq!(
        all.map(|settings| settings.consecutive_failures.map(NonZeroU32::get)),
        [Some(9), Some(9), None, Some(9)]
    );
    assert_eq!(all.map(|settings| settings.failure_rate), [50, 50, 50, 5].map(percent));
    assert_eq!(all.map(|settings| settings.failures.server_errors), [true, true, true, false]);
}

#[test]
fn rates_are_above_nothing_and_at_most_all() {
    let range =
        "must be a percentage above 0% and up to 100% with at most four decimals, such as 50% or 0.5%";
    for (rate, shown) in [
        (json!("0%"), "\"0%\""),
        (json!(0), "0"),
        (json!("100.1%"), "\"100.1%\""),
        (json!("101%"), "\"101%\""),
        (json!("-1%"), "\"-1%\""),
        (json!(0.5), "0.5"),
        (json!(50), "50"),
        (json!(null), "null"),
    ] {
        check_entry(
            json!({"failure_rate": rate, "slow_call": {"rate": rate}}),
            &[&format!("failure_rate: {shown}: {range}"), &format!("slow_call.rate: {shown}: {range}")],
        );
    }
    let percent = "must be a percentage from 0% to 100% with at most four decimals, such as 1% or 0.5%";
    check_entry(json!({"enforce": "101%"}), &[&format!("enforce: \"101%\": {percent}")]);
}

#[test]
fn numbers_of_calls_have_their_ranges() {
    check_entry(
        json!({
            "min_calls": 0,
            "half_open_calls": 0,
            "consecutive_failures": -1,
            "max_concurrent": 1_000_001,
        }),
        &[
            "min_calls: 0: must be a whole number from 1 to 1000000",
            "consecutive_failures: -1: must be a whole number from 0 to 1000000",
            "half_open_calls: 0: must be a whole number from 1 to 10000",
            "max_concurrent: 1000001: must be a whole number from 0 to 1000000",
        ],
    );
    assert_eq!(alone(json!({"max_concurrent": 0, "consecutive_failures": 0.0})), alone(json!({})));
}

#[test]
fn durations_have_their_ranges() {
    let unit = "a whole number and its unit, ms, s, m, h or d";
    check_entry(
        json!({
            "window": "0s",
            "open_for": "0ms",
            "slow_call": {"over": "0ms"},
            "backoff": {"max": "2h"},
        }),
        &[
            &format!("window: \"0s\": must be a duration from 1s to 1h: {unit}"),
            &format!("slow_call.over: \"0ms\": must be a duration from 1ms to 1h: {unit}"),
            &format!("open_for: \"0ms\": must be a duration from 10ms to 1h: {unit}"),
            &format!("backoff.max: \"2h\": must be a duration from 10ms to 1h: {unit}"),
        ],
    );
}

#[test]
fn an_open_time_grows_by_1_to_10_up_to_an_end_that_is_not_before_it() {
    let factor = |factor: Value| alone(json!({"backoff": {"factor": factor}})).backoff.factor_thousandths;
    assert_eq!([json!(1), json!(1.001), json!(1.1), json!(10.0)].map(factor), [1000, 1001, 1100, 10_000]);
    for (factor, shown) in [
        (json!(0), "0"),
        (json!(0.999), "0.999"),
        (json!(-2), "-2"),
        (json!(10.001), "10.001"),
        (json!(1.0001), "1.0001"),
        (json!("2"), "\"2\""),
    ] {
        check_entry(
            json!({"backoff": {"factor": factor}}),
            &[&format!(
                "backoff.factor: {shown}: must be a number from 1 to 10 with at most three decimals, such as 2 or 1.5"
            )],
        );
    }
    check_entry(
        json!({"open_for": "2s", "backoff": {"max": "1s"}}),
        &["backoff.max: \"1s\": must be at least 2s, which is resilience.a.open_for"],
    );
    check_entry(
        json!({"backoff": {"max": "1s"}}),
        &["backoff.max: \"1s\": must be at least 5s, which is open_for where nothing is said"],
    );
    check(
        with_breakers(json!({"default": {"backoff": {"max": "10s"}}, "shadow.a": {"open_for": "11s"}})),
        &[
            "resilience.default.backoff.max: \"10s\": must be at least 11s, which is resilience[\"shadow.a\"].open_for",
        ],
    );
    let long = alone(json!({"open_for": "5m"}));
    assert_eq!(long.backoff.max, long.open_for, "an end that nobody has written makes room");
}

#[test]
fn failures_are_words_and_grpc_statuses() {
    let words = "must be one of 5xx, connect, reset, timeout, {grpc: [UNAVAILABLE, ...]}";
    check_entry(
        json!({"failures": []}),
        &["failures: []: must not be empty: write an item, or leave it out"],
    );
    check_entry(json!({"failures": "5xx"}), &["failures: \"5xx\": must be a list"]);
    check_entry(
        json!({"failures": ["4xx", 500, "reset", "reset", {"grpc": ["UNAVAILABLE"]}]}),
        &[
            &format!("failures[0]: \"4xx\": {words}"),
            &format!("failures[1]: 500: {words}"),
            "failures[3]: \"reset\": stands in this list twice",
        ],
    );
    let statuses = "must be a gRPC status other than OK, such as CANCELLED, UNKNOWN, INVALID_ARGUMENT, \
                    DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED, \
                    FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED and 4 more";
    check_entry(
        json!({"failures": [{"grpc": ["unavailable", "OK", 14]}, {"grpc": []}]}),
        &[
            &format!("failures[0].grpc[0]: \"unavailable\": {statuses}; did you mean `UNAVAILABLE`?"),
            &format!("failures[0].grpc[1]: \"OK\": {statuses}"),
            "failures[0].grpc[2]: 14: must be a text: write it in quotes",
            "failures[1].grpc: []: must not be empty: write an item, or leave it out",
        ],
    );
    check_entry(
        json!({"failures": [{"grpc": ["INTERNAL", "INTERNAL"]}, {}]}),
        &[
            "failures[0].grpc[1]: \"INTERNAL\": stands in this list twice",
            "failures[1].grpc: is required: a list of gRPC statuses",
        ],
    );
    check_entry(
        json!({"failures": [{"grpc": ["INTERNAL"]}, {"grpc": ["UNKNOWN"]}]}),
        &["failures[1]: {\"grpc\":[\"UNKNOWN\"]}: stands in this list twice"],
    );
}

#[test]
fn two_decisions_of_the_operator_are_refused_where_both_are_written() {
    let one = "only one of force_open, force_closed and disabled may be true, and false takes back what is inherited";
    check_entry(
        json!({"force_open": true, "force_closed": true}),
        &[&format!("force_open: true: overlaps with resilience.a.force_closed: {one}")],
    );
    check_entry(
        json!({"force_open": true, "force_closed": true, "disabled": true}),
        &[&format!(
            "force_open: true: overlaps with resilience.a.force_closed and resilience.a.disabled: {one}"
        )],
    );
    check(
        with_breakers(json!({"default": {"disabled": true}, "a": {"force_closed": true}})),
        &[&format!("resilience.a.force_closed: true: overlaps with resilience.default.disabled: {one}")],
    );
    let policy = loaded(&with_breakers(
        json!({"default": {"disabled": true}, "a": {"disabled": false, "force_open": true}}),
    ));
    assert_eq!(
        ["a", "b"].map(|title| settings(&policy, title).control),
        [Control::ForceOpen, Control::Disabled]
    );
    check_entry(json!({"disabled": "yes"}), &["disabled: \"yes\": must be true or false"]);
}

#[test]
fn unknown_fields_are_refused_at_every_depth() {
    check(
        with_breakers(json!({
            "a": {"min_call": 1, "slow_call": {"above": "1s"}, "backoff": {"factr": 2}},
            "b": 5,
            "shadow.a": {"slow_call": "2s"},
        })),
        &[
            "resilience.a.min_call: 1: is an unknown field; allowed: window, min_calls, failure_rate, slow_call, \
             consecutive_failures, open_for, backoff, half_open_calls, max_concurrent, failures, enforce, force_open \
             and 2 more; did you mean `min_calls`?",
            "resilience.a.slow_call.above: \"1s\": is an unknown field; allowed: over, rate",
            "resilience.a.backoff.factr: 2: is an unknown field; allowed: factor, max; did you mean `factor`?",
            "resilience.b: 5: must be an object with the fields window, min_calls, failure_rate, slow_call, \
             consecutive_failures, open_for, backoff, half_open_calls, max_concurrent, failures, enforce, force_open \
             and 2 more",
            "resilience[\"shadow.a\"].slow_call: \"2s\": must be an object with the fields over, rate",
        ],
    );
}
