//! After draft-ietf-httpapi-ratelimit-headers: its examples, as far as they follow its own rules, and the rules.

use std::time::Duration;

use lanekeeper_engine::breaker::Entry;
use lanekeeper_engine::headers::Headers;
use lanekeeper_engine::policy::Policy;
use lanekeeper_engine::request::{Facts, Request, Step};
use lanekeeper_engine::units::Timestamp;
use serde_json::{Value, json};
use sfv::{BareItem, Item, List, ListEntry, Parser};

use super::house::{ALGORITHMS, Backend, House, Seen, per_user};

/// A limit on all requests together.
fn together(limit: u32, per: &str) -> Value {
    json!({"keys": {"all": {"constant": "global"}}, "windows": [{"limit": limit, "per": per}]})
}

// Its examples of RateLimit-Policy; a List has an order, but that says nothing here: ours is that of the names.
#[tokio::test]
async fn policies_are_written_as_the_draft_writes_them() {
    for (limits, written) in [
        (
            json!({"burst": together(100, "1m"), "daily": together(1000, "1d")}),
            r#""burst";q=100;w=60,"daily";q=1000;w=86400"#,
        ),
        (
            json!({"permin": together(50, "1m"), "perhr": together(1000, "1h")}),
            r#""perhr";q=1000;w=3600,"permin";q=50;w=60"#,
        ),
        (json!({"default": together(100, "60s")}), r#""default";q=100;w=60"#),
    ] {
        let house = House::open(Backend::embedded(), limits).await;
        assert_eq!(house.send(&[]).await.header("ratelimit-policy"), written);
    }
}

// Its example of RateLimit: "default";r=50;t=30
#[tokio::test]
async fn fifty_left_for_thirty_seconds_are_written_as_the_draft_writes_them() {
    let limit = per_user("sliding_log", json!([{"limit": 100, "per": "1m"}]));
    let house = House::open(Backend::embedded(), json!({"default": limit})).await;
    house.take("default", "u", 49).await;
    house.pass(Duration::from_secs(30));
    assert_eq!(house.send(&[("x-user", "u")]).await.header("ratelimit"), r#""default";r=50;t=30"#);
}

// Several policies, and the state of the closest alone
#[tokio::test]
async fn of_several_windows_only_the_closest_to_its_end_is_told() {
    let limit = per_user("sliding_log", json!([{"limit": 9, "per": "1h"}, {"limit": 10, "per": "1d"}]));
    let house = House::open(Backend::embedded(), json!({"x": limit})).await;
    house.take("x", "u", 8).await;
    let seen = house.send(&[("x-user", "u")]).await;
    assert_eq!(seen.header("ratelimit-policy"), r#""x:1h";q=9;w=3600,"x:1d";q=10;w=86400"#);
    assert_eq!(seen.header("ratelimit"), r#""x:1h";r=0;t=3600"#);
    house.pass(Duration::from_secs(3600));
    assert_eq!(house.send(&[("x-user", "u")]).await.header("ratelimit"), r#""x:1d";r=0;t=82800"#);
}

/// A list's members: their names and parameters.
fn members(field: &str) -> Vec<(String, Vec<(String, i64)>)> {
    let list: List = Parser::new(field).parse().unwrap_or_else(|error| panic!("{field}: {error}"));
    assert!(!list.is_empty());
    let member = |entry: &ListEntry| {
        let ListEntry::Item(Item { bare_item: BareItem::String(name), params }) = entry else {
            panic!("{field}: an item that is no string");
        };
        let integer = |value: &BareItem| match value {
            BareItem::Integer(number) => i64::from(*number),
            other => panic!("{field}: {other:?} is no integer"),
        };
        let params = params.iter().map(|(key, value)| (key.as_str().to_owned(), integer(value)));
        (name.as_str().to_owned(), params.collect())
    };
    list.iter().map(member).collect()
}

/// Holds that an answer keeps to the draft's rules.
fn keeps_the_rules(seen: &Seen) {
    let policies = members(seen.header("ratelimit-policy"));
    for (name, params) in &policies {
        let names: Vec<&str> = params.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names == ["q", "w"] || names == ["q"], "{name}: {names:?}");
        assert!(params[0].1 >= 0, "q is not negative");
        assert!(params.iter().skip(1).all(|(_, w)| *w > 0), "w is positive");
        assert_eq!(policies.iter().filter(|(other, _)| other == name).count(), 1, "{name} is said once");
    }
    let state = members(seen.header("ratelimit"));
    assert_eq!(state.len(), 1, "only the closest policy is told");
    let (name, params) = &state[0];
    assert!(policies.iter().any(|(policy, _)| policy == name), "{name} is one of the policies");
    let (r, t) = match &params[..] {
        [(r, left), (t, reset)] if r == "r" && t == "t" => (*left, *reset),
        other => panic!("{other:?}"),
    };
    assert!(r >= 0 && t >= 0, "{seen:?}");
    if seen.status == 429 {
        assert!(seen.header("retry-after").parse::<i64>().unwrap() >= t, "not earlier than the reset");
        let problem = seen.problem();
        assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        assert_eq!(problem["violated-policies"], json!([name]));
        assert_eq!(seen.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn every_answer_of_every_algorithm_keeps_to_the_rules_of_the_draft() {
    for algorithm in ALGORITHMS {
        let windows =
            json!([{"limit": 3, "per": "700ms"}, {"limit": 5, "per": "10s"}, {"limit": 11, "per": "1m"}]);
        let mut several = per_user(algorithm, windows.clone());
        several["keys"] = json!({"user": {"header": "x-user"}, "all": {"constant": "global"}});
        let one = per_user(algorithm, json!([{"limit": 40, "per": "1h"}]));
        let house = House::open(Backend::embedded(), json!({"one-A_9": one, "several": several})).await;
        let mut statuses = [0, 0];
        for turn in 0..400_u64 {
            let seen = house.send(&[("x-user", "alice@example.com")]).await;
            keeps_the_rules(&seen);
            statuses[usize::from(seen.status == 429)] += 1;
            let said = format!("{seen:?}");
            assert!(!said.contains("alice"), "whose quota it is stays unsaid: {said}");
            house.pass(Duration::from_millis(turn * 37 % 997));
        }
        assert!(statuses.iter().all(|count| *count >= 30), "{algorithm}: {statuses:?}");
    }
}

// temporary-reduced-capacity: what is no quota's fault is a 503, with a time to come back
#[test]
fn a_store_that_is_away_is_a_reduced_capacity_and_no_exceeded_quota() {
    let mut limit = together(1, "1m");
    limit["on_failure"] = json!("closed");
    let policy = json!({"version": 1, "store": {"cluster": "lanekeeper"}, "rate_limits": {"x": limit}});
    let policy = Policy::from_value(&policy).unwrap();
    let facts = Facts {
        headers: &Headers::default(),
        client: &|| None,
        chance: &|| 0,
        now: Timestamp::default(),
        enter: &|_, _, _| Entry::Pass(None),
    };
    let (mut request, _) = Request::arrive(&policy, &facts);
    let Step::Reply(reply) = request.store_failed(&policy) else { panic!("no reply") };
    let problem: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity");
    assert_eq!(
        (reply.status, &problem["status"], problem.get("violated-policies")),
        (503, &json!(503), None)
    );
    assert!(reply.headers.contains(&("retry-after", "1".to_owned())));
    assert!(
        !reply.headers.iter().any(|(name, _)| name.starts_with("ratelimit")),
        "nothing is known of a quota"
    );
}
