//! After gubernator: functional_test.go, interval_test.go.

use std::time::Duration;

use lanekeeper_engine::wire::{
    Check, CheckAnswer, KeyCheck, KeyReturn, RETURN_PATH, ReturnResponse, Returned, VERSION,
};
use serde_json::{Value, json};

use super::house::{ALGORITHMS, Backend, House, LONG, Said, of_every_algorithm, per_user, refused, took};
use crate::support::batch;

on_every_backend! {
    two_hits_leave_one_and_nothing_and_a_third_is_over,
    who_asks_for_more_than_is_left_is_refused_and_a_smaller_question_then_passes,
    a_limit_that_falls_and_rises_keeps_what_is_used,
    large_limits_are_counted_to_the_token,
    a_look_at_what_is_left_takes_nothing,
    what_is_given_back_is_there_again_and_never_more_than_the_limit,
    who_takes_what_there_is_drains_it_and_nobody_else_gets_any,
    a_reset_makes_a_user_as_if_never_seen,
}

// TestOverTheLimit
async fn two_hits_leave_one_and_nothing_and_a_third_is_over(on: Backend) {
    let house = House::open(on, of_every_algorithm(2)).await;
    for algorithm in ALGORITHMS {
        for said in [took(1), took(0), refused(0)] {
            assert_eq!(house.take(algorithm, "account:1234", 1).await, said, "{algorithm}");
        }
    }
}

// TestTokenBucketRequestMoreThanAvailable, TestLeakyBucketRequestMoreThanAvailable
async fn who_asks_for_more_than_is_left_is_refused_and_a_smaller_question_then_passes(on: Backend) {
    let house = House::open(on, of_every_algorithm(1000)).await;
    for algorithm in ALGORITHMS {
        let steps =
            [(1, took(999)), (1000, refused(999)), (500, took(499)), (500, refused(499)), (499, took(0))];
        for (cost, said) in steps {
            assert_eq!(house.take(algorithm, "u", cost).await, said, "{algorithm} {cost}");
        }
    }
}

// TestChangeLimit: 100, 10, 200
async fn a_limit_that_falls_and_rises_keeps_what_is_used(on: Backend) {
    // A bucket's tokens keep their size where its burst alone changes.
    let limits = |limit: u32| -> Value {
        let window = |algorithm: &str| match algorithm {
            "token_bucket" => json!([{"limit": 1, "per": LONG, "burst": limit}]),
            _ => json!([{"limit": limit, "per": LONG}]),
        };
        ALGORITHMS.iter().map(|algorithm| (*algorithm, per_user(algorithm, window(algorithm)))).collect()
    };
    let house = House::open(on, limits(1)).await;
    for (limit, lefts) in [(100, &[99, 98][..]), (10, &[7, 6]), (200, &[195])] {
        house.change(limits(limit));
        for left in lefts {
            for algorithm in ALGORITHMS {
                assert_eq!(house.take(algorithm, "u", 1).await, took(*left), "{algorithm} {limit}");
            }
        }
    }
}

// TestLeakyBucketDivBug
async fn large_limits_are_counted_to_the_token(on: Backend) {
    let house = House::open(on, of_every_algorithm(2000)).await;
    for algorithm in ALGORITHMS {
        assert_eq!(house.take(algorithm, "u", 1).await, took(1999), "{algorithm}");
        assert_eq!(house.take(algorithm, "u", 100).await, took(1899), "{algorithm}");
    }
}

// TestDrainOverLimit, TestTokenBucketNegativeHits: hits of zero
async fn a_look_at_what_is_left_takes_nothing(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for algorithm in ALGORITHMS {
        assert_eq!(house.look(algorithm, "u", 1).await, took(10), "{algorithm}");
        assert_eq!(house.take(algorithm, "u", 1).await, took(9), "{algorithm}");
        assert_eq!(house.look(algorithm, "u", 10).await, refused(9), "{algorithm}");
        assert_eq!(house.look(algorithm, "u", 9).await, took(9), "{algorithm}");
        assert_eq!(house.take(algorithm, "u", 9).await, took(0), "{algorithm}");
        assert_eq!(house.look(algorithm, "u", 1).await, refused(0), "{algorithm}");
    }
}

// TestTokenBucketNegativeHits, TestLeakyBucketNegativeHits: theirs may leave more than the limit, ours may not
async fn what_is_given_back_is_there_again_and_never_more_than_the_limit(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for algorithm in ALGORITHMS {
        let (key, windows) = house.key(algorithm, "u");
        let charge = Check { keys: vec![KeyCheck::take(&key, 5, windows.clone())] };
        let answer = house.shim.decide(&batch(10_000, vec![charge])).await.remove(0);
        let CheckAnswer::Allowed { keys } = answer else { panic!("{algorithm}: {answer:?}") };
        assert_eq!(house.look(algorithm, "u", 1).await, took(5), "{algorithm}");

        let dated_us = keys[0].at_us + 10_000_000;
        for (id, tokens, left) in [(1, 2, 7), (1, 2, 7), (2, 3, 10), (3, 4, 10)] {
            let (key, windows) = (key.clone(), windows.clone());
            let given = KeyReturn { key, shards: 1, shard: 0, tokens, dated_us, id, windows: windows.into() };
            let body = json!({"version": VERSION, "returns": [given]});
            let response: ReturnResponse = house.shim.post_to(RETURN_PATH, &body).await.json().await.unwrap();
            assert!(matches!(response.returned[..], [Returned::Tokens(_)]), "{algorithm}: {response:?}");
            assert_eq!(house.look(algorithm, "u", 1).await, took(left), "{algorithm}: {id}");
        }
    }
}

// TestDrainOverLimit: peek, take one, ask for more than there is and drain it, peek
async fn who_takes_what_there_is_drains_it_and_nobody_else_gets_any(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for algorithm in ALGORITHMS {
        assert_eq!(house.look(algorithm, "u", 1).await, took(10), "{algorithm}");
        assert_eq!(house.take(algorithm, "u", 1).await, took(9), "{algorithm}");
        for granted in [9, 0] {
            let body = json!({"subjects": {"user": "u"}, "cost": 10, "at_least": 1});
            let response = house.shim.post_to(&format!("/v1/limits/{algorithm}/allow"), &body).await;
            let verdict: Value = response.json().await.unwrap();
            let key = &verdict["keys"]["user"];
            assert_eq!((&verdict["allowed"], &key["granted"]), (&json!(granted > 0), &json!(granted)));
            assert_eq!(key["windows"][0]["remaining"], 0, "{algorithm}");
        }
        assert_eq!(house.look(algorithm, "u", 1).await, refused(0), "{algorithm}");
    }
}

// TestResetRemaining
async fn a_reset_makes_a_user_as_if_never_seen(on: Backend) {
    let house = House::open(on, of_every_algorithm(100)).await;
    for algorithm in ALGORITHMS {
        for user in ["u", "v"] {
            assert_eq!(house.take(algorithm, user, 1).await, took(99), "{algorithm}");
            assert_eq!(house.take(algorithm, user, 1).await, took(98), "{algorithm}");
        }
        house.reset(algorithm, "u").await;
        assert_eq!(house.look(algorithm, "u", 100).await, took(100), "{algorithm}");
        assert_eq!(house.take(algorithm, "u", 1).await, took(99), "{algorithm}");
        assert_eq!(house.take(algorithm, "v", 1).await, took(97), "{algorithm}");
    }
}

enum Step {
    Take(u32, Said),
    Look(u32, Said),
    Pass(u64),
}
use Step::{Look, Pass, Take};

/// Plays `steps` on one limit of the embedded store; times in milliseconds.
async fn plays(limit: Value, steps: Vec<Step>) {
    let house = House::open(Backend::embedded(), json!({"x": limit})).await;
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Take(cost, said) => assert_eq!(house.take("x", "u", cost).await, said, "step {at}"),
            Look(cost, said) => assert_eq!(house.look("x", "u", cost).await, said, "step {at}"),
            Pass(ms) => house.pass(Duration::from_millis(ms)),
        }
    }
}

// TestTokenBucket: theirs is full again when its duration is over, which is a window here
#[tokio::test]
async fn a_window_is_whole_again_when_its_time_is_over() {
    let steps = vec![
        Take(1, took(1)),
        Take(1, took(0)),
        Pass(4),
        Look(1, refused(0)),
        Pass(1),
        Look(2, took(2)),
        Take(1, took(1)),
    ];
    plays(per_user("sliding_log", json!([{"limit": 2, "per": "5ms"}])), steps).await;
}

// TestLeakyBucket: ten in thirty seconds, so one token each three seconds
#[tokio::test]
async fn a_bucket_gives_a_token_back_each_time_one_has_leaked_and_no_sooner() {
    let steps = vec![
        Take(1, took(9)),
        Take(1, took(8)),
        Pass(2_999),
        Look(1, took(8)),
        Pass(1),
        Look(1, took(9)),
        Take(9, took(0)),
        Take(1, refused(0)),
        Pass(3_000),
        Take(1, took(0)),
        Pass(7_500),
        Take(2, took(0)),
        Pass(1_499),
        Take(1, refused(0)),
        Pass(1),
        Take(1, took(0)),
        Pass(29_999),
        Look(1, took(9)),
        Pass(1),
        Look(1, took(10)),
        Pass(60_000),
        Look(1, took(10)),
    ];
    plays(per_user("token_bucket", json!([{"limit": 10, "per": "30s"}])), steps).await;
}

// TestLeakyBucketWithBurst
#[tokio::test]
async fn a_bucket_holds_its_burst_and_refills_at_its_rate() {
    let steps = vec![
        Take(1, took(19)),
        Take(18, took(1)),
        Take(2, refused(1)),
        Take(1, took(0)),
        Take(1, refused(0)),
        Pass(6_000),
        Take(2, took(0)),
        Pass(60_000),
        Look(20, took(20)),
        Pass(1),
        Look(20, took(20)),
    ];
    plays(per_user("token_bucket", json!([{"limit": 10, "per": "30s", "burst": 20}])), steps).await;
}

// TestTokenBucketGregorian, TestLeakyBucketGregorian, interval_test: the minute of the clock on the wall
#[tokio::test]
async fn a_minute_of_the_calendar_ends_when_the_minute_does() {
    let steps = vec![
        Pass(31_000),
        Take(1, took(59)),
        Take(1, took(58)),
        Take(58, took(0)),
        Take(1, refused(0)),
        Pass(28_999),
        Take(1, refused(0)),
        Pass(1),
        Look(1, took(60)),
        Take(1, took(59)),
    ];
    plays(per_user("fixed_window", json!([{"limit": 60, "per": "1m"}])), steps).await;
}

// interval_test: days end where the clock on the wall says so
#[tokio::test]
async fn a_day_ends_at_midnight_of_its_time_zone() {
    let mut limit = per_user("fixed_window", json!([{"limit": 3, "per": "1d"}]));
    limit["timezone"] = json!("+08:00");
    let hour = 3_600_000;
    let steps = vec![
        Take(3, took(0)),
        Pass(16 * hour - 1),
        Take(1, refused(0)),
        Pass(1),
        Take(1, took(2)),
        Pass(24 * hour - 1),
        Look(1, took(2)),
        Pass(1),
        Look(1, took(3)),
    ];
    plays(limit, steps).await;
}
