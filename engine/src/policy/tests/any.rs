//! Whatever comes, reading neither panics nor gives up without a reason.

use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::wire::{Check, DecideRequest, KeyCheck};

/// Any JSON, with the language's own names in it often enough to get anywhere.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec![
            "version",
            "lanes",
            "store",
            "commands",
            "rate_limits",
            "responses",
            "keys",
            "windows",
            "limit",
            "per",
            "burst",
            "algorithm",
            "token_bucket",
            "sliding_log",
            "sliding_counter",
            "fixed_window",
            "timezone",
            "match",
            "except",
            "headers",
            "regex",
            "flag",
            "trust",
            "everyone",
            "values",
            "ip",
            "cost",
            "shards",
            "consume",
            "on_success",
            "resilience",
            "default",
            "command",
            "failure_rate",
            "slow_call",
            "over",
            "rate",
            "backoff",
            "factor",
            "max",
            "failures",
            "grpc",
            "5xx",
            "disabled",
            "shadow.x",
            "shadow",
            "shadow_x",
            "x",
            "default_rate_limit",
            "shadow_rate_limit",
            "1m",
            "1%",
        ])
        .prop_map(str::to_owned),
        ".*",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u8..3).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..6)
                .prop_map(|entries| entries.into_iter().collect::<Value>()),
        ]
    })
}

/// A policy with every section.
pub(super) fn full() -> Value {
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [
                {"baggage": "shadow", "values": ["true", "1"]},
                {"header": "x-shadow", "values": ["true", "1"]},
                {"jaeger_baggage": "shadow", "values": ["true"]},
                {"skywalking": "shadow", "values": ["true"]},
                {"tracestate": "vendor", "values": ["shadow"]},
            ],
            "trust": [{"source_cidr": ["10.0.0.0/8", "127.0.0.0/8"]}],
            "untrusted": "strip",
            "propagate": [{"baggage": "shadow", "value": "true"}, {"header": "x-shadow", "value": "true"}],
            "fallback": "values",
            "enabled": true,
        }},
        "store": {
            "cluster": "lanekeeper",
            "timeout": "20ms",
            "max_drift": "1%",
            "on_failure": "local",
            "circuit": {"failures": 10, "slow": "10ms", "probe_every": "1s"},
            "token_env": "LANEKEEPER_TOKEN",
        },
        "commands": [
            {"command": "account.core.get_account", "match": {"grpc": "account.core.AccountService/GetAccount"}},
            {
                "command": "voucher.code.batch_get_code_using_cache",
                "match": {"path": {"prefix": "/voucher/code/"}, "methods": ["GET", "POST"]},
            },
        ],
        "rate_limits": {
            "ads_voucher_rate_limit": {
                "match": {
                    "command": ["voucher.code.batch_get_code_using_cache"],
                    "headers": [{"name": "x-voucher-type", "exact": "ads"}],
                },
                "except": {"headers": [{"name": "x-internal", "present": true}]},
                "key_prefix": "ads_voucher",
                "keys": {"per_user": [{"header": "x-user-id"}], "per_shop": [{"header": "x-shop-id"}]},
                "hash_tag": [{"header": "x-user-id"}],
                "windows": [{"limit": 100, "per": "1m"}, {"limit": 1000, "per": "1h"}],
                "algorithm": "sliding_window",
                "cost": 1,
                "consume": "on_success",
                "on_missing_key": "skip",
                "enforce": "100%",
                "shards": 2,
            },
            "shadow_ads_voucher_rate_limit": {"windows": [{"limit": 5000, "per": "1m"}]},
        },
        "resilience": {
            "default": {
                "window": "10s",
                "min_calls": 20,
                "failure_rate": "50%",
                "slow_call": {"over": "2s", "rate": "80%"},
                "open_for": "5s",
                "backoff": {"factor": 2, "max": "1m"},
                "half_open_calls": 5,
                "max_concurrent": 0,
                "failures": [
                    "5xx", "connect", "reset", "timeout", {"grpc": ["UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"]},
                ],
            },
            "account.core.get_account": {"max_concurrent": 200},
            "shadow.account.core.get_account": {"failure_rate": "30%", "max_concurrent": 50},
        },
        "responses": {"headers": ["draft", "legacy"], "rejected_status": 429, "body": "problem"},
    })
}

#[test]
fn the_example_of_the_language_loads() {
    let policy = loaded(&full());
    assert_eq!(policy.lanes.len(), 2);
    assert_eq!(policy.lanes[1].limits[0].key_prefix, "shadow_ads_voucher");
    assert_eq!(policy.lanes[1].breakers[0].title, "shadow.account.core.get_account");
    assert_eq!(policy.warnings, []);
}

/// How many values there are in `value`, itself included.
fn places(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(places).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(places).sum::<usize>(),
        _ => 1,
    }
}

/// Puts `other` in the place of the value number `at` of `value`.
fn replace(value: &mut Value, at: &mut usize, other: &Value) {
    if *at == 0 {
        *value = other.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, at, other)),
        Value::Object(entries) => entries.values_mut().for_each(|entry| replace(entry, at, other)),
        _ => {}
    }
}

/// Reading ends in a policy or in errors that each say something.
fn judge(result: Result<Policy, Vec<PolicyError>>) -> Result<(), TestCaseError> {
    match result {
        Ok(policy) => prop_assert_eq!(&policy.lanes[0].name, NORMAL),
        Err(errors) => {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(!error.problem.is_empty());
                prop_assert!(error.value.chars().count() <= 60, "{}", error.value);
                prop_assert!(!error.problem.starts_with("cannot be read"), "gave up without a reason");
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_json_loads_or_is_refused_with_reasons(value in any_json()) {
        judge(Policy::from_value(&value))?;
    }

    #[test]
    fn any_bytes_load_or_are_refused_with_reasons(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(Policy::from_json(&bytes))?;
    }

    #[test]
    fn a_policy_with_any_value_replaced_loads_or_is_refused_with_reasons(at in 0_usize.., other in any_json()) {
        let mut policy = full();
        let mut at = at % places(&policy);
        replace(&mut policy, &mut at, &other);
        judge(Policy::from_value(&policy))?;
    }

    #[test]
    fn a_policy_with_bytes_changed_loads_or_is_refused_with_reasons(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = full().to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        judge(Policy::from_json(&bytes))?;
    }

    #[test]
    fn whatever_loads_makes_questions_that_every_store_takes(
        limit in 1_u32..2000,
        burst in 1_u32..2000,
        per_ms in 1_u32..100_000_000,
        shards in 1_u32..300,
        cost in 1_u32..100,
        algorithm in prop::sample::select(vec![
            "sliding_window", "sliding_log", "sliding_counter", "fixed_window", "token_bucket",
        ]),
    ) {
        let mut window = json!({"limit": limit, "per": format!("{per_ms}ms")});
        if algorithm == "token_bucket" {
            window["burst"] = burst.into();
        }
        let more = json!({"windows": [window], "shards": shards, "algorithm": algorithm, "cost": cost});
        let policy = Policy::from_value(&json!({"version": 1, "rate_limits": {"x": super::limit(more)}}));
        if let Ok(policy) = policy {
            let count = count(&policy.lanes[0].limits[0]);
            let key = KeyCheck { shards: count.shards, ..KeyCheck::take("x", cost, count.windows.clone()) };
            let checks = vec![Check { keys: vec![key] }];
            let question = DecideRequest::new(20, checks);
            prop_assert_eq!(question.validate(), Ok(()));
        }
    }
}
