//! Ways in which calls end, and what each says of the upstream.

use lanekeeper_tests::host::{Host, Request, Stream};
use serde_json::{Value, json};

use super::{
    HEARD, JITTER, OPEN_FOR, answer, behaved, call, guarded, list, refusal, start, state, succeed,
    transitions,
};

/// The bit of Envoy's response flags for a connection that its client has ended.
const CLIENT_LEFT: i64 = 1 << 14;

/// What a call says of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Success,
    Nothing,
    /// A failure, where the policy has this word in its list; else the call was answered, and well.
    Failed(&'static str),
    /// A failure, where the policy has this word in its list; else it says nothing, for there is no answer.
    Cut(&'static str),
    /// Nothing, where the policy has this word in its list, for its client left; else the call was answered, and well.
    Abandoned(&'static str),
}

impl Says {
    fn where_listed(self, list: &[&str]) -> Self {
        match self {
            Says::Failed(word) | Says::Abandoned(word) if !list.contains(&word) => Says::Success,
            Says::Abandoned(_) => Says::Nothing,
            Says::Cut(word) if !list.contains(&word) => Says::Nothing,
            Says::Cut(word) => Says::Failed(word),
            other => other,
        }
    }
}

/// A way to end.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) request: fn() -> Request,
    pub(super) end: fn(&Stream),
    pub(super) says: Says,
}

fn grpc() -> Request {
    Request::post("/list").header("content-type", "application/grpc")
}

fn grpc_trailers(stream: &Stream, status: &str) {
    stream.respond([(":status", "200"), ("content-type", "application/grpc")]);
    stream.respond_body("message", false);
    stream.respond_trailers([("grpc-status", status)]);
    stream.end();
}

fn grpc_without_message(stream: &Stream, status: &str) {
    stream.respond_and_end([
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", status),
    ]);
}

/// Envoy resets its stream to the upstream before an answer has begun, and answers itself.
fn reset_before(stream: &Stream, reason: &str) {
    stream.respond_by_envoy(503, &format!("upstream_reset_before_response_started{{{reason}}}"));
}

/// All ways, as a table.
pub(super) fn cases() -> Vec<Case> {
    use Says::{Abandoned, Cut, Failed, Nothing, Success};
    let http = |name, end, says| Case { name, request: list, end, says };
    let grpc = |name, end, says| Case { name, request: grpc, end, says };
    vec![
        // what the upstream answered
        http("200", succeed, Success),
        http("204, headers alone", |stream| drop(stream.respond_and_end([(":status", "204")])), Success),
        http("304", |stream| answer(stream, 304), Success),
        http("404", |stream| answer(stream, 404), Success),
        http("a limit of the upstream's own", |stream| answer(stream, 429), Success),
        http("500", |stream| answer(stream, 500), Failed("5xx")),
        http("503", |stream| answer(stream, 503), Failed("5xx")),
        http("599", |stream| answer(stream, 599), Failed("5xx")),
        http(
            "500, with a body and trailers",
            |stream| {
                stream.respond([(":status", "500")]);
                stream.respond_body("sorry", false);
                stream.respond_trailers([("x-checksum", "1")]);
                stream.end();
            },
            Failed("5xx"),
        ),
        http(
            "a tunnel, however it ends",
            |stream| {
                stream.respond([(":status", "101")]);
                stream.break_off();
            },
            Success,
        ),
        http(
            "200, done and not logged",
            |stream| {
                stream.respond([(":status", "200")]);
                stream.force("proxy_on_done", &[]);
                stream.force("proxy_on_delete", &[]);
                stream.force("proxy_on_log", &[]);
            },
            Success,
        ),
        http(
            "500, deleted and never done",
            |stream| {
                stream.respond([(":status", "500")]);
                stream.force("proxy_on_delete", &[]);
            },
            Failed("5xx"),
        ),
        grpc("gRPC 0 in trailers", |stream| grpc_trailers(stream, "0"), Success),
        grpc("gRPC 5 in trailers", |stream| grpc_trailers(stream, "5"), Success),
        grpc("gRPC 14 in trailers", |stream| grpc_trailers(stream, "14"), Failed("grpc")),
        grpc("gRPC 13 in trailers", |stream| grpc_trailers(stream, "13"), Failed("grpc")),
        grpc("gRPC 4 in trailers", |stream| grpc_trailers(stream, "4"), Failed("grpc")),
        grpc("gRPC 0 without trailers", |stream| grpc_without_message(stream, "0"), Success),
        grpc("gRPC 8 without trailers", |stream| grpc_without_message(stream, "8"), Success),
        grpc("gRPC 14 without trailers", |stream| grpc_without_message(stream, "14"), Failed("grpc")),
        grpc("a gRPC status that is no number", |stream| grpc_trailers(stream, "fine"), Success),
        grpc("gRPC over a proxy that answers 502", |stream| answer(stream, 502), Failed("5xx")),
        // what kept the upstream from answering
        http("connection refused", |stream| reset_before(stream, "connection_failure"), Cut("connect")),
        http(
            "connection refused, with a reason",
            |stream| reset_before(stream, "remote_connection_failure|delayed_connect_error:_111"),
            Cut("connect"),
        ),
        http("connection timed out", |stream| reset_before(stream, "connection_timeout"), Cut("connect")),
        http("connection lost", |stream| reset_before(stream, "connection_termination"), Cut("reset")),
        http("reset", |stream| reset_before(stream, "remote_reset"), Cut("reset")),
        http(
            "broken off",
            |stream| {
                stream.respond([(":status", "200")]);
                stream.respond_body("ha", false);
                stream.break_off();
            },
            Cut("reset"),
        ),
        grpc(
            "a gRPC call broken off",
            |stream| {
                stream.respond([(":status", "200"), ("content-type", "application/grpc")]);
                stream.respond_body("message", false);
                stream.break_off();
            },
            Cut("reset"),
        ),
        http("no answer in time", |stream| stream.respond_by_envoy(504, "response_timeout"), Cut("timeout")),
        http(
            "no answer to the last try in time",
            |stream| stream.respond_by_envoy(504, "upstream_per_try_timeout"),
            Cut("timeout"),
        ),
        grpc(
            "no answer to a gRPC call in time",
            |stream| stream.respond_by_envoy(504, "response_timeout"),
            Cut("timeout"),
        ),
        // what others did
        http("Envoy's own circuit breaker", |stream| reset_before(stream, "overflow"), Nothing),
        http("nobody to ask", |stream| stream.respond_by_envoy(503, "no_healthy_upstream"), Nothing),
        http("no cluster", |stream| stream.respond_by_envoy(503, "cluster_not_found"), Nothing),
        http("no route", |stream| stream.respond_by_envoy(404, "route_not_found"), Nothing),
        http("a direct response", |stream| stream.respond_by_envoy(200, "direct_response"), Nothing),
        http(
            "a fault that was injected",
            |stream| stream.respond_by_envoy(500, "fault_filter_abort"),
            Nothing,
        ),
        http("another limiter", |stream| stream.respond_by_envoy(429, "local_rate_limited"), Nothing),
        http("an authorizer", |stream| stream.respond_by_envoy(403, "ext_authz_denied"), Nothing),
        http("an authorizer that fails", |stream| stream.respond_by_envoy(503, "ext_authz_error"), Nothing),
        grpc("another plugin", |stream| stream.respond_by_envoy(503, "wasm_fail_stream"), Nothing),
        http(
            "an answer that another filter takes away",
            |stream| {
                stream.respond([(":status", "500")]);
                stream.set_property(&["response", "code_details"], "response_payload_too_large");
                stream.end();
            },
            Nothing,
        ),
        http("done without a word", Stream::end, Nothing),
        http("deleted without a word", |stream| stream.force("proxy_on_delete", &[]), Nothing),
        // clients that leave
        http("its client leaves", Stream::reset, Nothing),
        http("its client resets it", Stream::reset_by_client, Nothing),
        http(
            "its client leaves amid the answer",
            |stream| {
                stream.respond([(":status", "200")]);
                stream.reset();
            },
            Nothing,
        ),
        http(
            "its client resets it amid the answer",
            |stream| {
                stream.respond([(":status", "200")]);
                stream.reset_by_client();
            },
            Nothing,
        ),
        http(
            "its client resets it amid an error",
            |stream| {
                stream.respond([(":status", "500")]);
                stream.reset_by_client();
            },
            Nothing,
        ),
        http(
            "its client ends a good answer, and the flags alone say so",
            |stream| {
                stream.respond([(":status", "200")]);
                stream.set_property(&["response", "flags"], CLIENT_LEFT.to_le_bytes());
                stream.end();
            },
            Success,
        ),
        http(
            "its client ends an error, and the flags alone say so",
            |stream| {
                stream.respond([(":status", "500")]);
                stream.set_property(&["response", "flags"], CLIENT_LEFT.to_le_bytes());
                stream.end();
            },
            Abandoned("5xx"),
        ),
        http(
            "its client leaves, and that ends the call upstream",
            |stream| {
                stream.set_property(&["response", "flags"], CLIENT_LEFT.to_le_bytes());
                reset_before(stream, "connection_termination");
            },
            Nothing,
        ),
    ]
}

const WORDS: [&str; 5] = ["5xx", "connect", "reset", "timeout", "grpc"];

/// A breaker that one failure trips, or one call of more than ten seconds.
fn entry(listed: &[&str]) -> Value {
    let word = |word: &&str| match *word {
        "grpc" => json!({"grpc": ["UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED"]}),
        word => json!(word),
    };
    json!({
        "min_calls": 1, "failure_rate": "100%", "slow_call": {"over": "10s", "rate": "100%"},
        "half_open_calls": 1, "failures": listed.iter().map(word).collect::<Vec<_>>(),
    })
}

/// What a half-open breaker makes of it: a probe closes it, opens it, or is taken back.
fn heard(entry: &Value, case: &Case) -> Says {
    let host = start(&guarded(entry), 1);
    let slow = call(&host, 0);
    slow.respond([(":status", "200"), ("x-envoy-upstream-service-time", "60000")]);
    slow.end();
    assert_eq!(state(&host), Some(2), "{}", case.name);
    host.advance(OPEN_FOR + JITTER);
    let probe = host.worker(0).request((case.request)());
    assert_eq!((refusal(&probe), state(&host)), (None, Some(1)), "{}", case.name);
    (case.end)(&probe);
    let (state, next) = (state(&host), refusal(&call(&host, 0)));
    behaved(&host);
    match (state, next.is_none()) {
        (Some(0), true) => Says::Success,
        (Some(1), true) => Says::Nothing,
        (Some(2), false) => Says::Failed(""),
        other => panic!("{}: {other:?}", case.name),
    }
}

/// Without the word, which a breaker does not tell.
fn plain(says: Says) -> Says {
    if let Says::Failed(_) = says { Says::Failed("") } else { says }
}

#[test]
fn a_half_open_breaker_hears_of_each_end_what_it_says_of_the_upstream() {
    for case in cases() {
        assert_eq!(heard(&entry(&WORDS), &case), plain(case.says.where_listed(&WORDS)), "{}", case.name);
    }
}

#[test]
fn only_what_the_policy_lists_is_a_failure() {
    for word in WORDS {
        for case in cases() {
            let expected = plain(case.says.where_listed(&[word]));
            assert_eq!(heard(&entry(&[word]), &case), expected, "{} with {word} alone", case.name);
        }
    }
}

#[test]
fn a_policy_that_lists_nothing_lists_all_of_them() {
    for case in cases() {
        let mut entry = entry(&WORDS);
        entry.as_object_mut().unwrap().remove("failures");
        assert_eq!(heard(&entry, &case), plain(case.says.where_listed(&WORDS)), "{}", case.name);
    }
}

#[test]
fn a_closed_breaker_is_opened_by_failures_alone() {
    for case in cases() {
        let host = start(&guarded(&entry(&WORDS)), 1);
        let stream = host.worker(0).request((case.request)());
        (case.end)(&stream);
        host.advance(HEARD);
        let is_failure = matches!(case.says.where_listed(&WORDS), Says::Failed(_));
        assert_eq!(transitions(&host, "open"), u64::from(is_failure), "{}", case.name);
        behaved(&host);
    }
}

#[test]
fn grpc_statuses_are_listed_by_name() {
    let listed = |names: Value| {
        let mut listed = entry(&[]);
        listed["failures"] = json!([{"grpc": names}]);
        listed
    };
    for (names, status, says) in [
        (json!(["NOT_FOUND"]), "5", Says::Failed("")),
        (json!(["NOT_FOUND"]), "14", Says::Success),
        (json!(["UNKNOWN", "CANCELLED"]), "1", Says::Failed("")),
        (json!(["UNKNOWN", "CANCELLED"]), "nonsense", Says::Failed("")),
    ] {
        let host = start(&guarded(&listed(names.clone())), 1);
        let stream = host.worker(0).request(grpc());
        grpc_trailers(&stream, status);
        host.advance(HEARD);
        assert_eq!(transitions(&host, "open") == 1, says != Says::Success, "{status} with {names}");
        behaved(&host);
    }
}

/// Its own refusals and those of limits under the same policy.
#[test]
fn our_own_refusals_never_count() {
    let mut policy = guarded(&json!({"consecutive_failures": 1, "max_concurrent": 2}));
    policy["rate_limits"] = json!({
        "per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 1, "per": "1m"}]},
        "per_shop": {
            "keys": {"shop": [{"header": "x-shop"}]}, "windows": [{"limit": 100, "per": "1m"}],
            "match": {"headers": [{"name": "x-needs-shop", "present": true}]}, "on_missing_key": "reject",
        },
    });
    let host = start(&policy, 2);
    let replied = |host: &Host, request: Request| {
        let stream = host.worker(0).request(request);
        stream.reply().map_or(200, |reply| reply.status)
    };
    succeed(&host.worker(0).request(list().header("x-user", "u")));
    for _ in 0..30 {
        assert_eq!(replied(&host, list().header("x-user", "u")), 429);
        assert_eq!(replied(&host, list().header("x-needs-shop", "1")), 400);
    }
    let held = [0, 1].map(|worker| call(&host, worker));
    for _ in 0..30 {
        assert_eq!(replied(&host, list()), 503, "the bulkhead is full");
    }
    held.iter().for_each(succeed);
    host.advance(HEARD);
    assert_eq!((transitions(&host, "open"), refusal(&call(&host, 1))), (0, None));
    behaved(&host);
}
