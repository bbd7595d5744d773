//! Limits that charge when the answer has succeeded.

use std::cell::Cell;

use super::*;
use crate::units::Timestamp;
use crate::wire::Operation;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// `per_user`, which charges with its decision, and `paid`, which charges for successes.
fn with_paid(store: bool, more: Value) -> Policy {
    let mut paid = json!({
        "keys": {"shop": [{"header": "x-shop"}], "user": [{"header": "x-user"}]},
        "windows": [{"limit": 10, "per": "1m"}],
        "cost": 2,
        "shards": 2,
        "consume": "on_success",
    });
    for (name, value) in more.as_object().unwrap() {
        paid[name] = value.clone();
    }
    with_limits(store, json!({ "paid": paid }))
}

const SHOPPER: [(&str, &str); 2] = [("x-user", "u1"), ("x-shop", "s1")];

/// A request with these headers besides a shopper's, admitted by the store.
fn admitted(policy: &Policy, more: &[(&str, &str)]) -> Request {
    let (mut request, step) = arrive(policy, &[&SHOPPER, more].concat());
    assert_eq!(step, Step::Ask);
    let answers = answers(&request, true, SOME_LEFT);
    assert_eq!(request.answered(policy, Judge::Store, answers), Step::Continue);
    request
}

/// The headers of an upstream's answer pass.
fn begin(request: &mut Request, headers: &[(&str, &str)]) -> Vec<Charge> {
    let header = |name: &str| {
        let value = headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_bytes().to_vec());
        value.filter(|value| !value.is_empty())
    };
    request.answer_began(&AnswerFacts { from_upstream: &|| true, header: &header, now: &Timestamp::default })
}

fn keys(charges: &[Charge]) -> Vec<&str> {
    charges.iter().flat_map(|charge| &charge.check.keys).map(|key| key.key.as_str()).collect()
}

const OWED: [&str; 2] = ["paid:{s1}:shop", "paid:{u1}:user"];

#[test]
fn they_are_looked_at_in_the_same_check_in_which_the_others_are_charged() {
    let (request, _) = arrive(&with_paid(true, json!({})), &SHOPPER);
    let checks: Vec<_> = request.checks().collect();
    assert_eq!(checks.len(), 1);
    let operations: Vec<_> = checks[0].keys.iter().map(|key| (key.key.as_str(), key.operation)).collect();
    assert_eq!(
        operations,
        [(OWED[0], Operation::Peek), (OWED[1], Operation::Peek), ("per_user:{u1}:user", Operation::Take)]
    );
}

#[test]
fn each_key_is_charged_by_itself_at_the_end_of_an_answer_that_succeeded_and_once() {
    let mut request = admitted(&with_paid(true, json!({})), &[]);
    assert_eq!(begin(&mut request, &[(":status", "200")]), []);
    let charges = request.ended(&|| End::Complete);
    assert_eq!(keys(&charges), OWED);
    let account = Account { lane: 0, limit: 0, counters: Counters::Store { on_failure: OnFailure::Local } };
    for charge in &charges {
        assert_eq!((charge.account, charge.check.keys.len()), (account, 1));
        let key = &charge.check.keys[0];
        assert_eq!((key.operation, key.cost, key.shards, key.windows.len()), (Operation::Take, 2, 2, 1));
    }
    assert_eq!(request.ended(&|| End::Complete), []);
}

#[test]
fn only_an_upstreams_answer_below_400_is_a_success() {
    let policy = with_paid(true, json!({}));
    for (status, succeeds) in
        [("200", true), ("204", true), ("304", true), ("399", true), ("400", false), ("503", false)]
            .into_iter()
            .chain([("", false), ("abc", false), ("999", false)])
    {
        let mut request = admitted(&policy, &[]);
        begin(&mut request, &[(":status", status)]);
        assert_eq!(!request.ended(&|| End::Complete).is_empty(), succeeds, "{status:?}");
    }
    let mut request = admitted(&policy, &[]);
    request.answer_began(&AnswerFacts {
        from_upstream: &|| false,
        header: &|_| Some(b"200".to_vec()),
        now: &Timestamp::default,
    });
    assert_eq!(request.ended(&|| End::Complete), [], "somebody else answered");
}

#[test]
fn an_answer_that_was_cut_off_or_never_began_costs_nothing() {
    let policy = with_paid(true, json!({}));
    let mut cut_off = admitted(&policy, &[]);
    begin(&mut cut_off, &[(":status", "200")]);
    assert_eq!(cut_off.ended(&|| End::CutOff), []);
    for end in [End::Complete, End::ClientLeft, End::CutOff] {
        assert_eq!(admitted(&policy, &[]).ended(&|| end), [], "no answer, {end:?}");
    }
}

#[test]
fn a_client_that_leaves_amid_a_good_answer_pays_for_it() {
    let policy = with_paid(true, json!({}));
    let grpc = [("content-type", "application/grpc")];
    for (request, answer) in [(&[][..], &[][..]), (&grpc, &grpc)] {
        let mut request = admitted(&policy, request);
        begin(&mut request, &[&[(":status", "200")], answer].concat());
        assert_eq!(keys(&request.ended(&|| End::ClientLeft)), OWED);
    }
}

/// What a gRPC call comes to when these are in its headers and trailers.
fn grpc_call(kind: &str, headers: &[(&str, &str)], trailers: Option<&str>, end: End) -> bool {
    let mut request = admitted(&with_paid(true, json!({})), &[("content-type", kind)]);
    assert_eq!(begin(&mut request, &[&[(":status", "200")], headers].concat()), []);
    if let Some(status) = trailers {
        request.answer_trailers(&|name| (name == "grpc-status").then(|| status.as_bytes().to_vec()));
    }
    !request.ended(&|| end).is_empty()
}

#[test]
fn a_grpc_call_succeeds_with_status_0_in_its_trailers_or_in_headers_without_a_body() {
    let typed = ("content-type", "application/grpc+proto");
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
        assert!(grpc_call(kind, &[typed], Some("0"), End::Complete));
        assert!(grpc_call(kind, &[typed, ("grpc-status", "0")], None, End::Complete));
        for failure in ["1", "14", "x", "-0"] {
            assert!(!grpc_call(kind, &[typed], Some(failure), End::Complete), "{failure}");
            assert!(!grpc_call(kind, &[typed, ("grpc-status", failure)], None, End::Complete), "{failure}");
            assert!(!grpc_call(kind, &[typed], Some(failure), End::ClientLeft), "{failure}");
        }
        assert!(!grpc_call(kind, &[typed], None, End::Complete), "a call without a status has failed");
        assert!(!grpc_call(kind, &[typed], Some("0"), End::CutOff));
    }
}

#[test]
fn a_request_that_only_calls_itself_grpc_is_judged_by_the_status_of_its_answer() {
    let html = ("content-type", "text/html");
    assert!(grpc_call("application/grpc", &[html], None, End::Complete));
    assert!(grpc_call("application/grpc", &[], None, End::Complete));
    assert!(grpc_call("application/grpc-web+proto", &[], None, End::Complete), "its status is in the body");
}

#[test]
fn an_upgrade_is_charged_with_its_answers_headers_and_not_again() {
    let policy = with_paid(true, json!({}));
    for (method, status) in [("GET", "101"), ("CONNECT", "200"), ("CONNECT", "101")] {
        let mut request = admitted(&policy, &[(":method", method)]);
        assert_eq!(keys(&begin(&mut request, &[(":status", status)])), OWED, "{method} {status}");
        assert_eq!(request.ended(&|| End::Complete), []);
    }
    let mut refused = admitted(&policy, &[(":method", "CONNECT")]);
    assert_eq!(begin(&mut refused, &[(":status", "403")]), []);
    assert_eq!(refused.ended(&|| End::Complete), []);
}

#[test]
fn a_full_one_rejects_the_request_and_a_rejected_request_owes_nothing() {
    let policy = with_paid(true, json!({}));
    let (mut request, _) = arrive(&policy, &SHOPPER);
    let answers = answers(&request, false, NONE_LEFT);
    assert_eq!(reply(request.answered(&policy, Judge::Store, answers)).status, 429);
    begin(&mut request, &[(":status", "200")]);
    assert_eq!(request.ended(&|| End::Complete), []);
}

#[test]
fn a_dry_run_charges_for_successes_too_and_not_when_it_would_have_rejected() {
    let policy = with_paid(true, json!({"enforce": "0%"}));
    for (would_allow, owed) in [(true, &OWED[..]), (false, &[])] {
        let (mut request, _) = arrive(&policy, &SHOPPER);
        let verdicts: Vec<CheckAnswer> = {
            let dry = answers(&request, would_allow, SOME_LEFT).remove(0);
            [dry, answers(&request, true, SOME_LEFT).remove(1)].into()
        };
        assert_eq!(request.answered(&policy, Judge::Store, verdicts), Step::Continue);
        begin(&mut request, &[(":status", "200")]);
        assert_eq!(keys(&request.ended(&|| End::Complete)), owed);
    }
    // the dry run was allowed, and the request was not
    let (mut request, _) = arrive(&policy, &SHOPPER);
    let verdicts =
        vec![answers(&request, true, SOME_LEFT).remove(0), answers(&request, false, NONE_LEFT).remove(1)];
    assert_eq!(reply(request.answered(&policy, Judge::Store, verdicts)).status, 429);
    begin(&mut request, &[(":status", "200")]);
    assert_eq!(request.ended(&|| End::Complete), []);
}

#[test]
fn who_was_judged_by_this_node_is_charged_on_this_node() {
    let policy = with_paid(false, json!({}));
    let (mut request, step) = arrive(&policy, &SHOPPER);
    assert_eq!(step, Step::Count);
    let local = answers(&request, true, SOME_LEFT);
    request.counted(&policy, local);
    begin(&mut request, &[(":status", "200")]);
    let counters: Vec<_> = request.ended(&|| End::Complete).iter().map(|c| c.account.counters).collect();
    assert_eq!(counters, [Counters::Local; 2]);

    let policy = with_paid(true, json!({}));
    let (mut request, _) = arrive(&policy, &SHOPPER);
    assert_eq!(request.store_failed(&policy), Step::Count);
    let local = answers(&request, true, SOME_LEFT);
    request.counted(&policy, local);
    begin(&mut request, &[(":status", "200")]);
    let counters: Vec<_> = request.ended(&|| End::Complete).iter().map(|c| c.account.counters).collect();
    assert_eq!(counters, [Counters::Fallback; 2]);
}

#[test]
fn who_was_admitted_without_being_counted_is_not_charged() {
    let policy = with_paid(true, json!({"on_failure": "open"}));
    let (mut request, _) = arrive(&policy, &SHOPPER);
    assert_eq!(request.store_failed(&policy), Step::Count);
    let local = answers(&request, true, SOME_LEFT);
    request.counted(&policy, local);
    begin(&mut request, &[(":status", "200")]);
    assert_eq!(request.ended(&|| End::Complete), []);
}

#[test]
fn a_charge_that_the_store_could_not_take_goes_to_this_node_where_the_policy_counts_there() {
    for (on_failure, goes_on) in [("local", true), ("open", false), ("closed", false)] {
        let mut request = admitted(&with_paid(true, json!({"on_failure": on_failure})), &[]);
        begin(&mut request, &[(":status", "200")]);
        let account = request.ended(&|| End::Complete)[0].account;
        assert_eq!(account.judge(), Judge::Store);
        let fallback = account.fallback();
        assert_eq!(fallback, goes_on.then_some(Account { counters: Counters::Fallback, ..account }));
        assert_eq!(fallback.and_then(Account::fallback), None);
    }
}

#[test]
fn who_owes_nothing_is_asked_nothing() {
    let policy = with_limits(true, json!({}));
    let (mut request, _) = arrive(&policy, &SHOPPER);
    let allowed = answers(&request, true, SOME_LEFT);
    request.answered(&policy, Judge::Store, allowed);
    let asked = Cell::new(0);
    let ask = || asked.set(asked.get() + 1);
    let from_upstream = || {
        ask();
        true
    };
    let header = |_: &str| {
        ask();
        None
    };
    assert_eq!(
        request.answer_began(&AnswerFacts {
            from_upstream: &from_upstream,
            header: &header,
            now: &Timestamp::default
        }),
        []
    );
    request.answer_trailers(&header);
    let end = || {
        ask();
        End::Complete
    };
    assert_eq!(request.ended(&end), []);
    assert_eq!(asked.get(), 0);
}
