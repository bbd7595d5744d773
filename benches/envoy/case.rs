//! What stands in the filter's place, from nothing to every decision asked of Redis.

use serde_json::{Value, json};

use super::users;

/// One of the Envoys that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// No filter but the router.
    None,
    /// A wasm filter that does nothing.
    EmptyWasm,
    /// Envoy's own limiter: one token bucket for everybody, without a limit for each user.
    LocalRatelimit,
    /// Ours without a store: each user counted on this node.
    Standalone,
    /// Ours with a Redis behind the shim, tokens leased within the default `max_drift`.
    Leased,
    /// The same with `max_drift: 0`: every decision is asked for.
    Strict,
}

impl Case {
    /// In the order of the table.
    pub const ALL: [Self; 6] =
        [Self::None, Self::EmptyWasm, Self::LocalRatelimit, Self::Standalone, Self::Leased, Self::Strict];

    /// As the figures on file have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EmptyWasm => "empty_wasm",
            Self::LocalRatelimit => "local_ratelimit",
            Self::Standalone => "standalone",
            Self::Leased => "leased",
            Self::Strict => "strict",
        }
    }

    /// Our policy; none where the filter is not ours.
    pub(super) fn policy(self) -> Option<Value> {
        let store = match self {
            Self::None | Self::EmptyWasm | Self::LocalRatelimit => return None,
            Self::Standalone => None,
            Self::Leased => Some(store()),
            Self::Strict => Some(with(store(), "max_drift", json!(0))),
        };
        let policy = json!({
            "version": 1,
            "lanes": {
                "shadow": {
                    "flag": [{"baggage": "shadow", "values": ["true"]}],
                    "trust": [{"source_cidr": ["127.0.0.1/32"]}],
                    "propagate": [{"baggage": "shadow", "value": "true"}],
                },
            },
            "rate_limits": {
                "per_user": {
                    "keys": {"user": [{"header": users::HEADER}]},
                    // far above what a machine with one worker sends for one user
                    "windows": [{"limit": 6000, "per": "1m"}, {"limit": 200_000, "per": "1h"}],
                },
            },
        });
        Some(match store {
            Some(store) => with(policy, "store", store),
            None => policy,
        })
    }
}

/// A store that is never given up: a pause of the machine must not turn decisions into cheap ones of this node.
fn store() -> Value {
    json!({
        "cluster": "lanekeeper",
        "timeout": "5s",
        "on_failure": "closed",
        "circuit": {"slow": "5s"},
    })
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    object
}

/// Envoy's limiter, on, with more tokens than it can be asked for.
pub(super) fn local_ratelimit() -> Value {
    let always = json!({"default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "bench",
            "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
            "filter_enabled": always,
            "filter_enforced": always,
        },
    })
}

/// The wasm filter of this file, in the same runtime as ours.
pub(super) fn wasm(file: &std::path::Path) -> Value {
    json!({
        "name": "empty",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "empty",
                "root_id": "empty",
                "vm_config": {
                    "vm_id": "empty",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": file}},
                },
            },
        },
    })
}
