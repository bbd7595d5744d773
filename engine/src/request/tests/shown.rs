//! What a client gets to see: the headers of an answer, and a refusal in each of its forms.

use super::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
