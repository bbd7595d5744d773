//! What becomes of a request when the store cannot decide.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn with_modes(open: &str, closed: &str) -> Policy {
    let limit = |mode: &str| {
        json!({
            "keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1s"}], "on_failure": mode,
        })
    };
    with_limits(true, json!({"a": limit(open), "b": limit(closed)}))
}

#[test]
fn a_failed_store_leads_to_local_counters_and_the_answer_says_so() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    assert_eq!(request.store_failed(&policy), Step::Count);
    let answers = answers(&request, true, SOME_LEFT);
    assert_eq!(request.counted(&policy, answers), Step::Continue);
    assert_eq!(headers(&request).last().unwrap(), "x-lanekeeper-fallback: local");
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Admitted, Judge::Fallback(OnFailure::Local))]);
}

#[test]
fn one_closed_limit_rejects_while_the_store_is_away() {
    let policy = with_modes("open", "closed");
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    let reply = reply(request.store_failed(&policy));
    assert_eq!((reply.status, reply.grpc_status), (503, 14));
    assert!(reply.headers.contains(&("x-lanekeeper-fallback", "closed".into())));
    assert_eq!(request.take_tallies(), [tally(1, Outcome::Rejected, Judge::Fallback(OnFailure::Closed))]);
}

#[test]
fn open_limits_admit_and_local_ones_still_count() {
    let policy = with_modes("open", "local");
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    assert_eq!(request.store_failed(&policy), Step::Count);
    let keys: Vec<_> =
        request.checks().flat_map(|check| check.keys.iter().map(|key| key.key.as_str())).collect();
    assert_eq!(keys, ["b:{u1}:user", "per_user:{u1}:user"]);
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Admitted, Judge::Fallback(OnFailure::Open))]);
}

#[test]
fn when_all_are_open_the_request_goes_on_and_says_so() {
    let policy = policy(&json!({
        "version": 1,
        "store": {"cluster": "c", "on_failure": "open"},
        "rate_limits": {"a": {"keys": {"all": {"constant": "all"}}, "windows": [{"limit": 1, "per": "1s"}]}},
    }));
    let (mut request, _) = arrive(&policy, &[]);
    assert_eq!(request.store_failed(&policy), Step::Continue);
    assert_eq!(headers(&request), ["x-lanekeeper-fallback: open"]);
}

#[test]
fn a_check_that_the_store_could_not_decide_takes_the_same_road() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    let failed = CheckAnswer::Failed { error: StoreError::Timeout };
    assert_eq!(request.answered(&policy, Judge::Store, vec![failed.clone()]), Step::Count);
    // and when this node cannot count either, nobody passes whom no policy lets pass
    let reply = reply(request.counted(&policy, vec![failed]));
    assert_eq!(reply.status, 503);
    assert_eq!(request.take_tallies(), [tally(0, Outcome::Rejected, Judge::Fallback(OnFailure::Local))]);
}

#[test]
fn whatever_the_store_failed_of_the_policy_alone_says_what_becomes_of_the_request() {
    for error in [StoreError::Unreachable, StoreError::Timeout, StoreError::Refused, StoreError::Malformed] {
        let answered = |mode: &str| {
            let policy = policy(&json!({
                "version": 1,
                "store": {"cluster": "c", "on_failure": mode},
                "rate_limits": {"a": {"keys": {"all": {"constant": "all"}}, "windows": [{"limit": 1, "per": "1s"}]}},
            }));
            let (mut request, _) = arrive(&policy, &[]);
            request.answered(&policy, Judge::Store, vec![CheckAnswer::Failed { error }])
        };
        assert_eq!(answered("local"), Step::Count);
        assert_eq!(answered("open"), Step::Continue);
        assert_eq!(reply(answered("closed")).status, 503);
    }
}

#[test]
fn too_few_answers_are_no_free_pass() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &[("x-user", "u1")]);
    assert_eq!(request.answered(&policy, Judge::Store, vec![]), Step::Count);
    assert_eq!(reply(request.counted(&policy, vec![])).status, 503);
}
