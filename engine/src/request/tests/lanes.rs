//! What a lane's limits make of its requests, and what becomes of a flag that may not be set.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn the_shadow_lane_has_its_own_values_and_its_own_keys() {
    let (request, _) = arrive(&with_limits(true, json!({})), &[("x-user", "u1"), ("baggage", "shadow=true")]);
    let check = request.checks().next().unwrap();
    assert_eq!(check.keys[0].key, "shadow_per_user:{u1}:user");
    assert_eq!(check.keys[0].windows.len(), 1);
    assert_eq!(request.lane(), 1);
}

#[test]
fn a_missing_shadow_entry_falls_back_in_values_and_never_in_state() {
    let more =
        json!({"other": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 3, "per": "1s"}]}});
    let policy = with_limits(true, more);
    let (request, _) = arrive(&policy, &[("x-user", "u1"), ("baggage", "shadow=true")]);
    let keys: Vec<_> =
        request.checks().flat_map(|check| check.keys.iter().map(|key| key.key.as_str())).collect();
    assert_eq!(keys, ["shadow_other:{u1}:user", "shadow_per_user:{u1}:user"]);
}

#[test]
fn a_lane_that_goes_nowhere_without_its_entry_turns_requests_away() {
    let policy = policy(&json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["1"]}], "trust": ["everyone"], "fallback": "reject",
        }},
        "rate_limits": {"a": {"keys": {"all": {"constant": "all"}}, "windows": [{"limit": 1, "per": "1s"}]}},
    }));
    let (mut request, step) = arrive(&policy, &[("x-shadow", "1")]);
    assert_eq!(reply(step).status, 403);
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Rejected, Judge::Policy)]);
    assert_eq!(arrive(&policy, &[]).1, Step::Count);
}

#[test]
fn an_untrusted_flag_is_forbidden_where_the_policy_says_reject() {
    let policy = policy(&json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["1"]}],
            "trust": [{"source_cidr": ["192.0.2.0/24"]}],
            "untrusted": "reject",
        }},
    }));
    let (_, step) = arrive(&policy, &[("x-shadow", "1")]);
    assert_eq!((reply(step).status, arrive(&policy, &[("x-shadow", "0")]).1), (403, Step::Continue));
}
