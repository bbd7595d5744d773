//! What makes a filter on the SDK panic in Envoy makes it panic here. The plugin must survive all of it.

use lanekeeper_tests::host::{Answer, Host, Request, State, Status, Times};

use super::{builder, probe};

fn trap(host: &Host) -> String {
    let traps = host.traps();
    assert_eq!(traps.len(), 1, "{traps:?}");
    assert!(host.worker(0).has_failed());
    let panics: Vec<_> = host.log().into_iter().filter(|line| line.text.contains("panicked")).collect();
    panics.first().map(|line| line.text.clone()).unwrap_or_default()
}

#[test]
fn a_header_value_that_is_not_utf8() {
    let host = probe("");
    let stream = host.worker(0).request(Request::get("/").header("x-name", b"caf\xe9"));
    assert_eq!(stream.state(), State::Failed);
    assert!(trap(&host).contains("Utf8Error"));
}

#[test]
fn a_status_that_the_sdk_does_not_list() {
    for status in
        [Status::BadExpression, Status::InvalidMemoryAccess, Status::ResultMismatch, Status::Unimplemented]
    {
        let host = probe("");
        host.fail("proxy_get_header_map_pairs", status, Times::Next(1));
        assert_eq!(host.worker(0).request(Request::get("/")).state(), State::Failed, "{status:?}");
        trap(&host);
    }
}

#[test]
fn a_request_header_read_when_the_request_has_gone_on() {
    let host = probe("");
    let stream = host.worker(0).request(Request::get("/").header("x-probe", "late"));
    stream.respond([(":status", "200")]);
    assert_eq!(stream.state(), State::Failed);
    assert!(trap(&host).contains("unexpected status: 2"));
}

#[test]
fn a_property_that_cannot_be_written_down() {
    let host = probe("");
    let request = Request::get("/").bad_property(&["source", "address"], Status::SerializationFailure);
    assert_eq!(host.worker(0).request(request).state(), State::Failed);
    trap(&host);
}

#[test]
fn a_callback_for_a_stream_that_is_deleted() {
    let host = probe("");
    let stream = host.worker(0).request(Request::get("/"));
    stream.end();
    assert_eq!(host.traps(), []);
    stream.force("proxy_on_log", &[]);
    assert!(trap(&host).contains("invalid context_id"));
}

#[test]
fn an_answer_to_a_callout_that_is_not_known() {
    let host = probe("callout");
    host.worker(0).request(Request::get("/"));
    let callout = host.callouts().remove(0);
    host.answer(&callout, Answer::response(200, [("a", "b")], ""));
    host.force_answer(&callout, Answer::response(200, [("a", "b")], ""));
    assert!(trap(&host).contains("invalid token_id"));
}

#[test]
fn a_failed_vm_fails_new_streams_and_leaves_paused_ones_hanging() {
    let host = builder().workers(2).start("").unwrap();
    let paused = host.worker(0).request(Request::get("/").header("x-probe", "pause"));
    host.worker(0).request(Request::get("/").header("x-name", b"\xff"));
    let next = host.worker(0).request(Request::get("/"));
    assert_eq!((paused.state(), next.state()), (State::Paused, State::Failed));
    let reply = next.reply().unwrap();
    assert_eq!((reply.status, reply.details.as_str()), (503, "wasm_fail_stream"));
    assert_eq!(host.worker(1).request(Request::get("/")).state(), State::Continued);
}
