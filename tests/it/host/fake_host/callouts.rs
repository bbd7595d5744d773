//! Callouts: sent, answered, given up, failed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use lanekeeper_tests::host::{Answer, Request, State, Status, Times};

use super::{lines, probe};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_callout_shows_what_was_sent_and_its_answer_resumes_the_stream() {
    let host = probe("callout");
    let stream = host.worker(0).request(Request::get("/"));
    let callout = host.callouts().remove(0);
    assert_eq!(callout.cluster, "lanekeeper");
    assert_eq!(callout.body, "?");
    assert_eq!(callout.headers.text(":path").unwrap(), "/take");
    assert_eq!(callout.headers.text("content-length").unwrap(), "1");
    assert_eq!((callout.timeout, callout.sent_at), (Some(20 * MS), host.monotonic()));

    assert!(host.answer(&callout, Answer::response(200, [("x-shim", "1")], "fine")));
    assert_eq!(stream.state(), State::Continued);
    assert_eq!(lines(&host), ["2 headers, Some(\"200\"), fine"]);
}

#[test]
fn a_timeout_and_a_connect_failure_look_like_responses() {
    let host = probe("callout");
    host.worker(0).request(Request::get("/"));
    host.advance(20 * MS);
    host.worker(0).request(Request::get("/"));
    host.answer(&host.callouts()[0], Answer::connect_failure());
    let answers: Vec<_> = lines(&host).into_iter().filter(|line| line.contains("headers")).collect();
    assert!(answers[0].starts_with("3 headers, Some(\"504\"), upstream request timeout"), "{answers:?}");
    assert!(answers[1].starts_with("3 headers, Some(\"503\"), upstream connect error"), "{answers:?}");
}

#[test]
fn a_reset_has_no_headers() {
    let host = probe("callout");
    let stream = host.worker(0).request(Request::get("/"));
    host.answer(&host.callouts()[0], Answer::reset());
    assert_eq!(lines(&host)[0], "0 headers, None, ");
    assert_eq!(stream.reply().unwrap().status, 403);
}

#[test]
fn an_answer_after_the_timeout_reaches_nobody() {
    let host = probe("callout");
    let stream = host.worker(0).request(Request::get("/"));
    let callout = host.callouts().remove(0);
    host.advance(19 * MS);
    assert_eq!(stream.state(), State::Paused);
    host.advance(MS);
    assert!(stream.is_over());
    assert!(!host.answer(&callout, Answer::response(200, [("a", "b")], "")));
    assert_eq!(host.traps(), []);
}

#[test]
fn timers_timeouts_and_answers_come_in_the_order_of_time() {
    let host = probe("callout tick=15");
    let delay = Rc::new(Cell::new(10 * MS));
    let answer_after = delay.clone();
    host.answer_callouts(move |_| Some(Answer::response(200, [("a", "b")], "").after(answer_after.get())));
    host.worker(0).request(Request::get("/"));
    delay.set(30 * MS);
    host.worker(0).request(Request::get("/"));
    host.advance(100 * MS);
    let seen: Vec<_> = lines(&host).into_iter().filter(|line| !line.starts_with("stream")).take(4).collect();
    assert_eq!(seen[..2], ["2 headers, Some(\"200\"), ", "tick"]);
    assert!(seen[2].starts_with("3 headers, Some(\"504\")"), "{seen:?}");
    assert_eq!(seen[3], "tick");
}

#[test]
fn an_answerer_answers_within_the_turn() {
    let host = probe("callout");
    host.answer_callouts(|callout| Some(Answer::response(200, [("token", callout.token.to_string())], "")));
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Continued);
    assert_eq!(host.callouts(), []);
}

#[test]
fn an_unknown_cluster_is_a_bad_argument() {
    let host = probe("callout");
    host.remove_cluster("lanekeeper");
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Continued);
    assert_eq!(lines(&host), ["not sent: BadArgument"]);
    host.add_cluster("lanekeeper");
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Paused);
}

#[test]
fn a_callout_can_fail_at_once() {
    let host = probe("callout");
    host.fail("proxy_http_call", Status::InternalFailure, Times::Next(1));
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Continued);
    assert_eq!(lines(&host), ["not sent: InternalFailure"]);
    assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Paused);
}

#[test]
fn streams_that_ring_a_bell_in_one_turn_share_one_callout() {
    let host = probe("batch tick=100");
    host.advance(100 * MS);
    let streams = host.turn(|| [(); 5].map(|()| host.worker(0).request(Request::get("/"))));
    assert_eq!(host.callouts().len(), 1);
    host.answer(&host.callouts()[0], Answer::response(200, [("a", "b")], ""));
    assert!(streams.iter().all(|stream| stream.state() == State::Continued));
    assert_eq!(host.misuses(), Vec::<String>::new());
}

#[test]
fn the_sdk_drops_an_answer_to_a_stream_that_has_ended() {
    let host = probe("callout");
    host.worker(0).request(Request::get("/")).reset();
    assert!(host.answer(&host.callouts()[0], Answer::response(200, [("a", "b")], "")));
    assert_eq!(host.traps(), []);
}
