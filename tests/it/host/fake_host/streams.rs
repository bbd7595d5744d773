//! Streams: pausing, going on, replying, ending.

use lanekeeper_tests::host::{LocalReply, Request, State, Stream};

use super::{builder, lines, probe};

fn reply(stream: &Stream) -> LocalReply {
    match stream.state() {
        State::Replied(reply) => reply,
        other => panic!("no reply but {other:?}"),
    }
}

fn does(words: &str) -> Request {
    Request::get("/").header("x-probe", words)
}

#[test]
fn an_ordinary_request_goes_through_and_is_logged_done_and_deleted() {
    let host = probe("");
    let stream = host.worker(0).request(Request::get("/a?b").property(&["source", "address"], "10.0.0.1:5"));
    assert_eq!(stream.upstream().headers.unwrap().text("x-seen").unwrap(), "4 from 10.0.0.1:5");
    assert!(stream.upstream().complete);
    let answer = stream.respond([(":status", "204")]).unwrap();
    assert_eq!(answer.text("x-probed").unwrap(), "yes");
    stream.end();
    assert_eq!(lines(&host), ["stream 2 log Some(\"/a?b\") [204, 0, 0, 0, 0, 0, 0, 0]", "stream 2 done"]);
    assert_eq!(host.worker(0).contexts(), (1, 0));
    assert_eq!(host.misuses(), Vec::<String>::new());
}

#[test]
fn a_reply_comes_back_through_the_filters_own_response_callback_and_ends_the_stream() {
    let host = probe("");
    let stream = host.worker(0).request(does("deny"));
    let reply = reply(&stream);
    assert_eq!(reply.status, 429);
    assert_eq!(reply.body, "too many");
    assert_eq!(reply.headers.text("x-denied-by").unwrap(), "probe");
    assert_eq!(reply.headers.text("x-probed").unwrap(), "yes");
    assert_eq!(reply.headers.text("content-length").unwrap(), "8");
    assert!(stream.is_over());
    assert_eq!(stream.upstream().headers, None);
    assert_eq!(host.counter("probe_denials"), Some(1));
}

#[test]
fn a_grpc_client_gets_a_reply_in_its_own_form() {
    let host = probe("");
    let stream = host.worker(0).request(does("deny").header("content-type", "application/grpc"));
    let headers = reply(&stream).headers;
    let of = |name: &str| headers.text(name).unwrap();
    assert_eq!([of(":status"), of("grpc-status"), of("grpc-message")], ["200", "14", "too many"]);
}

#[test]
fn what_comes_during_a_pause_waits_unseen_and_follows_the_headers() {
    let host = probe("");
    let stream = host.worker(0).request(Request::post("/").header("x-probe", "pause").open());
    stream.send_body("one", false);
    stream.send_body("two", true);
    assert_eq!(stream.state(), State::Paused);
    assert_eq!((stream.upstream().headers, lines(&host).len()), (None, 0));
    host.worker(0).request(does("release"));
    assert_eq!(stream.state(), State::Continued);
    assert_eq!((stream.upstream().body, stream.upstream().complete), ("onetwo".into(), true));
    assert_eq!(lines(&host), ["body onetwo true"]);
}

#[test]
fn a_body_that_is_kept_is_seen_whole_and_goes_on_at_its_end() {
    let host = probe("");
    let stream = host.worker(0).request(Request::post("/").header("x-probe", "keep-body").open());
    stream.send_body("one", false);
    assert_eq!((stream.state(), stream.upstream().body.len()), (State::Paused, 0));
    stream.send_body("two", true);
    assert_eq!((stream.state(), stream.upstream().body), (State::Continued, "onetwo".into()));
    assert_eq!(lines(&host), ["body one false", "body onetwo true"]);
}

#[test]
fn going_on_from_a_body_releases_paused_headers_where_the_switch_allows_it() {
    let open = || Request::post("/").header("x-probe", "early-body").open();
    let strict = probe("").worker(0).request(open());
    strict.send_body("x", true);
    assert_eq!(strict.state(), State::Paused);

    let host = builder().allow_on_headers_stop_iteration().start("").unwrap();
    let lax = host.worker(0).request(open());
    lax.send_body("x", false);
    assert_eq!(lax.state(), State::Paused);
    lax.send_body("y", true);
    assert_eq!((lax.state(), lax.upstream().body), (State::Continued, "xy".into()));
}

#[test]
fn a_reply_to_another_stream_stops_the_one_whose_callback_sent_it_for_ever() {
    let host = probe("");
    let waiting = host.worker(0).request(does("pause"));
    let sender = host.worker(0).request(does("deny-waiting"));
    assert_eq!(reply(&waiting).status, 429);
    assert_eq!(sender.state(), State::Paused);
}

#[test]
fn each_reply_of_a_batch_nests_one_level_deeper() {
    let nesting = |waiting: u32| {
        let host = probe("");
        let streams: Vec<_> = (0..waiting).map(|_| host.worker(0).request(does("pause"))).collect();
        host.worker(0).request(does("deny-waiting"));
        assert!(streams.iter().all(Stream::is_over));
        host.worker(0).deepest_nesting()
    };
    assert_eq!([1, 2, 10].map(nesting), [2, 3, 11]);
}

#[test]
fn resuming_streams_without_a_body_does_not_nest() {
    let host = probe("");
    let streams: Vec<_> = (0..10).map(|_| host.worker(0).request(does("pause"))).collect();
    host.worker(0).request(does("release"));
    assert!(streams.iter().all(|stream| stream.state() == State::Continued));
    assert_eq!(host.worker(0).deepest_nesting(), 1);
}

#[test]
fn resuming_what_is_not_paused_is_noted_as_a_misuse() {
    let host = probe("");
    host.worker(0).request(does("resume-running"));
    assert_eq!(host.misuses(), ["worker 0: resumes stream 2, which is not paused"]);
}

#[test]
fn resuming_a_stream_that_has_ended_is_noted_until_the_host_forgets_it() {
    let host = probe("");
    host.worker(0).request(does("pause")).reset();
    host.worker(0).request(does("release"));
    assert_eq!(host.misuses(), ["worker 0: resumes stream 2, which has ended"]);

    host.worker(0).request(does("pause")).reset();
    host.advance(std::time::Duration::from_millis(1));
    host.worker(0).request(does("release"));
    assert_eq!(host.misuses().len(), 1);
}

#[test]
fn an_answer_of_envoys_own_passes_the_response_callback_and_ends_the_stream() {
    let host = probe("");
    let stream = host.worker(0).request(Request::get("/"));
    stream.respond_by_envoy(503, "no healthy upstream");
    let reply = reply(&stream);
    assert_eq!((reply.status, reply.details.as_str()), (503, "no_healthy_upstream"));
    assert_eq!(reply.headers.text("x-probed").unwrap(), "yes");
    assert!(stream.is_over());
}

#[test]
fn a_client_that_leaves_ends_the_stream() {
    let host = probe("");
    let stream = host.worker(0).request(does("pause"));
    stream.reset();
    assert_eq!(stream.state(), State::Reset);
    assert_eq!(lines(&host), ["stream 2 log Some(\"/\") []", "stream 2 done"]);
}

#[test]
fn a_response_goes_through_with_its_body_and_trailers() {
    let host = probe("");
    let stream = host.worker(0).request(Request::get("/"));
    stream.respond([(":status", "200")]);
    stream.respond_body("one", false);
    stream.respond_body("two", false);
    stream.respond_trailers([("grpc-status", "0")]);
    let downstream = stream.downstream();
    assert_eq!(downstream.body, "onetwo");
    assert_eq!(downstream.trailers.unwrap().text("grpc-status").unwrap(), "0");
    assert!(downstream.complete);
}

#[test]
fn a_reply_in_the_responses_callback_takes_the_responses_place() {
    let host = probe("");
    let stream = host.worker(0).request(does("deny-response"));
    assert_eq!(stream.respond([(":status", "200")]).unwrap().text(":status").unwrap(), "418");
    assert!(stream.is_over());
    assert_eq!(host.calls()["proxy_send_local_response"], 1);
}

#[test]
fn a_filter_can_cut_its_stream_off() {
    let host = probe("");
    assert_eq!(host.worker(0).request(does("cut")).state(), State::Reset);
}
