use serde_json::{Value, json};

use super::*;
use crate::breaker::Entry;
use crate::counter::STORE_BUCKETS;
use crate::headers::Headers;
use crate::lane::parse_source;
use crate::policy::Cost;
use crate::units::Timestamp;
use crate::wire::{DecideRequest, StoreError, WindowAnswer};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

mod failing_store;
mod known;
mod on_success;

fn policy(value: &Value) -> Policy {
    Policy::from_value(value).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// Two lanes, one limit with an entry for each, and what else `more` says of `rate_limits`.
fn with_limits(store: bool, more: Value) -> Policy {
    let mut document = json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"baggage": "shadow", "values": ["true"]}],
            "trust": [{"source_cidr": ["10.0.0.0/8"]}],
        }},
        "rate_limits": {
            "per_user": {
                "keys": {"user": [{"header": "x-user"}]},
                "windows": [{"limit": 10, "per": "1m"}, {"limit": 20, "per": "1h"}],
            },
            "shadow_per_user": {"windows": [{"limit": 50, "per": "1m"}]},
        },
    });
    if store {
        document["store"] = json!({"cluster": "lanekeeper"});
    }
    for (name, limit) in more.as_object().unwrap() {
        document["rate_limits"][name] = limit.clone();
    }
    policy(&document)
}

fn arrive(policy: &Policy, pairs: &[(&str, &str)]) -> (Request, Step) {
    let headers = Headers::from_pairs(pairs.iter().copied());
    let client = || parse_source(b"10.0.0.1:1");
    let (request, arrival) = Request::arrive(
        policy,
        &Facts {
            headers: &headers,
            client: &client,
            chance: &|| 0,
            now: Timestamp::default(),
            enter: &|_, _, _| Entry::Pass(None),
        },
    );
    (request, arrival.step)
}

/// An answer to every check of `request`: the same for each window.
fn answers(request: &Request, allowed: bool, answer: WindowAnswer) -> Vec<CheckAnswer> {
    let key = |key: &crate::wire::KeyCheck| crate::wire::KeyAnswer {
        granted: if allowed { key.cost } else { 0 },
        at_us: 0,
        shard: 0,
        lease: None,
        windows: vec![answer; key.windows.len()],
    };
    let answer = |check: &Check| {
        let keys = check.keys.iter().map(key).collect();
        if allowed { CheckAnswer::Allowed { keys } } else { CheckAnswer::Rejected { keys } }
    };
    request.checks().map(answer).collect()
}

const SOME_LEFT: WindowAnswer = WindowAnswer { remaining: 9, reset_us: 5_000_001, wait_us: 0 };
const NONE_LEFT: WindowAnswer = WindowAnswer { remaining: 0, reset_us: 5_000_001, wait_us: 7_000_001 };

fn headers(request: &Request) -> Vec<String> {
    request.answer_headers(&|| None).map(|header| format!("{}: {}", header.name, header.value)).collect()
}

fn reply(step: Step) -> Reply {
    match step {
        Step::Reply(reply) => reply,
        other => panic!("no reply but {other:?}"),
    }
}

fn tally(limit: usize, outcome: Outcome, judge: Judge) -> Tally {
    Tally { limit, outcome, judge }
}

#[test]
fn asks_the_store_for_all_keys_and_windows_at_once() {
    let (request, step) = arrive(&with_limits(true, json!({})), &[("x-user", "u1")]);
    assert_eq!(step, Step::Ask);
    let checks: Vec<_> = request.checks().collect();
    assert_eq!(checks.len(), 1);
    assert_eq!(checks[0].keys.len(), 1);
    assert_eq!((checks[0].keys[0].key.as_str(), checks[0].keys[0].windows.len()), ("per_user:{u1}:user", 2));
}

#[test]
fn tells_the_store_over_how_many_keys_a_key_is_spread() {
    let spread = json!({"spread": {
        "keys": {"all": {"constant": "all"}},
        "windows": [{"limit": 10, "per": "1s"}],
        "shards": 3,
        "cost": {"header": "x-cost", "max": 3},
    }});
    let (request, _) = arrive(&with_limits(true, spread), &[("x-cost", "absurd")]);
    let checks: Vec<_> = request.checks().cloned().collect();
    assert_eq!((checks[0].keys[0].shards, checks[0].keys[0].cost), (3, 3));
    let question = DecideRequest::new(20, checks);
    assert_eq!(question.validate(), Ok(()));
}

#[test]
fn without_a_store_it_counts_on_this_node() {
    let (request, step) = arrive(&with_limits(false, json!({})), &[("x-user", "u1")]);
    assert_eq!((step, request.is_pending()), (Step::Count, true));
}

#[test]
fn a_request_that_no_limit_concerns_goes_on_without_a_header() {
    let (mut request, step) = arrive(&with_limits(true, json!({})), &[]);
    assert_eq!((step, headers(&request)), (Step::Continue, vec![]));
    assert_eq!(request.take_tallies(), []);
}

#[test]
fn an_admitted_request_names_every_window_and_what_is_left_in_the_tightest() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    let answers = answers(&request, true, SOME_LEFT);
    assert_eq!(request.answered(&policy, Judge::Store, answers), Step::Continue);
    assert_eq!(
        headers(&request),
        [
            r#"ratelimit-policy: "per_user:1m";q=10;w=60,"per_user:1h";q=20;w=3600"#,
            r#"ratelimit: "per_user:1m";r=9;t=6"#,
        ]
    );
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Admitted, Judge::Store)]);
    assert_eq!(request.take_tallies(), [], "each decision is counted once");
}

#[test]
fn a_rejection_names_the_window_that_takes_longest_and_when_to_come_back() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    let mut answers = answers(&request, false, NONE_LEFT);
    if let CheckAnswer::Rejected { keys } = &mut answers[0] {
        keys[0].windows[1].wait_us = 30_000_000;
        keys[0].windows[1].reset_us = 30_000_000;
    }
    let reply = reply(request.answered(&policy, Judge::Store, answers));
    assert_eq!((reply.status, reply.grpc_status), (429, 8));
    assert!(reply.headers.contains(&("retry-after", "30".into())));
    assert!(reply.headers.contains(&("ratelimit", r#""per_user:1h";r=0;t=30"#.into())));
    assert!(reply.headers.contains(&("content-type", "application/problem+json".into())));
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body["violated-policies"], json!(["per_user:1h"]));
    assert_eq!(
        (&body["limit"], &body["key"], &body["window"]),
        (&json!("per_user"), &json!("user"), &json!("1h"))
    );
    assert_eq!(headers(&request), Vec::<String>::new(), "its own answer gets no second headers");
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Rejected, Judge::Store)]);
}

#[test]
fn retry_after_is_never_zero_and_never_earlier_than_the_reset() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    let soon = WindowAnswer { remaining: 0, reset_us: 1, wait_us: 1 };
    let answers = answers(&request, false, soon);
    let reply = reply(request.answered(&policy, Judge::Store, answers));
    assert!(reply.headers.contains(&("retry-after", "1".into())));
    assert!(reply.headers.contains(&("ratelimit", r#""per_user:1m";r=0;t=1"#.into())));
}

#[test]
fn the_shadow_lane_has_its_own_values_and_its_own_keys() {
    let (request, _) = arrive(&with_limits(true, json!({})), &[("x-user", "u1"), ("baggage", "shadow=true")]);
    let check = request.checks().next().unwrap();
    assert_eq!(check.keys[0].key, "shadow_per_user:{u1}:user");
    assert_eq!(check.keys[0].windows.len(), 1);
    assert_eq!(request.lane(), 1);
}

#[test]
fn a_missing_shadow_entry_falls_back_in_values_and_never_in_state() {
    let more =
        json!({"other": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 3, "per": "1s"}]}});
    let policy = with_limits(true, more);
    let (request, _) = arrive(&policy, &[("x-user", "u1"), ("baggage", "shadow=true")]);
    let keys: Vec<_> =
        request.checks().flat_map(|check| check.keys.iter().map(|key| key.key.as_str())).collect();
    assert_eq!(keys, ["shadow_other:{u1}:user", "shadow_per_user:{u1}:user"]);
}

#[test]
fn a_dry_run_judges_and_never_rejects() {
    let dry = json!({"dry": {
        "keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1s"}], "enforce": "0%",
    }});
    let policy = with_limits(true, dry);
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    assert_eq!(request.checks().count(), 2, "a dry run must not keep the others from being charged");
    let allowed = answers(&request, true, SOME_LEFT).pop().unwrap();
    let rejected = answers(&request, false, NONE_LEFT).remove(0);
    assert_eq!(request.answered(&policy, Judge::Store, vec![rejected, allowed]), Step::Continue);
    assert_eq!(
        request.take_tallies(),
        [tally(0, Outcome::DryRun, Judge::Store), tally(1, Outcome::Admitted, Judge::Store)]
    );
    assert!(headers(&request)[0].contains("per_user") && !headers(&request)[0].contains("dry"));
}

#[test]
fn a_share_is_enforced_by_chance() {
    let half = json!({"half": {
        "keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1s"}], "enforce": "50%",
    }});
    let policy = with_limits(true, half);
    let headers = Headers::from_pairs([("x-user", "u")]);
    let checks = |chance: u32| {
        let facts = Facts {
            headers: &headers,
            client: &|| None,
            chance: &|| chance,
            now: Timestamp::default(),
            enter: &|_, _, _| Entry::Pass(None),
        };
        Request::arrive(&policy, &facts).0.checks().count()
    };
    assert_eq!((checks(0), checks(u32::MAX / 2), checks(u32::MAX / 2 + 1)), (1, 1, 2));
}

#[test]
fn an_answer_that_comes_twice_changes_nothing() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    let (first, second) = (answers(&request, true, SOME_LEFT), answers(&request, false, NONE_LEFT));
    assert_eq!(request.answered(&policy, Judge::Store, first), Step::Continue);
    assert_eq!(request.answered(&policy, Judge::Store, second), Step::Continue);
    assert_eq!(request.store_failed(&policy), Step::Continue);
    assert_eq!(headers(&request).len(), 2);
}

#[test]
fn costs_come_from_the_policy_or_within_its_range_from_a_header() {
    let cost = Cost::Header { name: "x-cost".into(), max: 100 };
    let of = |text: &str| cost.of(&Headers::from_pairs([("x-cost", text)]));
    assert_eq!((of("1"), of("100"), of(" 7 ")), (1, 100, 7));
    for absurd in ["0", "-1", "101", "1.5", "1e2", "", "ten", "99999999999999999999", "+ 1", "\u{661}"] {
        assert_eq!(of(absurd), 100, "{absurd:?} must not be cheap");
    }
    assert_eq!(cost.of(&Headers::default()), 1);
    assert_eq!(Cost::Fixed(3).of(&Headers::default()), 3);
}

#[test]
fn a_missing_key_is_skipped_or_refused_as_the_policy_says() {
    let limit = |on_missing: &str| {
        json!({
            "keys": {"shop": [{"header": "x-shop"}]}, "windows": [{"limit": 1, "per": "1s"}], "on_missing_key": on_missing,
        })
    };
    let skip = with_limits(true, json!({"a": limit("skip")}));
    assert_eq!(arrive(&skip, &[]).1, Step::Continue);
    let refuse = with_limits(true, json!({"a": limit("reject")}));
    let (mut request, step) = arrive(&refuse, &[("x-user", "u"), ("x-shop", "")]);
    assert_eq!(reply(step).status, 400);
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Rejected, Judge::Policy)]);
}

#[test]
fn a_lane_that_goes_nowhere_without_its_entry_turns_requests_away() {
    let policy = policy(&json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["1"]}], "trust": ["everyone"], "fallback": "reject",
        }},
        "rate_limits": {"a": {"keys": {"all": {"constant": "all"}}, "windows": [{"limit": 1, "per": "1s"}]}},
    }));
    let (mut request, step) = arrive(&policy, &[("x-shadow", "1")]);
    assert_eq!(reply(step).status, 403);
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Rejected, Judge::Policy)]);
    assert_eq!(arrive(&policy, &[]).1, Step::Count);
}

#[test]
fn an_untrusted_flag_is_forbidden_where_the_policy_says_reject() {
    let policy = policy(&json!({
        "version": 1,
        "lanes": {"shadow": {
            "flag": [{"header": "x-shadow", "values": ["1"]}],
            "trust": [{"source_cidr": ["192.0.2.0/24"]}],
            "untrusted": "reject",
        }},
    }));
    let (_, step) = arrive(&policy, &[("x-shadow", "1")]);
    assert_eq!((reply(step).status, arrive(&policy, &[("x-shadow", "0")]).1), (403, Step::Continue));
}

#[test]
fn grpc_requests_get_a_message_instead_of_a_body() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1"), ("content-type", "application/grpc+proto")]);
    let answers = answers(&request, false, NONE_LEFT);
    let reply = reply(request.answered(&policy, Judge::Store, answers));
    assert_eq!(reply.body, "limit per_user has nothing left for this user in its window of 1m");
    assert!(!reply.headers.iter().any(|(name, _)| *name == "content-type"));
}

#[test]
fn bodies_and_headers_are_as_the_policy_says() {
    let body = |responses: Value| {
        let mut document = json!({"version": 1, "responses": responses});
        document["rate_limits"] =
            json!({"a": {"keys": {"all": {"constant": "x"}}, "windows": [{"limit": 2, "per": "500ms"}]}});
        let policy = policy(&document);
        let (mut request, _) = arrive(&policy, &[]);
        let answers = answers(&request, false, NONE_LEFT);
        reply(request.counted(&policy, answers))
    };
    let json = body(json!({"body": "json", "headers": ["legacy"], "rejected_status": 503}));
    assert_eq!((json.status, json.body.as_str()), (503, r#"{"error":"rate limit exceeded"}"#));
    let names: Vec<_> = json.headers.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "content-type"]
    );
    let none = body(json!({"body": "none", "headers": "none"}));
    assert_eq!((none.body.as_str(), none.headers.len()), ("", 1));
    let draft = body(json!({"headers": ["draft"]}));
    assert!(draft.headers.contains(&("ratelimit-policy", r#""a";q=2"#.into())), "{:?}", draft.headers);
}

#[test]
fn of_two_limiters_the_stricter_speaks_in_the_older_headers() {
    let policy = policy(&json!({
        "version": 1,
        "responses": {"headers": ["draft", "legacy"]},
        "rate_limits": {"a": {"keys": {"all": {"constant": "x"}}, "windows": [{"limit": 9, "per": "1s"}]}},
    }));
    let (mut request, _) = arrive(&policy, &[]);
    let answers = answers(&request, true, WindowAnswer { remaining: 5, ..SOME_LEFT });
    request.counted(&policy, answers);
    let count =
        |upstream: Option<&str>| request.answer_headers(&|| upstream.map(|u| u.as_bytes().to_vec())).count();
    assert_eq!((count(None), count(Some("5")), count(Some("4")), count(Some("many"))), (5, 5, 2, 5));
}

/// The whole way with the real arithmetic in place of the store.
#[test]
fn the_eleventh_request_in_a_minute_is_rejected_and_the_one_after_the_wait_is_not() {
    use crate::counter::{Charge, SubjectCounters, decide};
    use std::time::Duration;
    let policy = with_limits(true, json!({}));
    let mut counters = SubjectCounters::default();
    let mut ask = |now: Timestamp| {
        let (mut request, _) = arrive(&policy, &[("x-user", "alice")]);
        let key = request.checks().next().unwrap().keys[0].clone();
        let mut charges = [Charge { windows: &key.windows, ask: key.ask(), counters: &mut counters }];
        let decision = decide(&mut charges, STORE_BUCKETS, now, Duration::from_millis(20));
        let wait = decision.keys[0].windows.iter().map(|window| window.wait).max().unwrap();
        (request.answered(&policy, Judge::Store, vec![decision.into()]), wait)
    };
    let start = Timestamp::from_micros(1_700_000_000_000_000);
    for _ in 0..10 {
        assert_eq!(ask(start).0, Step::Continue);
    }
    let (step, wait) = ask(start);
    assert_eq!(reply(step).status, 429);
    assert_eq!(ask(start.plus(wait - Duration::from_micros(1))).1, Duration::from_micros(1));
    assert_eq!(ask(start.plus(wait)).0, Step::Continue);
}

#[test]
fn a_request_that_meets_more_keys_than_one_decision_holds_is_refused() {
    let keys = |count: usize| {
        let keys: serde_json::Map<_, _> =
            (0..count).map(|n| (format!("k{n}"), json!({"constant": n.to_string()}))).collect();
        json!({"keys": keys, "windows": [{"limit": 1, "per": "1s"}]})
    };
    let limits = |last: usize| {
        with_limits(false, json!({"a": keys(64), "b": keys(64), "c": keys(64), "d": keys(last)}))
    };
    assert_eq!(arrive(&limits(64), &[]).1, Step::Count);
    let (mut request, step) = arrive(&limits(63), &[("x-user", "u")]);
    assert_eq!((step, request.take_tallies().len()), (Step::Count, 0));
    let (mut request, step) = arrive(&limits(64), &[("x-user", "u")]);
    assert_eq!(reply(step).status, 503);
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Rejected, Judge::Policy)]);
}
