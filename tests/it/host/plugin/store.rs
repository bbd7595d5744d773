//! Questions to the store: shared, answered, late, lost, broken.

use lanekeeper_engine::wire::SHIM_HEADER;
use lanekeeper_tests::host::{Answer, Body, Callout, Host, Request, State, Status, Stream, Times};
use serde_json::{Value, json};

use super::{
    MS, Store, behaved, by, calls_of_a_request, decisions, fallback, pump, question, start, status,
    store_calls, with_store,
};

fn checks(callout: &Callout) -> usize {
    question(callout).checks.len()
}

/// A worker with one paused request of `u`.
fn one_waiting(on_failure: &str) -> (Host, Stream) {
    let host = start(&with_store(2, on_failure), 1);
    let stream = host.worker(0).request(by("u"));
    assert_eq!(stream.state(), State::Paused);
    (host, stream)
}

#[test]
fn a_request_waits_for_the_store_and_goes_on_with_its_answer() {
    let (host, stream) = one_waiting("local");
    let callout = host.callouts().remove(0);
    assert_eq!(callout.headers.text(":path").unwrap(), "/v1/decide");
    assert_eq!(callout.timeout, Some(20 * MS));
    host.answer(&callout, Store::new().answer(&host, &callout));
    assert_eq!(status(&stream), 200);
    let headers = stream.respond([(":status", "200")]).unwrap();
    assert_eq!(headers.text("ratelimit").unwrap(), r#""per_user";r=1;t=61"#);
    assert_eq!(
        (store_calls(&host, "answered"), decisions(&host, "normal", "per_user", "admitted", "store")),
        (1, 1)
    );
    behaved(&host);
}

#[test]
fn a_question_names_the_zone_of_a_calendar_and_not_its_rules() {
    let mut policy = with_store(2, "local");
    policy["rate_limits"]["per_user"]["algorithm"] = json!("fixed_window");
    policy["rate_limits"]["per_user"]["timezone"] = json!("Asia/Kathmandu");
    let host = start(&policy, 1);
    let stream = host.worker(0).request(by("u"));
    let callout = host.callouts().remove(0);
    let question: Value = serde_json::from_slice(&callout.body).unwrap();
    let window = &question["checks"][0]["keys"][0]["windows"][0];
    assert_eq!(
        (&window["algorithm"], &window["timezone"]),
        (&json!("fixed_window"), &json!("Asia/Kathmandu"))
    );
    host.answer(&callout, Store::new().answer(&host, &callout));
    assert_eq!(status(&stream), 200);
    behaved(&host);
}

#[test]
fn whoever_comes_while_two_callouts_are_under_way_shares_the_next() {
    let host = start(&with_store(100, "local"), 1);
    let streams: Vec<Stream> = (0..50).map(|_| host.worker(0).request(by("u"))).collect();
    assert_eq!(host.callouts().iter().map(checks).collect::<Vec<_>>(), [1, 1]);
    let store = Store::new();
    let first = host.callouts().remove(0);
    host.answer(&first, store.answer(&host, &first));
    assert_eq!(host.callouts().iter().map(checks).collect::<Vec<_>>(), [1, 48]);
    store.serve(&host);
    for callout in host.callouts() {
        host.answer(&callout, store.answer(&host, &callout));
    }
    assert!(streams.iter().all(|stream| status(stream) == 200));
    assert_eq!(store_calls(&host, "answered"), 3);
    behaved(&host);
}

#[test]
fn a_batch_is_bounded_so_that_resumes_nest_no_deeper() {
    let host = start(&with_store(100_000, "local"), 1);
    let streams: Vec<Stream> = (0..1000).map(|_| host.worker(0).request(by("u"))).collect();
    let store = Store::new();
    let mut rounds = 0;
    while let Some(callout) = host.callouts().first().cloned() {
        assert!(checks(&callout) <= 64);
        rounds += 1;
        // whoever waits is asked for at once, and not at the next tick
        assert_eq!(host.callouts().len(), if rounds < 18 { 2 } else { 1 });
        host.answer(&callout, store.answer(&host, &callout));
    }
    // 1 + 1 + 15 x 64 + 38
    assert_eq!(rounds, 18);
    assert!(streams.iter().all(|stream| status(stream) == 200));
    assert!(host.worker(0).deepest_nesting() <= 65, "{}", host.worker(0).deepest_nesting());
    behaved(&host);
}

#[test]
fn a_thousand_who_wait_for_a_store_that_dies_are_let_go_in_bounded_steps() {
    let host = start(&with_store(100_000, "local"), 1);
    let streams: Vec<Stream> = (0..1000).map(|_| host.worker(0).request(by("u"))).collect();
    host.remove_cluster("lanekeeper");
    for callout in host.callouts() {
        host.answer(&callout, Answer::connect_failure());
    }
    host.advance(100 * MS);
    assert!(streams.iter().all(|stream| status(stream) == 200));
    assert!(host.worker(0).deepest_nesting() <= 65, "{}", host.worker(0).deepest_nesting());
    behaved(&host);
}

/// Each way in which a callout can end badly, under each road that a policy can name.
#[test]
fn every_bad_end_of_a_callout_takes_the_road_of_on_failure() {
    let shim = |body: &str| Answer::response(200, [(SHIM_HEADER, "1")], body);
    let ends: Vec<(&str, Answer, &str)> = vec![
        ("connection refused", Answer::connect_failure(), "unreachable"),
        ("no answer in time", Answer::timeout(), "timeout"),
        ("reset after the headers", Answer::reset(), "unreachable"),
        ("no status", Answer::raw([(SHIM_HEADER, "1")], "{}"), "refused"),
        ("an error of the shim", Answer::response(500, [(SHIM_HEADER, "1")], "{}"), "refused"),
        ("200 of somebody else", Answer::response(200, [("server", "nginx")], "{}"), "unreachable"),
        ("empty", shim(""), "malformed"),
        ("not JSON", shim("no"), "malformed"),
        ("cut", shim(r#"{"version":1,"answers":[{"outc"#), "malformed"),
        ("another version", shim(r#"{"version":2,"answers":[]}"#), "malformed"),
        ("too few answers", shim(r#"{"version":1,"answers":[]}"#), "malformed"),
        (
            "too few windows",
            shim(r#"{"version":1,"answers":[{"outcome":"allowed","keys":[{"windows":[]}]}]}"#),
            "malformed",
        ),
        (
            "absurd numbers",
            shim(
                r#"{"version":1,"answers":[{"outcome":"allowed","keys":[{"windows":[{"remaining":-1,"reset_us":0,"wait_us":0}]}]}]}"#,
            ),
            "malformed",
        ),
        ("deeply nested", shim(&"[".repeat(100_000)), "malformed"),
    ];
    for (name, end, outcome) in ends {
        for (road, expected) in [("local", 200), ("open", 200), ("closed", 503)] {
            let (host, stream) = one_waiting(road);
            host.answer(&host.callouts()[0], end.clone());
            assert_eq!(status(&stream), expected, "{name}, {road}");
            assert_eq!(fallback(&stream).unwrap(), road, "{name}");
            assert_eq!(store_calls(&host, outcome), 1, "{name}: {:?}", host.metric_names());
            let decided = if expected == 200 { "admitted" } else { "rejected" };
            let source = format!("fallback.on_failure.{road}");
            assert_eq!(decisions(&host, "normal", "per_user", decided, &source), 1, "{name}, {road}");
            behaved(&host);
        }
    }
}

#[test]
fn a_check_that_the_store_could_not_decide_takes_that_road_too() {
    let (host, stream) = one_waiting("local");
    let body = r#"{"version":1,"answers":[{"outcome":"failed","error":"timeout"}]}"#;
    host.answer(&host.callouts()[0], Answer::response(200, [(SHIM_HEADER, "1")], body));
    assert_eq!((status(&stream), fallback(&stream).as_deref()), (200, Some("local")));
    assert_eq!(store_calls(&host, "answered"), 1);
}

#[test]
fn an_answer_that_comes_after_its_timeout_is_not_used() {
    let (host, stream) = one_waiting("closed");
    let callout = host.callouts().remove(0);
    let answer = Store::new().answer(&host, &callout);
    // the host's timer is late, as it is in a worker that was busy
    host.fail("proxy_set_tick_period_milliseconds", Status::InternalFailure, Times::Always);
    host.set_wall(host.wall() + 21 * MS);
    host.advance(20 * MS);
    assert_eq!(status(&stream), 503);
    host.force_answer(&callout, answer);
    assert_eq!(store_calls(&host, "answered"), 0);
    behaved(&host);
}

#[test]
fn a_callout_that_the_host_refuses_is_a_failure_at_once() {
    for (call, times) in [(u32::from(Status::BadArgument), 1), (10, 1), (6, 1), (12, 1)] {
        let host = start(&with_store(2, "local"), 1);
        host.fail("proxy_http_call", call, Times::Next(times));
        let stream = host.worker(0).request(by("u"));
        assert_eq!((status(&stream), fallback(&stream).as_deref()), (200, Some("local")), "status {call}");
        assert_eq!(store_calls(&host, "dispatch_failed"), 1);
        behaved(&host);
    }
}

#[test]
fn a_cluster_that_comes_later_is_asked_from_then_on() {
    let mut policy = with_store(2, "local");
    policy["store"]["cluster"] = json!("later");
    let host = start(&policy, 1);
    assert_eq!(fallback(&host.worker(0).request(by("u"))).as_deref(), Some("local"));
    host.add_cluster("later");
    assert_eq!(host.worker(0).request(by("u")).state(), State::Paused);
}

#[test]
fn a_body_and_trailers_wait_with_their_request() {
    for stop_iteration in [false, true] {
        let builder = Host::builder();
        let builder = if stop_iteration { builder.allow_on_headers_stop_iteration() } else { builder };
        let host = builder.start(&with_store(1, "local").to_string()).unwrap();
        let store = Store::new();
        let admitted = host.worker(0).request(Request::post("/").header("x-user", "u").open());
        let rejected = host.worker(0).request(Request::post("/").header("x-user", "u").open());
        for stream in [&admitted, &rejected] {
            stream.send_body("one", false);
            stream.send_body("two", false);
            stream.send_trailers([("x-sum", "1")]);
            assert_eq!(stream.state(), State::Paused);
            assert_eq!((stream.upstream().headers, stream.upstream().body), (None, Body::default()));
        }
        for callout in host.callouts() {
            host.answer(&callout, store.answer(&host, &callout));
        }
        assert_eq!((status(&admitted), status(&rejected)), (200, 429));
        let upstream = admitted.upstream();
        assert_eq!((upstream.body.as_slice(), upstream.complete), (b"onetwo".as_slice(), true));
        assert!(upstream.trailers.is_some() && rejected.upstream().headers.is_none());
        behaved(&host);
    }
}

#[test]
fn a_stream_that_dies_while_it_waits_is_forgotten() {
    let host = start(&with_store(100, "local"), 1);
    let streams: Vec<Stream> = (0..10).map(|_| host.worker(0).request(by("u"))).collect();
    // one with a callout of its own, one that waits for the next
    streams[0].reset();
    streams[5].reset();
    let store = Store::new();
    pump(&host, &store);
    assert_eq!(decisions(&host, "normal", "per_user", "admitted", "store"), 8);
    assert_eq!(host.worker(0).contexts(), (1, 8));
    behaved(&host);
}

#[test]
fn a_callout_that_the_host_never_ends_is_given_up() {
    let mut policy = with_store(100, "local");
    policy["store"]["timeout"] = json!("10s");
    let host = start(&policy, 1);
    let stream = host.worker(0).request(by("u"));
    let callout = host.callouts().remove(0);
    // the fake host ends it at its timeout; that it is patient first is what can be seen here
    host.advance(9_999 * MS);
    assert_eq!(stream.state(), State::Paused);
    host.advance(MS);
    assert_eq!((status(&stream), fallback(&stream).as_deref()), (200, Some("local")));
    host.force_answer(&callout, Answer::timeout());
    behaved(&host);
}

#[test]
fn the_token_comes_from_the_environment_and_goes_with_every_question() {
    let mut policy = with_store(2, "local");
    policy["store"]["token_env"] = json!("LANEKEEPER_TOKEN");
    let host = Host::builder().environment("LANEKEEPER_TOKEN", "t0k3n").start(&policy.to_string()).unwrap();
    host.worker(0).request(by("u"));
    assert_eq!(host.callouts()[0].headers.text("authorization").unwrap(), "Bearer t0k3n");
    let refused = Host::start(&policy.to_string(), 1).err().unwrap().to_string();
    assert!(refused.contains("LANEKEEPER_TOKEN is not set"), "{refused}");
}

#[test]
fn a_request_that_the_store_decides_makes_few_host_calls() {
    let host = start(&with_store(100, "local"), 1);
    Store::new().serve(&host);
    let expected = [
        ("clock_time_get", 2),
        ("proxy_add_header_map_value", 2),
        ("proxy_continue_stream", 1),
        ("proxy_get_buffer_bytes", 1),
        ("proxy_get_header_map_pairs", 1),
        ("proxy_get_header_map_value", 2),
        ("proxy_http_call", 1),
        ("proxy_increment_metric", 2),
        ("proxy_set_effective_context", 2),
    ];
    assert_eq!(calls_of_a_request(&host), expected);
}
