//! Whose version an entry is, what it inherits, and what a lane without one gets.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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

#[test]
fn what_an_entry_of_a_lane_does_not_say_is_the_normal_entrys() {
    let entries = with(
        mappings(),
        json!({
            "shadow_ads_voucher_rate_limit": {"windows": [{"limit": 5000, "per": "1m"}]},
            "shadow_default_rate_limit": {"windows": [{"limit": 1, "per": "1s"}], "key_prefix": "d"},
            "shadow_soft_rate_limit": {"enforce": "0%"},
            "shadow_hard_rate_limit": {"except": {"methods": ["GET"]}, "cost": 2, "on_failure": "open"},
        }),
    );
    let policy = loaded(&shadowed("values", entries));
    let shadow = &policy.lanes[1];
    assert_eq!(
        summary(shadow),
        [
            ("shadow_ads_voucher_rate_limit", "shadow_ads_voucher", vec![5000]),
            ("shadow_default_rate_limit", "shadow_d", vec![1]),
            ("shadow_hard_rate_limit", "shadow_hard_rate_limit", vec![200]),
            ("shadow_soft_rate_limit", "shadow_soft_rate_limit", vec![50]),
        ]
    );
    let names: Vec<&str> = shadow.limits.iter().map(|limit| limit.name.as_str()).collect();
    assert_eq!(names, ["ads_voucher_rate_limit", "default_rate_limit", "hard_rate_limit", "soft_rate_limit"]);
    let ads = count(&shadow.limits[0]);
    assert_eq!(ads.keys.len(), 3);
    assert_eq!(ads.hash_tag, Some(vec![Source::Header("x-user-id".to_owned())]));
    assert_eq!(ads.policy_items[0][0].item, r#""shadow_ads_voucher_rate_limit:per_reference";q=5000;w=60"#);
    let hard = &shadow.limits[2];
    assert_eq!(hard.except.as_ref().unwrap().methods, ["GET"]);
    assert_eq!((&count(hard).cost, count(hard).on_failure), (&Cost::Fixed(2), OnFailure::Open));
    let soft = &shadow.limits[3];
    assert_eq!(soft.except.as_ref().unwrap().headers[0].name, "x-skip-soft");
    assert_eq!(count(soft).enforce, Share::NONE);
    assert_eq!(count(&policy.lanes[0].limits[3]).enforce, Share::ALL, "the normal entry stays as it is");
    assert_eq!(count(&policy.lanes[0].limits[2]).cost, Cost::Fixed(1));
}

#[test]
fn a_lane_that_shares_has_the_normal_limits_state_and_names_unless_it_has_its_own() {
    let entries = json!({
        "a": limit(json!({"key_prefix": "pa"})),
        "b": limit(json!({"key_prefix": "pb"})),
        "shadow_b": {"windows": [{"limit": 7, "per": "1m"}]},
    });
    let policy = loaded(&shadowed("share", entries));
    assert_eq!(summary(&policy.lanes[1]), [("a", "pa", vec![100]), ("shadow_b", "shadow_pb", vec![7])]);
    assert_eq!(count(&policy.lanes[1].limits[0]).policy_items[0][0].name, "a");
}

#[test]
fn a_lane_that_rejects_turns_away_what_the_normal_limit_applies_to_unless_it_has_its_own() {
    let entries = json!({
        "a": limit(json!({"match": {"methods": ["GET"]}, "except": {"methods": ["HEAD"]}})),
        "b": limit(json!({})),
        "shadow_b": {"windows": [{"limit": 7, "per": "1m"}]},
    });
    let policy = loaded(&shadowed("reject", entries));
    let shadow = &policy.lanes[1];
    assert_eq!(summary(shadow), [("shadow_a", "shadow_a", vec![]), ("shadow_b", "shadow_b", vec![7])]);
    assert!(matches!(shadow.limits[0].verdict, LimitVerdict::TurnAway));
    assert_eq!(shadow.limits[0].matches.methods, ["GET"]);
    assert_eq!(shadow.limits[0].except.as_ref().unwrap().methods, ["HEAD"]);
}

#[test]
fn the_older_name_stands_for_the_default_limit() {
    let default = || json!({"default_rate_limit": limit(json!({}))});
    let older = json!({"shadow_rate_limit": {"windows": [{"limit": 7, "per": "1m"}]}});
    let policy = loaded(&shadowed("values", with(default(), older.clone())));
    assert_eq!(
        summary(&policy.lanes[1]),
        [("shadow_default_rate_limit", "shadow_default_rate_limit", vec![7])]
    );

    let both = with(with(default(), older.clone()), json!({"shadow_default_rate_limit": {"cost": 1}}));
    check(
        shadowed("values", both),
        &[
            "rate_limits.shadow_rate_limit: {\"windows\":[{\"limit\":7,\"per\":\"1m\"}]}: has an overlapping name: it is \
           the older name of `shadow_default_rate_limit`, which is there too",
        ],
    );

    let of_its_own = with(with(default(), older), json!({"rate_limit": limit(json!({}))}));
    let policy = loaded(&shadowed("values", of_its_own));
    assert_eq!(
        summary(&policy.lanes[1]),
        [
            ("shadow_default_rate_limit", "shadow_default_rate_limit", vec![100]),
            ("shadow_rate_limit", "shadow_rate_limit", vec![7]),
        ]
    );
}

#[test]
fn a_version_of_nothing_is_refused() {
    let orphan = json!({"cost": 1});
    check(
        shadowed(
            "values",
            json!({"default_rate_limit": limit(json!({})), "shadow_defualt_rate_limit": orphan}),
        ),
        &[
            "rate_limits.shadow_defualt_rate_limit: {\"cost\":1}: is by its name the lane `shadow`'s version of \
           `defualt_rate_limit`, which is no entry; the entries are default_rate_limit; \
           did you mean `default_rate_limit`?",
        ],
    );
    check(
        shadowed("values", json!({"shadow_rate_limit": orphan})),
        &[
            "rate_limits.shadow_rate_limit: {\"cost\":1}: is by its name the lane `shadow`'s version of `rate_limit`, \
           which is no entry; there is no other entry",
        ],
    );
    check(
        shadowed("values", json!({"a": limit(json!({})), "shadow_": orphan, "shadow_shadow_a": orphan})),
        &[
            "rate_limits.shadow_: {\"cost\":1}: is by its name the lane `shadow`'s version of ``, which is no entry; \
             the entries are a; did you mean `a`?",
            "rate_limits.shadow_shadow_a: {\"cost\":1}: is by its name the lane `shadow`'s version of `shadow_a`, \
             which is no entry; the entries are a",
        ],
    );
    let without_lanes = json!({"version": 1, "rate_limits": {"shadow_x": limit(json!({}))}});
    assert_eq!(loaded(&without_lanes).lanes[0].limits[0].title, "shadow_x");
}

#[test]
fn an_inherited_error_is_told_once_at_the_normal_entry() {
    check(
        shadowed(
            "values",
            json!({
                "x": {
                    "keys": {"k": "cookie"},
                    "windows": [{"limit": 0, "per": "1m", "burst": 1}],
                    "algorithm": "sliding_window",
                },
                "y": {"windows": [{"limit": 5, "per": "1m"}], "cost": 6},
                "shadow_x": {"cost": 1},
                "shadow_y": {"enforce": 5},
            }),
        ),
        &[
            "rate_limits.x.keys.k: \"cookie\": is not supported by this version; supported: header, ip, path, method, \
             host, command, constant, api_key",
            "rate_limits.x.windows[0].limit: 0: must be a whole number from 1 to 1000000000",
            "rate_limits.x.windows[0].burst: 1: needs `algorithm: token_bucket`; rate_limits.x.algorithm says otherwise",
            "rate_limits.y.keys: is required: what is counted; {everyone: {constant: global}} counts all requests \
             together",
            "rate_limits.y.cost: 6: must be a whole number from 1 to 5, the most that an empty window of \
             rate_limits.y.windows admits",
            "rate_limits.shadow_y.enforce: 5: must be a percentage from 0% to 100% with at most four decimals, \
             such as 1% or 0.5%",
        ],
    );
}

#[test]
fn what_does_not_fit_together_across_the_two_entries_is_refused() {
    check(
        shadowed(
            "values",
            json!({
                "x": limit(json!({"cost": {"header": "x-cost", "max": 100}})),
                "shadow_x": {"windows": [{"limit": 5, "per": "1m"}]},
            }),
        ),
        &[
            "rate_limits.x.cost.max: 100: must be a whole number from 1 to 5, the most that an empty window of \
           rate_limits.shadow_x.windows admits",
        ],
    );
    check(
        shadowed(
            "values",
            json!({
                "x": limit(json!({"algorithm": "token_bucket", "windows": [{"limit": 5, "per": "1m", "burst": 9}]})),
                "shadow_x": {"algorithm": "sliding_window"},
            }),
        ),
        &[
            "rate_limits.x.windows[0].burst: 9: needs `algorithm: token_bucket`; rate_limits.shadow_x.algorithm says \
           otherwise",
        ],
    );
}

#[test]
fn limits_may_not_count_in_each_others_store_keys() {
    let prefixed = |prefix: &str, key: &str| {
        json!({
            "keys": {key: "ip"}, "windows": [{"limit": 1, "per": "1m"}], "key_prefix": prefix,
        })
    };
    check(
        shadowed("values", json!({"x": prefixed("p", "k"), "y": prefixed("p", "k")})),
        &["rate_limits.y.key_prefix: \"p\": overlaps: rate_limits.x counts in the same store keys; \
           give one another key_prefix"],
    );
    check(
        shadowed("values", json!({"x": prefixed("y", "all"), "y": limit(json!({}))})),
        &["rate_limits.x.key_prefix: \"y\": overlaps: rate_limits.y counts in the same store keys; \
           give one another key_prefix"],
    );
    let by_hand = || json!({"x": limit(json!({})), "y": prefixed("shadow_x", "all")});
    check(
        shadowed("values", by_hand()),
        &[
            "rate_limits.y.key_prefix: \"shadow_x\": overlaps: rate_limits.x counts in the same store keys in the lane \
           `shadow`; give one another key_prefix",
        ],
    );
    check(shadowed("share", by_hand()), &[]);
    check(shadowed("values", json!({"x": prefixed("p", "k"), "y": prefixed("p", "j")})), &[]);
    check(
        shadowed(
            "share",
            json!({"x": prefixed("p", "k"), "y": prefixed("q", "k"), "shadow_y": {"key_prefix": "p"}, "shadow_x": {}}),
        ),
        &[
            "rate_limits.shadow_y.key_prefix: \"p\": overlaps: rate_limits.shadow_x counts in the same store keys; \
           give one another key_prefix",
        ],
    );
}

#[test]
fn a_lanes_version_is_spread_like_the_normal_one_and_must_hold_as_many_requests() {
    let shards = |windows: Value| json!({"x": limit(json!({"shards": 8})), "shadow_x": {"windows": windows}});
    let policy = loaded(&shadowed("values", shards(json!([{"limit": 8, "per": "1m"}]))));
    assert_eq!(policy.lanes.iter().map(|lane| count(&lane.limits[0]).shards).collect::<Vec<_>>(), [8, 8]);
    check(
        shadowed("values", shards(json!([{"limit": 7, "per": "1m"}]))),
        &["rate_limits.x.shards: 8: must be a whole number from 1 to 7, the smallest limit or burst of \
           rate_limits.shadow_x.windows, of which each shard holds its part"],
    );
}

#[test]
fn a_lanes_version_is_charged_when_the_normal_one_is_unless_it_says_otherwise() {
    let own = |own: Value| json!({"x": limit(json!({"consume": "on_success"})), "shadow_x": own});
    let consume = |entries: Value| count(&loaded(&shadowed("values", entries)).lanes[1].limits[0]).consume;
    assert_eq!(consume(own(json!({"cost": 2}))), Consume::OnSuccess);
    assert_eq!(consume(own(json!({"consume": "on_request"}))), Consume::OnRequest);
}
