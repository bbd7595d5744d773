//! The counters of a node, in shared data.

use std::cell::RefCell;
use std::rc::Rc;

use lanekeeper_tests::host::{Host, Stream, VmId};
use serde_json::json;

use super::{MS, behaved, by, calls_of_a_request, decisions, fallback, standalone, start, status};

#[test]
fn four_workers_admit_the_limit_together() {
    let host = start(&standalone(10), 4);
    let admitted = (0..40).filter(|n| status(&host.worker(n % 4).request(by("u"))) == 200).count();
    assert_eq!(admitted, 10);
    assert_eq!(decisions(&host, "normal", "per_user", "rejected", "local"), 30);
    host.advance(61_000 * MS);
    assert_eq!(status(&host.worker(1).request(by("u"))), 200);
    behaved(&host);
}

#[test]
fn without_a_store_no_answer_speaks_of_a_fallback() {
    let host = start(&standalone(10), 1);
    assert_eq!(fallback(&host.worker(0).request(by("u"))), None);
    assert!(host.callouts().is_empty());
}

/// Lets worker 1 serve `rivals` requests right before worker 0 writes, and tells who was admitted.
fn race(limit: u32, rivals: usize, warm: bool) -> (Host, Vec<u32>) {
    let host = start(&standalone(limit), 2);
    if warm {
        assert_eq!(status(&host.worker(1).request(by("u"))), 200);
    }
    let streams: Rc<RefCell<Vec<Stream>>> = Rc::default();
    let seen = Rc::clone(&streams);
    host.before_next(VmId::Worker(0), "proxy_set_shared_data", move |host| {
        seen.borrow_mut().extend((0..rivals).map(|_| host.worker(1).request(by("u"))));
    });
    let own = host.worker(0).request(by("u"));
    let statuses = streams.borrow().iter().chain([&own]).map(status).collect();
    (host, statuses)
}

#[test]
fn a_worker_that_loses_a_race_counts_again() {
    let (host, statuses) = race(3, 1, true);
    assert_eq!(statuses, [200, 200]);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429, "three are counted, none was lost");
    behaved(&host);
}

#[test]
fn a_race_for_the_very_first_write_loses_no_charge() {
    let (host, statuses) = race(2, 1, false);
    assert_eq!(statuses, [200, 200]);
    assert_eq!(status(&host.worker(0).request(by("u"))), 429);
    behaved(&host);
}

#[test]
fn a_race_for_the_last_token_has_one_winner() {
    let (host, statuses) = race(2, 2, true);
    assert_eq!(statuses, [200, 429, 429]);
    behaved(&host);
}

#[test]
fn subjects_without_number_fill_a_fixed_number_of_keys() {
    let host = start(&standalone(1), 1);
    let ask = |n: u32| {
        let stream = host.worker(0).request(by(&format!("user{n}")));
        stream.end();
        status(&stream)
    };
    for n in 0..20_000 {
        assert_eq!(ask(n), 200);
    }
    let keys = host.shared_keys();
    assert!(keys.len() <= 4097, "{} keys", keys.len());
    assert!(keys.iter().all(|key| key.starts_with(b"lanekeeper/")));
    assert!(host.shared_bytes() < 2_000_000, "{} bytes", host.shared_bytes());
    assert!((0..20_000).step_by(100).all(|n| ask(n) == 429), "no subject was forgotten");
    behaved(&host);
}

#[test]
fn the_wall_clock_may_jump_without_a_token_more_or_less() {
    let host = start(&standalone(2), 1);
    let ask = || status(&host.worker(0).request(by("u")));
    assert_eq!((ask(), ask(), ask()), (200, 200, 429));
    host.set_wall(host.wall() * 2);
    assert_eq!(ask(), 429);
    host.set_wall(std::time::Duration::ZERO);
    host.advance(61_000 * MS);
    assert_eq!(ask(), 200);
}

#[test]
fn counters_outlive_a_new_policy_and_start_afresh_for_windows_of_another_span() {
    let host = start(&standalone(2), 1);
    let ask = || status(&host.worker(0).request(by("u")));
    assert_eq!((ask(), ask(), ask()), (200, 200, 429));
    host.reconfigure(&standalone(3).to_string()).unwrap();
    assert_eq!((ask(), ask()), (200, 429), "two of three are used");
    let mut other = standalone(3);
    other["rate_limits"]["per_user"]["windows"] = json!([{"limit": 1, "per": "1h"}]);
    host.reconfigure(&other.to_string()).unwrap();
    assert_eq!((ask(), ask()), (200, 429));
    behaved(&host);
}

#[test]
fn a_request_that_is_counted_here_makes_few_host_calls() {
    let host = start(&standalone(100), 1);
    let expected = [
        ("clock_time_get", 1),
        ("proxy_add_header_map_value", 2),
        ("proxy_get_header_map_pairs", 1),
        ("proxy_get_shared_data", 1),
        ("proxy_increment_metric", 1),
        ("proxy_set_shared_data", 1),
    ];
    assert_eq!(calls_of_a_request(&host), expected);
}
