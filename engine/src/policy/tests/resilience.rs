//! Which breakers a lane has: whose version an entry is, whose state it trips, and what guards nothing.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::breakers::{settings, with_breakers};
use super::*;

/// Title and owner of the breakers of a lane; a `!` follows one that turns away.
fn summary(lane: &Lane) -> Vec<String> {
    let breakers = lane.breakers.iter().map(|breaker| {
        let end = if matches!(breaker.verdict, BreakerVerdict::TurnAway) { "!" } else { "" };
        format!("{} of {}{end}", breaker.title, breaker.owner)
    });
    breakers.collect()
}

/// The policy with the fallback of its shadow lane changed.
fn falling_back(fallback: &str, entries: Value) -> Policy {
    let mut policy = with_breakers(entries);
    policy["lanes"]["shadow"]["fallback"] = json!(fallback);
    loaded(&policy)
}

/// The warnings of `policy`, which must load, one line each.
#[track_caller]
fn warnings(policy: &Value) -> Vec<String> {
    loaded(policy).warnings.iter().map(PolicyError::to_string).collect()
}

#[test]
fn without_entries_no_command_has_a_breaker() {
    let mut policy = with_breakers(json!({}));
    policy.as_object_mut().unwrap().remove("resilience");
    assert!(loaded(&policy).lanes.iter().all(|lane| lane.breakers.is_empty()));
}

#[test]
fn a_command_has_a_breaker_in_every_lane_when_it_has_an_entry_and_each_lane_trips_its_own() {
    let policy = loaded(&with_breakers(json!({"a": {"min_calls": 7}})));
    assert_eq!(summary(&policy.lanes[0]), ["a of a"]);
    assert_eq!(summary(&policy.lanes[1]), ["shadow.a of shadow.a"]);
    assert_eq!(settings(&policy, "shadow.a"), settings(&policy, "a"));
    let shadow = &policy.lanes[1];
    assert_eq!((shadow.breaker("a"), shadow.breaker("b"), shadow.breaker("shadow.a")), (Some(0), None, None));
}

#[test]
fn a_command_has_a_breaker_in_the_lanes_that_have_an_entry_for_it() {
    let policy = loaded(&with_breakers(json!({"shadow.b": {}})));
    assert_eq!(summary(&policy.lanes[0]), [""; 0]);
    assert_eq!(summary(&policy.lanes[1]), ["shadow.b of shadow.b"]);
}

#[test]
fn with_a_default_every_command_has_a_breaker() {
    let policy = loaded(&with_breakers(json!({"default": {}, "shadow.b": {"min_calls": 7}})));
    assert_eq!(summary(&policy.lanes[0]), ["a of a", "b of b"]);
    assert_eq!(summary(&policy.lanes[1]), ["shadow.a of shadow.a", "shadow.b of shadow.b"]);
    assert_eq!(policy.lanes[1].breaker("b"), Some(1));
}

#[test]
fn a_lane_that_shares_trips_with_the_normal_one_unless_it_has_an_entry_of_its_own() {
    let policy = falling_back("share", json!({"a": {}, "b": {}, "shadow.b": {}}));
    assert_eq!(summary(&policy.lanes[1]), ["shadow.a of a", "shadow.b of shadow.b"]);
    let policy = falling_back("share", json!({"default": {}}));
    assert_eq!(summary(&policy.lanes[1]), ["shadow.a of a", "shadow.b of b"]);
}

#[test]
fn a_lane_that_rejects_turns_away_what_a_normal_breaker_guards_unless_it_has_an_entry_of_its_own() {
    let policy = falling_back("reject", json!({"a": {}, "shadow.b": {}}));
    assert_eq!(summary(&policy.lanes[0]), ["a of a"]);
    assert_eq!(summary(&policy.lanes[1]), ["shadow.a of shadow.a!", "shadow.b of shadow.b"]);
}

#[test]
fn a_command_that_is_named_twice_has_one_breaker() {
    let mut policy = with_breakers(json!({"default": {}}));
    let again = policy["commands"][0].clone();
    policy["commands"].as_array_mut().unwrap().push(again);
    assert_eq!(summary(&loaded(&policy).lanes[0]), ["a of a", "b of b"]);
}

#[test]
fn an_entry_for_a_command_that_is_not_named_guards_nothing_and_is_a_warning() {
    let guards_nothing = |policy: &Value, expected: &[&str]| {
        assert_eq!(warnings(policy), expected);
        assert!(loaded(policy).lanes.iter().all(|lane| lane.breakers.is_empty()));
    };
    guards_nothing(
        &with_breakers(json!({"aa": {"min_calls": 7}, "account.get": {}, "shadow.bb": {}})),
        &[
            "resilience.aa: {\"min_calls\":7}: guards nothing: `commands` does not name `aa`; did you mean `a`?",
            "resilience[\"account.get\"]: {}: guards nothing: `commands` does not name `account.get`",
            "resilience[\"shadow.bb\"]: {}: guards nothing: `commands` does not name `bb`; did you mean `b`?",
        ],
    );
    guards_nothing(
        &with_breakers(json!({"normal.a": {}, "shdaow.b": {}})),
        &[
            "resilience[\"normal.a\"]: {}: guards nothing: `commands` does not name `normal.a`; \
             the normal lane's entry is `a`",
            "resilience[\"shdaow.b\"]: {}: guards nothing: `commands` does not name `shdaow.b`; \
             no lane is called `shdaow`",
        ],
    );
    guards_nothing(
        &json!({"version": 1, "resilience": {"default": {}}}),
        &["resilience.default: {}: guards nothing: `commands` names nothing"],
    );
    assert_eq!(warnings(&with_breakers(json!({"default": {}, "a": {}, "shadow.b": {}}))), [""; 0]);
}

#[test]
fn what_guards_nothing_is_read_all_the_same() {
    check(
        with_breakers(json!({"aa": {"min_calls": 0}})),
        &["resilience.aa.min_calls: 0: must be a whole number from 1 to 1000000"],
    );
}

#[test]
fn a_lane_has_no_default_of_its_own() {
    check(
        with_breakers(json!({"default": {}, "shadow.default": {}})),
        &["resilience[\"shadow.default\"]: {}: must be left out: there is one default for all lanes"],
    );
}

#[test]
fn a_command_that_is_named_like_a_lanes_version_of_another_is_refused_once_there_are_breakers() {
    let mut policy = with_breakers(json!({"b": {}}));
    policy["commands"][0]["command"] = json!("shadow.b");
    check(
        policy.clone(),
        &[
            "commands[0].command: \"shadow.b\": has an overlapping name: in resilience it is also the breaker of `b` in \
             lanes.shadow; give the command or the lane another name",
        ],
    );
    policy.as_object_mut().unwrap().remove("resilience");
    check(policy, &[]);
}

#[test]
fn names_that_no_command_can_have_are_refused() {
    let rule = "needs another name: the command's, of 1 to 64 letters, digits, _, - or dots, and a letter or digit \
                first; in a lane, <lane>.<command>";
    check(
        with_breakers(json!({"": {}, "/a": {}, "shadow.": {}, "shadow./a": {}})),
        &[
            &format!("resilience[\"\"]: {{}}: {rule}"),
            &format!("resilience[\"/a\"]: {{}}: {rule}"),
            &format!("resilience[\"shadow.\"]: {{}}: {rule}"),
            &format!("resilience[\"shadow./a\"]: {{}}: {rule}"),
        ],
    );
}

#[test]
fn a_command_that_stands_there_twice_is_refused_with_its_path() {
    let json = br#"{"version": 1, "resilience": {"shadow.a": {}, "b": {}, "shadow.a": {}}}"#;
    let errors: Vec<String> =
        Policy::from_json(json).unwrap_err().iter().map(PolicyError::to_string).collect();
    assert_eq!(
        errors,
        [
            "resilience[\"shadow.a\"]: must be JSON: the name \"shadow.a\" stands twice in an object at line 1 column 65"
        ]
    );
}

#[test]
fn an_error_that_is_inherited_is_told_once_where_it_is_written() {
    check(
        with_breakers(json!({"default": {"window": "1x"}, "a": {"min_calls": 0}, "shadow.a": {}, "b": {}})),
        &[
            "resilience.default.window: \"1x\": must be a duration from 1s to 1h: a whole number and its unit, \
             ms, s, m, h or d",
            "resilience.a.min_calls: 0: must be a whole number from 1 to 1000000",
        ],
    );
}

#[test]
fn breakers_beyond_what_a_node_can_hold_are_refused() {
    let commands = |count: usize| -> Value {
        let command = |i| json!({"command": format!("c{i}"), "match": {"path": {"exact": format!("/{i}")}}});
        (0..count).map(command).collect()
    };
    let lanes: Value = (0..3)
        .map(|i| {
            let flag = json!([{"header": "x-lane", "values": [format!("l{i}")]}]);
            (format!("l{i}"), json!({"flag": flag, "trust": ["everyone"]}))
        })
        .collect();
    let policy = |count: usize| {
        json!({
            "version": 1, "lanes": lanes, "commands": commands(count), "resilience": {"default": {}},
        })
    };
    assert_eq!(loaded(&policy(512)).lanes.iter().map(|lane| lane.breakers.len()).sum::<usize>(), 2048);
    check(policy(513), &["resilience: {\"default\":{}}: makes more than 2048 breakers: commands x lanes"]);
}
