//! What clients and hosts may send, at its worst: a clear outcome each, never a trap, a hang or a free pass.

use lanekeeper_tests::host::{Host, Request, State, Times};
use serde_json::{Value, json};

use super::{MS, Store, behaved, by, standalone, start, status, with_store};

/// Statuses that hosts return and that no list has, beside those that it has.
const STATUSES: [u32; 12] = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 4_000_000_000];

#[test]
fn no_status_of_any_host_call_traps_or_hangs_a_request() {
    let mut charging_later = with_store(2, "local");
    charging_later["rate_limits"]["per_user"]["consume"] = json!("on_success");
    for policy in [with_store(2, "local"), charging_later] {
        let host = start(&policy, 1);
        Store::new().serve(&host);
        let stream = host.worker(0).request(by("warm"));
        stream.respond([(":status", "200")]);
        stream.end();
        let calls: Vec<&'static str> = host.calls().into_keys().collect();
        assert!(calls.len() > 8, "{calls:?}");
        for call in calls {
            for status in STATUSES {
                bear(&policy, call, status);
            }
        }
    }
}

/// A host call that always returns this status harms no request, and none after it.
fn bear(policy: &Value, call: &str, status: u32) {
    let host = start(policy, 1);
    Store::new().serve(&host);
    host.fail(call, status, Times::Always);
    let stream = host.worker(0).request(by("u").header("baggage", "shadow=true"));
    host.advance(100 * MS);
    if matches!(stream.state(), State::Continued) {
        stream.respond([(":status", "200")]);
    }
    stream.end();
    assert_eq!(host.traps(), [], "{call} returned {status}");
    host.heal(call);
    let next = host.worker(0).request(by("u"));
    host.advance(100 * MS);
    assert_ne!(next.state(), State::Paused, "after {call} returned {status}");
}

/// What an operator may take from the plugin by `capability_restriction_config`: Envoy gives 76 for WASI calls and
/// 10 for the others.
#[test]
fn a_plugin_without_chance_or_environment_still_limits() {
    for call in ["random_get", "environ_get", "environ_sizes_get", "clock_time_get", "fd_write"] {
        let host = Host::builder().without(call, 76_u32).start(&standalone(1).to_string()).unwrap();
        assert_eq!(status(&host.worker(0).request(by("u"))), 200, "{call}");
        assert_eq!(status(&host.worker(0).request(by("u"))), 429, "{call}");
        behaved(&host);
    }
}

#[test]
fn a_token_that_cannot_be_read_is_a_reason_to_refuse_and_not_to_trap() {
    let mut policy = with_store(1, "local");
    policy["store"]["token_env"] = json!("LANEKEEPER_TOKEN");
    for call in ["environ_get", "environ_sizes_get"] {
        let builder = Host::builder().environment("LANEKEEPER_TOKEN", "t").without(call, 76_u32);
        let refused = builder.start(&policy.to_string()).err().unwrap();
        assert!(refused.trap.is_none(), "{call}: {:?}", refused.trap);
        assert!(refused.to_string().contains("LANEKEEPER_TOKEN is not set"), "{refused}");
    }
}

#[test]
fn a_request_whose_headers_cannot_be_read_is_refused() {
    let host = start(&standalone(5), 1);
    host.fail("proxy_get_header_map_pairs", 2_u32, Times::Always);
    assert_eq!(status(&host.worker(0).request(by("u"))), 503);
    behaved(&host);
}

#[test]
fn counters_that_cannot_be_read_or_written_admit_nobody() {
    for call in ["proxy_get_shared_data", "proxy_set_shared_data"] {
        let host = start(&standalone(5), 1);
        host.fail(call, 10_u32, Times::Always);
        assert_eq!(status(&host.worker(0).request(by("u"))), 503, "{call}");
        host.heal(call);
        assert_eq!(status(&host.worker(0).request(by("u"))), 200);
        behaved(&host);
    }
}

#[test]
fn a_write_that_is_always_beaten_ends_in_a_refusal() {
    let host = start(&standalone(5), 1);
    host.fail("proxy_set_shared_data", 8_u32, Times::Always);
    assert_eq!(status(&host.worker(0).request(by("u"))), 503);
    behaved(&host);
}

#[test]
fn bytes_in_shared_data_that_are_not_ours_are_no_counters() {
    let host = start(&standalone(1), 1);
    host.worker(0).request(by("u"));
    for key in host.shared_keys().into_iter().filter(|key| key.starts_with(b"lanekeeper/1/slot")) {
        host.set_shared_data(&key, b"\xff\xff what is this?", 0).unwrap();
    }
    assert_eq!(
        (status(&host.worker(0).request(by("u"))), status(&host.worker(0).request(by("u")))),
        (200, 429)
    );
    behaved(&host);
}

#[test]
fn a_flag_that_cannot_be_stripped_stops_its_request() {
    let mut policy = standalone(5);
    policy["lanes"] = json!({"shadow": {
        "flag": [{"header": "x-shadow", "values": ["1"]}], "trust": [{"source_cidr": ["192.0.2.0/24"]}],
    }});
    let host = start(&policy, 1);
    host.fail("proxy_remove_header_map_value", 10_u32, Times::Always);
    assert_eq!(status(&host.worker(0).request(by("u").header("x-shadow", "1"))), 503);
    assert_eq!(status(&host.worker(0).request(by("u"))), 200);
    behaved(&host);
}

#[test]
fn headers_of_sixty_four_kibibytes_and_a_thousand_lines_are_read() {
    let host = start(&standalone(2), 1);
    let long = "x".repeat(65_536);
    let big = || Request::get("/").header("x-user", &long);
    let statuses: Vec<u32> = (0..3).map(|_| status(&host.worker(0).request(big()))).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let mut many = by("u");
    for n in 0..1000 {
        many = many.header("baggage", format!("k{n}=v,shadow"));
    }
    assert_eq!(status(&host.worker(0).request(many)), 200);
    behaved(&host);
}

#[test]
fn a_request_without_any_header_goes_its_way() {
    let host = start(&standalone(1), 1);
    assert_eq!(status(&host.worker(0).request([("x-user", "u")])), 200);
    let none: [(&str, &str); 0] = [];
    assert_eq!(status(&host.worker(0).request(none)), 200);
    behaved(&host);
}

#[test]
fn every_single_byte_is_a_subject_of_its_own() {
    let host = Host::start(&standalone(1).to_string(), 1).unwrap();
    let ask =
        |byte: u8| status(&host.worker(0).request(Request::get("/").header("x-user", [b'a', byte, b'z'])));
    for byte in 0..=255_u8 {
        assert_eq!(ask(byte), 200, "byte {byte}");
    }
    for byte in 0..=255_u8 {
        assert_eq!(ask(byte), 429, "byte {byte}");
    }
    behaved(&host);
}

#[test]
fn an_unknown_source_is_nobody_to_trust() {
    let mut policy = standalone(5);
    policy["lanes"] = json!({"shadow": {
        "flag": [{"header": "x-shadow", "values": ["1"]}], "trust": [{"source_cidr": ["128.0.0.0/1"]}],
    }});
    let host = start(&policy, 1);
    for address in ["", "\u{0}", "/run/envoy.sock", "1.2.3.4.5:6", "[::1", "999.1.1.1:1"] {
        let request = by("u").header("x-shadow", "1").property(&["source", "address"], address);
        let stream = host.worker(0).request(request);
        assert_eq!(stream.request_headers().get("x-shadow"), None, "{address:?}");
        stream.end();
    }
    behaved(&host);
}
