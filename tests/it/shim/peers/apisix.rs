//! After Apache APISIX: t/plugin/limit-count*.t.

use std::time::Duration;

use serde_json::json;

use super::house::{ALGORITHMS, Backend, House, LONG, of_every_algorithm, per_user, refused, took};

on_every_backend! {
    two_limits_of_one_subject_count_each_for_itself,
    what_is_refused_is_never_counted,
    a_cost_that_a_client_makes_up_is_never_cheap,
    a_rejection_names_what_is_left_and_a_reset_that_is_still_to_come,
    a_second_consumer_starts_afresh,
    consumers_without_a_name_are_not_counted_together,
}

// limit-count-sliding.t TEST 7
async fn two_limits_of_one_subject_count_each_for_itself(on: Backend) {
    let limit = |limit: u32| per_user("sliding_window", json!([{"limit": limit, "per": LONG}]));
    let house = House::open(on, json!({"one": limit(2), "other": limit(2)})).await;
    assert_eq!(house.take("one", "u", 2).await, took(0));
    assert_eq!(house.take("one", "u", 1).await, refused(0));
    assert_eq!(house.take("other", "u", 1).await, took(1));
}

// limit-count-sliding.t TEST 8: check and increment are one step, and a rejection does not increment
async fn what_is_refused_is_never_counted(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for algorithm in ALGORITHMS {
        assert_eq!(house.take(algorithm, "u", 8).await, took(2), "{algorithm}");
        for _ in 0..20 {
            assert_eq!(house.take(algorithm, "u", 3).await, refused(2), "{algorithm}");
        }
        assert_eq!(house.take(algorithm, "u", 2).await, took(0), "{algorithm}");
    }
}

// limit-count-variable.t TEST 10, 11 and 13: zero, negative, fractional
async fn a_cost_that_a_client_makes_up_is_never_cheap(on: Backend) {
    let mut limit = per_user("sliding_window", json!([{"limit": 100, "per": LONG}]));
    limit["cost"] = json!({"header": "x-cost", "max": 10});
    let house = House::open(on, json!({"x": limit})).await;
    let mut left = 100;
    for (cost, charged) in [
        ("3", 3),
        ("0", 10),
        ("-1", 10),
        ("0.5", 10),
        ("11", 10),
        ("1e0", 10),
        ("", 10),
        ("free", 10),
        ("1", 1),
    ] {
        left -= charged;
        let seen = house.send(&[("x-user", "u"), ("x-cost", cost)]).await;
        assert!(seen.header("ratelimit").starts_with(&format!("\"x\";r={left};t=")), "{cost:?}: {seen:?}");
    }
}

// limit-count-redis3.t TEST 4 and 11
async fn a_rejection_names_what_is_left_and_a_reset_that_is_still_to_come(on: Backend) {
    let limits = ALGORITHMS.iter().map(|algorithm| {
        let mut limit = per_user(algorithm, json!([{"limit": 1, "per": LONG}]));
        limit["match"] = json!({"path": {"exact": format!("/{algorithm}")}});
        (*algorithm, limit)
    });
    let policy = json!({
        "rate_limits": limits.collect::<serde_json::Value>(),
        "responses": {"headers": ["draft", "legacy"]},
    });
    let house = House::open_with(on, policy).await;
    for algorithm in ALGORITHMS {
        let path = format!("/{algorithm}");
        let send = async || house.send(&[(":path", &path), ("x-user", "u")]).await;
        assert_eq!(send().await.status, 200);
        for _ in 0..2 {
            let seen = send().await;
            assert_eq!(seen.status, 429);
            assert_eq!(seen.header("x-ratelimit-limit"), "1");
            assert_eq!(seen.header("x-ratelimit-remaining"), "0");
            let reset: u64 = seen.header("x-ratelimit-reset").parse().unwrap();
            assert!(reset > 0, "{algorithm}");
            assert!(seen.header("retry-after").parse::<u64>().unwrap() >= reset, "{algorithm}");
            assert_eq!(seen.header("ratelimit"), format!("\"{algorithm}\";r=0;t={reset}"));
        }
    }
}

// limit-count-consumer-isolation.t TEST 5
async fn a_second_consumer_starts_afresh(on: Backend) {
    let house = House::open(on, of_every_algorithm(2)).await;
    for algorithm in ALGORITHMS {
        for said in [took(1), took(0), refused(0)] {
            assert_eq!(house.take(algorithm, "jack", 1).await, said, "{algorithm}");
        }
        assert_eq!(house.take(algorithm, "rose", 1).await, took(1), "{algorithm}");
    }
}

// limit-count-rules.t TEST 4: no rule whose variables are there
async fn consumers_without_a_name_are_not_counted_together(on: Backend) {
    let house = House::open(on, of_every_algorithm(1)).await;
    for headers in [&[(":path", "/")][..], &[("x-user", "")], &[("x-user", " ")]] {
        for _ in 0..3 {
            let seen = house.send(headers).await;
            assert_eq!((seen.status, seen.headers.len()), (200, 0), "{headers:?}");
        }
    }
}

// limit-count-redis3.t TEST 2: the reset declines, also from rejection to rejection
#[tokio::test]
async fn the_reset_of_a_rejection_declines_to_the_moment_of_the_next_admission() {
    let limit = per_user("sliding_log", json!([{"limit": 1, "per": "5s"}]));
    let house = House::open(Backend::embedded(), json!({"x": limit})).await;
    let send = async || house.send(&[("x-user", "u")]).await;
    assert_eq!(send().await.header("ratelimit"), "\"x\";r=0;t=5");
    for t in ["5", "4", "3", "2", "1"] {
        let seen = send().await;
        assert_eq!((seen.status, seen.header("retry-after")), (429, t));
        assert_eq!(seen.header("ratelimit"), format!("\"x\";r=0;t={t}"));
        house.pass(Duration::from_secs(1));
    }
    assert_eq!(send().await.status, 200);
}
