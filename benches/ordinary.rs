//! What benches share: a policy of ordinary size, and the headers of an ordinary request.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot start has nothing to measure"
)]

use lanekeeper_engine::headers::Headers;
use lanekeeper_engine::policy::Policy;
use serde_json::{Value, json};

/// Two lanes, ten commands and ten limits; every request below `/api/` meets two of them.
pub fn policy() -> Policy {
    let mut commands: Vec<Value> = Vec::new();
    let mut limits = json!({
        "per_user": {
            "match": {"path": {"prefix": "/api/"}},
            "keys": {"user": [{"header": "x-user"}]},
            "windows": [{"limit": 1_000_000_000, "per": "1m"}, {"limit": 1_000_000_000, "per": "1h"}],
        },
        "per_ip": {"keys": {"ip": "ip"}, "windows": [{"limit": 1_000_000_000, "per": "1s"}]},
    });
    for at in 0..10 {
        commands.push(json!({"command": format!("shop.call{at}"), "match": {"path": {"prefix": format!("/api/v{at}/")}}}));
    }
    for at in 0..8 {
        limits[format!("call{at}")] = json!({
            "match": {"command": [format!("shop.call{at}")], "methods": ["DELETE"]},
            "keys": {"all": {"constant": "all"}},
            "windows": [{"limit": 100, "per": "1s"}],
        });
    }
    let document = json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"baggage": "shadow", "values": ["true"]}, {"header": "x-shadow", "values": ["1"]}],
            "trust": [{"source_cidr": ["10.0.0.0/8"]}],
            "propagate": [{"baggage": "shadow", "value": "true"}],
        }},
        "commands": commands,
        "rate_limits": limits,
    });
    Policy::from_value(&document).expect("the bench's policy is valid")
}

/// A request as a browser behind a gateway sends it, of user `u42` and with this baggage.
pub fn headers(baggage: &str) -> Headers {
    Headers::from_pairs(browser(baggage).into_iter().chain([("x-user", "u42")]))
}

/// The same, of nobody in particular.
pub fn browser(baggage: &str) -> [(&str, &str); 11] {
    [
        (":method", "GET"),
        (":path", "/api/v7/vouchers?page=2"),
        (":authority", "shop.example"),
        (":scheme", "https"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-request-id", "6f1c0f3e-8a0e-4a6b-a5a1-0c7b7d3f1b11"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json"),
        ("accept-language", "en"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("baggage", baggage),
    ]
}
