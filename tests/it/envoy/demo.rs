//! The demo's steps, each on a stage of its own.

use lanekeeper_tests::demo::{self, Stage, Step};

fn holds(step: Step) {
    let mut stage = Stage::start(|_, _| {}).unwrap();
    step(&mut stage).unwrap();
}

#[test]
fn a_user_gets_ten_answers_with_falling_remaining_and_then_429() {
    holds(demo::a_user_is_limited);
}

#[test]
fn a_flood_in_the_shadow_lane_changes_nothing_in_the_normal_lane() {
    holds(demo::a_flood_stays_in_its_lane);
}

#[test]
fn a_flag_from_an_untrusted_client_is_stripped_and_its_request_counts_as_normal() {
    holds(demo::a_forged_flag_counts_as_normal);
}

#[test]
fn without_the_shim_each_request_is_answered_by_the_counters_of_the_node() {
    holds(demo::the_node_counts_without_the_store);
}

#[test]
fn a_shim_that_comes_back_decides_again_within_two_seconds() {
    holds(demo::the_store_decides_again);
}

#[test]
fn a_policy_with_a_typo_is_refused_by_name_and_the_old_one_goes_on() {
    holds(demo::a_typo_is_refused);
}
