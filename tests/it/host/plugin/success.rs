//! Limits that charge when the answer has succeeded.

use lanekeeper_engine::wire::Operation;
use lanekeeper_tests::host::{Callout, Host, Request, Stream};
use serde_json::{Value, json};

use super::{
    FALLBACK, MS, Store, behaved, by, charges, question, served, standalone, start, status, store_calls,
    with_store,
};

/// `per_user` charges for successes, so many a minute.
pub(super) fn paid(limit: u32, on_failure: &str) -> Value {
    let mut policy = with_store(limit, on_failure);
    policy["rate_limits"]["per_user"]["consume"] = json!("on_success");
    policy
}

/// How many charges of `per_user` have ended so.
pub(super) fn ended(host: &Host, outcome: &str) -> u64 {
    let sources = ["store", FALLBACK, "local"].into_iter();
    sources.map(|source| charges(host, "normal", "per_user", outcome, source)).sum()
}

/// What each check of a callout does.
pub(super) fn operations(callout: &Callout) -> Vec<Operation> {
    question(callout).checks.iter().map(|check| check.keys[0].operation).collect()
}

pub(super) fn succeed(stream: &Stream) {
    stream.respond([(":status", "200")]);
    stream.end();
}

#[test]
fn the_charge_leaves_when_the_stream_has_ended_and_no_sooner() {
    let host = start(&paid(10, "local"), 1);
    let store = Store::new();
    let stream = host.worker(0).request(by("u"));
    let question = host.callouts().remove(0);
    assert_eq!(operations(&question), [Operation::Peek]);
    host.answer(&question, store.answer(&host, &question));
    let headers = stream.respond([(":status", "200")]).unwrap();
    assert_eq!(headers.text("ratelimit").unwrap(), r#""per_user";r=10;t=0"#);
    stream.respond_body("all", true);
    assert_eq!(host.callouts(), []);
    stream.end();
    assert!(stream.downstream().complete);
    let charge = host.callouts().remove(0);
    assert_eq!(operations(&charge), [Operation::Take]);
    assert_eq!(charges(&host, "normal", "per_user", "charged", "store"), 0);
    host.answer(&charge, store.answer(&host, &charge));
    assert_eq!(charges(&host, "normal", "per_user", "charged", "store"), 1);
    behaved(&host);
}

/// A name, and how a stream goes on and ends.
type Way = (&'static str, fn(&Stream));
/// The same, and how many charges it comes to.
type GrpcWay<'a> = (&'static str, &'a dyn Fn(&Stream), u64);

#[test]
fn a_success_is_charged_once_however_it_ends() {
    let ways: [Way; 8] = [
        ("with headers alone", |stream| drop(stream.respond_and_end([(":status", "204")]))),
        ("with a body", |stream| {
            stream.respond([(":status", "200")]);
            stream.respond_body("one", false);
            stream.respond_body("two", true);
            stream.end();
        }),
        ("with trailers", |stream| {
            stream.respond([(":status", "200")]);
            stream.respond_trailers([("grpc-status", "13")]);
            stream.end();
        }),
        ("its client leaves amid the answer", |stream| {
            stream.respond([(":status", "200")]);
            stream.reset();
        }),
        ("its client resets it amid the answer", |stream| {
            stream.respond([(":status", "200")]);
            stream.reset_by_client();
        }),
        ("it is upgraded, and cut off", |stream| {
            stream.respond([(":status", "101")]);
            stream.break_off();
        }),
        ("it is told twice that it is done", |stream| {
            succeed(stream);
            stream.force("proxy_on_done", &[]);
            stream.force("proxy_on_delete", &[]);
        }),
        ("it is not logged", |stream| {
            // as HTTP/3 logs a stream only after its deletion
            stream.respond([(":status", "200")]);
            stream.force("proxy_on_done", &[]);
            stream.force("proxy_on_delete", &[]);
            stream.force("proxy_on_log", &[]);
        }),
    ];
    for (name, way) in ways {
        let (host, _) = served(&paid(10, "local"), 1);
        let stream = host.worker(0).request(by("u"));
        way(&stream);
        host.advance(1000 * MS);
        assert_eq!((ended(&host, "charged"), store_calls(&host, "answered")), (1, 2), "{name}");
        assert_eq!(host.traps(), [], "{name}");
    }
}

#[test]
fn whatever_is_no_success_costs_nothing() {
    let ways: [Way; 8] = [
        ("an error of the upstream", |stream| drop(stream.respond_and_end([(":status", "500")]))),
        ("a refusal of the upstream", |stream| drop(stream.respond_and_end([(":status", "429")]))),
        ("no status", |stream| drop(stream.respond_and_end([("server", "x")]))),
        ("a reply of Envoy's", |stream| stream.respond_by_envoy(503, "no_healthy_upstream")),
        ("a good reply of another filter", |stream| stream.respond_by_envoy(200, "direct_response")),
        ("a client that leaves before the answer", Stream::reset),
        ("an answer that breaks off", |stream| {
            stream.respond([(":status", "200")]);
            stream.respond_body("ha", false);
            stream.break_off();
        }),
        ("an answer that another filter takes away", |stream| {
            stream.respond([(":status", "200")]);
            stream.set_property(&["response", "code_details"], "response_payload_too_large");
            stream.end();
        }),
    ];
    for (name, way) in ways {
        let (host, _) = served(&paid(10, "local"), 1);
        let stream = host.worker(0).request(by("u"));
        way(&stream);
        assert!(stream.is_over());
        host.advance(1000 * MS);
        assert_eq!((ended(&host, "charged"), store_calls(&host, "answered")), (0, 1), "{name}");
        behaved(&host);
    }
}

#[test]
fn a_request_that_the_limit_rejected_costs_nothing() {
    let (host, _) = served(&paid(1, "local"), 1);
    succeed(&host.worker(0).request(by("u")));
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    assert_eq!(store_calls(&host, "answered"), 3, "look, charge, look");
    behaved(&host);
}

#[test]
fn a_grpc_call_is_charged_when_its_status_is_0() {
    let grpc = ("content-type", "application/grpc");
    let in_trailers = |code: &'static str| {
        move |stream: &Stream| {
            stream.respond([(":status", "200"), grpc]);
            stream.respond_body("\0\0\0\0\0", false);
            stream.respond_trailers([("grpc-status", code)]);
            stream.end();
        }
    };
    let alone = |code: &'static str| {
        move |stream: &Stream| drop(stream.respond_and_end([(":status", "200"), grpc, ("grpc-status", code)]))
    };
    let without = |stream: &Stream| drop(stream.respond_and_end([(":status", "200"), grpc]));
    let cancelled = |stream: &Stream| {
        stream.respond([(":status", "200"), grpc]);
        stream.respond_body("\0\0\0\0\0", false);
        stream.reset_by_client();
    };
    let ways: [GrpcWay<'_>; 6] = [
        ("0 in trailers", &in_trailers("0"), 1),
        ("14 in trailers", &in_trailers("14"), 0),
        ("0 in headers", &alone("0"), 1),
        ("8 in headers", &alone("8"), 0),
        ("none", &without, 0),
        ("cancelled amid the messages", &cancelled, 1),
    ];
    for (name, way, charged) in ways {
        let (host, _) = served(&paid(10, "local"), 1);
        way(&host.worker(0).request(Request::post("/a.B/C").header("x-user", "u").header(grpc.0, grpc.1)));
        assert_eq!(ended(&host, "charged"), charged, "{name}");
        behaved(&host);
    }
}

#[test]
fn what_others_took_meanwhile_is_not_charged_and_counted() {
    let (host, _) = served(&paid(1, "local"), 1);
    let both = [0, 1].map(|_| host.worker(0).request(by("u")));
    both.iter().for_each(succeed);
    assert_eq!((ended(&host, "charged"), ended(&host, "full")), (1, 1));
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    behaved(&host);
}

#[test]
fn one_full_key_keeps_no_other_from_being_charged() {
    let mut policy = paid(1, "local");
    policy["rate_limits"]["per_user"]["keys"]["shop"] = json!([{"header": "x-shop"}]);
    let (host, _) = served(&policy, 1);
    let at = |shop: &str| host.worker(0).request(by("u").header("x-shop", shop));
    let both = [at("s1"), at("s2")];
    both.iter().for_each(succeed);
    assert_eq!((ended(&host, "charged"), ended(&host, "full")), (3, 1));
    for shop in ["s1", "s2"] {
        let stream = host.worker(0).request(Request::get("/").header("x-shop", shop));
        assert_eq!(status(&stream), 429, "{shop}");
    }
}

#[test]
fn a_dry_run_is_charged_and_rejects_nobody() {
    let mut policy = paid(1, "local");
    policy["rate_limits"]["per_user"]["enforce"] = json!("0%");
    let (host, _) = served(&policy, 1);
    for _ in 0..3 {
        let stream = host.worker(0).request(by("u"));
        assert_eq!(status(&stream), 200);
        succeed(&stream);
    }
    assert_eq!((ended(&host, "charged"), ended(&host, "full")), (1, 0));
    behaved(&host);
}

#[test]
fn without_a_store_the_nodes_counters_are_looked_at_and_charged() {
    let mut policy = standalone(2);
    policy["rate_limits"]["per_user"]["consume"] = json!("on_success");
    let host = start(&policy, 2);
    for _ in 0..5 {
        drop(host.worker(0).request(by("u")).respond_and_end([(":status", "500")]));
    }
    for worker in [0, 1] {
        succeed(&host.worker(worker).request(by("u")));
    }
    assert_eq!(charges(&host, "normal", "per_user", "charged", "local"), 2);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    behaved(&host);
}
