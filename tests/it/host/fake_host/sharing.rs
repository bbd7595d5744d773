//! What workers share: data, queues, metrics, clocks.

use std::time::Duration;

use lanekeeper_tests::host::{Host, Request, Status, VmId};

use super::{builder, lines, lines_of, probe};

fn counts() -> Request {
    Request::get("/").header("x-probe", "count")
}

#[test]
fn a_worker_that_loses_a_race_sees_the_mismatch_and_tries_again() {
    let host = builder().workers(2).start("").unwrap();
    host.worker(0).request(counts());
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", |host: &Host| {
        host.worker(1).request(counts());
    });
    host.worker(0).request(counts());
    assert_eq!(host.shared_data("count").unwrap().0, b"3");
    assert_eq!(lines(&host), ["lost a race"]);
}

#[test]
fn two_workers_that_both_find_nothing_both_write_and_one_write_is_lost() {
    let host = builder().workers(2).start("").unwrap();
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", |host: &Host| {
        host.worker(1).request(counts());
    });
    host.worker(0).request(counts());
    assert_eq!(host.shared_data("count").unwrap().0, b"1");
}

#[test]
fn every_write_has_another_cas_and_a_missing_key_takes_any() {
    let host = probe("");
    assert_eq!(host.set_shared_data("new", b"1", 77), Ok(()));
    let (_, cas) = host.shared_data("new").unwrap();
    assert_eq!(host.set_shared_data("new", b"2", cas + 1), Err(Status::CasMismatch));
    assert_eq!(host.set_shared_data("new", b"2", cas), Ok(()));
    assert_eq!(host.set_shared_data("new", b"", 0), Ok(()));
    assert_eq!(host.shared_data("new"), Some((Vec::new(), cas + 2)));
}

#[test]
fn a_queue_wakes_whoever_registered_last() {
    let host = builder().workers(2).start("batch tick=100").unwrap();
    host.advance(Duration::from_millis(100));
    assert_eq!(host.queues(), [("bell".to_owned(), 0)]);
    // all three rang in the same tick, in the order main thread, worker 0, worker 1
    host.worker(0).request(Request::get("/"));
    assert_eq!(host.callouts()[0].vm, VmId::Worker(1));
}

#[test]
fn a_metric_that_is_defined_again_is_the_same_under_another_id() {
    let host = builder().workers(2).start("").unwrap();
    host.reconfigure("").unwrap();
    assert_eq!(host.worker(0).metric_ids(), 2);
    let denies = || Request::get("/").header("x-probe", "deny");
    host.worker(0).request(denies());
    host.worker(1).request(denies());
    assert_eq!(host.counter("probe_denials"), Some(2));
    assert_eq!(host.metric_names(), ["probe_denials"]);
}

#[test]
fn the_wall_clock_jumps_without_the_monotonic_one() {
    let host = probe("tick=100");
    let (wall, monotonic) = (host.wall(), host.monotonic());
    host.set_wall(wall - Duration::from_secs(3600));
    host.advance(Duration::from_millis(100));
    assert_eq!(host.wall() + Duration::from_secs(3600), wall + Duration::from_millis(100));
    assert_eq!(host.monotonic(), monotonic + Duration::from_millis(100));
    assert_eq!(lines_of(&host, VmId::Main).last().unwrap(), "tick");
}

#[test]
fn calls_and_work_are_counted() {
    let host = builder().metered().start("").unwrap();
    host.reset_counts();
    host.worker(0).request(Request::get("/"));
    host.worker(0).request(Request::get("/"));
    assert_eq!(host.calls()["proxy_get_header_map_pairs"], 2);
    let work = host.work()["proxy_on_request_headers"];
    assert_eq!(work.calls, 2);
    assert!(work.fuel > 100, "{work:?}");
}

#[test]
fn adding_nothing_to_a_counter_is_a_bad_argument() {
    let host = probe("");
    host.worker(0).request(Request::get("/").header("x-probe", "count-nothing"));
    assert_eq!(lines(&host), ["Err(BadArgument)"]);
}

#[test]
fn a_vm_reads_the_clocks_of_the_process() {
    let host = probe("");
    host.advance(Duration::from_millis(2500));
    host.worker(0).request(Request::get("/").header("x-probe", "clocks"));
    assert_eq!(lines(&host), ["1767225602 s since 1970, up 2.5s"]);
}

#[test]
fn chance_repeats_with_the_seed_and_differs_between_vms() {
    let drawn = |seed: u64| {
        let host = builder().workers(2).seed(seed).start("").unwrap();
        [0, 1].map(|worker| {
            host.worker(worker).request(Request::get("/").header("x-probe", "chance"));
            lines_of(&host, VmId::Worker(worker)).pop().unwrap()
        })
    };
    let [first, second] = drawn(7);
    assert_ne!(first, second);
    assert_eq!(drawn(7), [first.clone(), second]);
    assert_ne!(drawn(8)[0], first);
}
