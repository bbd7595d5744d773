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
mod lanes;
mod on_success;
mod shown;

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
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Admitted, Judge::Store)]);
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
