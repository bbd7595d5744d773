//! One limit: keys, windows, cost and the rest.

use std::num::NonZeroU32;
use std::time::Duration;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;
use crate::window::Algorithm;

pub(super) fn one(more: Value) -> Value {
    json!({"version": 1, "rate_limits": {"x": limit(more)}})
}

/// Holds that the limit `x` with these fields has these errors, paths given from `x` on.
#[track_caller]
pub(super) fn check_x(more: Value, expected: &[&str]) {
    let expected: Vec<String> = expected.iter().map(|error| format!("rate_limits.x{error}")).collect();
    assert_eq!(errors(&one(more.clone())), expected, "{more:#}");
}

#[test]
fn a_limit_that_says_only_its_keys_and_windows_has_the_documented_defaults() {
    let policy = loaded(&one(json!({})));
    let limit = &policy.lanes[0].limits[0];
    assert_eq!((limit.name.as_str(), limit.title.as_str(), limit.key_prefix.as_str()), ("x", "x", "x"));
    assert!(limit.except.is_none() && limit.matches.commands.is_empty() && limit.matches.path.is_none());
    let count = count(limit);
    let window = Window::new(100, Duration::from_secs(60), Algorithm::SlidingWindow).unwrap();
    assert_eq!(*count.windows, [window]);
    assert_eq!(count.keys[0].sources, [Source::Constant("global".to_owned())]);
    assert!(count.hash_tag.is_none());
    assert_eq!((&count.cost, count.shards), (&Cost::Fixed(1), 1));
    assert_eq!((count.consume, count.on_missing_key), (Consume::OnRequest, OnMissingKey::Skip));
    assert_eq!(count.enforce, Share::ALL);
    assert_eq!(count.on_failure, OnFailure::Local);
}

#[test]
fn everything_about_a_limit_can_be_said() {
    let policy = loaded(&one(json!({
        "key_prefix": "ads",
        "keys": {
            "per_user": [{"header": "x-user"}, {"ip": {}}],
            "per_shop": {"api_key": "x-api-key"},
            "a": "ip", "b": "path", "c": "method", "d": "host", "e": "command", "f": {"ip": {"v6_prefix": 56}},
        },
        "hash_tag": [{"header": "x-user"}],
        "windows": [{"limit": 10, "per": "1s", "burst": 20}, {"limit": 100.0, "per": "1m"}],
        "algorithm": "token_bucket",
        "cost": {"header": "x-cost", "max": 2},
        "consume": "on_success",
        "on_missing_key": "reject",
        "enforce": "12.5%",
        "shards": 10,
        "on_failure": "open",
    })));
    let limit = &policy.lanes[0].limits[0];
    assert_eq!(limit.key_prefix, "ads");
    let count = count(limit);
    let keys: Vec<(&str, &[Source])> =
        count.keys.iter().map(|key| (key.name.as_str(), key.sources.as_slice())).collect();
    let user = Source::Header("x-user".to_owned());
    assert_eq!(
        keys,
        [
            ("a", &[Source::Ip { v6_prefix: 64 }][..]),
            ("b", &[Source::Path]),
            ("c", &[Source::Method]),
            ("d", &[Source::Host]),
            ("e", &[Source::Command]),
            ("f", &[Source::Ip { v6_prefix: 56 }]),
            ("per_shop", &[Source::ApiKey("x-api-key".to_owned())]),
            ("per_user", &[user.clone(), Source::Ip { v6_prefix: 64 }]),
        ]
    );
    assert_eq!(count.hash_tag, Some(vec![user]));
    let bucket = |limit, seconds, burst| {
        let burst = NonZeroU32::new(burst).unwrap();
        Window::new(limit, Duration::from_secs(seconds), Algorithm::TokenBucket { burst }).unwrap()
    };
    assert_eq!(*count.windows, [bucket(10, 1, 20), bucket(100, 60, 100)]);
    assert_eq!((&count.cost, count.shards), (&Cost::Header { name: "x-cost".to_owned(), max: 2 }, 10));
    assert_eq!((count.consume, count.on_missing_key), (Consume::OnSuccess, OnMissingKey::Reject));
    assert_eq!(count.enforce, Share::from_millionths(125_000));
    assert_eq!(count.on_failure, OnFailure::Open);
}

#[test]
fn clients_see_the_key_if_there_are_several_and_the_window_if_there_are_several() {
    let items = |more: Value| {
        let policy = loaded(&one(more));
        let items = &count(&policy.lanes[0].limits[0]).policy_items;
        items.iter().map(|key| key.iter().map(|i| i.item.clone()).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    assert_eq!(items(json!({})), [[r#""x";q=100;w=60"#]]);
    assert_eq!(
        items(json!({"windows": [{"limit": 5, "per": "60s"}, {"limit": 50, "per": "24h"}]})),
        [[r#""x:1m";q=5;w=60"#, r#""x:1d";q=50;w=86400"#]]
    );
    assert_eq!(
        items(json!({"keys": {"u": "ip", "g": "host"}})),
        [[r#""x:g";q=100;w=60"#], [r#""x:u";q=100;w=60"#]]
    );
    assert_eq!(
        items(json!({
            "keys": {"u": "ip", "g": "host"},
            "windows": [{"limit": 1, "per": "500ms"}, {"limit": 2, "per": "1500ms"}, {"limit": 3, "per": "90s"}],
        })),
        [
            [r#""x:g:500ms";q=1"#, r#""x:g:1500ms";q=2"#, r#""x:g:90s";q=3;w=90"#],
            [r#""x:u:500ms";q=1"#, r#""x:u:1500ms";q=2"#, r#""x:u:90s";q=3;w=90"#],
        ]
    );
    let policy = loaded(&one(json!({"keys": {"u": "ip", "g": "host"}})));
    assert_eq!(count(&policy.lanes[0].limits[0]).policy_items[1][0].name, "x:u");
}

#[test]
fn keys_and_windows_are_required() {
    check(
        json!({"version": 1, "rate_limits": {"x": {}}}),
        &[
            "rate_limits.x.keys: is required: what is counted; {everyone: {constant: global}} counts all requests \
             together",
            "rate_limits.x.windows: is required: how many requests in how long, as in [{limit: 100, per: 1m}]",
        ],
    );
    check_x(
        json!({"keys": {}, "windows": []}),
        &[
            ".keys: {}: must not be empty: write an entry, or leave it out",
            ".windows: []: must not be empty: write an item, or leave it out",
        ],
    );
    check_x(json!({"keys": ["ip"]}), &[".keys: [\"ip\"]: must be an object of named entries"]);
    check_x(
        json!({"windows": {"limit": 1, "per": "1s"}}),
        &[".windows: {\"limit\":1,\"per\":\"1s\"}: must be a list"],
    );
    let keys: Value = (0..65).map(|i| (format!("k{i}"), json!("ip"))).collect();
    let shown = words::shown(&keys);
    check_x(json!({"keys": keys}), &[&format!(".keys: {shown}: must have at most 64 entries")]);
    let windows: Value = (1..=17).map(|i| json!({"limit": 1, "per": format!("{i}s")})).collect();
    let shown = words::shown(&windows);
    check_x(json!({"windows": windows}), &[&format!(".windows: {shown}: must have at most 16 items")]);
}

#[test]
fn sources_that_this_version_does_not_have_are_refused() {
    let supported = "header, ip, path, method, host, command, constant, api_key";
    for later in ["cookie", "query", "jwt", "principal", "property"] {
        check_x(
            json!({"keys": {"k": [{later: "v"}]}}),
            &[&format!(
                ".keys.k[0]: {{\"{later}\":\"v\"}}: is not supported by this version; supported: {supported}"
            )],
        );
    }
    check_x(
        json!({"keys": {"k": "principal"}}),
        &[&format!(".keys.k: \"principal\": is not supported by this version; supported: {supported}")],
    );
    check_x(
        json!({"keys": {"k": {"header": "x-user", "hash": true}}}),
        &[
            ".keys.k: {\"hash\":true,\"header\":\"x-user\"}: has `hash`, which is not supported by this version; \
           supported: api_key, which leaves the proxy hashed",
        ],
    );
    check_x(
        json!({"keys": {"k": {"path": "template"}}}),
        &[
            ".keys.k.path: \"template\": is not supported by this version (path templates); supported: the word `path`",
        ],
    );
}

#[test]
fn a_key_has_sources_that_say_where_its_subject_comes_from() {
    let supported = "header, ip, path, method, host, command, constant, api_key";
    let source = |source: Value| json!({"keys": {"k": source}});
    for (wrong, problem) in [
        (json!([]), "must not be empty: write an item, or leave it out".to_owned()),
        (json!(7), format!("must be a source: {supported}")),
        (json!("haeder"), format!("must be a source: {supported}; did you mean `header`?")),
        (json!("header"), "needs a header's name: {header: x-name}".to_owned()),
        (json!("global"), "needs a text: {constant: global}".to_owned()),
        (
            json!({"ip": {}, "header": "x-a"}),
            format!("must be exactly one of {supported}; several sources make a list of objects"),
        ),
        (json!({}), format!("must be exactly one of {supported}; several sources make a list of objects")),
    ] {
        let shown = wrong.to_string();
        let shown = if wrong.is_object() && shown != "{}" { words::shown(&wrong) } else { shown };
        check_x(source(wrong), &[&format!(".keys.k: {shown}: {problem}")]);
    }
    check_x(
        source(json!({"haeder": "x-a"})),
        &[&format!(
            ".keys.k.haeder: \"x-a\": is an unknown field; allowed: {supported}; did you mean `header`?"
        )],
    );
    check_x(source(json!({"method": {}})), &[".keys.k.method: {}: takes nothing: write the word `method`"]);
    check_x(
        source(json!({"header": "X-User"})),
        &[".keys.k.header: \"X-User\": must be lower-case: `x-user`"],
    );
    check_x(source(json!({"constant": 1})), &[".keys.k.constant: 1: must be a text: write it in quotes"]);
    check_x(
        source(json!({"ip": {"v6_prefix": 129}})),
        &[".keys.k.ip.v6_prefix: 129: must be a whole number from 1 to 128"],
    );
    check_x(source(json!(["ip", "ip"])), &[".keys.k[1]: \"ip\": stands in this list twice"]);
    check_x(
        json!({"keys": {"a:b": "ip", "_": "ip"}}),
        &[
            ".keys._: \"ip\": needs another name: 1 to 64 letters, digits, _ or -, and a letter or digit first",
            ".keys[\"a:b\"]: \"ip\": needs another name: 1 to 64 letters, digits, _ or -, and a letter or digit first",
        ],
    );
    check_x(json!({"hash_tag": []}), &[".hash_tag: []: must not be empty: write an item, or leave it out"]);
}

#[test]
fn a_cost_fits_into_the_smallest_window() {
    let windows = json!([{"limit": 100, "per": "1m"}, {"limit": 10, "per": "1s"}]);
    let range =
        "must be a whole number from 1 to 10, the most that an empty window of rate_limits.x.windows admits";
    check_x(json!({"windows": windows, "cost": 10}), &[]);
    for (wrong, shown) in [(json!(0), "0"), (json!(-1), "-1"), (json!(0.5), "0.5"), (json!(11), "11")] {
        check_x(json!({"windows": windows, "cost": wrong}), &[&format!(".cost: {shown}: {range}")]);
        check_x(
            json!({"windows": windows, "cost": {"header": "x-cost", "max": wrong}}),
            &[&format!(".cost.max: {shown}: {range}")],
        );
    }
    check_x(
        json!({"windows": [{"limit": 10, "per": "1s", "burst": 3}], "algorithm": "token_bucket", "cost": 4}),
        &[
            ".cost: 4: must be a whole number from 1 to 3, the most that an empty window of rate_limits.x.windows admits",
        ],
    );
    check_x(json!({"cost": "1"}), &[".cost: \"1\": must be a whole number, or {header: x-cost, max: 100}"]);
    check_x(json!({"cost": {"header": "x-cost"}}), &[".cost.max: is required: the most it may say"]);
    check_x(json!({"cost": {"max": 5}}), &[".cost.header: is required: the header that says the cost"]);
}

#[test]
fn there_are_no_more_shards_than_the_smallest_window_holds_requests() {
    check_x(json!({"windows": [{"limit": 256, "per": "1s"}], "shards": 256}), &[]);
    for (wrong, shown) in [(json!(0), "0"), (json!(1.5), "1.5"), (json!(257), "257")] {
        check_x(
            json!({"windows": [{"limit": 1000, "per": "1s"}], "shards": wrong}),
            &[&format!(".shards: {shown}: must be a whole number from 1 to 256")],
        );
    }
    let smallest = |most: u32| {
        format!(
            ".shards: 11: must be a whole number from 1 to {most}, the smallest limit or burst of rate_limits.x.windows, of \
             which each shard holds its part"
        )
    };
    let two = json!([{"limit": 100, "per": "1m"}, {"limit": 10, "per": "1s"}]);
    check_x(json!({"windows": two, "shards": 10}), &[]);
    check_x(json!({"windows": two, "shards": 11}), &[&smallest(10)]);
    for (limit, burst) in [(10, 50), (50, 10)] {
        let bucket = json!([{"limit": limit, "per": "1s", "burst": burst}]);
        check_x(json!({"windows": bucket, "algorithm": "token_bucket", "shards": 11}), &[&smallest(10)]);
    }
}

#[test]
fn a_cost_fits_into_one_shard() {
    let windows = json!([{"limit": 100, "per": "1m"}]);
    let range = "must be a whole number from 1 to 33, the most that one of the 3 shards of an empty window of \
                 rate_limits.x.windows admits";
    check_x(json!({"windows": windows, "shards": 3, "cost": 33}), &[]);
    check_x(json!({"windows": windows, "shards": 3, "cost": 34}), &[&format!(".cost: 34: {range}")]);
    check_x(
        json!({"windows": windows, "shards": 3, "cost": {"header": "x-cost", "max": 34}}),
        &[&format!(".cost.max: 34: {range}")],
    );
}

#[test]
fn the_other_fields_say_what_they_allow() {
    check_x(
        json!({
            "consume": "on_succes", "on_missing_key": "deny", "enforce": "0,5%", "on_failure": "allow",
            "key_prefix": "a:b", "window": [],
        }),
        &[
            ".window: []: is an unknown field; allowed: match, except, key_prefix, keys, hash_tag, windows, algorithm, \
             cost, consume, on_missing_key, enforce, shards and 2 more; did you mean `windows`?",
            ".key_prefix: \"a:b\": must be 1 to 64 letters, digits, _ or -, and begin with a letter or digit",
            ".consume: \"on_succes\": must be one of on_request, on_success; did you mean `on_success`?",
            ".on_missing_key: \"deny\": must be one of skip, reject",
            ".enforce: \"0,5%\": must be a percentage from 0% to 100% with at most four decimals, such as 1% or 0.5%",
            ".on_failure: \"allow\": must be one of local, open, closed",
        ],
    );
    check_x(json!({"match": {}}), &[".match: {}: must not be empty: say which requests, or leave it out"]);
    check_x(json!({"except": {}}), &[".except: {}: must not be empty: say which requests, or leave it out"]);
    assert_eq!(count(&loaded(&one(json!({"enforce": "0%"}))).lanes[0].limits[0]).enforce, Share::NONE);
}
