//! The document as a whole: form, version, sections, size.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

#[test]
fn every_error_is_told_at_once_with_its_path_its_value_and_what_is_allowed() {
    check(
        json!({
            "version": 2,
            "store": {"cluster": "lanekeeper", "timeout": "20"},
            "rate_limts": {},
            "rate_limits": {
                "ads": limit(json!({"windows": [{"limit": 0, "per": "1x"}], "enforce": 100})),
                "bad name": limit(json!({})),
            },
            "responses": {"rejected_status": 200},
        }),
        &[
            "rate_limts: {}: is an unknown field; allowed: version, lanes, store, commands, rate_limits, \
             resilience, responses; did you mean `rate_limits`?",
            "version: 2: must be 1",
            "store.timeout: \"20\": must be a duration from 1ms to 10s: a whole number and its unit, ms, s, m, h or d",
            "rate_limits[\"bad name\"]: {\"keys\":{\"all\":{\"constant\":\"global\"}},\"windows\":[{\"limit\":1…: \
             needs another name: 1 to 64 letters, digits, _ or -, and a letter or digit first",
            "rate_limits.ads.windows[0].limit: 0: must be a whole number from 1 to 1000000000",
            "rate_limits.ads.windows[0].per: \"1x\": must be a duration from 1ms to 366d: a whole number and its unit, \
             ms, s, m, h or d",
            "rate_limits.ads.enforce: 100: must be a percentage from 0% to 100% with at most four decimals, \
             such as 1% or 0.5%",
            "responses.rejected_status: 200: must be a whole number from 400 to 599",
        ],
    );
}

#[test]
fn the_document_must_be_an_object_with_a_version() {
    let fields = "must be an object with the fields version, lanes, store, commands, rate_limits, resilience, responses";
    check(json!(null), &[&format!("policy: null: {fields}")]);
    check(json!([]), &[&format!("policy: []: {fields}")]);
    check(json!("version: 1"), &[&format!("policy: \"version: 1\": {fields}")]);
    check(json!({}), &["version: is required: it is 1"]);
    check(json!({"version": "1"}), &["version: \"1\": must be 1; write it without quotes"]);
}

#[test]
fn what_this_version_does_not_have_is_refused_and_not_ignored() {
    let later = "is not supported by this version; supported: version, lanes, store, commands, rate_limits, resilience, responses";
    check(
        json!({"version": 1, "telemetry": {"access_log": true}}),
        &[&format!("telemetry: {{\"access_log\":true}}: {later}")],
    );
}

#[test]
fn empty_sections_are_refused() {
    let empty = "must not be empty: write an";
    check(json!({"version": 1, "lanes": {}}), &[&format!("lanes: {{}}: {empty} entry, or leave it out")]);
    check(
        json!({"version": 1, "rate_limits": {}}),
        &[&format!("rate_limits: {{}}: {empty} entry, or leave it out")],
    );
    check(
        json!({"version": 1, "resilience": {}}),
        &[&format!("resilience: {{}}: {empty} entry, or leave it out")],
    );
    check(json!({"version": 1, "commands": []}), &[&format!("commands: []: {empty} item, or leave it out")]);
    check(
        json!({"version": 1, "rate_limits": null}),
        &["rate_limits: null: must be an object of named entries"],
    );
    check(json!({"version": 1, "commands": {}}), &["commands: {}: must be a list"]);
}

#[test]
fn numbers_may_come_as_doubles_if_they_are_whole() {
    let with_limit = |limit: Value| {
        json!({"version": 1.0, "rate_limits": {"x": {
            "keys": {"all": {"constant": "global"}}, "windows": [{"limit": limit, "per": "1m"}],
        }}})
    };
    assert_eq!(count(&loaded(&with_limit(json!(10.0))).lanes[0].limits[0]).windows[0].limit(), 10);
    assert_eq!(count(&loaded(&with_limit(json!(1e9))).lanes[0].limits[0]).windows[0].limit(), 1_000_000_000);
    for (wrong, shown) in [
        (json!(10.5), "10.5"),
        (json!(-1), "-1"),
        (json!(-1.0), "-1.0"),
        (json!(0), "0"),
        (json!(-0.0), "-0.0"),
        (json!(1e300), "1e+300"),
        (json!(1_000_000_001), "1000000001"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(true), "true"),
        (json!(null), "null"),
        (json!([10]), "[10]"),
    ] {
        let expected =
            format!("rate_limits.x.windows[0].limit: {shown}: must be a whole number from 1 to 1000000000");
        check(with_limit(wrong), &[&expected]);
    }
}

#[test]
fn json_that_is_none_or_says_a_name_twice_is_refused_with_its_line() {
    let problem = |json: &str| Policy::from_json(json.as_bytes()).unwrap_err()[0].to_string();
    assert_eq!(problem(""), "policy: must be JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(problem("version: 1"), "policy: must be JSON: expected value at line 1 column 1");
    assert_eq!(
        problem("{\"version\": 1,\n\"version\": 1}"),
        "version: must be JSON: the name \"version\" stands twice in an object at line 2 column 9"
    );
    assert_eq!(
        problem(r#"{"commands": [{}, {"match": {"a.b": 1, "a.b": 2}}]}"#),
        "commands[1].match[\"a.b\"]: must be JSON: the name \"a.b\" stands twice in an object at line 1 column 44"
    );
    assert!(Policy::from_json(b"\xff").is_err());
    assert!(Policy::from_json("[".repeat(100_000).as_bytes()).is_err(), "depth is bounded");
    assert!(Policy::from_json(br#" {"version": 1} "#).is_ok());
}

#[test]
fn a_policy_beyond_its_size_is_refused() {
    let expected = "policy: must be at most 1048576 bytes of JSON";
    let long = json!({"version": 1, "x": "x".repeat(MAX_BYTES)});
    check(long.clone(), &[expected]);
    let errors = Policy::from_json(long.to_string().as_bytes()).unwrap_err();
    assert_eq!(errors[0].to_string(), expected);

    let entries = |count: usize| (0..count).map(|i| (format!("l{i}"), limit(json!({})))).collect::<Value>();
    loaded(&json!({"version": 1, "rate_limits": entries(1000)}));
    assert!(errors_end(
        &json!({"version": 1, "rate_limits": entries(1001)}),
        "must have at most 1000 entries"
    ));

    let keys: Value = (0..64).map(|i| (format!("k{i}"), json!("ip"))).collect();
    let windows: Value = (1..=16).map(|i| json!({"limit": 1, "per": format!("{i}s")})).collect();
    let big = limit(json!({"keys": keys, "windows": windows}));
    let entries = |count: usize| (0..count).map(|i| (format!("l{i}"), big.clone())).collect::<Value>();
    loaded(&json!({"version": 1, "rate_limits": entries(64)}));
    assert!(errors_end(
        &json!({"version": 1, "rate_limits": entries(65)}),
        "names more than 65536 counters: keys x windows, over all lanes"
    ));
}

/// Whether `policy` has one error, which ends so.
fn errors_end(policy: &Value, end: &str) -> bool {
    let errors = errors(policy);
    errors.len() == 1 && errors[0].ends_with(end)
}

#[test]
fn paths_are_written_so_that_each_step_can_be_told() {
    assert_eq!(field_path("", "lanes"), "lanes");
    assert_eq!(field_path("lanes", "shadow"), "lanes.shadow");
    assert_eq!(field_path("lanes", "a.b"), "lanes[\"a.b\"]");
    assert_eq!(field_path("", ""), "[\"\"]");
    assert_eq!(item_path("commands", 2), "commands[2]");
}

#[test]
fn responses_say_headers_status_and_body() {
    let responses = |said: Value| json!({"version": 1, "responses": said});
    let both =
        loaded(&responses(json!({"headers": ["legacy", "draft"], "rejected_status": 503, "body": "json"})));
    assert_eq!(
        both.responses,
        Responses { draft_headers: true, legacy_headers: true, rejected_status: 503, body: Body::Json }
    );
    let none = loaded(&responses(json!({"headers": "none", "body": "none"})));
    assert_eq!(
        none.responses,
        Responses { draft_headers: false, legacy_headers: false, rejected_status: 429, body: Body::None }
    );
    let legacy = loaded(&responses(json!({"headers": ["legacy"]}))).responses;
    assert!(legacy.legacy_headers && !legacy.draft_headers);

    check(
        responses(json!({"headers": "draft"})),
        &["responses.headers: \"draft\": must be a list of draft and legacy, or the word none"],
    );
    check(
        responses(json!({"headers": ["none"]})),
        &["responses.headers[0]: \"none\": must be one of draft, legacy"],
    );
    check(
        responses(json!({"headers": []})),
        &["responses.headers: []: must not be empty: write an item, or leave it out"],
    );
    check(
        responses(json!({"headers": ["draft", "draft"]})),
        &["responses.headers[1]: \"draft\": stands in this list twice"],
    );
    check(
        responses(json!({"body": "problems", "rejected_status": 600})),
        &[
            "responses.rejected_status: 600: must be a whole number from 400 to 599",
            "responses.body: \"problems\": must be one of problem, json, none; did you mean `problem`?",
        ],
    );
}
