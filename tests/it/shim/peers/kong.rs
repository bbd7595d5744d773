//! After Kong's rate-limiting plugin: spec/03-plugins/23-rate-limiting/04-access_spec.lua.

use std::time::Duration;

use serde_json::{Value, json};

use super::house::{Backend, House, LONG, per_user};

on_every_backend! {
    blocks_the_seventh_request_of_each_address_host_path_header_and_credential,
    what_is_blocked_for_one_is_open_to_another,
}

/// Six for each subject of `source`, headers in both forms.
fn six_per(source: Value) -> Value {
    json!({
        "rate_limits": {"six": {
            "keys": {"subject": [source]}, "algorithm": "sliding_log", "windows": [{"limit": 6, "per": "1m"}],
        }},
        "responses": {"headers": ["draft", "legacy"]},
    })
}

/// A client: its address, and the name and value of a header.
type Client = (&'static str, &'static str, &'static str);

/// A source, and two clients that it tells apart.
fn clients() -> [(Value, [Client; 2]); 5] {
    [
        (json!("ip"), [("192.0.2.1", "x-any", "1"), ("192.0.2.2", "x-any", "1")]),
        (json!("host"), [("192.0.2.1", ":authority", "one.test"), ("192.0.2.1", ":authority", "two.test")]),
        (json!("path"), [("192.0.2.1", ":path", "/one?x=1"), ("192.0.2.1", ":path", "/two")]),
        (json!({"header": "x-tenant"}), [("192.0.2.1", "x-tenant", "one"), ("192.0.2.1", "x-tenant", "two")]),
        (json!({"api_key": "apikey"}), [("192.0.2.1", "apikey", "kong"), ("192.0.2.1", "apikey", "gorilla")]),
    ]
}

async fn blocks_the_seventh_request_of_each_address_host_path_header_and_credential(on: Backend) {
    for (source, [(client, name, value), _]) in clients() {
        let house = House::open_with(on.clone(), six_per(source.clone())).await;
        for left in (0..6).rev() {
            let seen = house.send_from(client, &[(name, value)]).await;
            assert_eq!(seen.status, 200, "{source}");
            assert_eq!(seen.header("x-ratelimit-limit"), "6");
            assert_eq!(seen.header("x-ratelimit-remaining"), left.to_string());
            assert_eq!(seen.header("ratelimit-policy"), "\"six\";q=6;w=60");
            assert!(seen.header("ratelimit").starts_with(&format!("\"six\";r={left};t=")));
        }
        let seen = house.send_from(client, &[(name, value)]).await;
        assert_eq!((seen.status, seen.header("x-ratelimit-remaining")), (429, "0"), "{source}");
        let retry_after: u64 = seen.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{source}: {retry_after}");
    }
}

async fn what_is_blocked_for_one_is_open_to_another(on: Backend) {
    for (source, [one, other]) in clients() {
        let house = House::open_with(on.clone(), six_per(source.clone())).await;
        let send =
            async |(client, name, value): Client| house.send_from(client, &[(name, value)]).await.status;
        for _ in 0..6 {
            assert_eq!(send(one).await, 200, "{source}");
        }
        for status in [200, 200, 200, 200, 200, 200, 429] {
            assert_eq!((send(one).await, send(other).await), (429, status), "{source}");
        }
    }
}

// handles multiple limits
#[tokio::test]
async fn of_two_windows_the_one_that_is_full_blocks_and_says_for_how_long() {
    let windows = json!([{"limit": 3, "per": "1m"}, {"limit": 5, "per": "1h"}]);
    let house = House::open(Backend::embedded(), json!({"x": per_user("sliding_log", windows)})).await;
    let send = async || house.send(&[("x-user", "u")]).await;
    for left in ["2", "1", "0"] {
        let seen = send().await;
        assert_eq!(seen.header("ratelimit-policy"), "\"x:1m\";q=3;w=60,\"x:1h\";q=5;w=3600");
        assert_eq!(seen.header("ratelimit"), format!("\"x:1m\";r={left};t=60"));
    }
    let seen = send().await;
    assert_eq!((seen.status, seen.header("retry-after")), (429, "60"));
    assert_eq!(seen.problem()["violated-policies"], json!(["x:1m"]));

    house.pass(Duration::from_secs(60));
    for left in ["1", "0"] {
        assert_eq!(send().await.header("ratelimit"), format!("\"x:1h\";r={left};t=3540"));
    }
    let seen = send().await;
    assert_eq!((seen.status, seen.header("retry-after")), (429, "3540"));
    assert_eq!(seen.problem()["violated-policies"], json!(["x:1h"]));

    house.pass(Duration::from_secs(3540));
    assert_eq!(send().await.status, 200, "blocked for as long as it was told");
}

// hide_client_headers
#[tokio::test]
async fn headers_that_are_hidden_are_hidden_on_a_rejection_too() {
    let policy = json!({
        "rate_limits": {"x": per_user("sliding_window", json!([{"limit": 1, "per": LONG}]))},
        "responses": {"headers": "none"},
    });
    let house = House::open_with(Backend::embedded(), policy).await;
    let (admitted, rejected) = (house.send(&[("x-user", "u")]).await, house.send(&[("x-user", "u")]).await);
    assert_eq!((admitted.status, admitted.headers.len()), (200, 0));
    assert_eq!(rejected.status, 429);
    let names: Vec<&String> = rejected.headers.keys().collect();
    assert_eq!(names, ["content-type", "retry-after"], "RFC 9110's own header stays");
}
