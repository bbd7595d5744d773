//! The way of charges for answers that succeeded: shared, late, lost, bounded.

use lanekeeper_engine::wire::Operation;
use lanekeeper_tests::host::{Answer, Status, Stream, Times};
use serde_json::json;

use super::success::{ended, operations, paid, succeed};
use super::{
    FALLBACK, MS, Store, behaved, by, calls_of_a_request, charges, failures, pump, served, start, status,
    store_calls,
};

#[test]
fn a_charge_that_the_store_could_not_take_goes_to_the_node_where_the_policy_counts_there() {
    for (name, failure) in failures() {
        for (on_failure, on_the_node) in [("local", 1), ("open", 0), ("closed", 0)] {
            let host = start(&paid(3, on_failure), 1);
            let store = Store::new();
            let stream = host.worker(0).request(by("u"));
            let question = host.callouts().remove(0);
            host.answer(&question, store.answer(&host, &question));
            succeed(&stream);
            host.answer(&host.callouts()[0], failure.clone());
            assert_eq!(charges(&host, "normal", "per_user", "charged", FALLBACK), on_the_node, "{name}");
            assert_eq!(charges(&host, "normal", "per_user", "failed", "store"), 1 - on_the_node, "{name}");
            if on_failure == "local" {
                host.remove_cluster("lanekeeper");
                let next = host.worker(0).request(by("u"));
                let headers = next.respond([(":status", "200")]).unwrap();
                assert!(headers.text("ratelimit").unwrap().contains(";r=2;"), "{name}: {headers:?}");
            }
            behaved(&host);
        }
    }
}

#[test]
fn a_charge_that_cannot_be_sent_or_meets_an_open_circuit_goes_to_the_node_at_once() {
    let (host, store) = served(&paid(100, "local"), 1);
    let streams: Vec<Stream> = (0..3).map(|_| host.worker(0).request(by("u"))).collect();
    host.remove_cluster("lanekeeper");
    succeed(&streams[0]);
    assert_eq!((ended(&host, "charged"), store_calls(&host, "dispatch_failed")), (1, 1));
    host.add_cluster("lanekeeper");
    store.away.set(true);
    while store_calls(&host, "unreachable") < 9 {
        host.worker(0).request(by("u"));
    }
    succeed(&streams[1]);
    assert_eq!((ended(&host, "charged"), store_calls(&host, "unreachable")), (2, 9), "nobody was asked");
    host.advance(1000 * MS);
    store.away.set(false);
    succeed(&streams[2]);
    assert_eq!(charges(&host, "normal", "per_user", "charged", "store"), 1, "a charge can be the probe");
    behaved(&host);
}

#[test]
fn a_charge_is_in_the_store_however_late_the_store_says_so() {
    let host = start(&paid(10, "local"), 1);
    // no tick may come while a callback runs
    host.fail("proxy_set_tick_period_milliseconds", Status::InternalFailure, Times::Always);
    let store = Store::new();
    let stream = host.worker(0).request(by("u"));
    let question = host.callouts().remove(0);
    host.answer(&question, store.answer(&host, &question));
    succeed(&stream);
    let charge = host.callouts().remove(0);
    let answer = store.answer(&host, &charge);
    host.advance(19 * MS);
    host.before_next(charge.vm, "clock_time_get", |host| host.advance(2 * MS));
    host.answer(&charge, answer);
    assert_eq!(store_calls(&host, "late"), 1);
    assert_eq!(charges(&host, "normal", "per_user", "charged", "store"), 1);
    assert_eq!(ended(&host, "charged"), 1);
}

#[test]
fn charges_share_the_next_callout_and_stand_first_in_it() {
    let host = start(&paid(100, "local"), 1);
    let store = Store::new();
    let streams: Vec<Stream> = (0..5).map(|_| host.worker(0).request(by("u"))).collect();
    pump(&host, &store);
    streams.iter().for_each(succeed);
    // the first leaves at once, the others wait for it and leave room for those that wait for an answer
    assert_eq!(host.callouts().iter().map(operations).collect::<Vec<_>>(), [[Operation::Take]]);
    host.worker(0).request(by("u"));
    let mixed = [[Operation::Take; 4].as_slice(), &[Operation::Peek]].concat();
    assert_eq!(operations(&host.callouts()[1]), mixed);
    for callout in host.callouts() {
        assert!(host.answer(&callout, store.answer(&host, &callout)));
    }
    assert_eq!((ended(&host, "charged"), host.callouts().len()), (5, 0));
    behaved(&host);
}

#[test]
fn charges_leave_with_the_end_of_a_callout_when_no_question_comes() {
    let host = start(&paid(100, "local"), 1);
    let store = Store::new();
    let streams: Vec<Stream> = (0..5).map(|_| host.worker(0).request(by("u"))).collect();
    pump(&host, &store);
    streams.iter().for_each(succeed);
    let first = host.callouts().remove(0);
    host.answer(&first, store.answer(&host, &first));
    assert_eq!(host.callouts().iter().map(operations).collect::<Vec<_>>(), [[Operation::Take; 4]]);
    store.serve(&host);
    let rest = host.callouts().remove(0);
    host.answer(&rest, store.answer(&host, &rest));
    assert_eq!(ended(&host, "charged"), 5);
    host.advance(1000 * MS);
    behaved(&host);
}

#[test]
fn charges_that_wait_are_bounded_and_those_beyond_are_counted() {
    let mut policy = paid(100_000, "local");
    policy["store"]["timeout"] = json!("10s");
    let host = start(&policy, 1);
    let store = Store::new();
    let streams: Vec<Stream> = (0..1500).map(|_| host.worker(0).request(by("u"))).collect();
    pump(&host, &store);
    streams.iter().for_each(succeed);
    // one is under way, 1024 wait
    assert_eq!((ended(&host, "dropped"), host.callouts().len()), (1500 - 1 - 1024, 1));
    let mut sizes = Vec::new();
    while let Some(callout) = host.callouts().first().cloned() {
        sizes.push(operations(&callout).len());
        host.answer(&callout, store.answer(&host, &callout));
    }
    assert_eq!(sizes, [1, 256, 256, 256, 256]);
    assert_eq!((ended(&host, "charged"), host.worker(0).contexts()), (1025, (1, 0)));
    behaved(&host);
}

#[test]
fn many_streams_that_wait_leave_room_for_charges_and_the_other_way_round() {
    let mut policy = paid(100_000, "local");
    for name in ["a", "b", "c"] {
        let mut dry = policy["rate_limits"]["per_user"].clone();
        dry["enforce"] = json!("0%");
        dry["consume"] = json!("on_request");
        policy["rate_limits"][name] = dry;
    }
    let host = start(&policy, 1);
    let store = Store::new();
    let streams: Vec<Stream> = (0..200).map(|_| host.worker(0).request(by("u"))).collect();
    pump(&host, &store);
    succeed(&streams[0]);
    let first = host.worker(0).request(by("u"));
    assert_eq!(host.callouts().len(), 2);
    streams[1..].iter().for_each(succeed);
    let waiting: Vec<Stream> = (0..100).map(|_| host.worker(0).request(by("u"))).collect();
    let callout = host.callouts().remove(0);
    host.answer(&callout, store.answer(&host, &callout));
    // 64 charges, then 48 streams with four checks each
    let next = host.callouts().pop().unwrap();
    let charged = operations(&next).iter().take_while(|operation| **operation == Operation::Take).count();
    assert_eq!(operations(&next).len(), 256);
    pump(&host, &store);
    assert_eq!(charged, 64 + 3, "the first stream's dry runs stand next");
    assert!(waiting.iter().chain([&first]).all(|stream| status(stream) == 200));
    assert_eq!(ended(&host, "charged"), 200);
    behaved(&host);
}

#[test]
fn a_policy_that_is_replaced_stays_until_its_charges_have_ended() {
    for (name, answer, source) in [("answered", None, "store"), ("lost", Some(Answer::reset()), FALLBACK)] {
        let host = start(&paid(10, "local"), 1);
        let store = Store::new();
        let stream = host.worker(0).request(by("u"));
        let question = host.callouts().remove(0);
        host.answer(&question, store.answer(&host, &question));
        host.reconfigure(&paid(20, "local").to_string()).unwrap();
        succeed(&stream);
        assert_eq!(host.worker(0).contexts(), (2, 0), "{name}");
        let charge = host.callouts().remove(0);
        host.answer(&charge, answer.unwrap_or_else(|| store.answer(&host, &charge)));
        assert_eq!(charges(&host, "normal", "per_user", "charged", source), 1, "{name}");
        host.advance(1000 * MS);
        assert_eq!(host.worker(0).contexts(), (1, 0), "{name}");
        behaved(&host);
    }
}

#[test]
fn a_charge_costs_one_callout_and_few_host_calls() {
    let (host, _) = served(&paid(100, "local"), 1);
    let expected = [
        ("clock_time_get", 4),
        ("proxy_add_header_map_value", 2),
        ("proxy_continue_stream", 1),
        ("proxy_get_buffer_bytes", 2),
        ("proxy_get_header_map_pairs", 1),
        ("proxy_get_header_map_value", 5),
        ("proxy_get_property", 3),
        ("proxy_http_call", 2),
        ("proxy_increment_metric", 4),
        ("proxy_set_effective_context", 3),
    ];
    assert_eq!(calls_of_a_request(&host), expected);
}

#[test]
fn an_answer_that_failed_costs_two_host_calls_more_than_one_of_another_limit() {
    let (host, _) = served(&paid(100, "local"), 1);
    let stream = host.worker(0).request(by("u"));
    host.reset_counts();
    stream.respond([(":status", "500")]);
    stream.end();
    let calls: Vec<_> = host.calls().into_iter().collect();
    assert_eq!(
        calls,
        [("proxy_add_header_map_value", 2), ("proxy_get_header_map_value", 1), ("proxy_get_property", 1),]
    );
}
