//! Whose version an entry is, what it inherits, and what a lane without one gets.

use super::*;

/// A shadow lane with this fallback over these limits.
fn shadowed(fallback: &str, rate_limits: Value) -> Value {
    json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["true"]}],
            "trust": ["everyone"],
            "fallback": fallback,
        }},
        "rate_limits": rate_limits,
    })
}

/// Title, prefix and limits of the windows of all limits of a lane.
fn summary(lane: &Lane) -> Vec<(&str, &str, Vec<u32>)> {
    lane.limits
        .iter()
        .map(|limit| {
            let windows = match &limit.verdict {
                LimitVerdict::Count(count) => count.windows.iter().map(|w| w.limit()).collect(),
                LimitVerdict::TurnAway => Vec::new(),
            };
            (limit.title.as_str(), limit.key_prefix.as_str(), windows)
        })
        .collect()
}

fn mappings() -> Value {
    json!({
        "ads_voucher_rate_limit": {
            "key_prefix": "ads_voucher",
            "keys": {
                "per_user": [{"header": "x-user-id"}],
                "per_shop": [{"header": "x-shop-id"}],
                "per_reference": [{"header": "x-reference"}],
            },
            "hash_tag": [{"header": "x-user-id"}],
            "windows": [{"limit": 100, "per": "1m"}, {"limit": 1000, "per": "1h"}],
        },
        "default_rate_limit": limit(json!({})),
        "soft_rate_limit": limit(json!({
            "except": {"headers": [{"name": "x-skip-soft", "present": true}]},
            "windows": [{"limit": 50, "per": "1m"}],
        })),
        "hard_rate_limit": limit(json!({"windows": [{"limit": 200, "per": "1m"}]})),
    })
}

#[test]
fn without_entries_of_its_own_a_lane_has_the_normal_values_and_its_own_state() {
    let policy = loaded(&shadowed("values", mappings()));
    assert_eq!(
        summary(&policy.lanes[0]),
        [
            ("ads_voucher_rate_limit", "ads_voucher", vec![100, 1000]),
            ("default_rate_limit", "default_rate_limit", vec![100]),
            ("hard_rate_limit", "hard_rate_limit", vec![200]),
            ("soft_rate_limit", "soft_rate_limit", vec![50]),
        ]
    );
    assert_eq!(
        summary(&policy.lanes[1]),
        [
            ("shadow_ads_voucher_rate_limit", "shadow_ads_voucher", vec![100, 1000]),
            ("shadow_default_rate_limit", "shadow_default_rate_limit", vec![100]),
            ("shadow_hard_rate_limit", "shadow_hard_rate_limit", vec![200]),
            ("shadow_soft_rate_limit", "shadow_soft_rate_limit", vec![50]),
        ]
    );
}
