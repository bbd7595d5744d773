//! After Limitador: limitador/tests/integration_tests.rs, limitador-server/src/envoy_rls/server.rs.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::house::{ALGORITHMS, Backend, House, LONG, ask, of_every_algorithm, per_user, refused, took};

on_every_backend! {
    limits_of_two_methods_are_independent,
    five_and_five_of_ten_leave_nothing_for_a_third,
    a_cost_above_the_limit_is_refused_by_its_name_and_charged_nowhere,
    a_cost_of_nothing_is_refused_and_not_taken_for_one,
    counts_down_to_nothing_and_names_a_reset_within_the_window,
    only_what_the_key_names_tells_subjects_apart,
    a_new_policy_keeps_what_is_used_of_the_limits_that_it_keeps,
    a_limit_that_is_changed_keeps_what_is_used,
    a_limit_that_comes_back_goes_on_where_it_was,
}

mod distributed {
    use super::two_shims_on_one_store_admit_the_limit_together_and_at_once;

    on_every_server! { two_shims_on_one_store_admit_the_limit_together_and_at_once, }
}

// multiple_limits_rate_limited
async fn limits_of_two_methods_are_independent(on: Backend) {
    let limit = |method: &str, limit: u32| {
        let mut limited = per_user("sliding_window", json!([{"limit": limit, "per": LONG}]));
        limited["match"] = json!({"methods": [method]});
        limited
    };
    let house = House::open(on, json!({"get": limit("GET", 3), "post": limit("POST", 4)})).await;
    let send = async |method: &str| house.send(&[(":method", method), ("x-user", "u")]).await.status;
    for turn in 0..3 {
        assert_eq!((send("GET").await, send("POST").await), (200, 200), "{turn}");
    }
    assert_eq!((send("GET").await, send("POST").await), (429, 200));
    assert_eq!((send("GET").await, send("POST").await), (429, 429));
    assert_eq!(send("PUT").await, 200);
}

// rate_limited_with_delta_higher_than_one
async fn five_and_five_of_ten_leave_nothing_for_a_third(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for algorithm in ALGORITHMS {
        for (cost, said) in [(5, took(5)), (5, took(0)), (5, refused(0)), (1, refused(0))] {
            assert_eq!(house.take(algorithm, "u", cost).await, said, "{algorithm}");
        }
    }
}

// rate_limited_with_delta_higher_than_max: no wait would ever help, so it is the caller's mistake
async fn a_cost_above_the_limit_is_refused_by_its_name_and_charged_nowhere(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for algorithm in ALGORITHMS {
        let response = house.ask(algorithm, "allow", "u", 11).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["field"], "cost");
        assert_eq!(problem["detail"], "1 to 10 are allowed for this limit", "{algorithm}");
        assert_eq!(house.take(algorithm, "u", 10).await, took(0), "{algorithm}");
    }
}

// test_0_hits_addend_is_converted_to_1: who wants to look, looks
async fn a_cost_of_nothing_is_refused_and_not_taken_for_one(on: Backend) {
    let house = House::open(on, of_every_algorithm(10)).await;
    for action in ["allow", "can_allow"] {
        assert_eq!(house.ask("token_bucket", action, "u", 0).await.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(house.look("token_bucket", "u", 10).await, took(10));
}

// check_rate_limited_and_update_load_counters
async fn counts_down_to_nothing_and_names_a_reset_within_the_window(on: Backend) {
    // Theirs ends with its window, and so do these, but for what an algorithm may be late by.
    let late = [
        ("sliding_window", 3600 / 256 + 1),
        ("sliding_log", 0),
        ("sliding_counter", 3600),
        ("token_bucket", 0),
    ];
    let hour = |algorithm| per_user(algorithm, json!([{"limit": 3, "per": "1h"}]));
    let limits: Value = late.iter().map(|(algorithm, _)| (*algorithm, hour(algorithm))).collect();
    let house = House::open(on, limits).await;
    for (algorithm, late) in late {
        for said in [took(2), took(1), took(0), refused(0)] {
            assert_eq!(house.take(algorithm, "u", 1).await, said, "{algorithm}");
            let verdict = house.verdict(algorithm, "can_allow", "u", 1).await;
            let reset = verdict["keys"]["user"]["windows"][0]["reset_us"].as_u64().unwrap();
            assert!((1..=(3600 + late) * 1_000_000).contains(&reset), "{algorithm}: {reset}");
        }
    }
}

// takes_into_account_only_vars_of_the_limits
async fn only_what_the_key_names_tells_subjects_apart(on: Backend) {
    let house = House::open(on, of_every_algorithm(2)).await;
    for (path, agent, status) in [("/a", "x", 200), ("/b", "y", 200), ("/c", "z", 429)] {
        let headers = [(":path", path), ("user-agent", agent), ("x-user", "u")];
        assert_eq!(house.send(&headers).await.status, status, "{path}");
    }
    assert_eq!(house.send(&[(":path", "/c"), ("user-agent", "z"), ("x-user", "v")]).await.status, 200);
}

// configure_with_keeps_the_given_limits_and_counters_if_they_exist, …_deletes_all_except
async fn a_new_policy_keeps_what_is_used_of_the_limits_that_it_keeps(on: Backend) {
    let limit = |limit: u32| per_user("sliding_window", json!([{"limit": limit, "per": LONG}]));
    let house = House::open(on, json!({"kept": limit(10), "dropped": limit(10)})).await;
    assert_eq!(house.take("kept", "u", 4).await, took(6));
    house.change(json!({"kept": limit(10), "added": limit(5)}));
    assert_eq!(house.take("kept", "u", 1).await, took(5));
    assert_eq!(house.take("added", "u", 1).await, took(4));
    assert_eq!(house.ask("dropped", "allow", "u", 1).await.status(), StatusCode::NOT_FOUND);
}

// configure_with_updates_the_limits
async fn a_limit_that_is_changed_keeps_what_is_used(on: Backend) {
    let limits = |limit: u32| {
        ALGORITHMS
            .iter()
            .map(|name| (*name, per_user(name, json!([{"limit": limit, "per": LONG}]))))
            .collect()
    };
    let house = House::open(on, limits(10)).await;
    for algorithm in ALGORITHMS {
        assert_eq!(house.take(algorithm, "u", 4).await, took(6), "{algorithm}");
    }
    house.change(limits(20));
    for algorithm in ALGORITHMS {
        // a token's size is its bucket's unit: with another rate the old debt means nothing
        let left = if algorithm == "token_bucket" { 19 } else { 15 };
        assert_eq!(house.take(algorithm, "u", 1).await, took(left), "{algorithm}");
    }
}

// delete_limit_also_deletes_associated_counters: not so here. Counters are the store's and end with their windows,
// so that a policy that loses a limit for a moment sells nothing twice.
async fn a_limit_that_comes_back_goes_on_where_it_was(on: Backend) {
    let limit = || per_user("sliding_window", json!([{"limit": 3, "per": LONG}]));
    let house = House::open(on, json!({"one": limit(), "two": limit()})).await;
    assert_eq!(house.take("one", "u", 2).await, took(1));
    house.change(json!({"two": limit()}));
    house.change(json!({"one": limit()}));
    assert_eq!(house.take("one", "u", 1).await, took(0));
    assert_eq!(house.take("one", "u", 1).await, refused(0));
}

// distributed_rate_limited: there limited "eventually", within five seconds; here neither sooner nor later
async fn two_shims_on_one_store_admit_the_limit_together_and_at_once(on: Backend) {
    let house = House::open(on, of_every_algorithm(50)).await;
    let another = house.another_shim().await;
    for algorithm in ALGORITHMS {
        let mut callers = JoinSet::new();
        for _ in 0..40 {
            for shim in [Arc::clone(&house.shim), Arc::clone(&another)] {
                callers
                    .spawn(async move { ask(&shim, algorithm, "allow", "u", 1).await.json::<Value>().await });
            }
        }
        let verdicts = callers.join_all().await;
        let admitted = verdicts.iter().filter(|verdict| verdict.as_ref().unwrap()["allowed"] == true).count();
        assert_eq!(admitted, 50, "{algorithm}");
    }
}

// get_counters_does_not_return_expired_ones
#[tokio::test]
async fn a_counter_whose_window_has_passed_reads_as_fresh() {
    let limits: Value =
        ALGORITHMS.iter().map(|name| (*name, per_user(name, json!([{"limit": 10, "per": "1m"}])))).collect();
    let house = House::open(Backend::embedded(), limits).await;
    for algorithm in ALGORITHMS {
        house.take(algorithm, "u", 10).await;
        let idle = house.verdict(algorithm, "can_allow", "u", 10).await["wait_us"].as_u64().unwrap();
        house.pass(Duration::from_micros(idle - 1));
        assert!(house.look(algorithm, "u", 10).await != took(10), "{algorithm}");
        house.pass(Duration::from_micros(1));
        assert_eq!(house.look(algorithm, "u", 10).await, took(10), "{algorithm}");
    }
}
