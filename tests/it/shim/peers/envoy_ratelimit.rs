//! After envoyproxy/ratelimit: test/integration/integration_test.go, test/service, test/config, integration-test/scripts.

use std::fs;
use std::time::Duration;

use lanekeeper_shim::policy::PolicyFile;
use reqwest::StatusCode;
use serde_json::json;

use super::house::{ALGORITHMS, Backend, House, LONG, of_every_algorithm, per_user, refused, took};

on_every_backend! {
    the_first_of_fifty_hits_leaves_forty_nine,
    of_twenty_five_hits_twenty_are_admitted_and_counted_so,
    once_one_limit_refuses_the_other_is_charged_no_more,
    a_request_that_no_limit_matches_goes_on_without_a_header,
    an_enforced_limit_rejects_beside_one_in_dry_run,
    values_of_a_key_are_counted_apart_and_a_constant_counts_them_together,
    a_limit_that_is_added_holds_and_one_that_is_removed_is_unknown,
}

async fn the_first_of_fifty_hits_leaves_forty_nine(on: Backend) {
    let house = House::open(on, of_every_algorithm(50)).await;
    for algorithm in ALGORITHMS {
        assert_eq!(house.take(algorithm, "u", 1).await, took(49), "{algorithm}");
    }
}

// testBasicBaseConfig: key2, 20 a minute; here over every algorithm, and its counters
async fn of_twenty_five_hits_twenty_are_admitted_and_counted_so(on: Backend) {
    let house = House::open(on, of_every_algorithm(20)).await;
    for algorithm in ALGORITHMS {
        for left in (0..20).rev() {
            assert_eq!(house.take(algorithm, "u", 1).await, took(left), "{algorithm}");
        }
        for _ in 0..5 {
            assert_eq!(house.take(algorithm, "u", 1).await, refused(0), "{algorithm}");
        }
    }
    let metrics = house.shim.get("/metrics").await.text().await.unwrap();
    for (outcome, count) in [("allowed", 5 * 20), ("rejected", 5 * 5), ("failed", 0)] {
        let line = format!("lanekeeper_shim_decisions_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.lines().any(|known| known == line), "{line} is missing in\n{metrics}");
    }
}

// testBasicBaseConfig: key2 20 and key3 10, fifteen hits. There key2 is charged on, unless STOP_CACHE_KEY_INCREMENT
// is set; here a request is charged everywhere or nowhere.
async fn once_one_limit_refuses_the_other_is_charged_no_more(on: Backend) {
    let limits = json!({
        "key2": per_user("sliding_window", json!([{"limit": 20, "per": LONG}])),
        "key3": per_user("token_bucket", json!([{"limit": 10, "per": LONG}])),
    });
    let house = House::open(on, limits).await;
    for left in (0..10).rev() {
        let seen = house.send(&[("x-user", "u")]).await;
        assert_eq!(seen.status, 200);
        assert!(seen.header("ratelimit").starts_with(&format!("\"key3\";r={left};t=")), "{seen:?}");
    }
    for _ in 0..5 {
        let seen = house.send(&[("x-user", "u")]).await;
        assert_eq!((seen.status, &seen.problem()["violated-policies"]), (429, &json!(["key3"])));
    }
    assert_eq!(house.look("key2", "u", 1).await, took(10));
    assert_eq!(house.look("key3", "u", 1).await, refused(0));
}

async fn a_request_that_no_limit_matches_goes_on_without_a_header(on: Backend) {
    let mut limit = per_user("sliding_window", json!([{"limit": 1, "per": LONG}]));
    limit["match"] = json!({"path": {"prefix": "/api/"}});
    let house = House::open(on, json!({"api": limit})).await;
    for headers in [[(":path", "/apis"), ("x-user", "u")], [(":path", "/api/x"), ("x-other", "u")]] {
        for _ in 0..2 {
            let seen = house.send(&headers).await;
            assert_eq!((seen.status, seen.headers.len()), (200, 0), "{headers:?}");
        }
    }
    assert_eq!(house.look("api", "u", 1).await, took(1));
}

// TestMixedRuleShadowMode
async fn an_enforced_limit_rejects_beside_one_in_dry_run(on: Backend) {
    let mut watched = per_user("sliding_window", json!([{"limit": 1, "per": LONG}]));
    watched["enforce"] = json!("0%");
    let enforced = per_user("sliding_window", json!([{"limit": 3, "per": LONG}]));
    let house = House::open(on, json!({"watched": watched, "enforced": enforced})).await;
    for status in [200, 200, 200, 429, 429] {
        assert_eq!(house.send(&[("x-user", "u")]).await.status, status);
    }
    let refused = house.send(&[("x-user", "u")]).await;
    assert_eq!(refused.problem()["violated-policies"], json!(["enforced"]), "the dry run is not named");
}

// TestShareThreshold: files/* share one count, what is not shared is isolated
async fn values_of_a_key_are_counted_apart_and_a_constant_counts_them_together(on: Backend) {
    let window = json!([{"limit": 10, "per": LONG}]);
    let limits = json!({
        "apart": {"match": {"path": {"prefix": "/own/"}}, "keys": {"file": ["path"]}, "windows": window},
        "together": {
            "match": {"path": {"prefix": "/files/"}}, "keys": {"files": {"constant": "files"}}, "windows": window,
        },
    });
    let house = House::open(on, limits).await;
    for file in ["a", "b", "c"] {
        for turn in 0..10 {
            let seen = house.send(&[(":path", &format!("/own/{file}"))]).await;
            assert_eq!(seen.status, 200, "{file} {turn}");
        }
        assert_eq!(house.send(&[(":path", &format!("/own/{file}"))]).await.status, 429, "{file}");
    }
    for turn in 0..10 {
        assert_eq!(house.send(&[(":path", &format!("/files/{turn}"))]).await.status, 200);
    }
    assert_eq!(house.send(&[(":path", "/files/another")]).await.status, 429);
}

// TestBasicReloadConfig
async fn a_limit_that_is_added_holds_and_one_that_is_removed_is_unknown(on: Backend) {
    let limit = || per_user("sliding_window", json!([{"limit": 1, "per": LONG}]));
    let house = House::open(on, json!({"one": limit()})).await;
    assert_eq!(house.ask("two", "allow", "u", 1).await.status(), StatusCode::NOT_FOUND);
    house.change(json!({"one": limit(), "two": limit()}));
    assert_eq!(house.take("two", "u", 1).await, took(0));
    assert_eq!(house.take("two", "u", 1).await, refused(0));
    house.change(json!({"one": limit()}));
    assert_eq!(house.ask("two", "allow", "u", 1).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(house.take("one", "u", 1).await, took(0));
}

// DurationUntilReset
#[tokio::test]
async fn the_reset_comes_closer_by_the_time_that_passes() {
    let minute = json!([{"limit": 5, "per": "1m"}]);
    let limits: serde_json::Value =
        ALGORITHMS.iter().map(|name| (*name, per_user(name, minute.clone()))).collect();
    let house = House::open(Backend::embedded(), limits).await;
    for algorithm in ALGORITHMS {
        let reset = async |action: &str| {
            let verdict = house.verdict(algorithm, action, "u", 1).await;
            verdict["keys"]["user"]["windows"][0]["reset_us"].as_u64().unwrap()
        };
        let first = reset("allow").await;
        assert!(first > 2_000_000, "{algorithm}");
        house.pass(Duration::from_secs(2));
        assert_eq!(reset("can_allow").await, first - 2_000_000, "{algorithm}");
    }
}

// config_test.go: each bad configuration has an exact message that names the file
#[test]
fn a_bad_policy_is_refused_by_its_file_its_place_and_what_is_allowed() {
    let shown = r#"{"keys":{"k":["ip"]},"windows":[{"limit":1,"per":"1m"}]}"#;
    let named = "needs another name: 1 to 64 letters, digits, _ or -, and a letter or digit first";
    let limits = |limits: &str| {
        format!("rate_limits: {limits}").replace("LIMIT", "{keys: {k: [ip]}, windows: [{limit: 1, per: 1m}]}")
    };
    let window = |window: &str| limits(&format!("{{a: {{keys: {{k: [ip]}}, windows: [{window}]}}}}"));
    let lane = "\nlanes: {shadow: {flag: [{header: x-lane, values: [shadow]}], trust: [everyone]}}";

    // TestEmptyKey
    refuses(&limits("{'': LIMIT}"), &[&format!("rate_limits[\"\"]: {shown}: {named}")]);
    // TestNonStringKey
    refuses(&limits("{0.25: LIMIT}"), &[&format!("rate_limits[\"0.25\"]: {shown}: {named}")]);
    // TestDuplicateKey
    let twice = "cannot be read as YAML: duplicate mapping key `a` is not allowed here at line 2, column 69";
    refuses(&limits("{a: LIMIT, a: LIMIT}"), &[twice]);
    // TestBadLimitUnit
    let unit = "must be a duration from 1ms to 366d: a whole number and its unit, ms, s, m, h or d";
    refuses(&window("{limit: 1, per: 1foo}"), &[&format!("rate_limits.a.windows[0].per: \"1foo\": {unit}")]);
    // TestReplacesSelf, TestReplacesEmpty: a version of a limit that is not there
    let nothing =
        "is by its name the lane `shadow`'s version of `a`, which is no entry; there is no other entry";
    refuses(&(limits("{shadow_a: LIMIT}") + lane), &[&format!("rate_limits.shadow_a: {shown}: {nothing}")]);
    // TestBadYaml
    refuses(&limits("{a"), &["cannot be read as YAML: unclosed bracket '{' at line 2, column 14"]);
    // TestMisspelledKey
    refuses(
        &window("{limit: 1, pre: 1m}"),
        &[
            "rate_limits.a.windows[0].pre: \"1m\": is an unknown field; allowed: limit, per, burst; did you mean `per`?",
            "rate_limits.a.windows[0].per: is required: how long it counts for",
        ],
    );
    // TestNonMapList
    refuses(
        &window("a"),
        &["rate_limits.a.windows[0]: \"a\": must be an object with the fields limit, per, burst"],
    );
    // TestUnlimitedWithRateLimitUnit
    refuses(
        &window("{unlimited: true, per: 1m}"),
        &[
            "rate_limits.a.windows[0].unlimited: true: is an unknown field; allowed: limit, per, burst",
            "rate_limits.a.windows[0].limit: is required: how many requests",
        ],
    );
}

/// Holds that a file with this text behind its version is refused with these lines, each behind the file's name.
#[track_caller]
fn refuses(text: &str, lines: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.yaml");
    fs::write(&path, format!("version: 1\n{text}\n")).unwrap();
    let error = PolicyFile::open(&path).unwrap_err().to_string();
    let lines: Vec<String> = lines.iter().map(|line| format!("{}: {line}", path.display())).collect();
    assert_eq!(error.lines().collect::<Vec<_>>(), lines);
}
