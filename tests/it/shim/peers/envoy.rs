//! After Envoy: ratelimit_headers_test, the examples of its rate limit filter's documentation, Retry-After.

use std::time::Duration;

use serde_json::{Value, json};

use super::house::{Backend, House, LONG, Seen, per_user};

async fn open(limits: Value) -> House {
    let policy = json!({"rate_limits": limits, "responses": {"headers": ["draft", "legacy"]}});
    House::open_with(Backend::embedded(), policy).await
}

fn log(limit: u32, per: &str) -> Value {
    per_user("sliding_log", json!([{"limit": limit, "per": per}]))
}

/// The headers that speak of limits, but for the policies.
fn state(seen: &Seen) -> [&str; 4] {
    ["ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
        .map(|name| seen.header(name))
}

// two descriptors: both are named, and the tightest one's numbers are told
#[tokio::test]
async fn both_limits_are_named_and_the_tightest_ones_numbers_are_told() {
    let house = open(json!({"first": log(1, "1m"), "second": log(4, "1h")})).await;
    let seen = house.send(&[("x-user", "u")]).await;
    assert_eq!(seen.header("ratelimit-policy"), "\"first\";q=1;w=60,\"second\";q=4;w=3600");
    assert_eq!(state(&seen), ["\"first\";r=0;t=60", "1", "0", "60"]);
}

#[tokio::test]
async fn of_two_limits_with_as_much_left_the_one_that_takes_longer_is_told() {
    let house = open(json!({"first": log(3, "1m"), "second": log(3, "1h")})).await;
    assert_eq!(state(&house.send(&[("x-user", "u")]).await), ["\"second\";r=2;t=3600", "3", "2", "3600"]);
}

// an unnamed limit and an unknown unit leave out what they have not; here every limit has a name, and only a window
// that is no whole number of seconds cannot be told
#[tokio::test]
async fn a_window_of_no_whole_second_is_left_out() {
    let house = open(json!({"x": log(2, "1500ms")})).await;
    let seen = house.send(&[("x-user", "u")]).await;
    assert_eq!(seen.header("ratelimit-policy"), "\"x\";q=2");
    assert_eq!(
        state(&seen),
        ["\"x\";r=1;t=2", "2", "1", "2"],
        "whoever waits as long as told waits long enough"
    );
}

// Retry-After: the longest of all limits that are over, never below a second
#[tokio::test]
async fn retry_after_is_the_longest_wait_of_all_limits_that_are_full() {
    let house = open(json!({"a": log(1, "1h"), "b": log(1, "1m"), "c": log(9, "1d")})).await;
    assert_eq!(house.send(&[("x-user", "u")]).await.status, 200);
    let seen = house.send(&[("x-user", "u")]).await;
    assert_eq!((seen.status, seen.header("retry-after")), (429, "3600"));
    assert_eq!(seen.problem()["violated-policies"], json!(["a"]));

    house.pass(Duration::from_secs(60));
    assert_eq!(house.send(&[("x-user", "u")]).await.header("retry-after"), "3540");
    house.pass(Duration::from_secs(3540));
    assert_eq!(house.send(&[("x-user", "u")]).await.status, 200);
}

#[tokio::test]
async fn retry_after_is_a_second_where_the_wait_is_shorter() {
    let house = open(json!({"x": log(1, "2ms")})).await;
    assert_eq!(house.send(&[("x-user", "u")]).await.status, 200);
    let seen = house.send(&[("x-user", "u")]).await;
    assert_eq!((seen.status, seen.header("retry-after")), (429, "1"));
}

// composing actions, example 1: one missing entry drops the whole descriptor
#[tokio::test]
async fn a_composite_key_that_lacks_a_part_is_not_counted_at_all() {
    let limit = json!({
        "keys": {"pair": [{"header": "x-user"}, {"header": "x-plan"}]}, "windows": [{"limit": 1, "per": LONG}],
    });
    let house = open(json!({"x": limit})).await;
    for headers in [&[("x-user", "u")][..], &[("x-plan", "p")], &[("x-user", "u"), ("x-plan", "")], &[]] {
        for _ in 0..2 {
            assert_eq!(house.send(headers).await.status, 200, "{headers:?}");
        }
    }
    let whole = [("x-user", "u"), ("x-plan", "p")];
    assert_eq!((house.send(&whole).await.status, house.send(&whole).await.status), (200, 429));
}

// composing actions, examples 2 and 3: a limit for each user, and another for each user and path
#[tokio::test]
async fn a_user_has_a_limit_of_its_own_and_one_for_each_path() {
    let each = json!({
        "keys": {"user_and_path": [{"header": "x-user"}, "path"]}, "windows": [{"limit": 2, "per": LONG}],
    });
    let house = open(json!({"all": log(3, LONG), "each": each})).await;
    let send = async |path| house.send(&[("x-user", "u"), (":path", path)]).await;
    assert_eq!((send("/a").await.status, send("/a").await.status), (200, 200));
    assert_eq!(send("/a").await.problem()["violated-policies"], json!(["each"]));
    assert_eq!(send("/b").await.status, 200, "what another path refused was charged to nobody");
    assert_eq!(send("/b").await.problem()["violated-policies"], json!(["all"]));
}
