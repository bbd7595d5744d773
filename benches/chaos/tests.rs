//! A part of the cases, for a few seconds each, in every test run. Others run beside them, so the store is waited for
//! longer, and how fast anything was says nothing.

use super::*;

// A probe or two may fail on a busy machine before the store is asked again.
const SIZE: Size = Size { timeout: Duration::from_millis(200), ..Size::of(500, 1500, 5000) };

/// Where Envoy leaves the one alone for which three in a row failed, fewer are decided without the store. Where it does not,
/// half of those that ask are: a hundred a second.
const FEW: usize = 50;

fn outcome(name: &str) -> Outcome {
    outcome_of(name, &SIZE)
}

fn outcome_of(name: &str, size: &Size) -> Outcome {
    let fault = FAULTS.iter().find(|fault| fault.name == name).unwrap();
    let outcome = run(fault, size).unwrap();
    assert_eq!(outcome.broken_promises(), Vec::<String>::new());
    let account = &outcome.account;
    assert!(account.count(|request| request.status() == Some(429)) > 20, "nobody was limited");
    assert_eq!(account.refused_below_limit(), 0);
    assert_eq!(outcome.given_up_after().is_some(), fault.is_outage);
    assert!(account.back_after().is_some(), "the store never decided again");
    outcome
}

#[test]
fn a_redis_that_is_killed_under_load_costs_nobody_an_answer() {
    outcome("redis_stopped");
}

#[test]
fn a_redis_that_hangs_under_load_is_waited_for_a_while_and_then_no_more() {
    let account = outcome("redis_paused").account;
    assert!(account.waited_in_vain() > 0 && account.calls_in_vain() > 0);
}

#[test]
fn a_cut_between_envoy_and_the_shim_under_load_costs_nobody_an_answer() {
    outcome("cut_envoy_shim");
}

#[test]
fn a_shim_that_is_killed_under_load_costs_nobody_an_answer() {
    outcome("shim_killed");
}

#[test]
fn one_of_two_shims_that_is_killed_under_load_is_left_alone_by_most_requests() {
    // a shim that is gone refuses at once, so nobody is to do without the store for anything else
    let size = Size { timeout: Duration::from_secs(2), ..SIZE };
    let account = outcome_of("one_of_two_shims_killed", &size).account;
    assert!((1..FEW).contains(&account.without_store()), "{}", account.without_store());
}

#[test]
fn a_full_disk_for_the_logs_costs_nobody_an_answer_either() {
    outcome("log_disk_full");
}

#[test]
fn each_fault_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
    assert_eq!(names.len(), FAULTS.len());
}
