//! The short version of every scenario, and of that a part, in every test run.

use std::time::Duration;

use super::*;

fn scenario(name: &str, seconds: u64) -> Scenario {
    let whole = all(Size::Short).unwrap().into_iter().find(|scenario| scenario.name == name).unwrap();
    assert!(whole.lasts >= Duration::from_secs(seconds));
    Scenario { lasts: Duration::from_secs(seconds), ..whole }
}

fn simulated(scenario: &Scenario, seed: u64) -> Figures {
    run(scenario, seed, &|_| {}).unwrap()
}

fn of(name: &str, seconds: u64) -> Figures {
    let figures = simulated(&scenario(name, seconds), 1);
    assert_eq!(figures.over_admission, 0.0, "{name}");
    assert!(figures.admitted_share > 0.05, "{name} admits so few that nothing is proved: {figures:?}");
    figures
}

#[test]
fn no_window_is_ever_over_its_limit_under_the_production_load() {
    let figures = of("production", 20);
    assert!(figures.local_share > 0.8, "{figures:?}");
}

#[test]
fn no_window_is_ever_over_its_limit_on_one_hot_subject() {
    let figures = of("hot_subject", 50);
    assert!(figures.under_admission < 0.05, "{figures:?}");
}

#[test]
fn no_window_is_ever_over_its_limit_on_a_hundred_nodes() {
    of("hundred_nodes", 12);
}

#[test]
fn no_window_is_ever_over_its_limit_for_quiet_subjects_near_it() {
    of("quiet_near_limit", 80);
}

#[test]
fn every_algorithm_keeps_the_promise_of_its_own() {
    of("all_algorithms", 25);
}

#[test]
fn all_or_nothing_holds_over_several_keys() {
    of("several_keys", 130);
}

#[test]
fn no_window_is_ever_over_its_limit_whatever_crashes_and_is_lost() {
    for seed in 1..=2 {
        let figures = simulated(&scenario("crashes", 30), seed);
        assert_eq!(figures.over_admission, 0.0);
        assert!(figures.failed_share > 0.0, "nothing was lost: {figures:?}");
    }
}

#[test]
fn no_window_is_ever_over_its_limit_when_answers_wait_for_the_replicas() {
    let figures = of("failover", 30);
    assert!(figures.failed_share > 0.0, "nothing was lost: {figures:?}");
}

#[test]
fn what_a_failover_loses_is_sold_twice_when_nobody_waits_for_replicas_and_the_log_sees_it() {
    let figures = simulated(&scenario("failover_async", 80), 1);
    assert!(figures.over_admission > 0.0 && figures.lost > 0, "{figures:?}");
}

#[test]
fn a_seed_plays_the_same_run_again() {
    let rows = |seed| simulated(&scenario("crashes", 8), seed).row();
    assert_eq!(rows(1), rows(1));
    assert_ne!(rows(1), rows(2));
}

#[test]
fn a_broken_promise_comes_with_its_seed_and_what_happened_last() {
    let scenario = scenario("failover_async", 20);
    let text = explained(&scenario, 7, &Violation { subject: 4, window: 0 }).unwrap();
    assert!(text.contains("`cargo xtask sim --scenario failover_async --seed 7 --short`"), "{text}");
    assert!(text.contains("Admitted") && text.contains("asks for 1 and"), "{text}");
}
