//! Configurations that come and go, and callbacks for what is no more.

use lanekeeper_tests::host::{Answer, Host, State};
use serde_json::json;

use super::{MS, Store, behaved, by, standalone, start, status, with_store};

#[test]
fn a_policy_with_errors_is_refused_and_every_error_is_logged_by_its_path() {
    let policy = json!({
        "version": 1,
        "rate_limts": {},
        "rate_limits": {"per_user": {"keys": {"user": [{"header": "x-user"}]}, "windows": [{"limit": 0, "per": "1m"}]}},
    });
    let refused = Host::start(&policy.to_string(), 1).err().unwrap().to_string();
    assert!(refused.contains("rate_limts"), "{refused}");
    assert!(refused.contains("rate_limits.per_user.windows[0].limit"), "{refused}");
}

#[test]
fn what_is_no_json_at_all_is_refused() {
    for text in ["", "version: 1", "[]", "null", "{\"version\":1", "\u{0}", "{\"version\":2}"] {
        assert!(Host::start(text, 1).is_err(), "{text:?}");
    }
}

#[test]
fn a_protobuf_struct_is_refused_with_the_way_to_write_it() {
    let refused = Host::start("\n\u{f}\n\u{7}version", 1).err().unwrap().to_string();
    assert!(refused.contains("google.protobuf.StringValue"), "{refused}");
    let indented = Host::start("\n{\"version\": 1}\n", 1);
    assert!(indented.is_ok(), "JSON may begin on a line of its own");
}

#[test]
fn a_bad_policy_leaves_the_old_one_in_force() {
    let host = start(&standalone(1), 1);
    assert!(host.reconfigure(r#"{"version":1,"rate_limits":{"x":{}}}"#).is_err());
    assert_eq!(status(&host.worker(0).request(by("u"))), 200);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    behaved(&host);
}

#[test]
fn streams_under_way_end_under_the_policy_that_they_began_with() {
    let host = start(&with_store(5, "closed"), 1);
    let old = host.worker(0).request(by("u"));
    host.reconfigure(&standalone(1).to_string()).unwrap();
    let new = host.worker(0).request(by("u"));
    assert_eq!((old.state(), status(&new)), (State::Paused, 200));
    let callout = host.callouts().remove(0);
    host.answer(&callout, Store::new().answer(&host, &callout));
    assert_eq!(status(&old), 200);
    old.end();
    new.end();
    host.advance(MS);
    assert_eq!(host.worker(0).contexts().1, 0);
    behaved(&host);
}

#[test]
fn no_callback_for_what_is_gone_does_anything() {
    let host = start(&with_store(5, "local"), 1);
    let stream = host.worker(0).request(by("u"));
    let callout = host.callouts().remove(0);
    stream.reset();
    for (callback, arguments) in [
        ("proxy_on_log", &[][..]),
        ("proxy_on_done", &[]),
        ("proxy_on_delete", &[]),
        ("proxy_on_response_headers", &[1, 1]),
        ("proxy_on_response_trailers", &[1]),
        ("proxy_on_request_body", &[1, 1]),
        ("proxy_on_request_trailers", &[1]),
        ("proxy_on_request_headers", &[3, 1]),
    ] {
        stream.force(callback, arguments);
        host.worker(0).force(callback, &[&[4242], arguments].concat());
    }
    host.worker(0).force("proxy_on_tick", &[4242]);
    for callback in ["proxy_on_configure", "proxy_on_vm_start"] {
        host.worker(0).force(callback, &[4242, 0]);
    }
    host.worker(0).force("proxy_on_http_call_response", &[4242, 1, 1, 1, 1]);
    host.force_answer(&callout, Answer::response(200, [("a", "b")], "{}"));
    host.force_answer(&callout, Answer::reset());
    host.advance(1000 * MS);
    assert_eq!(host.traps(), []);
    assert_eq!(host.worker(0).request(by("u")).state(), State::Paused, "the next request is served");
}

#[test]
fn a_node_without_shared_data_refuses_its_configuration_with_a_reason() {
    let host = start(&standalone(1), 1);
    host.fail("proxy_get_shared_data", 12_u32, lanekeeper_tests::host::Times::Always);
    let refused = host.reconfigure(&standalone(2).to_string()).unwrap_err().to_string();
    assert!(refused.contains("cannot share counters"), "{refused}");
}

#[test]
fn a_thousand_streams_leave_nothing_behind() {
    let host = start(&with_store(10_000, "local"), 1);
    Store::new().serve(&host);
    for n in 0..1000 {
        let stream = host.worker(0).request(by(&format!("u{n}")));
        stream.respond([(":status", "200")]);
        stream.end();
    }
    assert_eq!(host.worker(0).contexts(), (1, 0));
    // decisions, callouts, and the state of the circuit
    assert_eq!(host.worker(0).metric_ids(), 3, "a metric was defined again");
    behaved(&host);
}
