//! What the workers keep to: leases, refusals, breakers, every algorithm, both ways to charge, two lanes.

use serde_json::{Value, json};

/// The policy. The `other` one has other numbers, an entry less and one more; both have most in common.
pub(super) fn policy(other: bool) -> Value {
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["true"]}],
            "trust": [{"source_cidr": ["127.0.0.0/8"]}],
            "propagate": [{"header": "x-shadow", "value": "true"}],
        }},
        "store": {
            "cluster": "lanekeeper",
            "timeout": "20ms",
            // it opens, probes and closes often
            "circuit": {"failures": 10, "slow": "10ms", "probe_every": "100ms"},
        },
        "commands": [
            {"command": "list", "match": {"path": {"prefix": "/list"}}},
            {"command": "claim", "match": {"path": {"prefix": "/claim"}}},
        ],
        "rate_limits": {
            // leased, and hardly ever full
            "per_user": {
                "keys": {"user": [{"header": "x-user"}]},
                "windows": [{"limit": if other { 900 } else { 1000 }, "per": "1m"}, {"limit": 20_000, "per": "1h"}],
            },
            // often full: its refusals are remembered
            "per_shop": {
                "match": {"command": ["list"]},
                "keys": {"shop": [{"header": "x-shop"}]},
                "windows": [{"limit": 20, "per": "1s"}],
                "on_failure": "open",
            },
            "claims": {
                "match": {"command": ["claim"]},
                "keys": {"user": [{"header": "x-user"}], "shop": [{"header": "x-shop"}]},
                "windows": [{"limit": 500, "per": "1m"}],
                "consume": "on_success",
            },
            "bucket": {
                "match": {"command": ["claim"]},
                "keys": {"shop": [{"header": "x-shop"}]},
                "algorithm": "token_bucket",
                "windows": [{"limit": 100, "per": "1s", "burst": 200}],
                "on_failure": "closed",
            },
            "daily": {
                "match": {"path": {"prefix": "/pay"}},
                "keys": {"user": [{"header": "x-user"}]},
                "algorithm": "fixed_window",
                "windows": [{"limit": 10_000, "per": "1d"}],
            },
            "counter": {
                "match": {"path": {"prefix": "/pay"}},
                "keys": {"shop": [{"header": "x-shop"}]},
                "algorithm": "sliding_counter",
                "windows": [{"limit": 200, "per": "1s"}],
            },
            (if other { "log" } else { "another_log" }): {
                "match": {"path": {"prefix": "/pay"}},
                "keys": {"user": [{"header": "x-user"}]},
                "algorithm": "sliding_log",
                "windows": [{"limit": 5, "per": "1s"}],
            },
        },
        "resilience": {
            "list": {
                "consecutive_failures": 12, "open_for": "100ms", "backoff": {"max": "400ms"}, "half_open_calls": 5,
            },
            "claim": {"max_concurrent": 16, "min_calls": 50, "open_for": "200ms"},
        },
    })
}
